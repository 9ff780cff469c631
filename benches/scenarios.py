"""Measurements that need a process of their own: rendering, scraping, memory, import.

`python benches/scenarios.py NAME SUBJECT [ARGUMENT ...]` prints one JSON object. `measure` runs
that and is what run.py calls, the subjects in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 5
# The default bounds of prometheus_client, without +Inf.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
WORKERS, METRICS = 32, 500
SERIES_MAX = 1_100_000


def measure(name: str, subject: str, *arguments: object) -> dict[str, float]:
    """Runs one scenario in a fresh interpreter with fresh folders."""
    with tempfile.TemporaryDirectory(prefix="agent-bench-", dir="/dev/shm") as folder:
        env = os.environ | {
            "AGENT_METRICS_DIR": folder,
        }
        if subject == "prometheus_client mp":
            env["PROMETHEUS_MULTIPROC_DIR"] = folder
        command = [sys.executable, __file__, name, subject, *map(str, arguments)]
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)


def best_ms(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best * 1000


class Library:
    """One library: its two classes, and the function that renders everything."""

    def __init__(self, subject: str) -> None:
        if subject == "agent":
            import agent as module

            # As the app's own registry, with room for more series than its default limits allow.
            path = os.path.join(os.environ["AGENT_METRICS_DIR"], "bench.v3.seg")
            limits = {"series_max": SERIES_MAX, "metric_series_max": SERIES_MAX}
            registry = module.Registry(path, "bench", bytes_max=4 << 30, **limits)
            self.render = registry.render
        else:
            import prometheus_client as module

            registry = module.REGISTRY
            merged = registry
            if subject == "prometheus_client mp":
                from prometheus_client import multiprocess

                merged = module.CollectorRegistry()
                multiprocess.MultiProcessCollector(merged)
            self.render = lambda: module.generate_latest(merged)
        self.module, self.registry = module, registry

    def counter(self, name: str, labels: tuple[str, ...] = ()):
        return self.module.Counter(name, "Made.", labels, registry=self.registry)

    def histogram(self, name: str, labels: tuple[str, ...] = ()):
        return self.module.Histogram(name, "Made.", labels, registry=self.registry, buckets=BUCKETS)

    def make_series(self, kind: str, count: int, name: str) -> object:
        if kind == "counter":
            metric = self.counter(name, ("series",))
            for i in range(count):
                metric.labels(f"s{i}").inc()
        else:
            metric = self.histogram(name, ("series",))
            for i in range(count):
                metric.labels(f"s{i}").observe(0.2)
        return metric


# --- scenarios --------------------------------------------------------------------------------


def import_time(subject: str) -> dict[str, float]:
    """Milliseconds of `import`, over a bare interpreter: best of many, in turns."""
    modules = {
        "agent": "agent",
        "prometheus_client": "prometheus_client",
        "OpenTelemetry": "opentelemetry.sdk.metrics",
        "DogStatsD": "datadog.dogstatsd",
    }

    def start(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    turns = [(start("pass"), start(f"import {modules[subject]}")) for _ in range(20)]
    bare, loaded = (min(times) for times in zip(*turns, strict=True))
    return {"ms": (loaded - bare) * 1000}


def render(subject: str, count: str) -> dict[str, float]:
    """Milliseconds to render that many counters, and what another thread can do meanwhile."""
    library = Library(subject)
    library.make_series("counter", int(count), "made")
    milliseconds = best_ms(library.render, 2 * ROUNDS if subject == "agent" else 3)
    page = library.render()
    assert page.count(b"made_total{") == int(count)
    return {"ms": milliseconds, "bytes": len(page), "gil_free": gil_free(library.render)}


def gil_free(call: Callable[[], object]) -> float:
    """The turns that a second Python thread makes during `call`, as a share of those without."""
    turns = 0
    running = True

    def count() -> None:
        nonlocal turns
        while running:
            turns += 1

    thread = threading.Thread(target=count)
    thread.start()

    def rate(work: Callable[[], object]) -> float:
        started, before = time.perf_counter(), turns
        work()
        return (turns - before) / (time.perf_counter() - started)

    alone = rate(lambda: time.sleep(0.2))
    beside = rate(call)
    running = False
    thread.join()
    return beside / alone


def fork_workers(workers: int, work: Callable[[], object]) -> Callable[[], None]:
    """Forks workers that do `work` and live until the returned function is called."""
    stay, let_go = os.pipe()
    done, done_end = os.pipe()
    for _ in range(workers):
        if os.fork() == 0:
            os.close(let_go)
            work()
            os.write(done_end, b".")
            os.read(stay, 1)
            os._exit(0)
    finished = 0
    while finished < workers:
        finished += len(os.read(done, workers))

    def stop() -> None:
        os.close(let_go)
        for _ in range(workers):
            os.wait()

    return stop


def scrape(subject: str, dead: str) -> dict[str, float]:
    """Milliseconds to render 500 counters and 500 histograms that 32 live workers write.

    `dead` workers have come, written and gone before.
    """
    library = Library(subject)

    def work() -> None:
        for i in range(METRICS):
            library.counter(f"count_{i}").inc()
            library.histogram(f"seconds_{i}").observe(0.2)

    for _ in range(int(dead)):
        child = os.fork()
        if child == 0:
            library.counter("brief").inc()
            library.histogram("brief_seconds").observe(0.2)
            os._exit(0)
        os.waitpid(child, 0)
    stop = fork_workers(WORKERS, work)
    try:
        milliseconds = best_ms(library.render)
        page = library.render()
    finally:
        stop()
    assert f"count_7_total {WORKERS}.0\n" in page.decode().replace(f"{WORKERS}\n", f"{WORKERS}.0\n")
    return {"ms": milliseconds, "bytes": len(page)}


def series_memory(subject: str, kind: str) -> dict[str, float]:
    """Bytes for one more series: in files (shared) and in this process (private).

    The private part is measured where it matters, in a process that has used every series.
    """
    from procs import anonymous_bytes

    library = Library(subject)
    warm = library.make_series(kind, 1000, "warm")
    folder = Path(os.environ["AGENT_METRICS_DIR"])
    count = 50_000

    def shared() -> int:
        return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())

    before = shared(), anonymous_bytes()
    kept = library.make_series(kind, count, "made")
    after = shared(), anonymous_bytes()
    assert kept is not warm
    return {
        "shared": (after[0] - before[0]) / count,
        "private": (after[1] - before[1]) / count,
    }


SCENARIOS = {
    "import": import_time,
    "render": render,
    "scrape": scrape,
    "memory": series_memory,
}

if __name__ == "__main__":
    print(json.dumps(SCENARIOS[sys.argv[1]](*sys.argv[2:])))
