"""Listening sockets: made once, kept open, and every reason why one cannot be had."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import stat
from pathlib import Path

import pytest

from agent.config import Config, Http, Statsd
from agent.supervisor.listeners import Listener, ListenError, Listeners, open_listeners


def config(http: str = "127.0.0.1:0", statsd: str = "127.0.0.1:0", **more: object) -> Config:
    return Config(http=Http(address=http), statsd=Statsd(address=statsd, **more))  # type: ignore[arg-type]


@pytest.fixture
def opened() -> object:
    made: list[Listeners] = []

    def opener(settings: Config, workers: int = 2) -> Listeners:
        made.append(open_listeners(settings, workers))
        return made[-1]

    yield opener
    for one in made:
        one.close()


def test_every_worker_has_a_socket_of_its_own_on_the_same_ports(opened) -> None:
    made = opened(config(), workers=3)
    workers = [made.of(str(worker)) for worker in range(3)]
    sources = [[listener.source for listener in own] for own in workers]
    assert sources == [["http", "statsd_tcp", "statsd_udp"]] * 3
    fds = [listener.fd for own in workers for listener in own]
    assert len(set(fds)) == 6 + 1
    for source in ("http", "statsd_tcp", "statsd_udp"):
        found = {x.address for own in workers for x in own if x.source == source}
        assert len(found) == 1
        assert not found.pop().endswith(":0")


def test_only_the_desk_has_the_socket_of_http(opened) -> None:
    made = opened(config(), workers=3)
    (listener,) = made.of("desk")
    assert (listener.source, listener.address) == ("http", made.addresses["http"])
    assert listener.fd >= 0
    assert made.of("2")[0] == Listener(-1, "http", listener.address)
    without = opened(config(http=""))
    assert without.of("desk") == []
    assert [x.source for x in without.of("0")] == ["statsd_tcp", "statsd_udp"]


def test_statsd_has_one_port_for_udp_and_tcp(opened) -> None:
    made = opened(config(http=""))
    assert len({x.address for x in made.of("0")}) == 1
    assert set(made.addresses) == {"statsd"}


def test_all_sockets_are_non_blocking_and_not_inherited_by_an_exec(opened) -> None:
    for sock in opened(config()).sockets:
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_connections_queue_before_any_worker_runs(opened) -> None:
    made = opened(config())
    host, port = made.addresses["http"].split(":")
    with socket.create_connection((host, int(port)), 5) as client:
        name = client.getsockname()
        accepted = []
        for listener in made.sockets:
            if listener.type == socket.SOCK_STREAM and listener.getsockname()[1] == int(port):
                with contextlib.suppress(BlockingIOError):
                    stream, peer = listener.accept()
                    stream.close()
                    accepted.append(peer)
        assert accepted == [name], "it waits at one of them"


@pytest.mark.parametrize("setting", ["http.address", "statsd.address"])
def test_a_tcp_port_in_use_is_named(setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = config(http=address) if setting.startswith("http") else config(statsd=address)
        with pytest.raises(ListenError, match=rf"{setting}: cannot listen on {address}: .*in use"):
            open_listeners(settings, 2)


def test_a_port_that_another_collector_shares_by_reuseport_is_in_use(opened) -> None:
    first = opened(config())
    for settings in (
        config(http=first.addresses["http"]),
        config(statsd=first.addresses["statsd"]),
        config(http="", statsd=first.addresses["statsd"]),
    ):
        with pytest.raises(ListenError, match="in use"):
            open_listeners(settings, 2)


def test_a_udp_port_in_use_is_named() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=r"statsd\.address: .*in use"):
            open_listeners(config(statsd=address), 2)


def test_a_failure_leaves_nothing_open() -> None:
    # What earlier tests left is closed by now, not meanwhile.
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ListenError):
            open_listeners(config(statsd=f"127.0.0.1:{taken.getsockname()[1]}"), 4)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_host_that_does_not_resolve_and_an_address_of_others_are_explained() -> None:
    with pytest.raises(ListenError, match=r"http\.address: cannot resolve 'no such host'"):
        open_listeners(config(http="no such host:1"), 1)
    with pytest.raises(ListenError, match="does not have that address"):
        open_listeners(config(http="192.0.2.1:0"), 1)


def test_ipv6_works(opened) -> None:
    made = opened(config(http="[::1]:0", statsd=""))
    assert made.addresses["http"].startswith("[::1]:")


def test_the_receive_buffer_is_what_the_kernel_grants(opened) -> None:
    made = opened(config(receive_buffer_bytes=64 * 1024))
    assert made.receive_buffer_bytes == 64 * 1024


# --- Unix sockets -----------------------------------------------------------------------------


def unix(path: Path, **more: object) -> Config:
    return config(http="", statsd="", socket=str(path), **more)


def test_unix_sockets_are_shared_by_all_workers_and_have_their_mode(opened, tmp_path: Path) -> None:
    path = tmp_path / "s"
    made = opened(unix(path, socket_mode=0o600))
    assert made.of("0") == made.of("1")
    assert [x.source for x in made.of("0")] == ["statsd_unixgram", "statsd_unix"]
    for name in ("s", "s.stream"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_stale_sockets_are_replaced(opened, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as old:
        old.bind(str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as old:
        old.bind(f"{path}.stream")
    assert len(opened(unix(path)).shared) == 2


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_live_socket_is_left_alone(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as live:
        live.bind(str(path))
        if kind == socket.SOCK_STREAM:
            live.listen()
        with pytest.raises(ListenError, match=r"statsd\.socket: .* in use by another process"):
            open_listeners(unix(path), 1)
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        open_listeners(unix(path), 1)
    assert path.read_text() == "precious"


def test_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        open_listeners(unix(tmp_path / "none" / "s"), 1)


def test_closing_does_not_remove_a_socket_of_somebody_else(opened, tmp_path: Path) -> None:
    path = tmp_path / "s"
    made = opened(unix(path, stream_socket=""))
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        made.close()
        assert path.exists()
