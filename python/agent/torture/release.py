"""`python -m agent.torture.release NUMBER`: one release of an app whose definitions change.

Purpose: the families of `work`, which stay, and VARIANTS of others, chosen by the seed. Its workers
count in all of them until the file `--stop` is there.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable

import agent

from .board import Board
from .processes import die_with_parent
from .work import Work

# Each makes a metric of this name and gives what counts in it once.
Count = Callable[[], None]


def _counter(name: str) -> Count:
    return agent.Counter(name, "A counter.").inc


def _by_path(name: str) -> Count:
    metric = agent.Counter(name, "By path.", ["path"])
    return lambda: metric.labels("/a").inc()


def _by_code(name: str) -> Count:
    metric = agent.Counter(name, "By code and path.", ["code", "path"])
    return lambda: metric.labels("200", "/a").inc()


def _gauge(name: str) -> Count:
    return agent.Gauge(name, "A gauge.").inc


def _live(name: str) -> Count:
    metric = agent.Gauge(name, "A gauge of each.", multiprocess_mode="liveall")
    return lambda: metric.set(1)


def _sum(name: str) -> Count:
    return agent.Gauge(name, "A gauge summed.", multiprocess_mode="sum").inc


def _histogram(name: str) -> Count:
    metric = agent.Histogram(name, "Classic.")
    return lambda: metric.observe(0.3)


def _coarse(name: str) -> Count:
    metric = agent.Histogram(name, "Other buckets.", ["path"], buckets=[0.1, 1])
    return lambda: metric.labels("/a").observe(0.3)


def _native(name: str) -> Count:
    metric = agent.Histogram(name, "Native.", native=True)
    return lambda: metric.observe(0.3)


def _summary(name: str) -> Count:
    metric = agent.Summary(name, "A summary.")
    return lambda: metric.observe(0.3)


def _quantiles(name: str) -> Count:
    metric = agent.Summary(name, "Other quantiles.", quantiles=[0.1, 0.9])
    return lambda: metric.observe(0.3)


VARIANTS: tuple[Callable[[str], Count], ...] = (
    _counter,
    _by_path,
    _by_code,
    _gauge,
    _live,
    _sum,
    _histogram,
    _coarse,
    _native,
    _summary,
    _quantiles,
)
# Names that come and go, and may clash with what others show of themselves.
NAMES = ("alpha", "beta", "gamma", "delta", "alpha_count", "beta_sum", "gamma_bucket", "epsilon")


def define(rng: random.Random) -> list[Count]:
    """The changing families of a release: some names, each of some kind. A clash is left out."""
    counts = []
    for name in rng.sample(NAMES, rng.randrange(3, len(NAMES))):
        try:
            counts.append(rng.choice(VARIANTS)(name))
        except agent.ConflictError:
            continue
    return counts


def work(given: argparse.Namespace, counts: list[Count]) -> None:
    die_with_parent()
    made = Work(Board(given.board))
    while not os.path.exists(given.stop):
        made.round()
        for count in counts:
            count()
    made.leave()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("number", type=int)
    parser.add_argument("--board", required=True)
    parser.add_argument("--stop", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    counts = define(random.Random(given.seed))  # noqa: S311 - to be repeated
    pids = []
    for _ in range(given.workers):
        pid = os.fork()
        if pid == 0:
            work(given, counts)
            os._exit(0)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise SystemExit(f"release {given.number}: its workers ended with {codes}")


if __name__ == "__main__":
    main()
