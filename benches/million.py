"""`make million`: a million connections to the collector, both ends here, beside a bare epoll pair.

    doctor -> bare pair -> the pair's client against the collector -> our own load, with storms
              twice: with answers and without

The pair (floor/epoll_pair.c) is the physical limit: both its ends do only the system calls. Its
client is used twice, so that rates differ only by the server. The load then holds the connections,
checks every message, and lives through storms while a probe asks for /livez and /metrics and a
second, small load watches that nobody else notices.

    python benches/million.py [--connections N] [--brief] [--out FILE]

As root it runs in a network namespace of its own. Takes ten minutes for a million; `--brief` takes
a minute for 20,000: the same steps, held for less time, good for the promises and not for the
figures. Writes FILE and, as a page with pictures, FILE with the ending .html. Exit codes: 0,
1 a promise was broken (errors, lost messages, a ledger that does not add up), 69 this machine
cannot. Missed figures are bold in the table and no failure: they depend on who else is on the
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import million_table
import namespace
import pair
from agent.lab.account import lost
from agent.lab.connections import Controller, Snapshot
from agent.lab.plan import Plan
from agent.lab.target import Collector
from build import require_release
from procs import cpu_seconds, memory, private_bytes, tcp_events, tree
from targets import Target, agent, wait_until

HERE = Path(__file__).parent
EXIT_CANNOT = 69
# Left open for probes and witnesses, and for the clients of a killed worker: they come back before
# the kernel has closed its last socket, until when it is counted with all it had.
SPARE_CONNECTIONS = 20_000
WITNESSES = 200
STORM_DEADLINE_S = 120.0
BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")
BACKLOG_PACKETS = 100_000


def say(text: str) -> None:
    print(f"== {text}", flush=True)


@dataclass(frozen=True)
class Pace:
    """For how long, in seconds."""

    # Flat out: the pair, and its client against the collector.
    message: int = 15
    settle: int = 5
    idle: int = 20
    # In which each connection sends one message.
    hold: int = 60
    calm: int = 3
    after: int = 15


BRIEF = Pace(message=2, settle=1, idle=3, hold=10, calm=1, after=5)


@dataclass
class Storm:
    """What happened to the others while something happened."""

    name: str
    seconds: float
    probes: dict[str, list[float]] = field(default_factory=dict)
    # The lateness of a timer meanwhile.
    late_s: float = 0.0
    unanswered: int = 0
    # Connections of the load that were lost, and when the last of them was back.
    lost: int = 0
    back_s: float = 0.0
    witness: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def cli(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent", *arguments]


def ledger(page: str) -> dict[str, int]:
    """Samples of all sources and workers: received, applied, rejected."""
    sums = {"received": 0, "applied": 0, "rejected": 0}
    for line in page.splitlines():
        for name in sums:
            if line.startswith(f"agent_source_samples_{name}_total"):
                sums[name] += round(float(line.rsplit(" ", 1)[1]))
    return sums


def get(target: Target, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{target.http}{path}", timeout=60) as answer:
        return answer.read()


@contextlib.contextmanager
def collector(connections: int) -> Iterator[Target]:
    """A collector on its defaults, but for the connections that it may hold."""
    with tempfile.TemporaryDirectory(prefix="agent-million-") as folder:
        settings = Path(folder, "agent.toml")
        settings.write_text(f"[limits]\nconnections_max = {connections + SPARE_CONNECTIONS}\n")
        with agent(folder, f"--config={settings}") as target:
            yield target


@contextlib.contextmanager
def roomy_backlog() -> Iterator[None]:
    """Raises the packets of loopback that may wait for a core, as the doctor advises, and puts the
    old number back. It is the machine's and not to be seen in a namespace: enter that inside.
    """
    try:
        file = BACKLOG.open("r+")
    except OSError as error:
        print(f"note: {BACKLOG}: {error.strerror}; storms will be slower", file=sys.stderr)
        yield
        return
    with file:
        before = int(file.read())
        file.seek(0)
        file.write(str(max(before, BACKLOG_PACKETS)))
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.write(str(before))
            file.flush()


# --- beside the bare pair -------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """The pair's client with two servers, flat out: the objects that the pair prints."""

    floor: dict[str, Any]
    ours: dict[str, Any]


