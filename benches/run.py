"""`make bench`: everything measured, one table with ratios, written to benches/RESULTS.md.

The pytest-benchmark suites run PASSES times, so that the libraries take turns over the minutes in
which a shared machine changes its speed; the best round of all passes is the figure. Each row shows
Agent, the limit that we have set ourselves, and the rivals with their ratio to Agent: a ratio below
1 is a row where we lose.

    python benches/run.py [calls] [scenarios] [collectors]     some parts only, printed, not written
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from build import facts, require_release, rivals
from collectors import Row
from collectors import rows as collector_rows
from scenarios import measure

HERE = Path(__file__).parent
PASSES = 3
# The rivals leave sockets and files to the collector of garbage; of ours, falling back to private
# memory would make the figures worthless.
WARNINGS = """
    error
    ignore:unclosed:ResourceWarning
    ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning
"""

# Group of the pytest-benchmark suites: what the row is called, and its limit in nanoseconds.
CALL_ROWS = {
    "inc": ("`Counter.inc()`", 60),
    "child_inc": ("`Counter.inc()` on a bound child", 60),
    "labels_inc": ("`labels(a, b, c).inc()`", 300),
    "gauge_set": ("`Gauge.set(x)`", None),
    "observe": ("`Histogram.observe(x)`", 100),
    "observe_many": ("`observe_many`, per value", 5),
    "1 threads": ("one counter, 1 thread, per call", None),
    "8 threads": ("one counter, 8 threads, per call", None),
    "1 processes": ("one series, 1 process, per call", None),
    "2 processes": ("one series, 2 processes, per call of each", None),
}

DEFINITIONS = """\
- A call: the best round of 2,000 calls in a `for` loop, divided by 2,000, the cost of the loop
  included. `C method` is `io.BytesIO().tell()`, for calls with a number `set().discard(x)`.
- `prometheus_client mp` is its multi-process mode, the one that Agent replaces. DogStatsD sends to
  a UDP socket that nobody reads, unbuffered and packed; OpenTelemetry is the SDK with an in-memory
  reader. Both only hand the value on: a collector still has to add it up.
- Threads: wall time by the calls of all threads. Processes: wall time by the calls of one process.
- Render: text 0.0.4 of counters with one label, bytes in hand. `GIL free` is what a second Python
  thread gets done during the render, as a share of what it does without.
- Scrape: 32 live workers, 500 counters and 500 histograms of 15 buckets each.
- Memory: growth by 50,000 series, those of a segment counted once for all processes. `private` is
  what each process that uses the series holds beside it (the Python child objects).
- Collectors: user and system time of the whole process tree until one second after the last line.
  30 counters, 30 gauges and 30 timers without tags, paced at 100,000 single and 10,000 packed
  datagrams a second; 60 a call: UDP_SEGMENT, 1,000,000 datagrams of one 64-byte counter a second.
  `recvmmsg` only reads and counts lines: the floor, as it is woken and with a
  nap of 1 ms. vmagent speaks no StatsD: Influx lines over HTTP. 16 connections,
  kept alive, with one request in flight on each.
- Resident: Pss of the tree, 1 s after the start, so that pages shared by the workers count once.
"""


def run_suites() -> list[Row]:
    """The best of all passes, in nanoseconds a call."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(PASSES):
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            command += ["--benchmark-disable-gc", "--benchmark-columns=min,median"]
            command += ["-o", f"filterwarnings={WARNINGS}"]
            command += [f"--benchmark-json={report.name}", str(HERE)]
            env = os.environ | {"PYTHONPATH": str(HERE)}
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=HERE.parent,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(done.stdout.decode()[-4000:])
            for case in json.loads(Path(report.name).read_text())["benchmarks"]:
                row = best.setdefault(case["group"], {})
                subject = case["extra_info"]["subject"]
                nanoseconds = case["stats"]["min"] / case["extra_info"]["calls"] * 1e9
                row[subject] = min(row.get(subject, float("inf")), nanoseconds)
    rows = [Row(what, "ns", best[group], limit) for group, (what, limit) in CALL_ROWS.items()]
    loop = best["loop"]["Python loop"]
    rows[0].note = f"{loop:.2g} ns of every figure in this table are the `for` loop"
    return rows + contention(best)


def contention(best: dict[str, dict[str, float]]) -> list[Row]:
    """What company costs: the same call beside others, by the call alone."""
    rows = []
    for many, one in (("8 threads", "1 threads"), ("2 processes", "1 processes")):
        shares = {name: value / best[one][name] for name, value in best[many].items()}
        rows.append(Row(f"{many} on one series, by one alone", "x", shares, 2))
    return rows


