"""What docs/RELIABILITY.md says of the torture, where that can be asked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.torture import sabotage
from agent.torture.cases import CASES, KINDS

ROOT = Path(__file__).parents[2]

TEXT = (ROOT / "docs" / "RELIABILITY.md").read_text()

COUNT = """
from agent import _core
try:
    print(len(_core.torture_steps(1, 0.0)["operations"]))
except (NotImplementedError, PermissionError):
    pass
"""


def test_the_number_of_operations_is_that_of_the_stepper() -> None:
    """Those that a run walks through."""
    # A process of its own, since it must have one thread.
    command = [sys.executable, "-c", COUNT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("there is no stepper here")
    said = re.search(r"every single instruction \(x86-64\) of (\d+) operations", TEXT)
    assert said is not None
    assert said[1] == done.stdout.strip()


def test_cases_that_are_named_exist_and_each_is_named() -> None:
    """As `kills/fork`, or as a name behind others of its kind."""
    kinds = "|".join(KINDS)
    named = set(re.findall(rf"`((?:{kinds})/[\w]+)`", TEXT))
    known = {f"{case.kind}/{case.name}" for case in CASES}
    assert named <= known
    assert all(f"`{case}`" in TEXT or f"`{case.partition('/')[2]}`" in TEXT for case in known)


def test_every_sabotage_is_named() -> None:
    """In the words for the command line."""
    assert f"`--sabotage {'|'.join(sabotage.KINDS)}`" in TEXT
