"""What is known of a machine before connections are opened on it. Pure data.

None means that it could not be read, and no conclusion is drawn from it.
"""

from __future__ import annotations

import msgspec


class Conntrack(msgspec.Struct, frozen=True, kw_only=True):
    """The connection tracking of this network namespace."""

    entries_max: int
    entries: int
    # Whether a loopback connection takes an entry: without rules that need it, none does.
    applies: bool | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of a machine, from inside whatever container this process is in."""

    kernel: str = ""
    cores: int = 1
    page_bytes: int = 4096
    # Descriptors: of one process, of the kernel.
    files_soft: int | None = None
    files_hard: int | None = None
    files_process_max: int | None = None
    files_max: int | None = None
    files_open: int = 0
    # Processes and threads.
    threads_max: int | None = None
    pids_max: int | None = None
    threads: int = 0
    user_processes_max: int | None = None
    # Addresses.
    ports: tuple[int, int] | None = None
    ports_reserved: int = 0
    conntrack: Conntrack | None = None
    # TCP.
    accept_queue_max: int | None = None
    syn_backlog_max: int | None = None
    # Per core, of the machine: not to be seen in a network namespace.
    packet_backlog_max: int | None = None
    syn_cookies: bool | None = None
    tcp_pages: tuple[int, int, int] | None = None
    tcp_pages_used: int = 0
    orphans_max: int | None = None
    time_wait_max: int | None = None
    migrates_requests: bool | None = None
    # Memory.
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    shm_bytes: int | None = None
    shm_free_bytes: int | None = None
    # The control group.
    cgroup_version: int = 0
    cgroup_memory_bytes: int | None = None
    cgroup_memory_used_bytes: int | None = None
    cgroup_cores: float | None = None
    cgroup_pids_max: int | None = None
    cgroup_pids: int | None = None
    # What there is to say of segments of other layouts; "" when there are none.
    other_layouts: str = ""
    # io_uring: the sysctl, and the error of io_uring_setup ("" when it works).
    io_uring_disabled: int | None = None
    io_uring_error: str | None = None
    # May make a network namespace.
    is_administrator: bool = False
