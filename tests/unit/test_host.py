"""Figures of host, processes and control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import agent
from agent.supervisor import cgroup
from agent.supervisor.cgroup import Cgroup
from agent.supervisor.host import Host
from collector import Samples, eventually


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_version_2(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/app.slice\n",
            "sys/fs/cgroup/app.slice/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/app.slice/cpu.stat": "nr_throttled 4\nthrottled_usec 2500000\n",
            "sys/fs/cgroup/app.slice/memory.max": "67108864\n",
            "sys/fs/cgroup/app.slice/memory.current": "1048576\n",
            "sys/fs/cgroup/app.slice/memory.events": "low 0\noom 1\noom_kill 2\n",
            "sys/fs/cgroup/app.slice/pids.max": "50\n",
            "sys/fs/cgroup/app.slice/pids.current": "4\n",
        },
    )
    assert cgroup.read(root) == Cgroup(2, 1.5, 2.5, 4, 67_108_864, 1_048_576, 2, 50, 4)


def test_version_2_without_limits_in_a_container(tmp_path: Path) -> None:
    """The path is the host's; the mount is the group itself."""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../docker/abc\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "4096\n",
        },
    )
    found = cgroup.read(root)
    assert (found.cpu_limit_cores, found.memory_limit_bytes) == (None, None)
    assert found.memory_used_bytes == 4096


def test_the_limits_of_groups_above_count_too(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "sys/fs/cgroup/pod/memory.max": "1000\n",
            "sys/fs/cgroup/pod/memory.current": "900\n",
            "sys/fs/cgroup/pod/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/pod/app/memory.max": "5000\n",
            "sys/fs/cgroup/pod/app/memory.current": "100\n",
            "sys/fs/cgroup/pod/app/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/pod/app/pids.max": "max\n",
            "sys/fs/cgroup/pod/app/pids.current": "7\n",
        },
    )
    found = cgroup.read(root)
    assert (found.memory_limit_bytes, found.memory_used_bytes) == (1000, 900)
    assert found.cpu_limit_cores == 0.5
    assert (found.pids_limit, found.pids_used) == (None, 7)


def test_version_1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/docker/x/cpu.stat": "nr_throttled 7\nthrottled_time 1500000000\n",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": "123\n",
            "sys/fs/cgroup/memory/docker/x/memory.oom_control": "under_oom 0\noom_kill 1\n",
        },
    )
    assert cgroup.read(root) == Cgroup(1, 0.5, 1.5, 7, None, 123, 1)


@pytest.mark.parametrize("text", ["", "garbage\n", "0:\n", "1:cpu\n"])
def test_no_group_or_garbage_is_no_limit(tmp_path: Path, text: str) -> None:
    found = cgroup.read(tree(tmp_path, {"proc/self/cgroup": text}))
    assert found.cpu_limit_cores is None
    assert found.memory_limit_bytes is None


def test_a_round_publishes_host_and_processes(tmp_path: Path) -> None:
    registry = agent.Registry(tmp_path / "agent.v3.seg", "agent")
    host = Host(registry)

    def work_and_look() -> Samples:
        sum(range(1_000_000))
        host.sample({"worker-0": os.getpid(), "worker-1": 2**22 + 1})
        return Samples(registry.render().decode())

    cpu = "agent_process_cpu_seconds_total"
    seen = eventually(
        work_and_look, lambda seen: seen.sum(cpu, process="supervisor") > 0, "CPU time is counted"
    )
    for process in ("supervisor", "worker-0"):
        assert seen.one("agent_process_resident_memory_bytes", process=process) > 1_000_000
        assert seen.one("agent_process_threads", process=process) >= 1
        assert seen.one("agent_process_open_files", process=process) >= 3
    assert not list(seen.matching("agent_process_threads", process="worker-1")), "a dead process"
    assert seen.one("agent_host_memory_bytes", kind="total") > 2**20
    assert 0 < seen.one("agent_host_memory_used_ratio") < 1
    assert 0 <= seen.one("agent_host_cpu_used_ratio") <= 1
    assert seen.one("agent_host_files", kind="open") > 0
    assert {labels["minutes"] for labels, _ in seen.matching("agent_host_load")} == {"1", "5", "15"}
    assert {
        labels["generation"] for labels, _ in seen.matching("agent_python_gc_collections_total")
    } == {
        "0",
        "1",
        "2",
    }


def test_gauges_of_an_earlier_collector_are_removed(tmp_path: Path) -> None:
    registry = agent.Registry(tmp_path / "agent.v3.seg", "agent")
    Host(registry).sample({"worker-7": os.getpid()})
    Host(registry)
    seen = Samples(registry.render().decode())
    processes = {labels["process"] for labels, _ in seen.matching("agent_process_threads")}
    assert processes == {"supervisor"}
