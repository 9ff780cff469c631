"""Runs a command again and again, alone and then beside busy loops: for tests that fail at times.

    python scripts/repeat.py [--runs N] [--busy M] [--loops L] [--logs FOLDER] -- COMMAND ...

A line for each run tells how long it took and how many tests it counted (those of cargo test and
of pytest, from their last lines). The first run that fails ends it, with the end of its output; so
does a run that skips a test or counts none, because nothing is known of what was skipped. The
output of each run is in the folder. Exit code: 0, the code of the run that failed, 1 for a skipped
test or none, 64 for wrong usage.

Limits: the command's own processes are its own affair; a busy loop is a process that uses a core.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

END_LINES = 60
CARGO = re.compile(r"^test result: \w+\. (\d+) passed; \d+ failed; (\d+) ignored", re.MULTILINE)
PYTEST = re.compile(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s", re.MULTILINE)


def counts(output: str) -> tuple[int, int]:
    """Tests that passed and tests that were skipped, by the last lines of cargo test and pytest."""
    passed = skipped = 0
    for of_cargo in CARGO.finditer(output):
        passed += int(of_cargo[1])
        skipped += int(of_cargo[2])
    for of_pytest in PYTEST.finditer(output):
        found = {word: int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", of_pytest[1])}
        passed += found.get("passed", 0)
        skipped += found.get("skipped", 0)
    return passed, skipped


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Processes that do nothing but use a core each."""
    code = "import os, sys\nparent = os.getppid()\nwhile os.getppid() == parent: pass\n"
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run(name: str, command: list[str], log: Path) -> int:
    """One run; prints its line. Not 0 when it failed or skipped."""
    began_s = time.monotonic()
    with log.open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    took_s = time.monotonic() - began_s
    output = log.read_text(errors="replace")
    passed, skipped = counts(output)
    word = "passed"
    if done.returncode:
        word = "failed"
    elif skipped or not passed:
        word = "skipped tests" if skipped else "found no tests"
    code = done.returncode or int(word != "passed")
    print(f"{name}: {word} in {took_s:.0f} s: {passed} passed, {skipped} skipped", flush=True)
    if code:
        print(*output.splitlines()[-END_LINES:], f"all of it: {log}", sep="\n", flush=True)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="runs alone (10)")
    parser.add_argument("--busy", type=int, default=5, help="then runs beside busy loops (5)")
    parser.add_argument("--loops", type=int, default=2, help="busy loops (2)")
    parser.add_argument("--logs", type=Path, default=Path(".build/repeat"))
    parser.add_argument("command", nargs="+")
    parser.exit_on_error = False
    try:
        given = parser.parse_args()
    except argparse.ArgumentError as error:
        parser.print_usage(sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return os.EX_USAGE
    given.logs.mkdir(parents=True, exist_ok=True)
    for number in range(1, given.runs + 1):
        name = f"run {number} of {given.runs}"
        if code := run(name, given.command, given.logs / f"run-{number}.log"):
            return code
    for number in range(1, given.busy + 1):
        name = f"busy run {number} of {given.busy}"
        with busy_loops(given.loops):
            code = run(name, given.command, given.logs / f"busy-{number}.log")
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
