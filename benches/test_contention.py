"""One counter, several writers: threads of one process, and processes.

The figure is the wall time of all calls divided by the calls of ONE writer for processes (each has
a core), and by the calls of ALL for threads (they share the interpreter's lock). One writer alone
is measured beside each, so that the ratio shows what the company costs.
"""

from __future__ import annotations

import os
import threading

import pytest

from subjects import SUBJECTS, Loop

CALLS = 40_000
ROUNDS = 7
NAMES = ("agent", "prometheus_client", "prometheus_client mp")


def in_threads(loop: Loop, threads: int, calls: int) -> None:
    each = calls // threads
    writers = [threading.Thread(target=loop, args=(each,)) for _ in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


@pytest.mark.parametrize("subject", NAMES)
@pytest.mark.parametrize("threads", [1, 8])
def test_threads(benchmark, threads: int, subject: str) -> None:
    """Threads of one process on one counter."""
    loop = SUBJECTS[subject]().inc
    assert loop is not None
    benchmark.group = f"{threads} threads"
    benchmark.extra_info.update(subject=subject, calls=CALLS)
    benchmark.pedantic(in_threads, args=(loop, threads, CALLS), rounds=ROUNDS, warmup_rounds=1)


class Writers:
    """Forked processes that wait for a byte, run the loop, and answer with a byte."""

    def __init__(self, loop: Loop, processes: int, calls: int) -> None:
        self.ends: list[tuple[int, int, int]] = []
        for _ in range(processes):
            go, go_end = os.pipe()
            done, done_end = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(go_end)
                while os.read(go, 1):
                    loop(calls)
                    os.write(done_end, b".")
                os._exit(0)
            os.close(go)
            os.close(done_end)
            self.ends.append((child, go_end, done))

    def run(self) -> None:
        for _, go, _ in self.ends:
            os.write(go, b".")
        for _, _, done in self.ends:
            os.read(done, 1)

    def close(self) -> None:
        for _, go, done in self.ends:
            os.close(go)
            os.close(done)
        for child, _, _ in self.ends:
            os.waitpid(child, 0)


# prometheus_client's processes never share a cell, so there is nothing to compare with.
@pytest.mark.parametrize("processes", [1, 2])
def test_processes(benchmark, processes: int) -> None:
    """Processes on one series of the same segment."""
    loop = SUBJECTS["agent"]().inc
    assert loop is not None
    writers = Writers(loop, processes, CALLS)
    benchmark.group = f"{processes} processes"
    benchmark.extra_info.update(subject="agent", calls=CALLS)
    try:
        benchmark.pedantic(writers.run, rounds=ROUNDS, warmup_rounds=1)
    finally:
        writers.close()
