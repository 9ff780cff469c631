"""Kill at every instruction: the stepper of the compiled part, run for the time of the case.

Purpose: after each instruction of each operation on a segment the process is taken for dead, and
what another one makes of the memory is compared with "fully in or fully out".

Limits: x86-64 Linux that allows ptrace. What the stepper says it cannot do is `not run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent import _native
from agent.errors import AgentError

from .ground import CannotRunError, Ground

Stepper = Callable[[int, float, list[str] | None, Callable[..., None] | None], dict[str, Any]]


def every_instruction(ground: Ground) -> None:
    """The case."""
    step: Stepper | None = getattr(vars(_native)["_core"], "torture_steps", None)
    if step is None:
        raise CannotRunError("not available: the compiled part of this version has no stepper")

    def progress(*_told: object) -> None:
        ground.tick()

    try:
        told = step(ground.rng.randrange(1 << 62), ground.seconds, None, progress)
    except (AgentError, NotImplementedError, RuntimeError, OSError) as error:
        raise CannotRunError(f"not available: {error}") from None
    rows: list[dict[str, Any]] = told["operations"]
    ground.outcome.kills = sum(row["kill_points"] for row in rows)
    ground.figure("operations", len(rows))
    ground.figure("distinct states", sum(row["states"] for row in rows))
    for row in rows:
        for found in row["findings"]:
            ground.fail(
                f"{row['name']}, seed {found['seed']}, instruction {found['instruction']}:"
                f" {found['reason']}"
            )
    if not ground.outcome.kills:
        raise CannotRunError("not available: no instruction was stepped")
