"""What a process tree has used so far, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """The process and all its living descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree, in steps of one clock tick (10 ms)."""
    ticks = 0
    for member in tree(pid):
        # The name in brackets may hold spaces; utime and stime are fields 14 and 15.
        after_name = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / TICKS_PER_S


def memory(pid: int) -> dict[str, int]:
    """Bytes of the tree: Pss (shared pages counted once), and the sum of the processes' RSS."""
    totals = {"Pss": 0, "Rss": 0}
    for member in tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in totals:
                totals[name] += int(rest.split()[0]) * 1024
    return totals


def private_bytes(pid: int) -> int:
    """What one process has written and has to itself; code that it alone has run is no part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Private_Dirty":
            return int(rest.split()[0]) * 1024
    raise RuntimeError("this kernel does not report Private_Dirty")


def anonymous_bytes() -> int:
    """The private memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not report RssAnon")


def tcp_events() -> dict[str, int]:
    """What the kernel counts of TCP in this network namespace, by its own names."""
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines[:2])
    return dict(zip(names, map(int, values), strict=True))


def udp_socket(port: int) -> tuple[int, int]:
    """Bytes queued and datagrams dropped at the loopback UDP sockets of that port."""
    queued = dropped = 0
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == port:
                queued += int(fields[4].split(":")[1], 16)
                dropped += int(fields[-1])
    return queued, dropped