def flat_out(connections: int, pace: Pace, *, ack: bool) -> Beside:
    times = {"ack": ack, "hold_s": 2, "message_s": pace.message}
    say("the bare pair" + ("" if ack else ", no answers"))
    floor = pair.measure(connections, **times)
    say("the pair's client against the collector")
    with collector(connections) as target:
        watched = ",".join(str(pid) for pid in tree(target.pid))
        client = ("--only=client", f"--port={target.statsd}", f"--watch={watched}")
        return Beside(floor, pair.measure(connections, *client, **times))


# --- our own load ---------------------------------------------------------------------------------


class Probes:
    """The answers of a probe process."""

    def __init__(self, target: Target, folder: str) -> None:
        self.file = Path(folder, "probes")
        command = [sys.executable, str(HERE / "probe.py"), f"http://127.0.0.1:{target.http}"]
        self.process = subprocess.Popen([*command, str(self.file)])
        wait_until(self.file.exists, self.process, self.file)

    def between(self, begin: float, end: float) -> tuple[dict[str, list[float]], int]:
        """Seconds of each answer to a question asked in that time; and how many had none."""
        times: dict[str, list[float]] = {}
        unanswered = 0
        for line in self.file.read_text().splitlines():
            told = json.loads(line)
            if begin <= told["t"] < end:
                times.setdefault(told["path"], []).append(told["s"])
                unanswered += told["status"] != 200
        return times, unanswered

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


class Stage:
    """The load's run against one collector."""

    def __init__(self, target: Target, connections: int, pace: Pace, folder: str) -> None:
        self.target = target
        self.pace = pace
        self.folder = folder
        self.plan = Plan(
            connections=connections,
            target=f"127.0.0.1:{target.statsd}",
            run="million",
            reconnect=True,
            ack_timeout_s=30.0,
            # It shares two cores with what it measures, in storms too; the document tells how late
            # it was.
            late_max_s=5.0,
            connect_timeout_s=60.0,
        )
        self.storms: list[Storm] = []
        self.figures: dict[str, Any] = {}
        self.last: Snapshot | None = None
        page = Collector(f"http://127.0.0.1:{target.http}")
        self.controller = Controller(
            self.plan, watch=self._watch, collector=page, collector_pid=target.pid
        )

    def _watch(self, snapshot: Any) -> None:
        self.last = snapshot
        if int(snapshot.elapsed_s) % 5 == 0:
            print(
                f"   {snapshot.elapsed_s:5.0f} s  {snapshot.phase:<14} {snapshot.open:>9,} open,"
                f" {snapshot.sent:,} sent, {snapshot.acked:,} acknowledged",
                flush=True,
            )

    def run(self) -> dict[str, Any]:
        controller = self.controller
        with controller:
            workers = self._workers()
            self.figures["worker_private"] = statistics.median(map(private_bytes, workers.values()))
            self.figures["workers"] = len(workers)
            say("opening")
            controller.open()
            # What is still being cleaned up from opening is not idleness.
            controller.hold(self.pace.settle, name="settle")
            self._idle()
            # Not before: an answer costs a worker memory that is not a connection's.
            self.probes = Probes(self.target, self.folder)
            with contextlib.closing(self.probes):
                self._storms()
        self.figures["tcp"] = tcp_events()
        self.figures["ledger"] = ledger(get(self.target, "/metrics").decode())
        return controller.result()

    def _storms(self) -> None:
        controller = self.controller
        say(f"one message on each, in {self.pace.hold} s")
        controller.hold(self.pace.hold, message_interval_s=self.pace.hold)
        # Later ones are of storms.
        account = controller.account
        self.figures["errors"] = account.failures.total() + lost(account.counts)
        self._storm("SIGHUP", self._reload)
        self._storm("one worker killed", self._kill)
        self._storm("rolling restart", self._roll)
        controller.message(0)
        controller.finish()
        self._storm("all vanish", lambda: controller.close(with_reset=True, name="vanish"))
        self._storm("all return", lambda: controller.open(rate=0, name="return"))
        self.figures["memory"] = memory(self.target.pid)
        controller.hold(self.pace.after, message_interval_s=30, name="after")
        controller.finish()
        controller.close()

    def _idle(self) -> None:
        say(f"idle for {self.pace.idle} s")
        before, began = cpu_seconds(self.target.pid), time.monotonic()
        self.controller.hold(self.pace.idle, name="idle")
        spent = cpu_seconds(self.target.pid) - before
        self.figures["idle_cpu"] = spent / (time.monotonic() - began)
        self.figures["memory_held"] = memory(self.target.pid)

    def _storm(self, name: str, work: Callable[[], object]) -> None:
        """Does the work while witnesses send and probes ask."""
        say(f"storm: {name}")
        out = Path(self.folder, "witness.json")
        command = cli("load", "connections", f"--connections={WITNESSES}", "--hold=600s")
        command += ["--message-interval=1s", f"--target=127.0.0.1:{self.target.statsd}"]
        command += ["--open-rate=1000", "--collector=none", "--quiet", f"--json={out}"]
        command += ["--late-max=60s", "--ack-timeout=60s", "--sources=127.99.0.1"]
        if name == "one worker killed":
            command.append("--reconnect")
        with ended(subprocess.Popen(command)) as witness:
            storm = self._live_through(name, work)
            # As Ctrl-C, which a process in the background ignores.
            witness.terminate()
            witness.wait(60)
        storm.witness = json.loads(out.read_text())["totals"]
        self.storms.append(storm)

    def _live_through(self, name: str, work: Callable[[], object]) -> Storm:
        self.controller.hold(self.pace.calm, name="calm")
        lost_before = lost(self.controller.account.counts)
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        self.controller.hold(self.pace.calm, name="calm")
        probes, unanswered = self.probes.between(began, time.monotonic())
        late_s = max(probes.pop("timer", [0.0]))
        storm = Storm(name, seconds, probes, late_s, unanswered)
        storm.lost = lost(self.controller.account.counts) - lost_before
        recovery = self.controller.account.latency.get("recovery")
        storm.back_s = recovery.max_ns / 1e9 if recovery else 0.0
        return storm

    def _reload(self) -> None:
        for _ in range(3):
            os.kill(self.target.pid, signal.SIGHUP)
            self.controller.hold(2, name="SIGHUP")

    def _children(self) -> dict[str, int]:
        children = json.loads(get(self.target, "/v1/status"))["supervisor"]["children"]
        return {child["name"]: child["pid"] for child in children}

    def _workers(self) -> dict[str, int]:
        children = self._children()
        return {name: pid for name, pid in children.items() if name.startswith("worker-")}

    def _until_all_are_back(self) -> None:
        until = time.monotonic() + STORM_DEADLINE_S
        while time.monotonic() < until:
            self.controller.hold(0.25, name="back")
            if self.last and self.last.open == self.plan.connections:
                return

    def _kill(self) -> None:
        os.kill(self._children()["worker-0"], signal.SIGKILL)
        self.controller.hold(1.5, name="kill")
        self._until_all_are_back()

    def _roll(self) -> None:
        before = self._workers()
        os.kill(self.target.pid, signal.SIGUSR2)
        until = time.monotonic() + STORM_DEADLINE_S
        while time.monotonic() < until:
            self.controller.hold(1, name="roll")
            now = self._workers()
            if all(now.get(name) not in (None, pid) for name, pid in before.items()):
                break


