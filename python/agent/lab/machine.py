"""The machine: what it is, and what its kernel spends on sockets.

Purpose: the facts that a result needs to be compared with another.

What the kernel spends is the growth of its slabs and of socket buffers, of the whole machine: other
programs are in it, and so are both ends of a connection when both are here.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from agent import __version__

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def describe() -> dict[str, Any]:
    """What a result says of it."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": PAGE_BYTES * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "agent_version": __version__,
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def kernel_bytes() -> int | None:
    """Slabs, and memory of queued TCP data, now; None where /proc does not tell."""
    try:
        with open("/proc/meminfo") as file:
            rows = dict(line.split(":", 1) for line in file)
        slab = 1024 * int(rows["Slab"].split()[0])
        return slab + PAGE_BYTES * socket_pages()
    except (OSError, KeyError, ValueError):
        return None


def socket_pages() -> int:
    """Pages of queued TCP data."""
    with open("/proc/net/sockstat") as file:
        for line in file:
            if line.startswith("TCP:"):
                words = line.split()
                return int(words[words.index("mem") + 1])
    return 0
