"""Fixtures of all tests: a folder for segments, a running collector, programs of others."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from collector import Collector, short_dir

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Some tests hold more connections than the usual 1,024.
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

# Debian keeps daemons in sbin, which a user's PATH may lack.
os.environ["PATH"] += os.pathsep + "/usr/sbin"


@pytest.fixture
def segments() -> Iterator[str]:
    """An empty folder with a short path for segments and sockets."""
    with short_dir() as directory:
        yield directory


@pytest.fixture
def start_collector(segments: str) -> Iterator[Callable[..., Collector]]:
    """Starts collectors with the arguments given; each must leave with 0 when the test ends."""
    started: list[Collector] = []

    def start(*arguments: str, **options: object) -> Collector:
        collector = Collector(segments, *arguments, **options)  # type: ignore[arg-type]
        started.append(collector)
        return collector

    yield start
    codes = [(collector.stop(), collector.log) for collector in started]
    for code, log in codes:
        assert code == 0, f"the collector left with {code}:\n{log}"


@pytest.fixture
def collector(start_collector: Callable[..., Collector]) -> Collector:
    """A collector with default settings and two workers."""
    return start_collector()


@pytest.fixture
def program() -> Callable[[str], str]:
    """The path of a program that is not ours. A missing one skips the test, and fails it in CI."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            message = f"'{name}' is not installed; as root, `make test` installs it"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
        return path

    return find
