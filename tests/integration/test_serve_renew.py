"""SIGUSR2: all workers are replaced, one after the other, and no client notices."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable

from collector import DEADLINE_S, Collector, acknowledge, children, eventually

Start = Callable[..., Collector]
BATCH = 500


def servers(collector: Collector) -> dict[str, int]:
    """Workers and the desk."""
    return {name: pid for name, pid in children(collector).items() if "aggregat" not in name}


def renew(collector: Collector) -> None:
    """Replaces them all; returns once none of the old ones is left."""
    before = set(servers(collector).values())
    collector.process.send_signal(signal.SIGUSR2)
    eventually(
        lambda: set(servers(collector).values()),
        lambda pids: not pids & before and len(pids) == len(before),
        "all are new",
    )
    eventually(
        collector.supervisor,
        lambda state: (
            state["retiring"] == [] and all(x["phase"] == "ready" for x in state["children"])
        ),
        "the renewal is over",
    )


class Client(threading.Thread):
    """Sends until it is told to stop; what goes wrong is kept for the test."""

    # What it has done so far.
    done = 0

    def __init__(self, collector: Collector, stop: threading.Event) -> None:
        super().__init__()
        self.collector = collector
        self.stop = stop
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.work()
        except Exception as error:  # noqa: BLE001
            self.error = error

    def work(self) -> None:
        raise NotImplementedError


class Acknowledged(Client):
    """Batches with `_ack` on one connection."""

    def work(self) -> None:
        address = ("127.0.0.1", self.collector.statsd_port)
        with socket.create_connection(address, DEADLINE_S) as stream:
            while not self.stop.is_set():
                stream.sendall(b"renew.tcp:1|c\n" * BATCH)
                acknowledge(stream)
                self.done += BATCH


class Dribbling(Client):
    """A byte at a time: whenever a worker goes, it holds half a line."""

    def work(self) -> None:
        address = ("127.0.0.1", self.collector.statsd_port)
        with socket.create_connection(address, DEADLINE_S) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self.stop.is_set():
                for byte in b"renew.dribble:1|c\n":
                    stream.send(bytes([byte]))
                    time.sleep(0.001)
                self.done += 1
            acknowledge(stream)


class Pushing(Client):
    """One request after the other on a connection that is kept alive."""

    dialled = 0

    def work(self) -> None:
        self.dialled += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.collector.http_port, DEADLINE_S)
        body = json.dumps({"name": "renew_push", "type": "counter", "value": 1})
        headers = {"Content-Type": "application/json"}
        while not self.stop.is_set():
            connection.request("POST", "/v1/push", body, headers)
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
            self.done += 1
        connection.close()


class Datagrams(Client):
    """A queue that blocks its senders: nothing may be lost there."""

    def work(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
            unix.connect(self.collector.socket_path)
            while not self.stop.is_set():
                unix.send(b"renew.unix:1|c\nrenew.unix:1|c")
                self.done += 2


def test_a_renewal_under_load_loses_nothing_and_refuses_nobody(start_collector: Start) -> None:
    collector = start_collector(workers=4)
    stop = threading.Event()
    acknowledged = [Acknowledged(collector, stop) for _ in range(6)]
    dribbling = [Dribbling(collector, stop) for _ in range(4)]
    pushing, datagrams = Pushing(collector, stop), Datagrams(collector, stop)
    clients = [*acknowledged, *dribbling, pushing, datagrams]
    for client in clients:
        client.start()
    try:
        # All are connected before the first of them is moved.
        eventually(lambda: [x for x in clients if not x.done], lambda idle: not idle, "all work")
        for _ in range(3):
            renew(collector)
            assert collector.get("/livez") == "ok\n"
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert [client.error for client in clients if client.error] == [], "nobody was cut off"
    seen = collector.wait_for(3 * 5, "agent_worker_restarts_total", reason="renewed")
    assert seen.sum("agent_worker_restarts_total", reason="died") == 0
    assert seen.sum("agent_child_exits_total") == 0
    moved = seen.sum("agent_connections_taken_over_total", source="statsd_tcp")
    assert moved == 3 * 10, "each of them, each time"
    assert seen.sum("agent_connections_closed_total", reason="handed_over") >= moved
    assert seen.one("renew_tcp_total") == sum(client.done for client in acknowledged)
    assert seen.one("renew_dribble_total") == sum(client.done for client in dribbling)
    assert seen.one("renew_push_total") == pushing.done
    assert pushing.dialled == 1
    seen = collector.wait_for(datagrams.done, "renew_unix_total")
    for source in ("statsd_tcp", "statsd_unixgram", "push"):
        received, applied, rejected = (
            seen.sum(f"agent_source_samples_{name}_total", source=source)
            for name in ("received", "applied", "rejected")
        )
        assert received == applied + rejected, source


def test_datagrams_that_come_during_a_renewal_are_counted_once_or_as_dropped(
    start_collector: Start,
) -> None:
    collector = start_collector(workers=2)
    sent, stop = 0, threading.Event()

    def work() -> None:
        try:
            renew(collector)
        finally:
            stop.set()

    renewing = threading.Thread(target=work)
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.connect(("127.0.0.1", collector.statsd_port))
        renewing.start()
        while not stop.is_set():
            udp.send(b"renew.udp:1|c")
            sent += 1
    renewing.join()
    seen = eventually(
        collector.scrape,
        lambda seen: (
            seen.sum("renew_udp_total") + seen.sum("agent_kernel_drops_total", source="statsd_udp")
            == sent
            and seen.sum("agent_worker_restarts_total", reason="renewed") > 0
        ),
        f"{sent} datagrams, and renewed workers",
    )
    assert seen.sum("renew_udp_total") > 0


def test_idle_connections_go_on_with_the_new_workers(start_collector: Start) -> None:
    collector = start_collector(workers=2)
    address = ("127.0.0.1", collector.statsd_port)
    idle = [socket.create_connection(address, DEADLINE_S) for _ in range(300)]
    for stream in idle:
        stream.sendall(b"renew.idle:1|c\n")
    collector.wait_for(300, "renew_idle_total")
    for _ in range(2):
        renew(collector)
    for stream in idle:
        stream.sendall(b"renew.idle:1|c\n")
        acknowledge(stream)
        stream.close()
    seen = collector.wait_for(
        300, "agent_connections_closed_total", reason="eof", source="statsd_tcp"
    )
    assert seen.one("renew_idle_total") == 600
    assert seen.sum("agent_connections_taken_over_total", source="statsd_tcp") == 600
    assert seen.sum("agent_connections_open", source="statsd_tcp") == 0
