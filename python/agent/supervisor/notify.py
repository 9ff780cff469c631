"""Telling the world outside that the collector is ready, reloading or stopping.

Purpose: two ways, both optional. `--ready-fd N`: one line of JSON (the addresses and the pid) is
written to the descriptor, then it is closed; whoever waits for the end of file alone sees it too,
but empty when the start failed. systemd: datagrams to the socket in `NOTIFY_SOCKET`, abstract or a
path.

Not promised: delivery. A service manager that has gone away never stops the collector.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from typing import Any


class Notifier:
    """The ready descriptor and systemd's socket, where they were given."""

    def __init__(self, ready_fd: int | None, notify_socket: str) -> None:
        self.ready_fd = ready_fd
        self.address = notify_socket
        if notify_socket.startswith("@"):
            self.address = "\0" + notify_socket[1:]

    def ready(self, facts: dict[str, Any]) -> None:
        """The first readiness, or the end of a reload."""
        if self.ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(self.ready_fd, json.dumps(facts).encode() + b"\n")
            self.close()
        self._send("READY=1")

    def reloading(self) -> None:
        # systemd wants the time of the message to tell an old READY from a new one.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")
        self.close()

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def descriptors(self) -> list[int]:
        """What a child shall close."""
        return [] if self.ready_fd is None else [self.ready_fd]

    def close(self) -> None:
        """Closes the ready descriptor when it has served."""
        if self.ready_fd is not None:
            with contextlib.suppress(OSError):
                os.close(self.ready_fd)
            self.ready_fd = None

    def _send(self, message: str) -> None:
        if not self.address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify,
        ):
            notify.settimeout(1.0)
            notify.sendto(message.encode(), self.address)
