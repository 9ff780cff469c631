"""Senders to a collector, and their account: what they sent, and what was acknowledged.

Purpose: threads that send without a pause, StatsD lines that are acknowledged by `_ack` and samples
by HTTP that are acknowledged by an answer 2xx. Each line and each sample counts one, so that a
counter on the page says how many of them were counted.

Limits: the account is kept in this process, which nobody kills; the collector is what dies here.
`sabotage` makes the account wrong, or what is sent, as a fault of the collector would.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from typing import Protocol

from . import sabotage as wrong
from .collector import TIMEOUT_S
from .ground import NotHeldError

BATCH_MAX = 5000
SAMPLES_MAX = 9
LINE = b"torture.lines:1|c\n"
SAMPLE = b'{"name":"torture.pushes","type":"counter","value":1}'
# Under another name: nobody asks for it, as nobody asks for a wrong label.
OTHER_LINE = LINE.replace(b"lines", b"other")
OTHER_SAMPLE = SAMPLE.replace(b"pushes", b"other")
JSON = {"Content-Type": "application/json"}

Account = dict[str, int]


class Target(Protocol):
    """Where it is now; it may be elsewhere after a death."""

    http: tuple[str, int]
    statsd: tuple[str, int]


class Senders:
    """Two threads for lines and two for samples."""

    def __init__(self, target: Target, seed: int, sabotage: str | None = None) -> None:
        self.target = target
        self.sabotage = sabotage
        self.is_stopped = False
        self.sent = {"lines": 0, "pushes": 0}
        self.acknowledged = {"lines": 0, "pushes": 0}
        self._lock = threading.Lock()
        self._seed = seed
        kinds = (self._lines, self._lines, self._pushes, self._pushes)
        self._threads = [
            threading.Thread(target=kind, args=(number,), daemon=True)
            for number, kind in enumerate(kinds)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends after the exchanges that are under way."""
        self.is_stopped = True
        for thread in self._threads:
            thread.join(2 * TIMEOUT_S)
            if thread.is_alive():
                raise NotHeldError("a sender has waited two minutes for an answer")

    def account(self) -> tuple[Account, Account]:
        """Sent and acknowledged, at one moment."""
        with self._lock:
            return dict(self.sent), dict(self.acknowledged)

    def _note(self, account: Account, what: str, amount: int) -> None:
        with self._lock:
            account[what] += amount

    def _begin(self, what: str, size: int) -> None:
        self._note(self.sent, what, size)
        if self.sabotage == wrong.EARLY:
            self._note(self.acknowledged, what, size)
            time.sleep(wrong.EARLY_S)

    def _end(self, what: str, size: int) -> None:
        if self.sabotage != wrong.EARLY:
            self._note(self.acknowledged, what, size)

    def _batch(self, good: bytes, other: bytes, size: int) -> list[bytes]:
        """What is sent where `size` are noted."""
        batch = [good] * size
        if self.sabotage == wrong.LOST:
            batch.pop()
        elif self.sabotage == wrong.TWICE:
            batch.append(good)
        elif self.sabotage == wrong.LABEL:
            batch[-1] = other
        return batch

    def _lines(self, number: int) -> None:
        size = 0
        while not self.is_stopped:
            try:
                with socket.create_connection(self.target.statsd, TIMEOUT_S) as stream:
                    while not self.is_stopped:
                        size = 1 + (size * 31 + self._seed + number) % BATCH_MAX
                        self._begin("lines", size)
                        token = b"_ack|%d.%d\n" % (number, size)
                        stream.sendall(b"".join(self._batch(LINE, OTHER_LINE, size)) + token)
                        if not _answered(stream, token):
                            break
                        self._end("lines", size)
            except OSError:
                time.sleep(0.005)

    def _pushes(self, number: int) -> None:
        size = 0
        while not self.is_stopped:
            connection = http.client.HTTPConnection(*self.target.http, timeout=TIMEOUT_S)
            try:
                while not self.is_stopped:
                    size = 1 + (size * 31 + self._seed + number) % SAMPLES_MAX
                    self._begin("pushes", size)
                    body = b"[%b]" % b",".join(self._batch(SAMPLE, OTHER_SAMPLE, size))
                    connection.request("POST", "/v1/push", body, JSON)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status // 100 == 2:
                        self._end("pushes", size)
            except (OSError, http.client.HTTPException):
                time.sleep(0.005)
            finally:
                connection.close()


def _answered(stream: socket.socket, token: bytes) -> bool:
    seen = b""
    while not seen.endswith(b"\n"):
        got = stream.recv(4096)
        if not got:
            return False
        seen += got
    return seen == token
