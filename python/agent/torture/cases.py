"""The table of everything that torture does: one row a case.

Purpose: names, what each is about, its share of the time, and the function that does it. A new case
is a function that takes a `Ground`, and a row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from . import sabotage

if TYPE_CHECKING:
    from .ground import Ground


class Case(msgspec.Struct, frozen=True):
    """A row."""

    kind: str
    # Unique in its kind.
    name: str
    about: str
    # Its share of the time, against the others.
    weight: float
    # Module of this package, and function.
    run: str
    # A namespace that the whole case is in, see `space`.
    space: str = ""
    # Kinds of sabotage that it cannot see, and why not.
    blind: dict[str, str] = {}

    def function(self) -> Callable[[Ground], None]:
        module, _, name = self.run.partition(":")
        found: Callable[[Ground], None] = getattr(
            importlib.import_module(f"agent.torture.{module}"), name
        )
        return found


STEPS_BLIND = (
    "the stepper works on operations of the compiled part, which cannot be made wrong from here;"
    " rust/agent-torture/tests/catches.rs does it"
)
EARLY_ASIDE = {
    sabotage.EARLY: "what is acknowledged may be counted aside here, and looks as an early one does"
}
ONE_BLIND = "nothing is acknowledged here: a process counts, ends, and is compared"
KINDS = {
    "steps": "kill at every instruction of every operation (x86-64)",
    "kills": "SIGKILL every 20 to 80 ms, of apps and of the collector, under acknowledged load",
    "slow": "stopped, frozen, zombies, reused process ids, other PID namespaces, other clocks",
    "full": "a file system of 1, 32 and 64 MB that fills up while counting, and is emptied again",
    "damage": "bytes flipped, files truncated, punched, replaced, removed, under living processes",
    "restarts": "restarts with changed definitions, rolling and stop/start",
}

CASES: tuple[Case, ...] = (
    Case(
        "steps",
        "instructions",
        "every instruction of every operation",
        3,
        "steps:every_instruction",
        blind=dict.fromkeys(sabotage.KINDS, STEPS_BLIND),
    ),
    Case("kills", "fork", "multiprocessing, fork", 6, "kills:fork"),
    Case("kills", "spawn", "multiprocessing, spawn", 1, "kills:spawn"),
    Case("kills", "forkserver", "multiprocessing, forkserver", 2, "kills:forkserver"),
    Case("kills", "gunicorn", "workers of gunicorn", 2, "kills_servers:gunicorn"),
    Case("kills", "uvicorn", "workers of uvicorn", 1, "kills_servers:uvicorn"),
    Case("kills", "celery", "the prefork pool of Celery", 1, "kills_servers:celery"),
    Case(
        "kills",
        "collector",
        "worker, front end, aggregator, supervisor",
        2,
        "kills_collector:collector",
    ),
    Case("slow", "stopped", "a process is stopped for the time of the case", 1.5, "slow:stopped"),
    Case("slow", "frozen", "a process is frozen by its control group", 1, "slow:frozen"),
    Case("slow", "dead", "killed processes and zombies: when their slots are free", 1, "slow:dead"),
    Case("slow", "reused", "process ids used again", 0.5, "slow:reused", "pid"),
    Case("slow", "namespaces", "two PID namespaces, one folder", 0.5, "slow:namespaces"),
    Case("slow", "clock", "the wall clock steps by a year, both ways", 0.5, "slow_clock:clock"),
    Case("full", "1MB", "less than the app would take", 1, "full:one", "mount", EARLY_ASIDE),
    Case("full", "32MB", "a small machine's", 1, "full:thirty_two", "mount", EARLY_ASIDE),
    Case("full", "64MB", "that of a container", 1, "full:sixty_four", "mount", EARLY_ASIDE),
    Case("damage", "bytes", "bytes flipped under writers and readers", 1.5, "damage:under_writers"),
    Case(
        "damage",
        "contained",
        "one byte, and what of the file is wrong then",
        1,
        "contained:contained",
        blind={sabotage.EARLY: ONE_BLIND},
    ),
    Case("damage", "files", "truncated, punched, replaced, removed files", 1, "damage_file:files"),
    Case(
        "restarts",
        "definitions",
        "four workers, changed definitions",
        6,
        "restarts:changed_definitions",
    ),
)


def select(named: Sequence[str]) -> list[Case]:
    """The cases that are named as KIND or KIND/CASE; all where nothing is named."""
    return [
        case
        for case in CASES
        if not named or case.kind in named or f"{case.kind}/{case.name}" in named
    ]


def unknown(named: Sequence[str]) -> list[str]:
    """Names of neither a kind nor a case."""
    return [name for name in named if not select([name])]


def find(kind: str, name: str) -> Case:
    return next(case for case in CASES if (case.kind, case.name) == (kind, name))


def seconds_of(case: Case, cases: Sequence[Case], total_s: float) -> float:
    """The share of one case in the time of the run."""
    return total_s * case.weight / sum(one.weight for one in cases)
