"""A collector that is told to leave: who was connected is served, who comes later is refused."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from collector import DEADLINE_S, Collector, acknowledge, child, eventually

Start = Callable[..., Collector]

PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def connected(address: tuple[str, int] | str, sends: bytes) -> socket.socket:
    """A client that has written and not yet read."""
    kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    stream = socket.socket(kind, socket.SOCK_STREAM)
    try:
        stream.settimeout(DEADLINE_S)
        stream.connect(address)
        stream.sendall(sends)
    except OSError:
        stream.close()
        raise
    return stream


def answer(stream: socket.socket) -> bytes:
    """Everything up to the end that the collector puts to the connection."""
    with stream:
        seen = b""
        while got := stream.recv(65_536):
            seen += got
        return seen


def test_connections_that_wait_when_the_collector_is_told_to_leave_are_served(
    start_collector: Start,
) -> None:
    collector = start_collector(workers=1)
    worker = child(collector, "agent-worker-0")
    # While it stands still the kernel completes connections, and nobody accepts them.
    os.kill(worker, signal.SIGSTOP)
    try:
        statsd, http = ("127.0.0.1", collector.statsd_port), ("127.0.0.1", collector.http_port)
        lines = [connected(statsd, b"waited:1|c\n_ack|1\n") for _ in range(400)]
        probes = [connected(http, PROBE) for _ in range(300)]
        local = [
            connected(f"{collector.socket_path}.stream", b"waited:1|c\n_ack|1\n") for _ in range(30)
        ]
        collector.process.send_signal(signal.SIGTERM)
        eventually(lambda: collector.log, lambda log: "draining" in log, "it is told to leave")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert [answer(stream) for stream in lines + local] == [b"_ack|1\n"] * 430
    assert {answer(stream).partition(b"\r\n")[0] for stream in probes} == {b"HTTP/1.1 200 OK"}
    assert collector.stop() == 0
    assert start_collector().scrape().one("waited_total") == 430


class Visitor(threading.Thread):
    """Connects, sends one sample and reads its acknowledgement, until it is refused."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.acknowledged = 0
        # When a sample was written whose acknowledgement did not come.
        self.lost_at_s: list[float] = []

    def run(self) -> None:
        while True:
            try:
                stream = connected(("127.0.0.1", self.port), b"visit:1|c\n")
            except OSError:
                return
            wrote_s = time.monotonic()
            with stream:
                try:
                    acknowledge(stream)
                    self.acknowledged += 1
                except (OSError, AssertionError):
                    self.lost_at_s.append(wrote_s)


def test_who_wrote_before_the_signal_is_counted_and_who_comes_later_is_refused(
    start_collector: Start,
) -> None:
    collector = start_collector(workers=2)
    visitors = [Visitor(collector.statsd_port) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    eventually(lambda: sum(v.acknowledged for v in visitors), lambda n: n > 200, "traffic flows")
    told_s = time.monotonic()
    assert collector.stop() == 0
    for visitor in visitors:
        visitor.join(DEADLINE_S)
        assert not visitor.is_alive(), "a visitor was neither served nor refused"
    assert not [at_s for visitor in visitors for at_s in visitor.lost_at_s if at_s < told_s]
    acknowledged = sum(visitor.acknowledged for visitor in visitors)
    lost = sum(len(visitor.lost_at_s) for visitor in visitors)
    counted = start_collector().scrape().one("visit_total")
    assert acknowledged <= counted <= acknowledged + lost
