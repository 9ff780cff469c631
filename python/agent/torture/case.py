"""`python -m agent.torture.case`: one case in a process of its own.

Purpose: whatever happens to the process of a case (a crash in reading a damaged segment included)
is seen by the session as what came of that case. The order comes as JSON on standard input;
outcomes go out as lines of JSON, the last of them with `"is_done": true`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable

import msgspec

from .cases import find
from .ground import CannotRunError, Ground, NotHeldError
from .outcome import Outcome
from .processes import adopt_orphans, end_all


class Order(msgspec.Struct, frozen=True):
    """What the session wants."""

    kind: str
    name: str
    seed: int
    seconds: float
    folder: str
    sabotage: str | None = None


class Word(msgspec.Struct, frozen=True):
    """A line to the session."""

    outcome: Outcome
    is_done: bool = False


def main() -> None:
    adopt_orphans()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    # Names of sockets are short from here, wherever the folder is.
    os.chdir(order.folder)
    case = find(order.kind, order.name)
    out = os.fdopen(os.dup(1), "wb")
    # Nothing but words of ours goes to the session.
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(outcome: Outcome, *, is_done: bool = False) -> None:
        with lock:
            out.write(msgspec.json.encode(Word(outcome, is_done)) + b"\n")
            out.flush()

    outcome = Outcome(kind=case.kind, name=case.name, about=case.about)
    ground = Ground(
        outcome,
        seed=order.seed,
        seconds=order.seconds,
        folder=order.folder,
        sabotage=order.sabotage,
        tell=tell,
    )
    run(ground, case.function())
    ground.count()
    try:
        end_all()
    except TimeoutError as error:
        ground.fail(str(error))
    # The session may be gone: there is nobody left to tell.
    with contextlib.suppress(BrokenPipeError):
        tell(outcome, is_done=True)


def run(ground: Ground, function: Callable[[Ground], None]) -> None:
    """Runs a case and gives its outcome a status."""
    outcome = ground.outcome
    try:
        function(ground)
    except CannotRunError as error:
        if not ground.is_bad:
            outcome.why = [str(error)]
            return
        ground.fail(str(error))
    except NotHeldError as error:
        ground.fail(str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the case did not hold
        traceback.print_exc()
        ground.fail(f"{type(error).__name__}: {error}")
    if not ground.is_bad:
        outcome.status = "held"


if __name__ == "__main__":
    main()
