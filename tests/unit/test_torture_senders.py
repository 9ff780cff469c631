"""The senders of a torture: their account against what a server of this test has counted itself."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agent.torture.ground import Ground
from agent.torture.kills_collector import Ledger
from agent.torture.outcome import Outcome
from agent.torture.page import Page
from agent.torture.senders import Senders

counted = {"lines": 0, "pushes": 0}
lock = threading.Lock()


class Lines(socketserver.StreamRequestHandler):
    """Counts lines and acknowledges."""

    def handle(self) -> None:
        for line in self.rfile:
            if line.startswith(b"_ack|"):
                self.wfile.write(line)
            elif line == b"torture.lines:1|c\n":
                with lock:
                    counted["lines"] += 1


class Pushes(BaseHTTPRequestHandler):
    """Counts samples."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        samples = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            counted["pushes"] += sum(
                sample["name"] == "torture.pushes" and sample["value"] == 1 for sample in samples
            )
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Target:
    """Both, on loopback."""

    def __init__(self) -> None:
        counted.update(lines=0, pushes=0)
        self.servers = [
            socketserver.ThreadingTCPServer(("127.0.0.1", 0), Lines),
            ThreadingHTTPServer(("127.0.0.1", 0), Pushes),
        ]
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.statsd, self.http = (
            ("127.0.0.1", int(server.server_address[1])) for server in self.servers
        )


@pytest.fixture
def target() -> Iterator[Target]:
    found = Target()
    yield found
    for server in found.servers:
        server.shutdown()
        server.server_close()


def account(target: Target, sabotage: str | None = None) -> tuple[dict[str, int], dict[str, int]]:
    """Sent and acknowledged, when the senders have ended."""
    senders = Senders(target, 5, sabotage)
    senders.start()
    deadline = time.monotonic() + 30
    while not all(senders.account()[1].values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    senders.stop()
    return senders.account()


def test_what_is_acknowledged_is_what_the_server_counted(target: Target) -> None:
    """Lines, and samples: as many as there were, whatever their values are."""
    sent, acknowledged = account(target)
    assert sent == acknowledged == counted
    assert all(counted.values())


@pytest.mark.parametrize("sabotage", ["lost", "twice", "label"])
def test_a_sender_that_is_wrong_differs(sabotage: str, target: Target) -> None:
    """In both ways of sending, and in the direction of its fault."""
    _, acknowledged = account(target, sabotage)
    for what, count in counted.items():
        assert (count > acknowledged[what]) == (sabotage == "twice")
        assert count != acknowledged[what]


def ledger() -> tuple[Ledger, Outcome]:
    outcome = Outcome(kind="kills", name="collector")
    found = Ledger.__new__(Ledger)
    found.ground = Ground.__new__(Ground)
    found.ground.outcome = outcome
    found.before = {"lines": 0.0, "pushes": 0.0}
    return found, outcome


def pages(lines: int, pushes: int) -> Page:
    return Page(f"torture_lines_total {lines}\ntorture_pushes_total {pushes}\n".encode())


def test_a_page_of_the_collector_is_between_acknowledged_and_sent_and_never_goes_back() -> None:
    """A counter that goes back within these bounds is seen as well."""
    one, outcome = ledger()
    one.judge(pages(10, 5), {"lines": 10, "pushes": 5}, {"lines": 20, "pushes": 9})
    one.judge(pages(20, 9), {"lines": 10, "pushes": 5}, {"lines": 20, "pushes": 9})
    assert outcome.why == []
    one.judge(pages(20, 8), {"lines": 10, "pushes": 5}, {"lines": 20, "pushes": 9})
    assert outcome.why == ["torture_pushes_total went from 9 to 8"]
    for lines in (9, 21):
        other, outcome = ledger()
        other.judge(pages(lines, 5), {"lines": 10, "pushes": 5}, {"lines": 20, "pushes": 9})
        assert len(outcome.why) == 1
        assert "10 were acknowledged before it, 20 sent after it" in outcome.why[0]
