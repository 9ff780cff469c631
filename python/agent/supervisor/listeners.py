"""Every listening socket of the collector, created before any child is forked and kept open until
the end.

Purpose: a worker can die and be replaced without one queued connection or datagram being lost,
because the socket belongs to the supervisor. StatsD over TCP and UDP: one SO_REUSEPORT socket per
worker and source, so that the kernel spreads the load. Unix sockets: one of each kind, shared by
all workers. HTTP: one socket, of the desk; workers get the name of the source without a socket.

Order: all sockets are bound before the first TCP socket listens, so a port in use leaves nothing
half open.

Limits: the receive buffer is what the kernel grants (SO_RCVBUFFORCE, else SO_RCVBUF up to
net.core.rmem_max).

Not promised: that two collectors started within the same millisecond on one port both notice;
SO_REUSEPORT would let them share it. Two collectors on one folder of segments are kept apart by
`claim`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator

import msgspec

from agent.config import Config, Statsd, stream_socket_path
from agent.config_check import parse_address

from .plan import DESK

# Tries to find one port that is free for TCP and UDP, when port 0 was asked for.
PORT_TRIES = 50
RETRY_S = 0.05


class ListenError(Exception):
    """A socket cannot be had; the message names the address, the setting and the reason."""


class Listener(msgspec.Struct, frozen=True):
    """One bound socket as a worker gets it."""

    fd: int
    source: str
    address: str


class Listeners:
    """All sockets of the collector. `of(place)` are those that the desk or one worker reads."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.paths: list[tuple[str, int]] = []  # Unix sockets to remove, with their inode.
        self.per_worker: list[list[Listener]] = []
        self.shared: list[Listener] = []
        self.http: Listener | None = None
        self.addresses: dict[str, str] = {}
        self.receive_buffer_bytes = 0

    def of(self, place: str) -> list[Listener]:
        """What a worker, by its number, or the `desk` is given."""
        if place == DESK:
            return [self.http] if self.http else []
        passed_on = [msgspec.structs.replace(self.http, fd=-1)] if self.http else []
        return passed_on + self.per_worker[int(place)] + self.shared

    def close(self) -> None:
        """Closes the supervisor's copies and removes the paths that are still ours."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()
        for path, inode in self.paths:
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        self.paths.clear()


def open_listeners(config: Config, workers: int, patience_s: float = 0.0) -> Listeners:
    """Binds everything the settings ask for. Raises ListenError; then nothing stays open.

    With patience it tries again for that long: the kernel may still be closing the sockets of
    processes that have just ended.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return _open_all(config, workers)
        except ListenError:
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(RETRY_S)


def _open_all(config: Config, workers: int) -> Listeners:
    made = Listeners()
    made.per_worker = [[] for _ in range(workers)]
    try:
        if config.http.address:
            _open_http(made, config)
        if config.statsd.address:
            _open_statsd(made, config.statsd, workers)
        _open_unix(made, config.statsd)
        for sock in made.sockets:
            if sock.type == socket.SOCK_STREAM:
                of_http = made.http and made.http.fd == sock.fileno()
                sock.listen(config.http.backlog_max if of_http else config.statsd.backlog_max)
    except BaseException:
        made.close()
        raise
    return made


def _open_http(made: Listeners, config: Config) -> None:
    host, port = parse_address(config.http.address)
    family, where = _resolve(host, port, "http.address")
    with _explained("http.address", config.http.address):
        sock = _bind(made, family, socket.SOCK_STREAM, where, shared=False)
    made.addresses["http"] = _shown(host, sock.getsockname()[1])
    bound_host, bound_port = sock.getsockname()[:2]
    made.http = Listener(sock.fileno(), "http", _shown(str(bound_host), bound_port))


def _open_statsd(made: Listeners, statsd: Statsd, workers: int) -> None:
    host, port = parse_address(statsd.address)
    family, where = _resolve(host, port, "statsd.address")
    for left in reversed(range(PORT_TRIES if port == 0 else 1)):
        before = len(made.sockets)
        try:
            with _explained("statsd.address", statsd.address):
                found = _bind_group(made, "statsd_tcp", family, socket.SOCK_STREAM, where, workers)
                there = (where[0], found, *where[2:])
                _bind_group(made, "statsd_udp", family, socket.SOCK_DGRAM, there, workers)
            break
        except ListenError:
            # The kernel chose a port for TCP that UDP does not have: take another one.
            if not left:
                raise
            _forget(made, before)
    made.addresses["statsd"] = _shown(host, found)
    for sock in made.sockets:
        if sock.type == socket.SOCK_DGRAM:
            granted = _raise_buffer(sock, statsd.receive_buffer_bytes)
            made.receive_buffer_bytes = granted


