"""kill -9 while samples come in: nothing that was acknowledged is lost, and the ledger closes."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import threading
import urllib.error
from collections.abc import Callable
from pathlib import Path

from collector import (
    DEADLINE_S,
    Collector,
    Samples,
    acknowledge,
    child,
    children,
    clean_environment,
    eventually,
    readable,
)

Start = Callable[..., Collector]


def ledger(samples: Samples, source: str) -> tuple[float, float, float]:
    names = ("received", "applied", "rejected")
    received, applied, rejected = (
        samples.sum(f"agent_source_samples_{name}_total", source=source) for name in names
    )
    return received, applied, rejected


class Sender(threading.Thread):
    """Sends batches over TCP, each acknowledged; connects again when its worker has died."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__()
        self.port = port
        self.stop = stop
        self.sent = self.acknowledged = self.cut = 0
        self.refused: list[OSError] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                stream = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
            except OSError as error:
                self.refused.append(error)
                return
            try:
                with stream:
                    self.talk(stream)
            except (OSError, AssertionError):
                self.cut += 1

    def talk(self, stream: socket.socket) -> None:
        while not self.stop.is_set():
            count = random.randint(1, 20_000)
            self.sent += count
            stream.sendall(b"crash.test:1|c\n" * count)
            acknowledge(stream)
            self.acknowledged += count


def test_kill_9_under_load_loses_nothing_acknowledged(collector: Collector) -> None:
    stop = threading.Event()
    senders = [Sender(collector.statsd_port, stop) for _ in range(4)]
    for sender in senders:
        sender.start()
    # Each once: a process that is dead and not yet waited for takes a signal as well.
    killed: set[int] = set()
    try:
        while len(killed) < 12:
            acknowledged = sum(sender.acknowledged for sender in senders)
            eventually(
                lambda: sum(sender.acknowledged for sender in senders),
                lambda now: now > acknowledged + 1000,  # noqa: B023
                "traffic flows",
            )
            names = [name for name in children(collector) if name.startswith("agent-worker")]
            if names:
                victim = children(collector).get(random.choice(names))
                if victim:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed.add(victim)
    finally:
        stop.set()
        for sender in senders:
            sender.join()
    assert not [error for sender in senders for error in sender.refused], "no connection refused"
    assert sum(sender.cut for sender in senders) > 0, "the test did cut connections"
    sent = sum(sender.sent for sender in senders)
    acknowledged = sum(sender.acknowledged for sender in senders)

    # The last settlement comes with the last death; the workers are all back after it.
    seen = eventually(
        collector.scrape,
        lambda s: (
            s.one("agent_children_ready", kind="worker") == 2
            and s.sum("agent_child_exits_total") >= len(killed)
        ),
        "all workers are back",
    )
    exported = seen.one("crash_test_total")
    assert acknowledged <= exported <= sent
    received, applied, rejected = ledger(seen, "statsd_tcp")
    assert received == applied + rejected, "the ledger closes"
    crashed = seen.sum("agent_source_samples_rejected_total", reason="worker_died")
    assert rejected == crashed
    assert applied <= exported <= applied + crashed
    assert crashed == seen.sum("agent_ledger_settled_samples_total")


