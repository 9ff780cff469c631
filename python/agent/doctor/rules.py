"""The rules: one for each thing that has ended a run of many connections in the middle. Pure.

Purpose: from facts to findings, each with the value in force, what it limits, how many connections
that allows, and the command that changes it.

The figures of a connection were measured on Linux 6.18 x86-64 with IPv4 on loopback. What tools
that list /proc/PID/fd make the kernel keep (a kilobyte a descriptor) is not in them; the kernel
takes that back under pressure.

Not promised: what other programs will use next.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent.config import WORKERS_MAX, worker_room

from .facts import Facts
from .finding import Finding, Goal, processes, room

# Ports of one source address that are used: beyond that, finding a free one gets slow.
SOURCE_PORTS_MAX = 10_000
# Memory of an idle connection, kernel and ours, by end.
BYTES = {"server": 4_100 + 64, "client": 4_000 + 128}
# A collector or a load controller, and each further process of it.
BASE_BYTES, PROCESS_BYTES = 40 << 20, 1 << 20
# Of the memory, left for everything else.
MEMORY_RESERVE = 0.05
# Kernel memory of one small message that waits to be read, both ends.
UNREAD_BYTES = 1_300
# CPU of one message, parsed, aggregated and acknowledged.
MESSAGE_S = {"server": 5e-6, "client": 10e-6}
# Share of the cores that heartbeats may take.
CPU_RATIO = 0.5
SERIES_BYTES = 320
SHM_BYTES_MIN = 32 << 20


def _ends(goal: Goal) -> int:
    return 2 if goal.ends == "both" else 1


def _has_client(goal: Goal) -> bool:
    return goal.ends != "server"


# --- descriptors and processes ------------------------------------------------------------------


def _files(facts: Facts, goal: Goal) -> Finding:
    soft, hard = facts.files_soft, facts.files_hard
    each = room(facts, goal.ends)
    limits = f"connections of one process ({each:,}); at most {WORKERS_MAX} of them an end"
    raised = min(facts.files_process_max or 1_048_576, 1_048_576)
    return Finding(
        name="open files",
        value=f"soft {_count(soft)}, hard {_count(hard)} (the soft one is raised by us)",
        limits=limits,
        connections=each * WORKERS_MAX,
        change=f"ulimit -Hn {raised} as root; LimitNOFILE={raised} in the unit;"
        f" docker run --ulimit nofile={raised}:{raised}",
        is_hard=True,
    )


def _files_process(facts: Facts, _goal: Goal) -> Finding:
    value = facts.files_process_max
    return Finding(
        name="fs.nr_open",
        value=_count(value),
        limits="how far the hard limit of open files can be raised",
        connections=None if value is None else worker_room(value) * WORKERS_MAX,
        change="sysctl -w fs.nr_open=1048576",
        is_hard=True,
    )


def _files_all(facts: Facts, goal: Goal) -> Finding:
    ends = _ends(goal)
    value, wanted = facts.files_max, (goal.connections or 1_000_000) * ends
    return Finding(
        name="fs.file-max",
        value=f"{_count(value)}, {facts.files_open:,} open",
        limits=f"open files of the whole kernel, {ends} for a connection (root may have more)",
        connections=None if value is None else max(0, value - facts.files_open - 4096) // ends,
        change=f"sysctl -w fs.file-max={wanted * 5 // 4 + facts.files_open + 4096}",
        is_hard=not facts.is_administrator,
    )


def _processes(facts: Facts, goal: Goal) -> Finding:
    left = [
        (limit - used, name)
        for limit, used, name in (
            (facts.threads_max, facts.threads, "kernel.threads-max"),
            (facts.pids_max, facts.threads, "kernel.pid_max"),
            (facts.cgroup_pids_max, facts.cgroup_pids or 0, "pids.max of the control group"),
            (facts.user_processes_max, 0, "ulimit -u"),
        )
        if limit is not None
    ]
    if not left:
        return Finding(name="processes", value="unknown", limits="processes that hold connections")
    count, name = min(left)
    # A supervisor, an aggregator, a shell: not all of them hold connections.
    usable = max(0, count - 16) // _ends(goal)
    return Finding(
        name="processes",
        value=f"{max(0, count):,} more ({name})",
        limits=f"processes that hold {room(facts, goal.ends):,} connections each",
        connections=usable * room(facts, goal.ends),
        change=_processes_change(name),
        is_hard=True,
    )


def _processes_change(name: str) -> str:
    if name.startswith("kernel."):
        return f"sysctl -w {name}=4194304"
    if name.startswith("ulimit"):
        return "ulimit -u 4096 as root"
    return "docker run --pids-limit 4096, TasksMax=4096 in the unit"


# --- addresses ----------------------------------------------------------------------------------


def _ports(facts: Facts, goal: Goal) -> Finding:
    finding = Finding(
        name="local ports",
        value="unknown",
        limits="connections from one source address to one listening port",
        change="sysctl -w net.ipv4.ip_local_port_range='1024 65535'; or more source addresses",
    )
    if facts.ports is None:
        return finding
    low, high = facts.ports
    count = max(0, high - low + 1 - facts.ports_reserved)
    value = f"{low} to {high}, {count:,} ports"
    if not _has_client(goal):
        value += "; the clients' matter, not ours"
        return msgspec.structs.replace(finding, value=value, standing="note")
    if goal.sources == 0:
        addresses = -(-(goal.connections or 1_000_000) // min(count or 1, SOURCE_PORTS_MAX))
        value += f"; {addresses:,} loopback addresses are used"
        return msgspec.structs.replace(finding, value=value)
    return msgspec.structs.replace(
        finding,
        value=f"{value} from {goal.sources} addresses",
        connections=count * goal.sources,
        is_hard=True,
    )


def _conntrack(facts: Facts, goal: Goal) -> Finding:
    table = facts.conntrack
    finding = Finding(
        name="conntrack", value="not loaded", limits="connections that the firewall keeps track of"
    )
    if table is None:
        return finding
    value = f"{table.entries:,} of {table.entries_max:,} entries used"
    if table.applies is False:
        value += "; loopback takes none here"
        return msgspec.structs.replace(finding, value=value)
    value += "; loopback takes one each" if table.applies else "; unknown if loopback takes any"
    raised = (goal.connections or 1_000_000) * 5 // 4
    change = f"sysctl -w net.netfilter.nf_conntrack_max={raised} (300 bytes an entry)"
    if facts.is_administrator and goal.ends == "both":
        change = (
            f"unshare --net (and bring lo up): a namespace of its own has no rules; or {change}"
        )
    return msgspec.structs.replace(
        finding,
        value=value,
        limits="connections the firewall keeps track of; packets of more are dropped silently",
        connections=max(0, table.entries_max - table.entries),
        change=change,
        # Unknown is no reason to refuse.
        is_hard=table.applies is True,
    )


# --- TCP ----------------------------------------------------------------------------------------


def _accept_queue(facts: Facts, goal: Goal) -> Finding:
    value = facts.accept_queue_max
    workers = processes(facts, goal.connections or 1, "server")
    low = value is not None and value < 1024
    return Finding(
        name="net.core.somaxconn",
        value=_count(value),
        limits=f"new connections waiting at a worker ({workers} workers); more try again after 1 s",
        standing="slows" if low else "ok",
        change="sysctl -w net.core.somaxconn=4096",
    )


def _packet_backlog(facts: Facts, goal: Goal) -> Finding:
    """Measured: a million connections that are closed or opened at once fill 1000."""
    value = facts.packet_backlog_max
    is_tight = value is not None and value < 10_000 and (goal.connections or 0) >= 100_000
    return Finding(
        name="netdev_max_backlog",
        value=_count(value),
        limits="packets of loopback that wait for a core; what is over is sent again after 0.2 s",
        standing="slows" if is_tight and goal.ends == "both" else "ok",
        change="sysctl -w net.core.netdev_max_backlog=100000",
    )


def _syn_backlog(facts: Facts, _goal: Goal) -> Finding:
    value, cookies = facts.syn_backlog_max, facts.syn_cookies
    low = value is not None and value < 1024 and cookies is False
    told = {True: ", SYN cookies on", False: ", SYN cookies off", None: ""}[cookies]
    return Finding(
        name="tcp_max_syn_backlog",
        value=f"{_count(value)}{told}",
        limits="half-open connections of a listener; matters over a network",
        standing="slows" if low else "ok",
        change="sysctl -w net.ipv4.tcp_max_syn_backlog=4096 net.ipv4.tcp_syncookies=1",
    )


def _tcp_memory(facts: Facts, goal: Goal) -> Finding:
    limits = "bytes queued in sockets: one unread message each"
    if facts.tcp_pages is None:
        return Finding(name="tcp_mem", value="unknown", limits=limits)
    size = facts.page_bytes
    pressure, most = facts.tcp_pages[1] * size, facts.tcp_pages[2] * size
    used = facts.tcp_pages_used * size
    wanted = (goal.connections or 1_000_000) * UNREAD_BYTES // size + facts.tcp_pages_used
    return Finding(
        name="tcp_mem",
        value=f"pressure at {_size(pressure)}, refused at {_size(most)}, {_size(used)} used",
        limits=limits,
        connections=max(0, pressure - used) // UNREAD_BYTES,
        change=f"sysctl -w net.ipv4.tcp_mem='{wanted} {wanted * 3 // 2} {wanted * 2}'",
    )


def _orphans(facts: Facts, _goal: Goal) -> Finding:
    return Finding(
        name="tcp_max_orphans",
        value=_count(facts.orphans_max),
        limits="closed connections with data still to send; more are reset",
        standing="note",
        change="sysctl -w net.ipv4.tcp_max_orphans=1048576",
    )


def _time_wait(facts: Facts, _goal: Goal) -> Finding:
    return Finding(
        name="tcp_max_tw_buckets",
        value=_count(facts.time_wait_max),
        limits="closed connections remembered for 60 s; more are forgotten at once",
        standing="note",
        change="sysctl -w net.ipv4.tcp_max_tw_buckets=1048576",
    )


def _migration(facts: Facts, _goal: Goal) -> Finding:
    value = {True: "1", False: "0", None: "unknown"}[facts.migrates_requests]
    return Finding(
        name="tcp_migrate_req",
        value=value,
        limits="nothing here: the supervisor keeps every listener, so none is ever closed",
        standing="note",
    )


# --- memory, processors, the rest ---------------------------------------------------------------


def _memory(facts: Facts, goal: Goal) -> Finding:
    available = facts.memory_available_bytes
    return Finding(
        name="memory",
        value="unknown" if available is None else f"{_size(available)} available",
        limits=_memory_limits(goal),
        connections=_memory_connections(facts, goal, facts.memory_bytes, available),
        change="end what else uses memory, or take a larger machine",
        is_hard=True,
    )


def _cgroup_memory(facts: Facts, goal: Goal) -> Finding:
    limit, used = facts.cgroup_memory_bytes, facts.cgroup_memory_used_bytes or 0
    name = f"cgroup v{facts.cgroup_version} memory" if facts.cgroup_version else "cgroup memory"
    if limit is None:
        return Finding(name=name, value="no limit", limits=_memory_limits(goal))
    per, fixed = _bytes_each(goal), _bytes_fixed(facts, goal)
    wanted = int(((goal.connections or 1_000_000) * per + fixed + used) / (1 - MEMORY_RESERVE))
    mib = -(-wanted // (1 << 20))
    return Finding(
        name=name,
        value=f"{_size(limit)}, {_size(used)} used",
        limits=f"{_memory_limits(goal)}; sockets are charged to the container",
        connections=_memory_connections(facts, goal, limit, limit - used),
        change=f"docker run --memory {mib}m, MemoryMax={mib}M in the unit",
        is_hard=True,
    )


def _memory_limits(goal: Goal) -> str:
    return f"{_bytes_each(goal):,} bytes a connection, nearly all the kernel's"


def _bytes_each(goal: Goal) -> int:
    return sum(BYTES.values()) if goal.ends == "both" else BYTES[goal.ends]


def _bytes_fixed(facts: Facts, goal: Goal) -> int:
    count = processes(facts, goal.connections or 1, goal.ends)
    return _ends(goal) * BASE_BYTES + count * PROCESS_BYTES


def _memory_connections(
    facts: Facts, goal: Goal, total: int | None, available: int | None
) -> int | None:
    if available is None:
        return None
    # Every process that holds connections takes its own memory too.
    per = _bytes_each(goal) + _ends(goal) * PROCESS_BYTES / room(facts, goal.ends)
    free = available - MEMORY_RESERVE * (total or available) - _ends(goal) * BASE_BYTES
    return max(0, int(free / per))


def _processors(facts: Facts, goal: Goal) -> Finding:
    cores = facts.cores if facts.cgroup_cores is None else min(facts.cores, facts.cgroup_cores)
    each = sum(MESSAGE_S.values()) if goal.ends == "both" else MESSAGE_S[goal.ends]
    quota = "" if facts.cgroup_cores is None else f", quota {facts.cgroup_cores:g}"
    interval_s = goal.message_interval_s
    count = int(cores * CPU_RATIO / each * interval_s) if interval_s > 0 else None
    return Finding(
        name="cores",
        value=f"{facts.cores}{quota}",
        limits=f"a message each every {interval_s:g} s in half of them ({each * 1e6:.0f} us each)",
        connections=count,
        change="longer intervals, more lines in a message, or more cores",
    )


def _shared_memory(facts: Facts, _goal: Goal) -> Finding:
    size, free = facts.shm_bytes, facts.shm_free_bytes
    finding = Finding(
        name="/dev/shm",  # noqa: S108 - a name
        value="none",
        limits="series (in private memory without it)",
        standing="note",
    )
    if size is None or free is None:
        return finding
    return msgspec.structs.replace(
        finding,
        value=f"{_size(size)}, {_size(free)} free",
        limits=f"series: room for {free // SERIES_BYTES:,}; connections need none of it",
        standing="slows" if free < SHM_BYTES_MIN else "ok",
        change="mount -o remount,size=1g /dev/shm; docker run --shm-size 1g",
    )


def _segments(facts: Facts, _goal: Goal) -> Finding:
    return Finding(
        name="segments of apps",
        value=facts.other_layouts or "none of another version",
        limits="which apps a page shows",
        standing="note" if facts.other_layouts else "ok",
        change="python -m agent apps prune" if facts.other_layouts else "",
    )


def _io_uring(facts: Facts, _goal: Goal) -> Finding:
    if facts.io_uring_error is None:
        value = "unknown"
    else:
        value = f"not usable ({facts.io_uring_error})" if facts.io_uring_error else "usable"
    if facts.io_uring_disabled:
        value += f", kernel.io_uring_disabled={facts.io_uring_disabled}"
    return Finding(
        name="io_uring",
        value=value,
        limits="nothing: epoll is used, which costs 656 bytes a connection less",
        standing="note",
    )


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _size(value: float) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value / 1024:.0f} KiB"


RULES: tuple[Callable[[Facts, Goal], Finding], ...] = (
    _files,
    _files_process,
    _files_all,
    _processes,
    _memory,
    _cgroup_memory,
    _ports,
    _conntrack,
    _processors,
    _tcp_memory,
    _accept_queue,
    _syn_backlog,
    _packet_backlog,
    _orphans,
    _time_wait,
    _migration,
    _shared_memory,
    _segments,
    _io_uring,
)
