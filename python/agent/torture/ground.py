"""The ground of one case: its time, its luck, its folders, its programs, and what came of it.

Purpose: what every case is handed. A case does its work until `has_time` is false and its own
minimum is reached, says `fail` for whatever did not hold, and raises CannotRunError where the
machine does not let it run. `Ground` tells the session about progress as it goes.

Limits: at most REASONS_MAX reasons are kept of a case; a case that makes no progress for PATIENCE_S
fails, whatever it waits for.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from agent._native import LAYOUT_VERSION

from .board import Board
from .outcome import Outcome
from .sabotage import DOUBLED, VARIABLE, doubled

REASONS_MAX = 12
PATIENCE_S = 120.0
TELL_EVERY_S = 0.2
POLL_S = 0.005
APP = "tortured"


class CannotRunError(Exception):
    """This machine, or what is installed on it, does not let the case run; says why."""


class NotHeldError(Exception):
    """Something did not hold so badly that the case cannot go on; says what."""


class Ground:
    """What a case has. `tell` is called with the outcome so far, a few times a second."""

    def __init__(
        self,
        outcome: Outcome,
        *,
        seed: int,
        seconds: float,
        folder: str,
        sabotage: str | None,
        tell: Callable[[Outcome], None],
    ) -> None:
        self.outcome = outcome
        # The schedule is to be repeated, so the numbers must not be secret.
        self.rng = random.Random(f"{seed}/{outcome.kind}/{outcome.name}")  # noqa: S311
        self.seconds = seconds
        self.folder = folder
        self.sabotage = sabotage
        self.segments = os.path.join(folder, "segments")
        os.mkdir(self.segments, 0o700)
        self._boards: list[Board] = []
        self._counted = 0
        self._tell = tell
        self._told_at = 0.0
        self._started = time.monotonic()

    @property
    def has_time(self) -> bool:
        return time.monotonic() - self._started < self.seconds

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def restart_clock(self) -> None:
        """The time of the case begins now: what came before was starting up."""
        self._started = time.monotonic()

    def tick(self) -> None:
        """To be called often."""
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self.count()
            self._tell(self.outcome)

    def count(self) -> None:
        """Updates acknowledged so far, into the outcome."""
        self.outcome.operations = self._counted + sum(board.updates for board in self._boards)

    def board(self, name: str = "board") -> Board:
        """A board whose updates are those of the case."""
        board = Board(self.path(name))
        self._boards.append(board)
        return board

    def put_away(self, board: Board) -> None:
        """Keeps what a board says, whose processes have ended."""
        self._boards.remove(board)
        self._counted += board.updates
        os.unlink(board.path)

    def shown(self, page: bytes) -> bytes:
        """What the case takes for the page that it has read."""
        return doubled(page) if self.sabotage == DOUBLED else page

    def fail(self, reason: str) -> None:
        if len(self.outcome.why) < REASONS_MAX and reason not in self.outcome.why:
            self.outcome.why.append(reason)
        self.outcome.status = "not held"

    @property
    def is_bad(self) -> bool:
        """Something did not hold."""
        return self.outcome.status == "not held"

    def figure(self, name: str, value: float) -> None:
        self.outcome.figures[name] = value

    def add(self, name: str, amount: float = 1) -> None:
        self.outcome.figures[name] = self.outcome.figures.get(name, 0) + amount

    def until(self, probe: Callable[[], Any], what: str) -> Any:
        """Waits for a true answer. Raises NotHeldError when there is none for PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while not (seen := probe()):
            if time.monotonic() > deadline:
                raise NotHeldError(f"waited {PATIENCE_S:.0f} s in vain: {what}")
            self.tick()
            time.sleep(POLL_S)
        return seen

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def segment(self, app: str = APP) -> str:
        return os.path.join(self.segments, f"{app}.v{LAYOUT_VERSION}.seg")

    def environment(self, app: str = APP) -> dict[str, str]:
        """This process's, without settings that would change what is tortured."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("AGENT_METRICS_", VARIABLE))
        }
        return kept | {
            "AGENT_METRICS_DIR": self.segments,
            "AGENT_METRICS_APP": app,
            "PYTHONUNBUFFERED": "1",
            **({VARIABLE: self.sabotage} if self.sabotage else {}),
        }

    def start(
        self,
        *arguments: str,
        app: str = APP,
        log: str = "program.log",
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """`python ARGUMENTS`, its output in a file of the case's folder, in a session of its own.

        The folder of a case is the working directory, so that nothing is found by accident.
        """
        with open(self.path(log), "ab") as out:
            return subprocess.Popen(
                [*prefix, sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env=self.environment(app) | (env or {}),
                start_new_session=True,
                **options,
            )

    def log(self, name: str = "program.log") -> str:
        """The end of what a program wrote, for a reason."""
        try:
            with open(self.path(name), errors="replace") as file:
                return " / ".join(file.read()[-600:].split("\n")[-6:])
        except OSError:
            return ""
