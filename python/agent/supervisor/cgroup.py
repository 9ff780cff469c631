"""Limits and throttling of the control group this process is in, version 1 or 2.

Purpose: a collector in a container must size itself by its share, and show when the kernel
throttles it.

Reads a handful of small files; what is missing or unreadable is None. `root` stands for `/` in
tests.

Not promised: limits of parent groups. The kernel applies them too, and a container usually sees
only its own group.
"""

from __future__ import annotations

import os

import msgspec

# Version 1 writes "no limit" as a huge number of bytes, rounded to pages.
V1_UNLIMITED_BYTES = 1 << 60


class Cgroup(msgspec.Struct, frozen=True):
    """One reading. Times and counts only grow while the group lives."""

    version: int = 0
    cpu_limit_cores: float | None = None
    cpu_throttled_s: float | None = None
    cpu_throttled_periods: int | None = None
    memory_limit_bytes: int | None = None
    memory_used_bytes: int | None = None
    oom_kills: int | None = None
    pids_limit: int | None = None
    pids_used: int | None = None


def read(root: str = "") -> Cgroup:
    """The group of this process; version 0 when there is none."""
    lines = (_text(f"{root}/proc/self/cgroup") or "").splitlines()
    groups = {}
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            groups[name] = path
    # A hybrid host has both: the limits are where the controllers are.
    if "memory" in groups or "cpu" in groups:
        return _read_v1(root, groups)
    if "" in groups:
        return _read_v2(_folder(f"{root}/sys/fs/cgroup", groups[""]))
    return Cgroup()


def _read_v2(folder: str) -> Cgroup:
    stat = _table(f"{folder}/cpu.stat")
    quota, _, period = (_text(f"{folder}/cpu.max") or "max 100000").strip().partition(" ")
    throttled_us = stat.get("throttled_usec")
    return Cgroup(
        version=2,
        cpu_limit_cores=_cores(_number(quota), _number(period)),
        cpu_throttled_s=None if throttled_us is None else throttled_us / 1e6,
        cpu_throttled_periods=stat.get("nr_throttled"),
        memory_limit_bytes=_number(_text(f"{folder}/memory.max")),
        memory_used_bytes=_number(_text(f"{folder}/memory.current")),
        oom_kills=_table(f"{folder}/memory.events").get("oom_kill"),
        pids_limit=_number(_text(f"{folder}/pids.max")),
        pids_used=_number(_text(f"{folder}/pids.current")),
    )


def _read_v1(root: str, groups: dict[str, str]) -> Cgroup:
    base = f"{root}/sys/fs/cgroup"
    cpu = _folder(f"{base}/cpu", groups.get("cpu", "/"))
    memory = _folder(f"{base}/memory", groups.get("memory", "/"))
    pids = _folder(f"{base}/pids", groups.get("pids", "/"))
    stat = _table(f"{cpu}/cpu.stat")
    throttled_ns = stat.get("throttled_time")
    limit = _number(_text(f"{memory}/memory.limit_in_bytes"))
    return Cgroup(
        version=1,
        cpu_limit_cores=_cores(
            _number(_text(f"{cpu}/cpu.cfs_quota_us")), _number(_text(f"{cpu}/cpu.cfs_period_us"))
        ),
        cpu_throttled_s=None if throttled_ns is None else throttled_ns / 1e9,
        cpu_throttled_periods=stat.get("nr_throttled"),
        memory_limit_bytes=None if limit is None or limit >= V1_UNLIMITED_BYTES else limit,
        memory_used_bytes=_number(_text(f"{memory}/memory.usage_in_bytes")),
        oom_kills=_table(f"{memory}/memory.oom_control").get("oom_kill"),
        pids_limit=_number(_text(f"{pids}/pids.max")),
        pids_used=_number(_text(f"{pids}/pids.current")),
    )


def _folder(mount: str, path: str) -> str:
    """The group's folder; in a container the path is the host's and the mount is the group."""
    folder = mount + path.rstrip("/")
    return folder if os.path.isdir(folder) else mount


def _cores(quota_us: int | None, period_us: int | None) -> float | None:
    if quota_us is None or not period_us or quota_us <= 0:
        return None
    return quota_us / period_us


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(65_536)
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    """A whole number; `max` and anything else is no limit."""
    try:
        return int(text or "")
    except ValueError:
        return None


def _table(path: str) -> dict[str, int]:
    """Lines of `name number`."""
    found = {}
    for line in (_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        number = _number(value)
        if number is not None:
            found[name] = number
    return found
