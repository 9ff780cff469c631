"""`make test-repeat`: a line for each run, and the first bad one ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "repeat.py"
GOOD = """
import sys
print("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished")
print("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished")
print("============ 700 passed in 301.20s (0:05:01) ============")
"""


def repeat(tmp_path: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, str(SCRIPT), *options, f"--logs={tmp_path / 'logs'}"),
            *("--", sys.executable, "-c", code),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )


def test_each_run_has_a_line_with_what_both_test_programs_counted(tmp_path: Path) -> None:
    done = repeat(tmp_path, GOOD, "--runs=2", "--busy=1")
    assert done.returncode == 0, done.stderr
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["run 1 of 2", "run 2 of 2", "busy run 1 of 1"]
    assert all(" s: 715 passed, 0 skipped" in line for line in done.stdout.splitlines())
    logs = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert logs == ["busy-1.log", "run-1.log", "run-2.log"]


def test_the_first_run_that_fails_ends_it_with_its_output_and_its_code(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "seen = pathlib.Path('seen')\n"
        "if seen.exists(): print('the reason'); sys.exit(7)\n"
        "seen.touch()\n"
        "print('1 passed in 0.01s')\n"
    )
    done = repeat(tmp_path, code, "--runs=5")
    assert done.returncode == 7
    assert "run 1 of 5: passed" in done.stdout
    assert "run 2 of 5: failed" in done.stdout
    assert "\nthe reason\n" in done.stdout
    assert "run 3" not in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "==== 700 passed, 2 skipped in 301.20s (0:05:01) ====",
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished",
    ],
)
def test_a_skipped_test_is_a_failure(tmp_path: Path, line: str) -> None:
    """Nothing is known of what was skipped."""
    done = repeat(tmp_path, f"print({line!r})", "--runs=3")
    assert done.returncode == 1
    assert "run 1 of 3: skipped tests" in done.stdout
    assert "run 2" not in done.stdout


def test_a_run_without_a_test_is_a_failure(tmp_path: Path) -> None:
    """A command that does nothing has not passed."""
    done = repeat(tmp_path, "", "--runs=3")
    assert done.returncode == 1
    assert "run 1 of 3: found no tests" in done.stdout


def test_busy_loops_run_beside_it_and_end_with_it(tmp_path: Path) -> None:
    """As many as were asked for, children of the script; without them there are none."""
    code = (
        "import os, pathlib\n"
        "children = pathlib.Path(f'/proc/{os.getppid()}/task/{os.getppid()}/children')\n"
        "print('beside', len(children.read_text().split()) - 1)\n"
        "print('1 passed in 0.01s')\n"
    )
    done = repeat(tmp_path, code, "--runs=1", "--busy=1", "--loops=3")
    assert done.returncode == 0, done.stdout
    assert "beside 0" in (tmp_path / "logs" / "run-1.log").read_text()
    assert "beside 3" in (tmp_path / "logs" / "busy-1.log").read_text()


def test_wrong_usage_leaves_with_64(tmp_path: Path) -> None:
    done = repeat(tmp_path, "", "--runs=many")
    assert done.returncode == 64
    assert "invalid int value: 'many'" in done.stderr
