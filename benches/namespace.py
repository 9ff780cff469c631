"""Runs a command in a network namespace of its own, with loopback up.

Purpose: the connections of a measurement meet neither the host's packet filter and connection
tracking (which Docker switches on, and whose table ends at 262,144) nor anybody's ports.

    python benches/namespace.py COMMAND [ARGUMENT ...]

Needs root (CAP_SYS_ADMIN); else exits 77 with the reason. The command replaces this process, so its
exit code and signals are its own; the namespace goes with the last process in it. Settings under
/proc/sys/net start from the kernel's defaults there, not from the host's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
INTERFACE = struct.Struct("16sH14x")
EXIT_USAGE = 64
EXIT_CANNOT = 77


def enter() -> None:
    """Moves this process into a fresh network namespace and brings its loopback up."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare(CLONE_NEWNET): {os.strerror(number)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = INTERFACE.pack(b"lo", 0)
        _, flags = INTERFACE.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, asked))
        fcntl.ioctl(control, SIOCSIFFLAGS, INTERFACE.pack(b"lo", flags | IFF_UP))


def main(command: list[str]) -> int:
    if not command:
        print("usage: namespace.py COMMAND [ARGUMENT ...]", file=sys.stderr)
        return EXIT_USAGE
    try:
        enter()
    except OSError as error:
        print(f"namespace.py: no network namespace: {error.strerror}", file=sys.stderr)
        return EXIT_CANNOT
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"namespace.py: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
