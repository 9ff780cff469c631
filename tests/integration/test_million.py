"""`make million` in its small form: the whole of it with 20,000 connections, in a minute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from collector import clean_environment

# It runs for a minute on a quiet machine.
LIMIT_S = 1200
MILLION = Path(__file__).parents[2] / "benches" / "million.py"


@pytest.mark.timeout(LIMIT_S + 60)
def test_twenty_thousand_connections_live_through_every_storm(tmp_path: Path) -> None:
    """It ends with 0 only when every message is in the total, the ledger adds up, and nobody was
    cut off but by the worker that was killed.
    """
    out = tmp_path / "MILLION.md"
    done = subprocess.run(
        [sys.executable, str(MILLION), "--connections=20000", "--brief", f"--out={out}"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    page = out.read_text()
    assert "| 20,000, 0 errors |" in page
    for storm in ("SIGHUP", "one worker killed", "rolling restart", "all vanish", "all return"):
        assert f"| storm: {storm} (" in page
    assert " + 0 rejected." in page
    assert "<html" in out.with_suffix(".html").read_text()
