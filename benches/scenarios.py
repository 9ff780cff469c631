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
LABEL = ("series",)


def measure(name: str, subject: str, *arguments: object) -> dict[str, float]:
    """Runs one scenario in a fresh interpreter with fresh folders."""
    with tempfile.TemporaryDirectory(prefix="agent-bench-", dir="/dev/shm") as folder:
        env = os.environ | {
            "AGENT_METRICS_DIR": folder,
            "AGENT_METRICS_APP": "bench",
            "AGENT_METRICS_SERIES_MAX": "1100000",
            "AGENT_METRICS_METRIC_SERIES_MAX": "1100000",
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


def library(subject: str):
    """The module, and the function that renders everything."""
    if subject == "agent":
        import agent

        return agent, agent.render
    import prometheus_client as module

    registry = module.REGISTRY
    if subject == "prometheus_client mp":
        from prometheus_client import multiprocess

        registry = module.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return module, lambda: module.generate_latest(registry)


def make_series(module, kind: str, count: int, offset: int = 0) -> object:
    if kind == "counter":
        metric = module.Counter(f"made_{offset}", "Made for the benchmark.", LABEL)
        for i in range(count):
            metric.labels(f"s{i}").inc()
        return metric
    metric = module.Histogram(f"made_{offset}", "Made for the benchmark.", LABEL, buckets=BUCKETS)
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
    module, rendered = library(subject)
    make_series(module, "counter", int(count))
    rounds = 3 if subject != "agent" else 2 * ROUNDS
    milliseconds = best_ms(rendered, rounds)
    return {"ms": milliseconds, "bytes": len(rendered()), "gil_free": gil_free(rendered)}


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
    module, rendered = library(subject)

    def work() -> None:
        for i in range(METRICS):
            module.Counter(f"count_{i}", "Made.").inc()
            module.Histogram(f"seconds_{i}", "Made.", buckets=BUCKETS).observe(0.2)

    def brief() -> None:
        module.Counter("brief", "Made.").inc()

    for _ in range(int(dead)):
        child = os.fork()
        if child == 0:
            brief()
            os._exit(0)
        os.waitpid(child, 0)
    stop = fork_workers(WORKERS, work)
    try:
        milliseconds = best_ms(rendered)
        size = len(rendered())
    finally:
        stop()
    return {"ms": milliseconds, "bytes": size}


def series_memory(subject: str, kind: str) -> dict[str, float]:
    """Bytes for one more series: in files (shared) and in this process (private).

    The private part is measured where it matters, in a process that has used every series.
    """
    from procs import anonymous_bytes

    module, _ = library(subject)
    make_series(module, kind, 1000)
    folder = Path(os.environ["AGENT_METRICS_DIR"])
    count = 50_000

    def shared() -> int:
        return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())

    before = shared(), anonymous_bytes()
    kept = make_series(module, kind, count, offset=1)
    after = shared(), anonymous_bytes()
    assert kept is not None
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
