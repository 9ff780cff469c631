"""SIGKILL of the workers of servers that are not ours: gunicorn, uvicorn, Celery, where installed.

Purpose: the same account as for multiprocessing, with processes that their own masters start again.
Work comes as requests over a Unix socket, or as tasks in a folder.

Limits: a process of Celery's pool is only killed in the middle of a task: one that is killed while
it holds the pool's own lock stops the whole pool, whatever the tasks do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

from .board import Board, Row
from .ground import CannotRunError, Ground
from .kills import KILLS_MIN, Killer, torment
from .processes import children, is_alive, is_ours, send

WORKERS = 3
CLIENTS = 6
TIMEOUT_S = 30.0
LEAVE_S = 2.0
# In the folder of the case, where both sides are.
SOCKET = "web"
# How far from the end of its task a process of Celery is killed.
MARGIN_NS = 150_000_000


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise CannotRunError(f"{package} is not installed")


@contextlib.contextmanager
def clients(path: str, board: Board) -> Iterator[None]:
    """Threads that ask without a pause. An answer that is missing is a worker that was killed."""

    def ask() -> None:
        while not board.is_stopped:
            try:
                with socket.socket(socket.AF_UNIX) as stream:
                    stream.settimeout(TIMEOUT_S)
                    stream.connect(path)
                    stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    while stream.recv(4096):
                        pass
            except OSError:
                time.sleep(0.005)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        board.stop()
        for thread in threads:
            thread.join(TIMEOUT_S)


def leave(ground: Ground, server: subprocess.Popen[bytes], killer: Killer) -> None:
    """Asks a server to leave when nobody is in an update any more; in the end kills all of it."""
    ground.until(lambda: not any(row.busy_until_ns for row in killer.look()), "the work ends")
    before = children(server.pid)
    server.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(LEAVE_S)
    for pid in [server.pid, *before, *children(server.pid)]:
        send(pid, signal.SIGKILL)
    server.wait()
    ground.until(lambda: not any(map(_is_there, before)), "the workers of the server end")


def _is_there(pid: int) -> bool:
    return is_ours(pid) and is_alive(pid)


def _web(ground: Ground, *arguments: str, kills_min: int = KILLS_MIN) -> None:
    board = ground.board()
    path = SOCKET
    server = ground.start("-m", *arguments, env={"TORTURE_BOARD": board.path})
    killer = Killer(ground, board)
    with clients(path, board):
        watcher = torment(ground, killer, kills_min)
    leave(ground, server, killer)
    watcher.settle()


def gunicorn(ground: Ground) -> None:
    """Pre-forked workers of gunicorn."""
    need("gunicorn")
    bind = f"unix:{SOCKET}"
    _web(
        ground,
        *("gunicorn", "-w", str(WORKERS), "-b", bind, "--timeout", "300", "--no-control-socket"),
        "agent.torture.served:wsgi",
    )


def uvicorn(ground: Ground) -> None:
    """Spawned workers of uvicorn."""
    need("uvicorn")
    _web(
        ground,
        *("uvicorn", "--workers", str(WORKERS), "--uds", SOCKET, "--no-access-log"),
        # Its master asks one worker after the other whether it lives; one that is killed while
        # it is asked holds up the master for this time, and everybody else with it.
        *("--timeout-worker-healthcheck", "30", "agent.torture.served:asgi"),
        # Its master looks for the dead twice a second.
        kills_min=4,
    )


class TaskKiller(Killer):
    """Kills a process in the middle of its task only."""

    def kill_one(self) -> bool:
        now = time.monotonic_ns()
        rows: list[Row] = [row for row in self.look() if row.busy_until_ns > now + MARGIN_NS]
        return bool(rows) and self.kill(self.ground.rng.choice(rows))


def celery(ground: Ground) -> None:
    """The prefork pool of Celery."""
    need("celery")
    board = ground.board()
    for folder in ("queue", "control"):
        os.mkdir(ground.path(folder), 0o700)
    env = {"TORTURE_BOARD": board.path}
    module = "agent.torture.served_celery"
    server = ground.start(
        *("-m", "celery", "-A", module, "worker", "-c", str(WORKERS), "-l", "WARNING"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        env=env,
    )
    killer = TaskKiller(ground, board)
    sender = ground.start("-m", module, env=env, log="sender.log")
    try:
        watcher = torment(ground, killer)
    finally:
        board.stop()
    ground.until(lambda: sender.poll() is not None, "the sender of tasks ends")
    leave(ground, server, killer)
    watcher.settle()
