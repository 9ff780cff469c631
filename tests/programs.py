"""Programs of several processes that count, run as a user runs them, and what they left behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent._native import inspect
from collector import clean_environment

DEADLINE_S = 90


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
        """What each app left, by name."""
        left = [inspect(path) for path in Path(self.segments).glob("*.seg")]
        return {told["header"]["app"]: told for told in left}

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
