"""A run that is followed by people: one line that is written over on a terminal, else nothing."""

from __future__ import annotations

from typing import TextIO

from .cases import Case
from .outcome import Outcome, Report


class Progress:
    """Writes to a terminal, and only there."""

    def __init__(self, out: TextIO, seconds: float) -> None:
        self.out = out
        self.seconds = seconds
        self.is_terminal = out.isatty()
        self.is_open = False

    def __call__(self, report: Report, case: Case, outcome: Outcome, elapsed_s: float) -> None:
        if not self.is_terminal:
            return
        bad = len(report.having("not held"))
        line = (
            f"{elapsed_s:5.0f} of {self.seconds:.0f} s  {case.kind}/{case.name}"
            f"  {outcome.kills:,} kills  {outcome.operations:,} updates  {outcome.pages:,} pages"
            f"  all: {report.kills:,} kills" + (f"  {bad} NOT held" if bad else "")
        )
        # Over the line before, and nothing of it left.
        self.out.write(f"\r{line}\x1b[K")
        self.out.flush()
        self.is_open = True

    def end(self) -> None:
        """What comes next begins a new line."""
        if self.is_open:
            self.out.write("\n")