def run_scenarios() -> list[Row]:
    both = ("agent", "prometheus_client")
    imports = {s: measure("import", s)["ms"] for s in (*both, "OpenTelemetry", "DogStatsD")}
    few = {s: measure("render", s, 100_000) for s in both}
    many = {"agent": measure("render", "agent", 1_000_000)}
    multiprocess = ("agent", "prometheus_client mp")
    alive = {s: measure("scrape", s, 0)["ms"] for s in multiprocess}
    # A rival that keeps files of its dead would take minutes for 10,000: 500 show how it grows.
    dead = {"agent": measure("scrape", "agent", 10_000)["ms"]}
    few_dead = {s: measure("scrape", s, 500)["ms"] for s in multiprocess}
    rows = [
        Row("`import`, over bare Python", "ms", imports, 15),
        Row("render 100,000 counters", "ms", {s: r["ms"] for s, r in few.items()}, 10),
        Row("render 1,000,000 counters", "ms", {s: r["ms"] for s, r in many.items()}, 150),
        Row("GIL free during the render", "x", {s: r["gil_free"] for s, r in few.items()}),
        Row("scrape, 32 workers", "ms", alive, 5),
        Row("scrape, 32 workers, after 500 dead ones", "ms", few_dead, 5),
        Row("scrape, 32 workers, after 10,000 dead ones", "ms", dead, 5),
    ]
    for kind, limit in (("counter", 160), ("histogram", 320)):
        memory = {s: measure("memory", s, kind) for s in both}
        values = {s: m["shared"] or m["private"] for s, m in memory.items()}
        note = f"Agent's private part: {memory['agent']['private']:.0f} B in each process using it"
        rows.append(Row(f"memory of a {kind}", "B", values, limit, note))
    return rows


def cell(value: float, ours: float | None) -> str:
    """A figure with three digits, and how many times ours it is."""
    text = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    if not ours:
        return text
    ratio = value / ours
    return f"{text} ({ratio:.0f}x)" if ratio >= 10 else f"{text} ({ratio:.2g}x)"


def table(rows: list[Row]) -> list[str]:
    subjects = list(dict.fromkeys(name for row in rows for name in row.values))
    subjects.sort(key=lambda name: name != "agent")
    lines = [
        "| what | unit | at most | " + " | ".join(subjects) + " |",
        "|---|---|---|" + "---|" * len(subjects),
    ]
    for row in rows:
        ours = row.values.get("agent")
        cells = [
            cell(row.values[name], None if name == "agent" else ours) if name in row.values else ""
            for name in subjects
        ]
        if ours is not None and row.limit is not None and ours > row.limit:
            cells[0] = f"**{cells[0]}**"
        limit = "" if row.limit is None else f"{row.limit:g}"
        lines.append(f"| {row.what} | {row.unit} | {limit} | " + " | ".join(cells) + " |")
    notes = [f"- {row.what}: {row.note}" for row in rows if row.note]
    return [*lines, "", *notes, ""] if notes else [*lines, ""]


def losses(rows: list[Row]) -> list[str]:
    """Where a limit is missed or a rival is better, in words."""
    found = []
    for row in rows:
        ours = row.values.get("agent")
        if ours is None or row.unit == "x":
            continue
        if row.limit is not None and ours > row.limit:
            found.append(f"- {row.what}: {ours:.3g} {row.unit}, the limit is {row.limit:g}.")
        for name, value in row.values.items():
            if value < ours and name != "agent":
                found.append(f"- {row.what}: {name} is {ours / value:.2g}x better.")
    return found or ["- Nowhere in this run."]


PARTS = {"calls": run_suites, "scenarios": run_scenarios, "collectors": collector_rows}
TITLES = {"calls": "Calls from Python", "scenarios": "Rendering, memory, import"}


def main() -> None:
    require_release()
    wanted = sys.argv[1:] or list(PARTS)
    report = ["# Results", "", "Written by `make bench`. Bold: over the limit.", ""]
    report += [f"- {name}: {value}" for name, value in facts()]
    report += [f"- rivals: {rivals()}"]
    report += [f"- date: {time.strftime('%Y-%m-%d')}", "", "## Definitions", "", DEFINITIONS]
    everything: list[Row] = []
    for part in wanted:
        rows = PARTS[part]()
        everything += rows
        section = [f"## {TITLES.get(part, 'Collectors')}", "", *table(rows)]
        print("\n".join(section), flush=True)
        report += section
    report += ["## Where we lose", "", *losses(everything), ""]
    if len(wanted) == len(PARTS):
        HERE.joinpath("RESULTS.md").write_text("\n".join(report))
        print(f"written to {HERE / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