def _forget(made: Listeners, before: int) -> None:
    """Closes the sockets after the first `before` ones."""
    closed = {sock.fileno() for sock in made.sockets[before:]}
    for sock in made.sockets[before:]:
        sock.close()
    del made.sockets[before:]
    made.per_worker = [[x for x in w if x.fd not in closed] for w in made.per_worker]


def _resolve(host: str, port: int, setting: str) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ListenError(f"{setting}: cannot resolve {host!r}: {reason}") from None
    return found[0][0], found[0][4]


@contextlib.contextmanager
def _explained(setting: str, address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ListenError(f"{setting}: cannot listen on {address}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "the port is in use (`ss -ltnup` shows by whom)",
        errno.EACCES: "not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }
    return hints.get(error.errno or 0, error.strerror or str(error))


def _bind_group(
    made: Listeners,
    source: str,
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    where: tuple[object, ...],
    workers: int,
) -> int:
    """One SO_REUSEPORT socket for each worker on one port; returns the port."""
    _probe(family, kind, where)
    for worker in range(workers):
        sock = _bind(made, family, kind, where, shared=True)
        where = (where[0], sock.getsockname()[1], *where[2:])
        shown = _shown(str(where[0]), sock.getsockname()[1])
        made.per_worker[worker].append(Listener(sock.fileno(), source, shown))
    return int(str(where[1]))


def _bind(
    made: Listeners,
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    where: tuple[object, ...],
    *,
    shared: bool,
) -> socket.socket:
    """A socket on that address; where it is shared, others may be bound to the same."""
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    made.sockets.append(sock)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _v6_only(sock, family, where)
    sock.bind(where)
    return sock


def _probe(
    family: socket.AddressFamily, kind: socket.SocketKind, where: tuple[object, ...]
) -> None:
    """Fails where the port is taken, which SO_REUSEPORT alone would not notice."""
    if where[1] == 0:
        return
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as sock:
        if kind == socket.SOCK_STREAM:
            # Passes over connections in TIME_WAIT, not over listeners.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _v6_only(sock, family, where)
        sock.bind(where)


def _v6_only(sock: socket.socket, family: socket.AddressFamily, where: tuple[object, ...]) -> None:
    """`[::]` takes IPv4 too; any other IPv6 address is only itself."""
    if family == socket.AF_INET6:
        only = 0 if where[0] == "::" else 1
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raise_buffer(sock: socket.socket, wanted_bytes: int) -> int:
    """Asks for a receive buffer; returns what the kernel granted (it counts twice the payload)."""
    force = getattr(socket, "SO_RCVBUFFORCE", 33)
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, wanted_bytes)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted_bytes)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


# --- Unix sockets -----------------------------------------------------------------------------


def _open_unix(made: Listeners, statsd: Statsd) -> None:
    wanted = (
        (statsd.socket, "statsd_unixgram", socket.SOCK_DGRAM, "statsd.socket"),
        (stream_socket_path(statsd), "statsd_unix", socket.SOCK_STREAM, "statsd.stream_socket"),
    )
    for path, source, kind, setting in wanted:
        if not path:
            continue
        path = os.path.abspath(path)  # noqa: PLW2901
        with _explained(setting, path):
            sock = _bind_unix(path, kind, statsd.socket_mode, setting)
            made.sockets.append(sock)
            made.paths.append((path, os.stat(path).st_ino))
            if kind == socket.SOCK_DGRAM:
                _raise_buffer(sock, statsd.receive_buffer_bytes)
        made.shared.append(Listener(sock.fileno(), source, path))
        made.addresses[source] = path


def _bind_unix(path: str, kind: socket.SocketKind, mode: int, setting: str) -> socket.socket:
    _remove_stale(path, kind, setting)
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    # The mode must be right from the first moment, not after a chmod.
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _remove_stale(path: str, kind: socket.SocketKind, setting: str) -> None:
    """Removes a socket that nobody listens on any more; anything else at the path is an error."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"{setting}: {path} exists and is not a socket; it was left alone")
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # Somebody listens and is busy.
        except OSError as error:
            # EPROTOTYPE: a live socket of the other kind.
            if error.errno != errno.EPROTOTYPE:
                raise
    raise ListenError(f"{setting}: {path} is in use by another process")
