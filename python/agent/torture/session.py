"""A run: one case after the other, each in a process of its own, and one report.

Purpose: dividing the time, following the cases, noticing one that dies or hangs, and leaving
neither processes nor folders behind, whatever ends the run.

Limits: a case that has not ended after five times its time and LIMIT_S is ended and did not hold.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from agent.app.place import where

from .case import Order, Word
from .cases import Case, seconds_of, select
from .ground import CannotRunError
from .machine import describe
from .outcome import Moment, Outcome, Report, Span
from .processes import adopt_orphans, end_all
from .space import command as space_command

LIMIT_S = 300.0
WAKE_S = 0.2
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Follow = Callable[[Report, Case, Outcome, float], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    kinds: list[str]
    seconds: float
    seed: int
    # Where the folders of the cases are made; None is beside the folder of segments of apps.
    folder: str | None = None
    sabotage: str | None = None


class Session:
    """One run of a plan. `follow` is told of progress a few times a second."""

    def __init__(self, plan: Plan, follow: Follow | None = None) -> None:
        self.plan = plan
        self.follow = follow
        self.started = time.monotonic()
        self.cases = select(plan.kinds)
        self.report = Report(
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=plan.seed,
            kinds=plan.kinds or list(dict.fromkeys(case.kind for case in self.cases)),
            is_named=bool(plan.kinds),
            sabotage=plan.sabotage,
            planned_s=plan.seconds,
            folder=plan.folder,
        )

    def run(self) -> Report:
        """The report, that of an interrupted run included. Raises OSError without a folder."""
        adopt_orphans()
        parent = self.plan.folder or default_folder()
        folder = tempfile.mkdtemp(prefix="agent-torture-", dir=parent)
        self.report.machine = describe(folder)
        try:
            for number, case in enumerate(self.cases):
                home = os.path.join(folder, str(number))
                os.mkdir(home, 0o700)
                self._case(case, home)
                _remove(home)
        except KeyboardInterrupt:
            self.report.status = "interrupted"
        finally:
            with _uninterrupted():
                end_all()
                _remove(folder)
        self.report.seconds = round(time.monotonic() - self.started, 3)
        return self.report

    def _case(self, case: Case, home: str) -> None:
        begun = time.monotonic()
        outcome = Outcome(kind=case.kind, name=case.name, about=case.about)
        self.report.outcomes.append(outcome)
        if self.plan.sabotage in case.blind:
            outcome.why = [
                f"with --sabotage {self.plan.sabotage}: {case.blind[self.plan.sabotage]}"
            ]
            return
        seconds = seconds_of(case, self.cases, self.plan.seconds)
        order = Order(
            kind=case.kind,
            name=case.name,
            seed=self.plan.seed,
            seconds=seconds,
            folder=home,
            sabotage=self.plan.sabotage,
        )
        try:
            prefix = space_command(case.space) if case.space else ()
        except CannotRunError as error:
            outcome.why = [str(error)]
            return
        error_path = os.path.join(home, "case.log")
        with open(error_path, "wb") as errors:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-P", "-m", "agent.torture.case"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Ctrl-C of the terminal is for this process; it ends the case.
                process_group=0,
            )
        is_done = False
        try:
            self._order(process, order)
            is_done = self._listen(case, process, begun + 5 * seconds + LIMIT_S)
            if not is_done:
                process.kill()
            code = process.wait()
        except KeyboardInterrupt:
            last = self.report.outcomes[-1]
            if last.status != "not held":
                last.status, last.why = "not run", ["interrupted before its end"]
            raise
        finally:
            with _uninterrupted():
                end_all()
            last = self.report.outcomes[-1]
            last.seconds = round(time.monotonic() - begun, 3)
            span = (begun - self.started, time.monotonic() - self.started)
            self.report.spans.append(Span(f"{case.kind}/{case.name}", *(round(t, 3) for t in span)))
        if not is_done or code:
            self._note_death(code, error_path)

    @staticmethod
    def _order(process: subprocess.Popen[bytes], order: Order) -> None:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(msgspec.json.encode(order) + b"\n")

    def _note_death(self, code: int, error_path: str) -> None:
        """The case's own process did not come to its end."""
        last = self.report.outcomes[-1]
        last.status = "not held"
        with open(error_path, errors="replace") as file:
            said = " / ".join(file.read()[-600:].split("\n")[-6:])
        how = f"of signal {-code}" if code < 0 else f"with exit code {code}"
        last.why.append(f"the process that ran the case ended {how}, or did not end: {said}")

    def _listen(self, case: Case, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Takes what the case tells. True when it told its end."""
        if process.stdout is None:
            return False
        buffer = b""
        with selectors.DefaultSelector() as selector, process.stdout as pipe:
            selector.register(pipe, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(WAKE_S):
                    continue
                data = os.read(pipe.fileno(), 1 << 16)
                if not data:
                    return False
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    word = msgspec.json.decode(line, type=Word)
                    self.report.outcomes[-1] = word.outcome
                    self._note(case)
                    if word.is_done:
                        return True
        return False

    def _note(self, case: Case) -> None:
        report = self.report
        elapsed = round(time.monotonic() - self.started, 3)
        report.timeline.append(Moment(elapsed, report.kills, report.operations, report.pages))
        if self.follow:
            self.follow(report, case, report.outcomes[-1], elapsed)


def default_folder() -> str:
    """Beside the folder in which apps have their segments, so on the same file system."""
    return os.path.dirname(where())


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C must not leave behind what is being cleaned up."""
    before = {how: signal.signal(how, signal.SIG_IGN) for how in ENDINGS}
    try:
        yield
    finally:
        for how, handler in before.items():
            signal.signal(how, handler)


def _remove(folder: str) -> None:
    """A folder that may hold what a case took its own permissions from."""

    def again(_function: object, path: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700)
        with contextlib.suppress(OSError):
            os.rmdir(path) if os.path.isdir(path) else os.unlink(path)

    shutil.rmtree(folder, onerror=again)