def run(connections: int, pace: Pace, out: Path) -> int:
    require_release()
    say("doctor")
    asked = ("doctor", f"--connections={connections}", "--both-ends")
    if subprocess.run(cli(*asked), check=False).returncode:
        return EXIT_CANNOT
    answered = flat_out(connections, pace, ack=True)
    silent = flat_out(connections, pace, ack=False)
    with collector(connections) as target, tempfile.TemporaryDirectory() as folder:
        stage = Stage(target, connections, pace, folder)
        result = stage.run()
    report = million_table.Report(
        connections, answered, silent, result, stage.figures, stage.storms
    )
    result["targets"] = million_table.targets(report)
    write(report, result, out)
    broken = million_table.broken(report)
    for sentence in broken:
        print(f"broken: {sentence}", file=sys.stderr)
    return 1 if broken else 0


def write(report: million_table.Report, result: dict[str, Any], out: Path) -> None:
    """The document, and the run itself as a page beside it."""
    page = million_table.document(report)
    out.write_text(page)
    print(page)
    with tempfile.NamedTemporaryFile(suffix=".json") as raw:
        raw.write(json.dumps(result).encode())
        raw.flush()
        drawn = out.with_suffix(".html")
        subprocess.run(cli("report", raw.name, f"--html={drawn}"), check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--brief", action="store_true", help="held for less time")
    parser.add_argument("--out", type=Path, default=HERE / "MILLION.md")
    given = parser.parse_args()
    with roomy_backlog():
        if os.geteuid() == 0:
            namespace.enter()
        else:
            print("note: not root, so in the host's network namespace", file=sys.stderr)
        return run(given.connections, BRIEF if given.brief else Pace(), given.out)


if __name__ == "__main__":
    sys.exit(main())
