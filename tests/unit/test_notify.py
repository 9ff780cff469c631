"""Readiness for the world outside: a descriptor and systemd's socket."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from agent.supervisor.notify import Notifier


def test_the_ready_descriptor_gets_one_line_and_is_closed() -> None:
    reader, writer = os.pipe()
    notifier = Notifier(writer, "")
    notifier.ready({"http": "127.0.0.1:1", "pid": 7})
    notifier.ready({"http": "again"})
    assert json.loads(os.read(reader, 4096)) == {"http": "127.0.0.1:1", "pid": 7}
    assert os.read(reader, 4096) == b"", "closed after the line"
    os.close(reader)


def test_a_reader_that_has_gone_away_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    notifier = Notifier(writer, "/nonexistent/socket")
    notifier.ready({})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writer)
    # By now the number may be somebody else's: nothing is written to it any more.
    reader, again = os.pipe()
    notifier.stopping()
    os.close(again)
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_systemd_sees_every_phase(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(5)
        notifier = Notifier(None, path)
        notifier.ready({})
        notifier.reloading()
        notifier.stopping()
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(100) == b"STOPPING=1"


def test_an_abstract_address_works() -> None:
    name = f"agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        Notifier(None, f"@{name}").stopping()
        assert manager.recv(100) == b"STOPPING=1"
