"""What can be seen of the other end: its processes, and what it says it counted.

Purpose: CPU and memory of a collector on this machine from /proc, and its own figures from
/metrics. All of it is optional; what cannot be seen is None.

Limits: reads a handful of files per process. It never lists /proc/PID/fd or /proc/net/tcp: with a
million sockets that costs the kernel gigabytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_S = 30.0
PAGE_BYTES_MAX = 256 * 1024 * 1024
# The collector's account of itself: what it received, applied, refused, answered, opened, closed.
LEDGER = re.compile(rb"^(agent_(?:source|connections)_\w+_total\{[^ ]*\}) (\S+)$", re.MULTILINE)
WORKER = re.compile(rb',?worker="[^"]*"')


class TargetError(RuntimeError):
    """The collector that was named cannot be reached."""


class Processes:
    """The processes of the target: one and its descendants."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def pids(self) -> list[int]:
        found, todo = [], [self.root]
        while todo:
            pid = todo.pop()
            found.append(pid)
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
                todo += map(int, file.read().split())
        return found

    def cpu_s(self) -> float | None:
        """CPU time so far, that of children that ended included; None when the root is gone."""
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as file:
                    # Behind the name, which may hold anything.
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                if pid == self.root:
                    return None
                continue
            # utime, stime; of the root also those of the dead that it has waited for.
            total += sum(map(int, fields[11:15] if pid == self.root else fields[11:13]))
        return total * self.tick_s

    def private_bytes(self) -> int | None:
        """Memory that is only theirs; None when it may not be seen."""
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    rows = (line.split() for line in file)
                    total += sum(1024 * int(row[1]) for row in rows if row[0].startswith("Private"))
            except OSError:
                if pid == self.root:
                    return None
        return total


class Page:
    """A scrape: the count of one run, and the ledger."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def counted(self, metric: str, run: str) -> int:
        """The total of the run's counter; 0 when it is not there."""
        pattern = rb"^%s_total\{[^}]*run=\"%s\"[^}]*\} (\S+)" % (metric.encode(), run.encode())
        return sum(int(float(value)) for value in re.findall(pattern, self.text, re.MULTILINE))

    def ledger(self) -> dict[str, float]:
        """Samples of the collector's account by name and labels, those of all workers added up."""
        sums: dict[str, float] = {}
        for series, value in LEDGER.findall(self.text):
            name = WORKER.sub(b"", series).replace(b"{,", b"{").decode()
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums


class Collector:
    """A collector, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def _get(self, path: str) -> bytes:
        # The address was given by the user, and is http.
        try:
            with urllib.request.urlopen(self.url + path, timeout=TIMEOUT_S) as answer:  # noqa: S310
                body: bytes = answer.read(PAGE_BYTES_MAX)
                return body
        except (OSError, urllib.error.URLError, ValueError) as error:
            raise TargetError(f"cannot ask the collector at {self.url}{path}: {error}") from None

    def page(self) -> Page:
        return Page(self._get("/metrics"))

    def supervisor(self) -> int | None:
        """The process id of its supervisor, if it runs on this machine."""
        import orjson

        try:
            told: Any = orjson.loads(self._get("/v1/status"))
            worker = int(told["pid"])
            with open(f"/proc/{worker}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (TargetError, OSError, ValueError, KeyError, TypeError):
            return None
        # Another process of the same number, in another name space, has another command line.
        return parent if parent > 1 and _is_collector(parent) else None


def _is_collector(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"serve" in file.read().split(b"\0")
    return False
