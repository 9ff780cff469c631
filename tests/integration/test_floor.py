"""The floors of the benchmarks: what our figures stand beside must itself be right."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHES = Path(__file__).parents[2] / "benches"
NO_NAMESPACE = 77


def pair(*options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, BENCHES / "pair.py", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("ack", [False, True])
def test_the_bare_pair_opens_counts_and_closes_everything(ack: bool) -> None:
    """Every connection is held to the end, every message is read, and with --ack answered."""
    options = ("--connections", "2000", "--hold", "0", "--message-seconds", "0.2")
    told = pair(*options, *(["--ack"] if ack else []))
    assert told["open"]["count"] == told["kept"] == told["close"]["count"] == 2000
    assert told["received"] == told["message"]["count"] > 0
    assert told["acked"] == (told["received"] if ack else 0)
    assert told["client_errors"] == told["server_errors"] == {}
    assert told["torn"] == 0
    assert told["open"]["client_cpu_s"] > 0


def test_the_bare_pair_keeps_a_rate() -> None:
    """1,000 messages a second for half a second are never more than 500."""
    told = pair("--connections", "100", "--message-rate", "1000", "--message-seconds", "0.5")
    assert 0 < told["message"]["count"] <= 500
    flat_out = pair("--connections", "100", "--message-seconds", "0.5")
    assert flat_out["message"]["count"] > told["message"]["count"], "without a rate there are more"


def test_the_bare_client_says_why_it_could_not_open() -> None:
    """Errors are counted by their names."""
    told = pair("--connections", "10", "--only", "client", "--port", "1", "--hold", "0")
    assert told["client_errors"] == {"ECONNREFUSED": 10}
    assert told["open"]["count"] == 0


def test_a_namespace_has_its_own_loopback() -> None:
    """The same port is free there, loopback works there, and nothing of it is seen outside."""
    code = (
        "import os, socket\n"
        "assert os.readlink('/proc/self/ns/net') != os.environ['OUTSIDE']\n"
        "listener = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "listener.accept()[0].sendall(b'through loopback')\n"
        "print(client.recv(100).decode())\n"
    )

    with socket.create_server(("127.0.0.1", 0)) as taken:
        outside = {
            "OUTSIDE": os.readlink("/proc/self/ns/net"),
            "PORT": str(taken.getsockname()[1]),
        }
        done = subprocess.run(
            [sys.executable, BENCHES / "namespace.py", sys.executable, "-c", code],
            env=os.environ | outside,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == NO_NAMESPACE:
        # Where that is not allowed, the benchmarks say so and run outside.
        assert "no network namespace: unshare" in done.stderr
        return
    assert (done.returncode, done.stdout) == (0, "through loopback\n"), done.stderr


def test_a_namespace_gives_the_exit_code_of_its_command() -> None:
    """A failing measurement fails the `make` that started it."""
    done = subprocess.run(
        [sys.executable, BENCHES / "namespace.py", "sh", "-c", "exit 3"],
        capture_output=True,
        check=False,
    )
    assert done.returncode in (3, NO_NAMESPACE)
