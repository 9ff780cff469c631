"""The desk answers HTTP; who pushes is served by workers, whatever dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from collector import DEADLINE_S, Collector, child, children, eventually, readable

Start = Callable[..., Collector]
PUSH = json.dumps({"name": "desk.pushed", "type": "counter", "value": 1})
FILES_MAX = 400
LIMITED = ("sh", "-c", f'ulimit -n {FILES_MAX}; exec "$0" -m agent "$@"', sys.executable)


@contextlib.contextmanager
def connection(collector: Collector) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", collector.http_port, timeout=DEADLINE_S)
    ) as kept:
        yield kept


def ask(kept: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> int:
    kept.request(method, path, body)
    answer = kept.getresponse()
    answer.read()
    return answer.status


def passed_on(collector: Collector) -> float:
    return collector.scrape().sum("agent_connections_taken_over_total", source="http")


def test_who_pushes_goes_to_a_worker_and_who_reads_stays(start_collector: Start) -> None:
    collector = start_collector(workers=3)
    with contextlib.ExitStack() as stack:
        pushers = [stack.enter_context(connection(collector)) for _ in range(6)]
        reader = stack.enter_context(connection(collector))
        for _ in range(5):
            assert ask(reader, "GET", "/livez") == 200
            assert ask(reader, "HEAD", "/metrics") == 200
            # Also on a connection that read first, and reads again afterwards.
            for pusher in pushers:
                assert ask(pusher, "GET", "/livez") == 200
                assert ask(pusher, "POST", "/v1/push", PUSH) == 200
        seen = collector.wait_for(30, "desk_pushed_total")
        assert passed_on(collector) == 6
        taken = seen.matching("agent_connections_taken_over_total", source="http")
        by_place = {labels["worker"]: count for labels, count in taken}
        # In turn, so that no worker has all of them.
        assert by_place == {"0": 2, "1": 2, "2": 2, "desk": 0}
        assert seen.sum("agent_source_samples_applied_total", worker="desk") == 0
        assert seen.sum("agent_connections_opened_total", source="http", worker="desk") >= 7


@pytest.mark.parametrize("cut", [1, 3, 40])
def test_a_push_arrives_whole_however_its_head_is_cut(start_collector: Start, cut: int) -> None:
    """The desk decides by the first byte; the rest may still be on its way."""
    collector = start_collector(workers=1)
    head = (
        f"POST /v1/push HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(PUSH)}"
    )
    address = ("127.0.0.1", collector.http_port)
    with socket.create_connection(address, DEADLINE_S) as stream, stream.makefile("rb") as answers:
        stream.sendall(head[:cut].encode())
        eventually(lambda: passed_on(collector), lambda count: count == 1, "it was passed on")
        stream.sendall(f"{head[cut:]}\r\n\r\n".encode())
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        stream.sendall(PUSH.encode())
        assert answers.readline() == b"\r\n"
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
    collector.wait_for(1, "desk_pushed_total")


def test_a_large_body_is_read_by_a_worker_while_the_desk_answers(start_collector: Start) -> None:
    """Half of it has come: others are answered, and it goes on where it stopped."""
    collector = start_collector(workers=1)
    message = request("[" + ",".join([PUSH] * 50_000) + "]")
    half = len(message) // 2
    address = ("127.0.0.1", collector.http_port)
    with socket.create_connection(address, DEADLINE_S) as stream, stream.makefile("rb") as answers:
        stream.sendall(message[:half])
        eventually(lambda: passed_on(collector), lambda count: count == 1, "it was passed on")
        for _ in range(20):
            assert collector.get("/livez") == "ok\n"
        stream.sendall(message[half:])
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
    seen = collector.wait_for(50_000, "desk_pushed_total")
    assert seen.sum("agent_source_samples_received_total", source="push", worker="0") == 50_000


def test_pushes_that_were_answered_count_while_workers_and_the_desk_are_killed(
    start_collector: Start,
) -> None:
    collector = start_collector(workers=2)
    stop = threading.Event()
    answered = [0] * 4
    broken = [0] * 4

    def push(number: int) -> None:
        while not stop.is_set():
            try:
                with connection(collector) as kept:
                    while not stop.is_set():
                        if ask(kept, "POST", "/v1/push", PUSH) == 200:
                            answered[number] += 1
            except (OSError, http.client.HTTPException):
                broken[number] += 1

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for name in ("agent-worker-0", "agent-desk", "agent-worker-1", "agent-desk"):
            before = sum(answered)
            eventually(lambda: sum(answered), lambda count: count > before + 100, "they push")  # noqa: B023
            pid = child(collector, name)
            os.kill(pid, signal.SIGKILL)
            eventually(
                lambda: alive(collector) and children(collector).get(name),  # noqa: B023
                lambda now: now not in (None, False, pid),  # noqa: B023
                f"{name} is back",
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # A push whose answer was cut off may count or not.
    total = collector.scrape().sum("desk_pushed_total")
    assert sum(answered) <= total <= sum(answered) + sum(broken)
    assert min(answered) > 0
    collector.wait_for(2, "agent_child_exits_total", child="desk")


def alive(collector: Collector) -> bool:
    try:
        return collector.get("/livez") == "ok\n"
    except OSError:
        return False


def test_silent_connections_make_room_at_the_desk_and_probes_stay_there(
    start_collector: Start,
) -> None:
    """More than it may have files, and all of them are still there when they speak at last."""
    collector = start_collector(workers=3, command=LIMITED)
    address = ("127.0.0.1", collector.http_port)
    with contextlib.ExitStack() as stack:
        silent: list[socket.socket] = []
        for count in range(50, 501, 50):
            while len(silent) < count:
                silent.append(stack.enter_context(socket.create_connection(address, DEADLINE_S)))
            # Within what the desk promises: less than half of its files at once.
            eventually(
                lambda: passed_on(collector),
                lambda passed: passed >= count - FILES_MAX * 3 // 4,  # noqa: B023
                "the desk makes room",
            )
        assert passed_on(collector) >= 500 - FILES_MAX
        with connection(collector) as reader:
            for _ in range(10):
                assert ask(reader, "GET", "/livez") == 200
        for stream in silent:
            stream.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for stream in silent:
            assert stream.recv(12) == b"HTTP/1.1 200"
    assert collector.scrape().sum("agent_connections_refused_total") == 0


def test_who_asks_very_often_goes_to_a_worker(start_collector: Start) -> None:
    """Each round asks on 1,200 connections at once: more than there may be in a tick."""
    collector = start_collector(workers=2)
    probe = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    address = ("127.0.0.1", collector.http_port)
    desk = child(collector, "agent-desk")
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(socket.create_connection(address, DEADLINE_S)) for _ in range(1200)
        ]

        def everybody_asks() -> float:
            # While it stands still, all of them come to be read in one turn, on any machine.
            os.kill(desk, signal.SIGSTOP)
            for stream in streams:
                stream.sendall(probe)
            os.kill(desk, signal.SIGCONT)
            for stream in streams:
                assert stream.recv(4096).startswith(b"HTTP/1.1 200")
            return passed_on(collector)

        eventually(everybody_asks, lambda passed: passed >= 2, "some go to a worker")


def test_a_stop_answers_pushes_in_progress(start_collector: Start) -> None:
    """What the desk has passed on is not forgotten in the door when all leave."""
    collector = start_collector(workers=2)
    answered, broken_off = [], []

    def push() -> None:
        while True:
            try:
                with connection(collector) as kept:
                    answered.append(ask(kept, "POST", "/v1/push", PUSH))
            except http.client.RemoteDisconnected as error:
                broken_off.append(error)
            except (ConnectionRefusedError, ConnectionResetError):
                return  # It came too late: nothing of it was read.
            except (OSError, http.client.HTTPException) as error:
                broken_off.append(error)

    threads = [threading.Thread(target=push) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answered), lambda count: count > 200, "they push")
    assert collector.stop() == 0
    for thread in threads:
        thread.join()
    assert set(answered) == {200}
    assert broken_off == []


def request(body: str = PUSH) -> bytes:
    return (
        f"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )


def test_the_cap_holds_for_who_pushes_too(start_collector: Start) -> None:
    """What is let in beyond it, for an answer, stays at the desk and has its reserve of 64."""
    collector = start_collector(workers=2, env={"AGENT_METRICS_LIMITS_CONNECTIONS_MAX": "10"})
    address = ("127.0.0.1", collector.http_port)
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(200):
            stream = stack.enter_context(socket.create_connection(address, DEADLINE_S))
            with contextlib.suppress(ConnectionError):
                stream.sendall(request())
            streams.append(stream)
        heads = [stream.recv(12) for stream in streams]
        # One on its way to a worker is counted by neither.
        assert 10 <= heads.count(b"HTTP/1.1 200") <= 10 + 2
        assert heads.count(b"HTTP/1.1 200") + heads.count(b"HTTP/1.1 503") == 200
        eventually(lambda: alive(collector), bool, "a probe finds a place")
        seen = collector.scrape()
        assert seen.sum("agent_worker_connections") <= 12 + 64 + 1
        assert seen.sum("agent_connections_refused_total", reason="connections_max") >= 120


def test_who_was_refused_at_the_cap_may_push_when_others_have_gone(start_collector: Start) -> None:
    collector = start_collector(workers=2, env={"AGENT_METRICS_LIMITS_CONNECTIONS_MAX": "10"})
    address = ("127.0.0.1", collector.http_port)
    silent = [socket.create_connection(address, DEADLINE_S) for _ in range(10)]
    with connection(collector) as pusher:
        assert ask(pusher, "POST", "/v1/push", PUSH) == 503
        for stream in silent:
            stream.close()
    with connection(collector) as pusher:
        eventually(
            lambda: ask(pusher, "POST", "/v1/push", PUSH),
            lambda status: status == 200,
            "there is room",
        )


def test_a_connection_on_its_way_to_a_worker_is_counted_once(start_collector: Start) -> None:
    """At the cap, one more that comes and goes is never refused for being in two places."""
    collector = start_collector(workers=2, env={"AGENT_METRICS_LIMITS_CONNECTIONS_MAX": "3"})
    with connection(collector) as first, connection(collector) as second:
        assert ask(first, "POST", "/v1/push", PUSH) == 200
        assert ask(second, "POST", "/v1/push", PUSH) == 200
        for _ in range(50):
            with connection(collector) as third:
                assert ask(third, "POST", "/v1/push", PUSH) == 200
            eventually(
                lambda: collector.scrape().sum("agent_worker_connections"),
                # This scrape has one too.
                lambda count: count <= 3,
                "the third is gone",
            )
    seen = collector.scrape()
    assert seen.one("desk_pushed_total") == 52
    assert seen.sum("agent_connections_refused_total", reason="connections_max") == 0


def test_slow_heads_keep_neither_probes_nor_pushes_out(start_collector: Start) -> None:
    """More of them than the desk has descriptors, each alive with a byte now and then."""
    collector = start_collector(workers=2, command=LIMITED)
    address = ("127.0.0.1", collector.http_port)
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(FILES_MAX):
            stream = stack.enter_context(socket.create_connection(address, DEADLINE_S))
            with contextlib.suppress(ConnectionError):
                stream.sendall(b"GET /li")
            slow.append(stream)

        def drip() -> bool:
            for stream in slow:
                with contextlib.suppress(OSError):
                    stream.sendall(b"x")
            try:
                with connection(collector) as pusher:
                    return ask(pusher, "POST", "/v1/push", PUSH) == 200 and alive(collector)
            except OSError:
                return False

        # Those that came last must be a second old before they give way.
        eventually(lambda: all(drip() for _ in range(5)), bool, "both are answered, always")
        seen = collector.scrape()
        assert seen.one("desk_pushed_total") >= 5
        assert seen.sum("agent_connections_closed_total", reason="evicted") > 0


def test_a_worker_that_stands_still_is_passed_by(start_collector: Start) -> None:
    collector = start_collector(workers=2)
    stopped = child(collector, "agent-worker-0")
    os.kill(stopped, signal.SIGSTOP)
    address = ("127.0.0.1", collector.http_port)
    try:
        with contextlib.ExitStack() as stack:
            streams = []
            for count in range(1, 41):
                stream = stack.enter_context(socket.create_connection(address, DEADLINE_S))
                stream.sendall(request())
                streams.append(stream)
                # One waits at the worker that stands still; nobody follows it there.
                eventually(
                    lambda: len(readable(streams)),
                    lambda answered: answered >= count - 1,  # noqa: B023
                    "everybody else is answered",
                )
            os.kill(stopped, signal.SIGCONT)
            for stream in streams:
                assert stream.recv(12) == b"HTTP/1.1 200"
            collector.wait_for(40, "desk_pushed_total")
            taken = collector.scrape().sum("agent_connections_taken_over_total", worker="0")
            assert taken == 1
    finally:
        os.kill(stopped, signal.SIGCONT)
