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


def every_instruction(ground: Ground) -> None:
    """The case."""
    step: Callable[..., dict[str, Any]] | None = getattr(_native, "torture_steps", None)
    if step is None:
        raise CannotRunError("not available: the compiled part of this version has no stepper")

    def progress(now: dict[str, Any]) -> None:
        ground.figure("kill points", now["kill_points"])
        ground.tick()

    seed = ground.rng.randrange(1 << 62)
    try:
        told = step(seed, ground.seconds, None, progress, ground.segments)
    except (AgentError, NotImplementedError, RuntimeError, OSError) as error:
        raise CannotRunError(f"not available: {error}") from None
    rows: list[dict[str, Any]] = told["operations"]
    points = sum(row["kill_points"] for row in rows)
    ground.figure("kill points", points)
    ground.figure("operations", len(rows))
    ground.figure("distinct states", sum(row["states"] for row in rows))
    for row in rows:
        for found in row["findings"]:
            ground.fail(
                f"{row['name']}, seed {found['seed']}, instruction {found['instruction']}:"
                f" {found['reason']}"
            )
    if not points:
        raise CannotRunError("not available: no instruction was stepped")
