"""CPU seconds of a collector for a million lines: UDP, TCP and HTTP, the rivals taking turns.

The traffic is the same for all and paced (floor/udp.c), so that nobody drops; what the kernel
dropped is measured and shown all the same. CPU is that of the collector's whole process tree, from
the first line until one second after the last, so that each does its flush. The kernel's work of a
loopback datagram up to the socket is billed to the sender, and is the same for all.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from build import floor_tool
from procs import cpu_seconds, memory, udp_socket
from targets import Target, installed, start

ROUNDS = 3
SETTLE_S = 1.0
# Packets a second: what every rival takes without loss on two cores.
SINGLE_RATE, PACKED_RATE = 100_000, 10_000
SINGLE_DATAGRAMS, PACKED_DATAGRAMS = 400_000, 60_000
JOINED_RATE, JOINED_DATAGRAMS = 1_000_000, 6_000_000
TCP_LINES = 2_000_000
SINGLE_REQUESTS = 20_000
PACKED_REQUESTS, PACKED_SAMPLES = 512, 1000
# Kept alive, one request in flight on each.
CONNECTIONS = 16
WRK_CONNECTIONS, WRK_S = 64, 5


@dataclass
class Row:
    """One line of the table: a figure per subject."""

    what: str
    unit: str
    values: dict[str, float]
    limit: float | None = None
    note: str = ""


def measure(target: Target, work: Callable[[Target], float]) -> float:
    """CPU seconds of the target's tree while `work` is done, divided by what `work` returns."""
    before = cpu_seconds(target.pid)
    amount = work(target)
    time.sleep(SETTLE_S)
    return (cpu_seconds(target.pid) - before) / amount


def in_turns(names: list[str], work: Callable[[Target], float]) -> dict[str, float]:
    """The best of ROUNDS of every installed subject, all of them once per round."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name in filter(installed, names):
            with start(name) as target:
                best[name] = min(best.get(name, float("inf")), measure(target, work))
    return best


def udp(lines: int, datagrams: int, rate: int, lost: dict[str, float]) -> Callable[..., float]:
    """Datagrams of so many lines, sent one by one."""
    return sent_by(lambda port: ["send", port, lines, datagrams, rate], lines, datagrams, lost)


def joined(lost: dict[str, float]) -> Callable[..., float]:
    """Datagrams of one line of 64 bytes, 60 of them handed to the kernel with one call."""
    return sent_by(
        lambda port: ["join", port, JOINED_DATAGRAMS, JOINED_RATE], 1, JOINED_DATAGRAMS, lost
    )


def sent_by(
    order: Callable[[int], list[str | int]], lines: int, datagrams: int, lost: dict[str, float]
) -> Callable[..., float]:
    """The work that the UDP tool does with that order, in millions of lines that arrived."""

    def work(target: Target) -> float:
        command = [floor_tool("udp"), *map(str, order(target.statsd))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        while udp_socket(target.statsd)[0]:
            time.sleep(0.01)
        dropped = udp_socket(target.statsd)[1]
        lost[target.name] = max(lost.get(target.name, 0.0), dropped / datagrams)
        return (datagrams - dropped) * lines / 1e6

    return work


def tcp(connections: int) -> Callable[[Target], float]:
    """Lines in blocks over so many connections in turn."""

    def work(target: Target) -> float:
        block = b"".join(
            b"bench.series%02d:%d|%s\n" % (i % 90, 1 + i % 7, (b"c", b"g", b"ms")[i % 3])
            for i in range(9_000)
        )
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(socket.create_connection(("127.0.0.1", target.statsd)))
                for _ in range(connections)
            ]
            blocks = TCP_LINES // 9_000 // connections * connections
            for number in range(blocks):
                streams[number % connections].sendall(block)
            for stream in streams:
                finish(target, stream)
        return blocks * 9_000 / 1e6

    return work


def finish(target: Target, stream: socket.socket) -> None:
    """Waits until everything that was sent is applied, or at least read."""
    if target.name == "agent":
        stream.sendall(b"_ack|end\n")
        assert stream.recv(100) == b"_ack|end\n"
        return
    stream.shutdown(socket.SHUT_WR)
    while stream.recv(4096):
        pass


def body(name: str, samples: int) -> tuple[str, bytes]:
    """The path and body of a push of that many samples in the collector's own language."""
    if name == "vmagent":
        lines = [f"bench,series=s{i % 90} value={1 + i % 7}" for i in range(samples)]
        return "/write", "\n".join(lines).encode()
    pushed = [
        {"name": "bench", "type": "counter", "value": 1 + i % 7, "labels": {"series": f"s{i % 90}"}}
        for i in range(samples)
    ]
    return "/v1/push", json.dumps(pushed, separators=(",", ":")).encode()


