"""Limits and throttling of the control group this process is in, version 1 or 2.

Purpose: a collector in a container must size itself by its share, and show when the kernel
throttles it.

A group is bound by the limits of all groups above it: of each kind the smallest counts, with what
is used in the group that has it. Throttling and kills are those of the own group.

Reads a handful of small files; what is missing or unreadable is None. `root` stands for `/` in
tests. A container sees only the groups below its mount.
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
        return _read_v2(_folders(f"{root}/sys/fs/cgroup", groups[""]))
    return Cgroup()


def _read_v2(folders: list[str]) -> Cgroup:
    own = folders[0]
    stat = _table(f"{own}/cpu.stat")
    throttled_us = stat.get("throttled_usec")
    memory_limit, memory_used = _tightest(folders, "memory.max", "memory.current")
    pids_limit, pids_used = _tightest(folders, "pids.max", "pids.current")
    return Cgroup(
        version=2,
        cpu_limit_cores=_least([_cores_v2(folder) for folder in folders]),
        cpu_throttled_s=None if throttled_us is None else throttled_us / 1e6,
        cpu_throttled_periods=stat.get("nr_throttled"),
        memory_limit_bytes=memory_limit,
        memory_used_bytes=memory_used,
        oom_kills=_table(f"{own}/memory.events").get("oom_kill"),
        pids_limit=pids_limit,
        pids_used=pids_used,
    )


def _read_v1(root: str, groups: dict[str, str]) -> Cgroup:
    base = f"{root}/sys/fs/cgroup"
    cpu = _folders(f"{base}/cpu", groups.get("cpu", "/"))
    memory = _folders(f"{base}/memory", groups.get("memory", "/"))
    pids = _folders(f"{base}/pids", groups.get("pids", "/"))
    stat = _table(f"{cpu[0]}/cpu.stat")
    throttled_ns = stat.get("throttled_time")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    memory_limit, memory_used = _tightest(memory, *names, unlimited=V1_UNLIMITED_BYTES)
    pids_limit, pids_used = _tightest(pids, "pids.max", "pids.current")
    return Cgroup(
        version=1,
        cpu_limit_cores=_least([_cores_v1(folder) for folder in cpu]),
        cpu_throttled_s=None if throttled_ns is None else throttled_ns / 1e9,
        cpu_throttled_periods=stat.get("nr_throttled"),
        memory_limit_bytes=memory_limit,
        memory_used_bytes=memory_used,
        oom_kills=_table(f"{memory[0]}/memory.oom_control").get("oom_kill"),
        pids_limit=pids_limit,
        pids_used=pids_used,
    )


def _folders(mount: str, path: str) -> list[str]:
    """The group's folder and those above it, up to the mount; in a container the path is the host's
    and the mount is the group.
    """
    folder = mount + path.rstrip("/")
    if not os.path.isdir(folder) or ".." in path:
        return [mount]
    folders = [folder]
    while folders[-1] != mount:
        folders.append(os.path.dirname(folders[-1]))
    return folders


def _tightest(
    folders: list[str], limit_name: str, used_name: str, unlimited: int | None = None
) -> tuple[int | None, int | None]:
    """The smallest limit and what is used in its group; without a limit, what the own one uses."""
    tightest: int | None = None
    used = _number(_text(f"{folders[0]}/{used_name}"))
    for folder in folders:
        limit = _number(_text(f"{folder}/{limit_name}"))
        if limit is None or (unlimited is not None and limit >= unlimited):
            continue
        if tightest is None or limit < tightest:
            tightest, used = limit, _number(_text(f"{folder}/{used_name}"))
    return tightest, used


def _least(values: list[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _cores_v2(folder: str) -> float | None:
    quota, _, period = (_text(f"{folder}/cpu.max") or "").strip().partition(" ")
    return _cores(_number(quota), _number(period))


def _cores_v1(folder: str) -> float | None:
    quota, period = (_text(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _cores(_number(quota), _number(period))


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
