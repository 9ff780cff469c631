"""A goal, a finding, and the arithmetic that both sides of the doctor share. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.config import worker_room
from agent.lab.plan import FILES_RATIO

from .facts import Facts

Ends = Literal["server", "client", "both"]
Standing = Literal["ok", "limit", "blocks", "slows", "note"]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of the machine. Without a number: how many can it be?

    `sources`: addresses that the client end opens from; 0 is loopback, where any number is free.
    """

    connections: int | None = None
    ends: Ends = "server"
    sources: int = 0
    message_interval_s: float = 60.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One limit. `connections` None: it does not limit their number."""

    name: str
    value: str
    limits: str
    connections: int | None = None
    standing: Standing = "ok"
    change: str = ""
    is_hard: bool = False


def files(facts: Facts) -> int:
    """Descriptors that one process may have."""
    allowed = [n for n in (facts.files_hard, facts.files_process_max) if n is not None]
    return min(allowed, default=1024)


def room(facts: Facts, ends: Ends) -> int:
    """Connections of one process: a worker, an executor, or whichever holds fewer."""
    worker, executor = worker_room(files(facts)), max(1, int(files(facts) * FILES_RATIO))
    return {"server": worker, "client": executor, "both": min(worker, executor)}[ends]


def processes(facts: Facts, connections: int, ends: Ends) -> int:
    """Processes that hold them: workers, at least one a core, and executors."""
    workers = max(facts.cores, -(-connections // room(facts, "server")))
    executors = -(-connections // room(facts, "client"))
    return {"server": workers, "client": executors, "both": workers + executors}[ends]
