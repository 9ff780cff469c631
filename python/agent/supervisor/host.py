"""Figures of the host, of the collector's processes and of their control group, published as
metrics.

Purpose: what an operator looks at beside the collector's own numbers: CPU by mode, memory, swap,
load, file descriptors, and for the supervisor and each child CPU, memory, threads, descriptors;
Python's garbage collector in the supervisor; limits and throttling of the cgroup. Read every
`supervisor.host_interval_s` (10 s), which takes about 2 ms.

Counters count from the start of this supervisor on: what the kernel had counted before is only the
base line.

Not promised: other processes of the host; that is a node exporter's job.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from agent.metrics import Counter, Gauge

from . import cgroup
from .worker import Registry

CPU_MODES = ("user", "system", "idle", "iowait", "irq", "softirq", "steal", "nice")
MEMORY_KINDS = ("total", "available", "used", "free", "buffers", "cached", "shared")


class Host:
    """Reads and publishes; `sample` is one round."""

    def __init__(self, registry: Registry) -> None:
        import psutil

        self.psutil = psutil
        self.processes: dict[int, Any] = {}
        self.seen: dict[tuple[object, ...], float] = {}
        self.busy_before: tuple[float, float] | None = None

        def gauge(name: str, text: str, labels: tuple[str, ...] = (), unit: str = "") -> Gauge:
            made = Gauge(name, text, labels, unit=unit, registry=registry)
            # What an earlier collector left here may be of processes that are gone.
            made.clear()
            return made

        def counter(name: str, text: str, labels: tuple[str, ...] = (), unit: str = "") -> Counter:
            return Counter(name, text, labels, unit=unit, registry=registry)

        self.cpu = counter("agent_host_cpu", "CPU time of the host, by mode.", ("mode",), "seconds")
        self.cpu_used = gauge("agent_host_cpu_used", "Share of CPU not idle.", unit="ratio")
        self.memory = gauge("agent_host_memory", "Memory of the host.", ("kind",), "bytes")
        self.memory_used = gauge("agent_host_memory_used", "Share not available.", unit="ratio")
        self.swap = gauge("agent_host_swap", "Swap space of the host.", ("kind",), "bytes")
        self.load = gauge("agent_host_load", "Load average of the host.", ("minutes",))
        self.files = gauge("agent_host_files", "Open files of the host.", ("kind",))
        self.process_cpu = counter(
            "agent_process_cpu", "CPU time, by process and mode.", ("process", "mode"), "seconds"
        )
        self.process_memory = gauge(
            "agent_process_resident_memory", "Memory in RAM.", ("process",), "bytes"
        )
        self.process_shared = gauge(
            "agent_process_shared_memory",
            "The part of resident memory that is shared: segments, and pages from before the fork.",
            ("process",),
            "bytes",
        )
        self.threads = gauge("agent_process_threads", "Threads, by process.", ("process",))
        self.fds = gauge("agent_process_open_files", "Open descriptors.", ("process",))
        self.gc_runs = counter(
            "agent_python_gc_collections", "Collections in the supervisor.", ("generation",)
        )
        self.gc_objects = counter(
            "agent_python_gc_objects_collected", "Objects freed by them.", ("generation",)
        )
        self._cgroup_metrics(gauge, counter)
        self.sample({})

    def _cgroup_metrics(self, gauge: Callable[..., Gauge], counter: Callable[..., Counter]) -> None:
        """Only what this group has: a limit of 0 would be a lie."""
        group = cgroup.read()
        self.cgroup_gauges: list[tuple[Gauge, str]] = []
        self.cgroup_counters: list[tuple[Counter, str]] = []
        for name, text, unit, field in (
            ("agent_cgroup_cpu_limit", "CPU limit in cores.", "cores", "cpu_limit_cores"),
            ("agent_cgroup_memory_limit", "Memory limit.", "bytes", "memory_limit_bytes"),
            ("agent_cgroup_memory_used", "Memory used.", "bytes", "memory_used_bytes"),
        ):
            if getattr(group, field) is not None:
                self.cgroup_gauges.append((gauge(name, text, unit=unit), field))
        for name, text, unit, field in (
            ("agent_cgroup_cpu_throttled", "Time throttled.", "seconds", "cpu_throttled_s"),
            ("agent_cgroup_throttled_periods", "Periods throttled.", "", "cpu_throttled_periods"),
            ("agent_cgroup_oom_kills", "Processes killed for memory.", "", "oom_kills"),
        ):
            if getattr(group, field) is not None:
                self.cgroup_counters.append((counter(name, text, unit=unit), field))

    def sample(self, children: Mapping[str, int]) -> None:
        """One round; `children` are the pids by name."""
        self._host()
        self._cgroup()
        for generation, stats in enumerate(gc.get_stats()):
            label = str(generation)
            self._grow(self.gc_runs.labels(label), stats["collections"], "gc", label)
            self._grow(self.gc_objects.labels(label), stats["collected"], "gc objects", label)
        alive = {"supervisor": os.getpid(), **children}
        for pid in set(self.processes) - set(alive.values()):
            del self.processes[pid]
        for name, pid in alive.items():
            with contextlib.suppress(self.psutil.Error, OSError):
                self._process(name, pid)

    def _grow(self, counter: Counter, total: float, *key: object) -> None:
        """Adds the growth of a kernel counter since the last round; adding 0 stops its expiry."""
        before = self.seen.get(key, total)
        self.seen[key] = total
        counter.inc(max(0.0, total - before))

    def _host(self) -> None:
        times = self.psutil.cpu_times()
        for mode in CPU_MODES:
            if hasattr(times, mode):
                self._grow(self.cpu.labels(mode), getattr(times, mode), "cpu", mode)
        # Time of guests is counted in user time already.
        total = sum(getattr(times, mode, 0.0) for mode in CPU_MODES)
        idle = times.idle + getattr(times, "iowait", 0.0)
        before = self.busy_before
        # Clock ticks of 10 ms say nothing about less than a second of one core.
        if before is None or total - before[0] >= 1.0:
            if before is not None:
                used = 1 - (idle - before[1]) / (total - before[0])
                self.cpu_used.set(min(1.0, max(0.0, used)))
            self.busy_before = (total, idle)
        memory = self.psutil.virtual_memory()
        for kind in MEMORY_KINDS:
            if hasattr(memory, kind):
                self.memory.labels(kind).set(getattr(memory, kind))
        self.memory_used.set(1 - memory.available / memory.total)
        swap = self.psutil.swap_memory()
        for kind in ("total", "used", "free"):
            self.swap.labels(kind).set(getattr(swap, kind))
        for minutes, load in zip(("1", "5", "15"), os.getloadavg(), strict=True):
            self.load.labels(minutes).set(load)
        with contextlib.suppress(OSError, ValueError), open("/proc/sys/fs/file-nr") as file:
            opened, unused, most = map(int, file.read().split())
            self.files.labels("open").set(opened - unused)
            self.files.labels("max").set(most)

    def _cgroup(self) -> None:
        group = cgroup.read()
        for gauge, field in self.cgroup_gauges:
            value = getattr(group, field)
            # A limit that was lifted while we run: as much as there is.
            gauge.set(math.inf if value is None else value)
        for counter, field in self.cgroup_counters:
            total = getattr(group, field)
            if total is not None:
                self._grow(counter, total, field)

    def _process(self, name: str, pid: int) -> None:
        process = self.processes.get(pid)
        if process is None:
            process = self.processes[pid] = self.psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            memory = process.memory_info()
            threads = process.num_threads()
        self._grow(self.process_cpu.labels(name, "user"), times.user, "process", pid, "user")
        self._grow(self.process_cpu.labels(name, "system"), times.system, "process", pid, "system")
        self.process_memory.labels(name).set(memory.rss)
        self.process_shared.labels(name).set(getattr(memory, "shared", 0))
        self.threads.labels(name).set(threads)
        self.fds.labels(name).set(_open_files(pid, process))


def _open_files(pid: int, process: Any) -> int:
    """The number of descriptors. Since Linux 6.2 the folder's size says it without a walk, which
    for a million connections would take a second.
    """
    return os.stat(f"/proc/{pid}/fd").st_size or int(process.num_fds())
