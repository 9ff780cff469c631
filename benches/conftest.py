"""Set-up of the pytest-benchmark suites: a private folder for segments, and no debug builds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

# Before anything imports a metrics library: all of them read the environment once.
_folder = tempfile.TemporaryDirectory(
    prefix="agent-bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)
os.environ["AGENT_METRICS_DIR"] = os.path.join(_folder.name, "agent")
os.environ["AGENT_METRICS_APP"] = "bench"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.path.join(_folder.name, "prometheus")
os.makedirs(os.environ["PROMETHEUS_MULTIPROC_DIR"])


@pytest.fixture(autouse=True, scope="session")
def release_build() -> Iterator[None]:
    """Figures of a debug build are of no use to anybody."""
    from build import require_release

    require_release()
    yield
    _folder.cleanup()