def http(requests: int, samples: int) -> Callable[[Target], float]:
    def work(target: Target) -> float:
        path, content = body(target.name, samples)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(socket.create_connection(("127.0.0.1", target.http)))
                for _ in range(CONNECTIONS)
            ]
            for stream in streams:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(requests // CONNECTIONS):
                for stream in streams:
                    stream.sendall(request)
                for stream in streams:
                    read_answer(stream)
        return requests * samples / 1e6

    return work


def read_answer(stream: socket.socket) -> None:
    """Reads one answer with a Content-Length, or without a body, and checks that it is a 2xx."""
    data = stream.recv(65536)
    while b"\r\n\r\n" not in data:
        data += stream.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head[9:10] == b"2", head
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(rest) < int(line.split(b":")[1]):
                rest += stream.recv(65536)


def keep_alive() -> Row:
    """Wall time by requests of a small `GET` over connections that stay open, as wrk makes them."""
    values: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name in filter(installed, ("agent", "nginx")):
            with start(name) as target:
                command = ["wrk", "-t1", f"-c{WRK_CONNECTIONS}", f"-d{WRK_S}s"]
                command += [f"http://127.0.0.1:{target.http}/livez"]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            if "Non-2xx" in told or "Socket errors" in told:
                raise RuntimeError(f"wrk was not served by {name}: {told}")
            rate = float(told.split("Requests/sec:")[1].split()[0])
            values[name] = min(values.get(name, float("inf")), 1e6 / rate)
    what = f"HTTP `GET /livez`, {WRK_CONNECTIONS} connections, per request"
    return Row(what, "us", values, note="wrk on the same two cores; all the time that passed")


def idle() -> Row:
    """Resident memory of a collector that nobody has sent anything to."""
    values = {}
    for name in filter(installed, ("agent", "netdata", "collectd", "vmagent")):
        with start(name) as target:
            time.sleep(SETTLE_S)
            values[name] = memory(target.pid)["Pss"] / 2**20
    return Row("collector idle, resident", "MiB", values, 40)


def losses(lost: dict[str, float]) -> str:
    """Who dropped datagrams at worst, as a note."""
    return ", ".join(f"{name} lost {share:.1%} at worst" for name, share in lost.items() if share)


def rows() -> list[Row]:
    udp_names = ["agent", "recvmmsg", "recvmmsg, nap 1 ms", "netdata", "collectd"]
    lost_packed: dict[str, float] = {}
    lost_single: dict[str, float] = {}
    lost_joined: dict[str, float] = {}
    packed = in_turns(udp_names, udp(30, PACKED_DATAGRAMS, PACKED_RATE, lost_packed))
    single = in_turns(udp_names, udp(1, SINGLE_DATAGRAMS, SINGLE_RATE, lost_single))
    together = in_turns(["agent", "netdata"], joined(lost_joined))
    stream = in_turns(["agent", "netdata"], tcp(1))
    streams = in_turns(["agent", "netdata"], tcp(CONNECTIONS))
    one = in_turns(["agent", "vmagent"], http(SINGLE_REQUESTS, 1))
    many = in_turns(["agent", "vmagent"], http(PACKED_REQUESTS, PACKED_SAMPLES))
    seconds = "CPU s"
    return [
        Row(
            "UDP, 30 lines a datagram, per million lines",
            seconds,
            packed,
            0.25,
            losses(lost_packed),
        ),
        Row(
            "UDP, one line a datagram, per million lines", seconds, single, 1.0, losses(lost_single)
        ),
        Row(
            "UDP, 60 datagrams a call, per million datagrams",
            seconds,
            together,
            1.0,
            losses(lost_joined),
        ),
        Row("TCP, per million lines", seconds, stream, 0.25),
        Row(f"TCP, {CONNECTIONS} connections, per million lines", seconds, streams, 0.333),
        Row("HTTP push, one sample a request, per request", "CPU us", one, 20),
        Row("HTTP push, 1000 samples a request, per million samples", seconds, many, 0.7),
        keep_alive(),
        idle(),
    ]


if __name__ == "__main__":
    for row in rows():
        print(row)
