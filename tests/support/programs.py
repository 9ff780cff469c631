"""Programs of several processes that count, run as a user runs them, and what they left behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent._native import inspect
from collector import clean_environment

DEADLINE_S = 180


class Program:
    """A folder with Python files in it, and a folder for segments. Nothing tells the app's name."""

    def __init__(self, folder: Path, segments: str) -> None:
        self.folder = folder
        self.segments = segments

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def command(self, *arguments: str | Path) -> dict[str, Any]:
        return {
            "args": [sys.executable, *map(str, arguments)],
            "cwd": self.folder,
            "env": clean_environment(AGENT_METRICS_DIR=self.segments),
        }

    def run(self, *arguments: str | Path, **env: str) -> str:
        """Runs `python ARGUMENTS` in the folder to its end; gives its output. Nothing warns."""
        command = self.command(*arguments)
        command["env"] |= env
        done = subprocess.run(
            **command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
        assert "Warning" not in done.stderr, done.stderr
        return done.stdout

    def apps(self) -> dict[str, dict[str, Any]]:
        """What each app left, by the name of its file: two apps may be called alike."""
        paths = Path(self.segments).glob("*.seg")
        return {path.name.rpartition(".v")[0]: inspect(path) for path in paths}

    def app(self) -> dict[str, Any]:
        """What the one app left; that it is one is part of the test."""
        apps = self.apps()
        assert len(apps) == 1, sorted(apps)
        return next(iter(apps.values()))

    def total(self, name: str) -> float:
        """The sum over the series of one metric: values of counters, counts of histograms."""
        return total(self.app(), name)


def total(app: dict[str, Any], name: str) -> float:
    for family in app["families"]:
        if family["name"] == name:
            return sum(series.get("value", series.get("count", 0)) for series in family["series"])
    raise AssertionError(f"no {name} in {[family['name'] for family in app['families']]}")


@contextlib.contextmanager
def running(program: Program, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The program while it runs, with pipes; ended by the test or else killed."""
    process = subprocess.Popen(
        **program.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def server(program: Program, *arguments: str, log: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server with its output in a file; ended by SIGTERM, in the end by SIGKILL."""
    with open(program.folder / log, "wb") as file:
        process = subprocess.Popen(
            **program.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def get(port: int, path: str) -> bytes | None:
    """The body of an answer with status 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
