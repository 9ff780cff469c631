"""What came of a case, and of a run: plain data, and the verdict over it. Pure.

Purpose: the document that the views show and that `--json` writes. A case *held*, did *not hold*
with its reasons, or could *not run* with the reason; what could not run never counts as held.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA = 1
Status = Literal["held", "not held", "not run"]


class Outcome(msgspec.Struct, kw_only=True):
    """One case: a row of the report."""

    kind: str
    name: str
    about: str = ""
    status: Status = "not run"
    why: list[str] = []
    seconds: float = 0.0
    # Processes killed; updates of apps that were acknowledged, each counted once, whatever its
    # value is; pages read and checked.
    kills: int = 0
    operations: int = 0
    pages: int = 0
    # Updates counted and not acknowledged, at most one for each process that was killed in an
    # update, which are `in_flight`; None where nothing of the kind is compared.
    difference: float | None = None
    in_flight: int | None = None
    # What else was done and measured, by its name.
    figures: dict[str, float] = {}


class Moment(msgspec.Struct, frozen=True):
    """What was reached at an instant of the run; all three are totals of the run."""

    t: float
    kills: int
    operations: int
    pages: int


class Span(msgspec.Struct, frozen=True):
    """When a case ran."""

    name: str
    t0: float
    t1: float


class Report(msgspec.Struct, kw_only=True):
    """A run."""

    schema: int = SCHEMA
    kind: str = "torture"
    started: str = ""
    status: Literal["complete", "interrupted"] = "complete"
    seed: int = 0
    seconds: float = 0.0
    kinds: list[str] = []
    # Kinds were named: each of them is wanted.
    is_named: bool = False
    sabotage: str | None = None
    # What was asked for: the time, and the folder if one was named.
    planned_s: float = 60.0
    folder: str | None = None
    machine: dict[str, Any] = {}
    outcomes: list[Outcome] = []
    timeline: list[Moment] = []
    spans: list[Span] = []

    @property
    def kills(self) -> int:
        return sum(one.kills for one in self.outcomes)

    @property
    def operations(self) -> int:
        return sum(one.operations for one in self.outcomes)

    @property
    def pages(self) -> int:
        return sum(one.pages for one in self.outcomes)

    def having(self, status: Status) -> list[Outcome]:
        return [one for one in self.outcomes if one.status == status]

    @property
    def unrun_kinds(self) -> list[str]:
        """Kinds of which no case could run, and cases that could not."""
        ran: set[str] = set()
        for one in self.outcomes:
            if one.status != "not run":
                ran |= {one.kind, f"{one.kind}/{one.name}"}
        return [kind for kind in self.kinds if kind not in ran]

    @property
    def verdict(self) -> Status:
        """Everything that ran held; something did not; or nothing ran."""
        if self.having("not held"):
            return "not held"
        return "held" if self.having("held") else "not run"
