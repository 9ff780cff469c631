"""A real `python -m agent serve` for tests: started on free ports, talked to, read back.

Nothing here sleeps and hopes: the start ends when the collector says that it is ready, a stream
ends with an `_ack` that the collector answers once everything before it counts, and what has no
acknowledgement (datagrams) is polled for with a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from prometheus_client.parser import text_string_to_metric_families

# Generous, because test machines are slow and shared; a test that passes never waits that long.
DEADLINE_S = 60.0
POLL_S = 0.02

T = TypeVar("T")


def eventually(probe: Callable[[], T], accept: Callable[[T], bool], what: str) -> T:
    """Calls `probe` until `accept` takes its answer; fails with the last answer at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        seen = probe()
        if accept(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: still {seen!r} after {DEADLINE_S:.0f} s")
        time.sleep(POLL_S)


def insist(process: subprocess.Popen[Any], how: signal.Signals = signal.SIGTERM) -> int:
    """Asks again and again until the process has left, as somebody at a keyboard does."""

    def ask() -> int | None:
        process.send_signal(how)
        return process.poll()

    code = eventually(ask, lambda code: code is not None, "it leaves")
    assert code is not None
    return code


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A TCP port of the loopback address for a program that cannot be told to choose one.

    Nobody else is given it meanwhile, and clients are refused, until a server binds it that sets
    SO_REUSEADDR, as servers do.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings that would change what a test sees."""
    settings = ("AGENT_METRICS_", "_AGENT_METRICS_", "PYTEST_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(settings)}
    return kept | extra


def short_dir() -> tempfile.TemporaryDirectory[str]:
    """A folder with a short path: the address of a Unix socket has room for 107 bytes."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="agent-test-", dir=where)


class Samples:
    """A parsed scrape. Label arguments select; a value is looked up by its full sample name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [s for family in self.families.values() for s in family.samples]

    def matching(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        for sample in self._samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.labels, sample.value

    def sum(self, name: str, **labels: str) -> float:
        """The sum over all series that have these labels; 0 when there is none."""
        return sum(value for _, value in self.matching(name, **labels))

    def one(self, name: str, **labels: str) -> float:
        """The value of the only series with these labels."""
        found = list(self.matching(name, **labels))
        assert len(found) == 1, f"{name}{labels}: {len(found)} series: {found[:5]}"
        return found[0][1]

    def __contains__(self, name: str) -> bool:
        return any(sample.name == name for sample in self._samples)


class Child(subprocess.Popen[bytes]):
    """A process that remembers which signals it was sent."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.sent: set[int] = set()
        super().__init__(*arguments, **options)

    def send_signal(self, sig: int) -> None:
        self.sent.add(sig)
        super().send_signal(sig)


class Collector:
    """One running collector; `with` stops it and checks that it left with 0."""

    def __init__(
        self,
        directory: str,
        *arguments: str,
        workers: int = 2,
        env: dict[str, str] | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "agent"),
        cwd: str | None = None,
        popen: dict[str, Any] | None = None,
    ) -> None:
        self.dir = directory
        self.socket_path = os.path.join(directory, "statsd.sock")
        self.log_path = Path(directory, "collector.log")
        ready, ready_end = os.pipe()
        self.command = [
            *command,
            "serve",
            f"--workers={workers}",
            # The kernel chooses; the line of readiness says what it chose.
            "--http=127.0.0.1:0",
            "--statsd=127.0.0.1:0",
            f"--statsd-socket={self.socket_path}",
            f"--dir={directory}",
            f"--ready-fd={ready_end}",
            *arguments,
        ]
        with self.log_path.open("ab") as log:
            self.process = Child(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[ready_end],
                cwd=cwd or directory,
                env=clean_environment(**(env or {})),
                # So that a test can signal the whole group.
                process_group=0,
                **(popen or {}),
            )
        os.close(ready_end)
        try:
            facts = self._wait_until_ready(ready)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            os.close(ready)
        self.http_port = int(facts["http"].rpartition(":")[2])
        self.statsd_port = int(facts["statsd"].rpartition(":")[2])

    def _wait_until_ready(self, ready: int) -> dict[str, str]:
        """The line that the collector writes to its `--ready-fd`."""
        readable, _, _ = select.select([ready], [], [], DEADLINE_S)
        if not readable:
            raise AssertionError(f"the collector was not ready after {DEADLINE_S} s:\n{self.log}")
        line = os.read(ready, 4096)
        if not line:
            code = self.process.wait(DEADLINE_S)
            raise AssertionError(f"the collector left with {code}:\n{self.log}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        code = self.stop()
        if kind is None:
            assert code == 0, f"the collector left with {code}:\n{self.log}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to drain and leave, unless it was asked (a second time means: at once).

        Kills it at the deadline. Returns the exit code.
        """
        if self.process.poll() is None and not self.process.sent & {signal.SIGTERM, signal.SIGINT}:
            self.process.send_signal(how)
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    # --- in ---------------------------------------------------------------------------------

    def send_udp(self, *payloads: bytes) -> None:
        """Each payload is one datagram."""
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.connect(("127.0.0.1", self.statsd_port))
            for payload in payloads:
                udp.send(payload)

    def send_tcp(self, lines: Iterable[bytes]) -> None:
        """Sends the lines over one connection and returns when all of them count."""
        with socket.create_connection(("127.0.0.1", self.statsd_port), DEADLINE_S) as tcp:
            tcp.sendall(b"".join(line + b"\n" for line in lines))
            acknowledge(tcp)

    # --- out --------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    def get(self, path: str, **headers: str) -> str:
        request = urllib.request.Request(self.url(path), headers=headers)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return answer.read().decode()

    def supervisor(self) -> dict[str, Any]:
        """What the supervisor last told of itself; a desk that has just started waits for it."""
        return eventually(
            lambda: json.loads(self.get("/v1/status"))["supervisor"], bool, "a word of it"
        )

    def scrape(self) -> Samples:
        return Samples(self.get("/metrics"))

    def wait_for(self, value: float, name: str, **labels: str) -> Samples:
        """Scrapes until the sum over the selected series is `value`: for what has no `_ack`."""
        return eventually(
            self.scrape,
            lambda samples: samples.sum(name, **labels) == value,
            f"{name}{labels} == {value}",
        )


def acknowledge(stream: socket.socket, token: bytes = b"done") -> None:
    """Sends `_ack` on a stream and returns when the collector has answered it."""
    stream.sendall(b"_ack|" + token + b"\n")
    wanted, seen = b"_ack|" + token + b"\n", b""
    while not seen.endswith(wanted):
        got = stream.recv(4096)
        assert got, f"the collector closed the connection before the acknowledgement: {seen!r}"
        seen += got


def readable(streams: Sequence[socket.socket]) -> list[int]:
    """Descriptors of those that have something to read now."""
    poll = select.poll()
    for stream in streams:
        poll.register(stream, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(0)]


def child_pids(pid: int) -> list[int]:
    """Children of a process. One may be missing while another one ends: the kernel says so."""
    return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def children(collector: Collector) -> dict[str, int]:
    """Pids of the children that run by process name, which the kernel cuts to 15 characters."""
    found = {}
    for pid in child_pids(collector.process.pid):
        # It may end before it is looked at (ENOENT) or while it is (ESRCH).
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[Path(f"/proc/{pid}/comm").read_text().strip()] = pid
    return found


def child(collector: Collector, name: str) -> int:
    """The pid of the child of that name, once it is there."""
    return eventually(lambda: children(collector), lambda found: name in found, name)[name]
