"""Reads the facts of this machine: limits, a few files of /proc and /sys, two harmless trials.

Purpose: the only part of the doctor that touches the system. Takes about 5 ms and changes nothing:
the trials open 16 loopback connections (does connection tracking count them?) and one io_uring,
and close them.

Whatever cannot be read is None. It never lists /proc/PID/fd or /proc/net/tcp.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import socket
import struct

from agent.app import other_layout, place
from agent.supervisor import cgroup

from .facts import Conntrack, Facts

CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
TRACKED_TRIAL = 16
IO_URING_SETUP = 425
IO_URING_PARAMETERS_BYTES = 120
TRIAL_TIMEOUT_S = 2.0


def read() -> Facts:
    """The facts as they are now."""
    group = cgroup.read()
    soft, hard = (_limit(value) for value in resource.getrlimit(resource.RLIMIT_NOFILE))
    opened, _, files_max = _numbers("/proc/sys/fs/file-nr", 3)
    memory = _memory()
    shm = _shared_memory()
    capabilities = _capabilities()
    process_limit = _limit(resource.getrlimit(resource.RLIMIT_NPROC)[0])
    is_exempt = bool(capabilities & (1 << CAP_SYS_RESOURCE | 1 << CAP_SYS_ADMIN))
    cookies, migrates = (_number(f"/proc/sys/net/ipv4/tcp_{name}") for name in _SWITCHES)
    return Facts(
        kernel=platform.release(),
        cores=len(os.sched_getaffinity(0)),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        files_soft=soft,
        files_hard=hard,
        files_process_max=_number("/proc/sys/fs/nr_open"),
        files_max=files_max,
        files_open=opened or 0,
        threads_max=_number("/proc/sys/kernel/threads-max"),
        pids_max=_number("/proc/sys/kernel/pid_max"),
        threads=_threads(),
        user_processes_max=None if is_exempt else process_limit,
        ports=_pair(_numbers("/proc/sys/net/ipv4/ip_local_port_range", 2)),
        ports_reserved=_reserved_ports(_text("/proc/sys/net/ipv4/ip_local_reserved_ports")),
        conntrack=_conntrack(),
        accept_queue_max=_number("/proc/sys/net/core/somaxconn"),
        packet_backlog_max=_number("/proc/sys/net/core/netdev_max_backlog"),
        syn_backlog_max=_number("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
        syn_cookies=None if cookies is None else cookies > 0,
        tcp_pages=_triple(_numbers("/proc/sys/net/ipv4/tcp_mem", 3)),
        tcp_pages_used=_tcp_pages(),
        orphans_max=_number("/proc/sys/net/ipv4/tcp_max_orphans"),
        time_wait_max=_number("/proc/sys/net/ipv4/tcp_max_tw_buckets"),
        migrates_requests=None if migrates is None else migrates > 0,
        memory_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        shm_bytes=shm[0],
        shm_free_bytes=shm[1],
        cgroup_version=group.version,
        cgroup_memory_bytes=group.memory_limit_bytes,
        cgroup_memory_used_bytes=group.memory_used_bytes,
        cgroup_cores=group.cpu_limit_cores,
        cgroup_pids_max=group.pids_limit,
        cgroup_pids=group.pids_used,
        other_layouts=_other_layouts(),
        io_uring_disabled=_number("/proc/sys/kernel/io_uring_disabled"),
        io_uring_error=_io_uring_error(),
        is_administrator=bool(capabilities & (1 << CAP_SYS_ADMIN)),
    )


def _other_layouts() -> str:
    try:
        return other_layout.told(other_layout.find(place.where()))
    except OSError:
        # The folder's setting is no whole path: `apps` and `serve` say so.
        return ""


_SWITCHES = ("syncookies", "migrate_req")


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(65_536)
    except OSError:
        return ""


def _numbers(path: str, count: int) -> list[int | None]:
    """The first numbers of a file; None for each that is not there."""
    words = _text(path).split()[:count]
    found: list[int | None] = [int(word) if word.isdigit() else None for word in words]
    return found + [None] * (count - len(found))


def _number(path: str) -> int | None:
    return _numbers(path, 1)[0]


def _pair(values: list[int | None]) -> tuple[int, int] | None:
    first, second = values
    return None if first is None or second is None else (first, second)


def _triple(values: list[int | None]) -> tuple[int, int, int] | None:
    first, second, third = values
    return None if first is None or second is None or third is None else (first, second, third)


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _threads() -> int:
    """Processes and threads of the whole machine: the fourth word of loadavg is `running/all`."""
    words = _text("/proc/loadavg").split()
    total = words[3].rpartition("/")[2] if len(words) > 3 else ""
    return int(total) if total.isdigit() else 0


def _memory() -> dict[str, int]:
    rows = (line.split() for line in _text("/proc/meminfo").splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) > 1}


def _shared_memory() -> tuple[int | None, int | None]:
    try:
        told = os.statvfs("/dev/shm")  # noqa: S108 - its size is asked, nothing is written
    except OSError:
        return None, None
    return told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize


def _reserved_ports(text: str) -> int:
    """How many ports `80,1000-1009` are."""
    count = 0
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        with contextlib.suppress(ValueError):
            count += int(high or low) - int(low) + 1
    return count


def _tcp_pages() -> int:
    for line in _text("/proc/net/sockstat").splitlines():
        words = line.split()
        if words[:1] == ["TCP:"] and "mem" in words:
            return int(words[words.index("mem") + 1])
    return 0


def _capabilities() -> int:
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _conntrack() -> Conntrack | None:
    most = _number("/proc/sys/net/netfilter/nf_conntrack_max")
    before = _number("/proc/sys/net/netfilter/nf_conntrack_count")
    if most is None or before is None:
        return None
    try:
        after = _count_tracked()
    except OSError:
        after = None
    # Some entries may end meanwhile, of other connections.
    applies = None if after is None else after - before >= TRACKED_TRIAL // 2
    return Conntrack(entries_max=most, entries=before, applies=applies)


def _count_tracked() -> int | None:
    """Entries while some connections of our own are open on loopback."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(TRACKED_TRIAL):
            client = socket.create_connection(listener.getsockname(), TRIAL_TIMEOUT_S)
            stack.enter_context(client)
            # Ends with a reset: nothing stays behind in TIME_WAIT.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return _number("/proc/sys/net/netfilter/nf_conntrack_count")


def _io_uring_error() -> str:
    """The name of the error that io_uring_setup gives; "" when it works."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(IO_URING_PARAMETERS_BYTES)
    descriptor = libc.syscall(ctypes.c_long(IO_URING_SETUP), ctypes.c_uint(1), parameters)
    if descriptor < 0:
        return errno.errorcode.get(ctypes.get_errno(), "unknown error")
    os.close(descriptor)
    return ""