def test_queued_connections_and_datagrams_outlive_their_worker(start_collector: Start) -> None:
    collector = start_collector(workers=1)
    worker = child(collector, "agent-worker-0")
    os.kill(worker, signal.SIGSTOP)
    collector.send_udp(*[b"queued.udp:1|c"] * 40)
    streams = [
        socket.create_connection(("127.0.0.1", collector.statsd_port), DEADLINE_S)
        for _ in range(20)
    ]
    for stream in streams:
        stream.sendall(b"queued.tcp:1|c\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.connect(collector.socket_path)
        for _ in range(10):
            unix.send(b"queued.unix:1|c")
    os.kill(worker, signal.SIGKILL)
    for stream in streams:
        acknowledge(stream)
        stream.close()
    assert collector.scrape().one("queued_tcp_total") == 20
    collector.wait_for(40, "queued_udp_total")
    collector.wait_for(10, "queued_unix_total")


def test_the_aggregator_is_replaced_too(collector: Collector) -> None:
    old = child(collector, "agent-aggregato")
    os.kill(old, signal.SIGKILL)
    new = eventually(
        lambda: children(collector).get("agent-aggregato", old), lambda pid: pid != old, "replaced"
    )
    assert new != old
    collector.wait_for(1, "agent_child_exits_total", child="aggregator")
    collector.wait_for(1, "agent_children_ready", kind="aggregator")
    collector.send_tcp([b"after:1|ms"])
    eventually(lambda: is_ready(collector), bool, "it is ready again")


def is_ready(collector: Collector) -> bool:
    try:
        return collector.get("/readyz") == "ok\n"
    except urllib.error.HTTPError:
        return False


def test_term_to_one_worker_drains_it_and_it_is_replaced(collector: Collector) -> None:
    collector.send_tcp([b"before:1|c"] * 100)
    old = child(collector, "agent-worker-1")
    os.kill(old, signal.SIGTERM)
    eventually(
        lambda: children(collector).get("agent-worker-1", old), lambda pid: pid != old, "replaced"
    )
    assert collector.scrape().one("before_total") == 100
    eventually(lambda: "worker-1 left with 0" in collector.log, bool, "it is said")


def kill_supervisor(collector: Collector) -> None:
    collector.process.kill()
    collector.process.wait()
    collector.process.returncode = 0


def test_a_collector_starts_at_once_after_its_predecessor_was_killed_whatever_holds_the_workers(
    start_collector: Start,
) -> None:
    """Idle connections, half a line, half a request, a connection kept alive, one that never
    pauses: the workers of the dead supervisor leave, and what was acknowledged is there.
    """
    first = start_collector(env={"AGENT_METRICS_LIMITS_HEADER_TIMEOUT_S": "600"})
    first.send_tcp([b"kept:1|c"] * 10)
    with contextlib.ExitStack() as held:

        def connect(port: int, data: bytes) -> socket.socket:
            stream = held.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S))
            stream.sendall(data)
            return stream

        idle = [connect(first.statsd_port, b"") for _ in range(20)]
        connect(first.statsd_port, b"half:1")
        connect(first.http_port, b"GET /livez HTT")
        alive = connect(first.http_port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert alive.recv(4096).startswith(b"HTTP/1.1 200")
        stop = threading.Event()
        sender = Sender(first.statsd_port, stop)
        sender.start()
        eventually(lambda: sender.acknowledged, lambda count: count > 0, "traffic flows")
        kill_supervisor(first)
        stop.set()
        second = start_collector()
        sender.join()
        assert idle[0].recv(1) == b""
    seen = second.scrape()
    assert seen.one("kept_total") == 10
    assert sender.acknowledged <= seen.one("crash_test_total") <= sender.sent


def adopt_orphans(*, yes: bool) -> None:
    """Whether processes whose parent dies become children of this one (PR_SET_CHILD_SUBREAPER)."""
    assert ctypes.CDLL(None, use_errno=True).prctl(36, int(yes), 0, 0, 0) == 0


def test_a_worker_that_outlives_its_supervisor_is_waited_for_and_named(
    start_collector: Start,
) -> None:
    first = start_collector()
    orphans = children(first)
    worker = orphans["agent-worker-0"]
    os.kill(worker, signal.SIGSTOP)
    # As children of this process they stay in a job that somebody controls; else the kernel would
    # wake the stopped one when its supervisor dies.
    adopt_orphans(yes=True)
    try:
        kill_supervisor(first)
        adopt_orphans(yes=False)
        ready, ready_end = os.pipe()
        log = Path(first.dir, "second.log")
        with log.open("wb") as file:
            command = [word for word in first.command if not word.startswith("--ready-fd")]
            second = subprocess.Popen(
                [*command, f"--ready-fd={ready_end}"],
                stderr=file,
                pass_fds=[ready_end],
                env=clean_environment(),
            )
        os.close(ready_end)
        named = f"agent-worker-0 (pid {worker})"
        eventually(log.read_text, lambda text: named in text, "it says what it waits for")
        assert str(first.process.pid) not in log.read_text()
    finally:
        os.kill(worker, signal.SIGCONT)
        for pid in orphans.values():
            os.waitpid(pid, 0)
    with os.fdopen(ready) as line:
        assert json.loads(line.readline())["pid"] == second.pid
    second.terminate()
    assert second.wait(DEADLINE_S) == 0


def test_a_stopped_worker_holds_up_nobody_else(collector: Collector) -> None:
    """Frozen is not dead: it keeps its place, and the other worker goes on."""
    worker = child(collector, "agent-worker-0")
    os.kill(worker, signal.SIGSTOP)
    try:
        with contextlib.ExitStack() as held:
            streams = [
                held.enter_context(
                    socket.create_connection(("127.0.0.1", collector.statsd_port), DEADLINE_S)
                )
                for _ in range(60)
            ]
            for stream in streams:
                stream.sendall(b"_ack|frozen\n")
            # The kernel spreads connections over both; those at the frozen one wait.
            eventually(lambda: readable(streams), lambda found: len(found) >= 5, "answers")
            os.kill(worker, signal.SIGCONT)
            eventually(lambda: readable(streams), lambda found: len(found) == 60, "all answers")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert child(collector, "agent-worker-0") == worker
