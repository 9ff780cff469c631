"""`_core.torture_steps`: death at every instruction, started from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# A process of its own, since it must have one thread. What this machine cannot do is skipped.
HEAD = """
import json, sys
from agent import _core
def run(*arguments, **named):
    try:
        return _core.torture_steps(*arguments, **named)
    except (NotImplementedError, PermissionError) as error:
        print(json.dumps({"not run": str(error)}))
        sys.exit(0)
"""


def result(program: str) -> dict[str, object]:
    """What the program printed last."""
    command = [sys.executable, "-c", HEAD + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    if "not run" in found:
        pytest.skip(str(found["not run"]))
    return found


def test_operations_are_walked_and_hold() -> None:
    """All of a group, each at least once; progress is told after each."""
    report = result("""
told = []
report = run(11, 3600.0, ["counter"], lambda now: told.append(now) or len(told) < 9)
report["told"] = told
print(json.dumps(report))
""")
    operations = report["operations"]
    assert isinstance(operations, list)
    assert len(operations) == 9
    assert [report[key] for key in ("seed", "rounds", "stopped")] == [11, 1, True]
    for operation in operations:
        assert [operation["group"], operation["walks"]] == ["counter", 1]
        assert operation["kill_points"] > operation["states"] > 1
        assert operation["findings"] == []
    told = report["told"]
    assert isinstance(told, list)
    assert {now["operation"] for now in told} == {operation["name"] for operation in operations}
    assert told[-1]["kill_points"] == report["kill_points"]
    assert told[-1]["states"] == report["states"]


def test_it_ends_when_the_time_is_over() -> None:
    """No operation is begun after that; those that were not reached are told all the same."""
    report = result("print(json.dumps(run(1, 0.0)))")
    assert report["kill_points"] == 0
    operations = report["operations"]
    assert isinstance(operations, list)
    assert len(operations) > 50


def test_an_exception_of_progress_comes_through() -> None:
    """A Ctrl-C as well: it is looked for before progress is told."""
    found = result("""
import os, signal
def stop(now):
    raise KeyError("enough")
caught = []
try:
    run(1, 3600.0, ["inc"], stop)
except KeyError as error:
    caught.append(error.args[0])
def interrupt(now):
    os.kill(os.getpid(), signal.SIGINT)
try:
    run(1, 3600.0, ["inc"], interrupt)
except KeyboardInterrupt:
    caught.append("interrupted")
print(json.dumps({"caught": caught}))
""")
    assert found["caught"] == ["enough", "interrupted"]


def test_a_process_with_threads_is_refused() -> None:
    """And what there is not is named."""
    found = result("""
import threading
refused = []
for operations in (["fly"], ["inc"]):
    try:
        run(1, 1.0, operations)
    except (ValueError, RuntimeError) as error:
        refused.append(f"{type(error).__name__}: {error}")
    go = threading.Event()
    threading.Thread(target=go.wait, daemon=True).start()
print(json.dumps({"refused": refused}))
""")
    refused = found["refused"]
    assert isinstance(refused, list)
    assert refused[0].startswith('ValueError: there is no operation "fly"; there are: create,')
    assert refused[1].endswith("needs a process of one thread, this one has 2")


def test_a_run_that_is_killed_takes_its_child_with_it(tmp_path: Path) -> None:
    """The child that is stepped does not go on by itself."""
    told = "lambda now: print(now['operation'], flush=True)"
    program = f"{HEAD}run(1, 3600.0, None, {told}, {str(tmp_path)!r})"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.kill()
        # The pipe ends when nobody lives who has inherited it.
        process.stdout.read()
    if "not run" in first:
        pytest.skip(first)
    assert first
