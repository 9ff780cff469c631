"""Slow is not dead, and dead is not slow: who lives is told right whatever happens to a process.

Purpose: stopped and frozen processes keep their slots while others come and go; killed ones lose
theirs at once, also as zombies; a process id that is used again, or twice in two PID namespaces,
misleads nobody. Wall clocks are in `slow_clock`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from agent._native import inspect

from .board import Board, Row
from .ground import CannotRunError, Ground, NotHeldError
from .kills import INTERVAL_S, Killer
from .processes import children, is_alive, send, status
from .space import command as space_command
from .watch import Watcher

WORKERS = 4
# What a dead slot may take to be free, for 99 of 100 deaths.
FREE_S_MAX = 0.1
DEATHS_MIN = 20
KILLS_MIN = 6
CGROUP = "/sys/fs/cgroup"


class App:
    """A program of several processes that count, watched."""

    def __init__(self, ground: Ground, workers: int = WORKERS, **options: Any) -> None:
        self.ground = ground
        self.board = ground.board()
        arguments = ["-m", "agent.torture.program", "fork", "--board", self.board.path]
        self.program = ground.start(*arguments, "--workers", str(workers), **options)
        self.workers = workers
        self.killer = Killer(ground, self.board)
        self.watcher = Watcher(ground, self.board)
        self.rows()
        ground.restart_clock()

    def rows(self) -> list[Row]:
        """All its processes, each of which has counted something."""

        def seen() -> list[Row]:
            rows = [row for row in self.killer.look() if row.tallied()]
            return rows if len(rows) == self.workers else []

        what = f"{self.workers} processes count: {self.ground.log()}"
        found: list[Row] = self.ground.until(seen, what)
        return found

    def finish(self) -> None:
        self.board.stop()
        self.ground.until(lambda: self.program.poll() is not None, "the program ends")
        if self.program.returncode or self.board.strange:
            self.ground.fail(f"a process ended by itself: {self.ground.log()}")
        self.watcher.settle()


def slots(ground: Ground) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = inspect(ground.segment(), series_shown_max=0)["slots"]
    return found


def slot_of(ground: Ground, pid: int) -> dict[str, Any]:
    """The living slot of a process."""
    for slot in slots(ground):
        if slot["pid"] == pid and slot["alive"]:
            return slot
    raise NotHeldError(f"process {pid} counts and has no living slot")


def _keeps_its_slot(ground: Ground, app: App, halt: Callable[[int], None]) -> Row:
    """Halts one process, kills others around it for the time of the case, looks at its slot."""
    row = ground.rng.choice(app.rows())
    slot = slot_of(ground, row.pid)
    halt(row.pid)
    # It must not be chosen by the killer.
    app.killer.alive.remove(row)
    identity = (slot["index"], slot["generation"], slot["pid"])
    while ground.has_time or ground.outcome.kills < KILLS_MIN:
        due = time.monotonic() + ground.rng.uniform(*INTERVAL_S)
        app.watcher.look()
        now = [(s["index"], s["generation"], s["pid"]) for s in slots(ground) if s["alive"]]
        if identity not in now:
            ground.fail(f"the slot {identity} of a halted process was taken: {now}")
            break
        time.sleep(max(0.0, due - time.monotonic()))
        ground.until(app.killer.kill_one, "there is somebody to kill")
    ground.figure("halted seconds", round(ground.elapsed_s, 1))
    return row


def _goes_on(ground: Ground, app: App, row: Row) -> None:
    before = row.tallied()
    ground.until(lambda: row.tallied() > before + 100, "the process goes on when it is let")
    app.killer.alive.append(row)


def stopped(ground: Ground) -> None:
    """SIGSTOP."""
    app = App(ground)

    def halt(pid: int) -> None:
        send(pid, signal.SIGSTOP)
        ground.until(lambda: status(pid).get("State", "")[:1] == "T", "it is stopped")

    row = _keeps_its_slot(ground, app, halt)
    send(row.pid, signal.SIGCONT)
    _goes_on(ground, app, row)
    app.finish()


def frozen(ground: Ground) -> None:
    """The freezer of control groups."""
    group, file, on, off, state, frozen_words = _freezer()
    try:
        app = App(ground)

        def halt(pid: int) -> None:
            _write(f"{group}/cgroup.procs", str(pid))
            _write(f"{group}/{file}", on)
            ground.until(lambda: frozen_words in _read(f"{group}/{state}"), "it is frozen")

        try:
            row = _keeps_its_slot(ground, app, halt)
        finally:
            _write(f"{group}/{file}", off)
        _goes_on(ground, app, row)
        app.finish()
    finally:
        _leave_group(group)


def _freezer() -> tuple[str, str, str, str, str, str]:
    """A new group of either version of the freezer."""
    name = f"agent-torture-{os.getpid()}"
    tried = []
    for parent in (f"{CGROUP}/freezer", CGROUP, f"{CGROUP}/unified"):
        group = f"{parent}/{name}"
        try:
            os.mkdir(group)
        except OSError as error:
            tried.append(f"{group}: {error.strerror}")
            continue
        if os.path.exists(f"{group}/freezer.state"):
            return group, "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"
        if os.path.exists(f"{group}/cgroup.freeze"):
            return group, "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"
        tried.append(f"{group}: has no freezer")
        os.rmdir(group)
    raise CannotRunError(f"no control group can be made and frozen here ({'; '.join(tried)})")


def _leave_group(group: str) -> None:
    """Ends what is left in the group, and removes it."""
    for pid in _read(f"{group}/cgroup.procs").split():
        send(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while os.path.isdir(group) and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            os.rmdir(group)
        time.sleep(0.01)


def dead(ground: Ground) -> None:
    """Killed processes whose parent does not wait for them: zombies. Their slots are free at once.

    Measured from the first look at which /proc says that the process is dead.
    """
    app = App(ground)
    took: list[float] = []
    zombies = 0
    while ground.has_time or len(took) < DEATHS_MIN:
        rows = app.rows()
        # A parent that is stopped waits for nobody.
        app.program.send_signal(signal.SIGSTOP)
        for row in rows:
            slot = slot_of(ground, row.pid)
            pid = row.pid
            app.killer.kill(row)
            ground.until(lambda: not is_alive(pid), "it dies")  # noqa: B023
            seen = time.monotonic()
            zombies += status(pid).get("State", "")[:1] == "Z"
            _until_free(ground, (slot["index"], slot["generation"]))
            took.append(time.monotonic() - seen)
        app.program.send_signal(signal.SIGCONT)
        app.watcher.look()
    took.sort()
    p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
    ground.figure("zombies", zombies)
    ground.figure("free p99 ms", round(p99 * 1e3, 2))
    ground.figure("free max ms", round(took[-1] * 1e3, 2))
    app.finish()


def _until_free(ground: Ground, slot: tuple[int, int]) -> None:
    """The first look that begins FREE_S_MAX after the death must see the slot free."""
    began = time.monotonic()
    while True:
        is_last = time.monotonic() - began > FREE_S_MAX
        alive = {(s["index"], s["generation"]) for s in slots(ground) if s["alive"]}
        if slot not in alive:
            return
        if is_last:
            ground.fail(f"slot {slot} is not free {FREE_S_MAX * 1e3:.0f} ms after its death")
            return


def reused(ground: Ground) -> None:
    """In a PID namespace of its own: the id of a killed process goes to a stranger, then to a peer.

    The number that the kernel gave last is written to ns_last_pid, so the next one is known.
    """
    board = ground.board()
    watcher = Watcher(ground, board, has_ids=False)
    arguments = ("-m", "agent.torture.program", "single", "--board", board.path)
    process = ground.start(*arguments)
    rounds = 0
    while ground.has_time or rounds < 3:
        index = rounds
        row = ground.until(lambda: _row(board, index), f"it counts: {ground.log()}")  # noqa: B023
        pid = process.pid
        slot = slot_of(ground, pid)
        identity = (slot["index"], slot["generation"])
        process.kill()
        process.wait()
        ground.outcome.kills += 1
        _next_pid(pid)
        stranger = subprocess.Popen(["sleep", "1000"])
        if stranger.pid != pid:
            raise CannotRunError(f"the kernel gave {stranger.pid} where {pid} was asked for")
        alive = {(s["index"], s["generation"]) for s in slots(ground) if s["alive"]}
        if identity in alive:
            ground.fail(f"slot {identity} is alive: process {pid} is a stranger by now")
        watcher.look()
        stranger.kill()
        stranger.wait()
        _next_pid(pid)
        process = ground.start(*arguments)
        if process.pid != pid:
            raise CannotRunError(f"the kernel gave {process.pid} where {pid} was asked for")
        rounds += 1
        if row.pid != pid:
            raise NotHeldError(f"process {pid} says that it is {row.pid}")
    board.stop()
    ground.until(lambda: process.poll() is not None, "it ends")
    ground.figure("ids used again", 2 * rounds)
    watcher.settle()


def _row(board: Board, index: int) -> Row | None:
    rows = board.rows()
    return rows[index] if len(rows) > index and rows[index].tallied() else None


def _next_pid(pid: int) -> None:
    try:
        _write("/proc/sys/kernel/ns_last_pid", str(pid - 1))
    except OSError as error:
        raise CannotRunError(f"/proc/sys/kernel/ns_last_pid: {error.strerror}") from None


def namespaces(ground: Ground) -> None:
    """Processes of two PID namespaces, all with the id 1, in one folder, as of two containers."""
    prefix = space_command("pid")
    board = ground.board()
    watcher = Watcher(ground, board, has_ids=False)
    arguments = ("-m", "agent.torture.program", "single", "--board", board.path)
    ground.restart_clock()
    first = ground.start(*arguments, prefix=prefix)
    others = 0
    ground.until(lambda: _row(board, 0), f"the first counts: {ground.log()}")
    slot = slot_of(ground, 1)
    identity = (slot["index"], slot["generation"])
    while ground.has_time or others < 3:
        other = ground.start(*arguments, prefix=prefix)
        others += 1
        index = others
        ground.until(lambda: _row(board, index), f"another one counts: {ground.log()}")  # noqa: B023
        alive = [s for s in slots(ground) if s["alive"]]
        if sorted(s["pid"] for s in alive) != [1, 1]:
            ground.fail(f"two processes with the id 1 live, and not these slots: {alive}")
        if identity not in {(s["index"], s["generation"]) for s in alive}:
            ground.fail(f"the slot {identity} of the first was taken over: {alive}")
        page = watcher.look()
        if page is not None and page.total("up") != 2:
            ground.fail(f"two processes are up and a page says {page.total('up'):g}")
        for pid in children(other.pid):
            ground.outcome.kills += send(pid, signal.SIGKILL)
        other.wait()
    board.stop()
    ground.until(lambda: first.poll() is not None, "the first ends")
    ground.figure("namespaces", 1 + others)
    watcher.settle()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
