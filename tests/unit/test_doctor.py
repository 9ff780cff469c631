"""The doctor: what follows from a machine's facts, and that this machine's can be read."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from agent.cli.doctor import command
from agent.config import Config, worker_count
from agent.config_limits import Limits
from agent.doctor import Conntrack, Diagnosis, Facts, Finding, Goal, examine, read
from agent.doctor.text import text
from agent.lab.plan import Plan, executors_needed

GIB, MIB = 1 << 30, 1 << 20

# An ordinary server: 24 GiB, two cores, the limits of a current distribution.
SERVER = Facts(
    kernel="6.12.0",
    cores=2,
    files_soft=1024,
    files_hard=524_288,
    files_process_max=1_048_576,
    files_max=2_400_000,
    files_open=1000,
    threads_max=190_000,
    pids_max=4_194_304,
    threads=200,
    ports=(32_768, 60_999),
    accept_queue_max=4096,
    syn_backlog_max=2048,
    packet_backlog_max=100_000,
    syn_cookies=True,
    tcp_pages=(287_898, 383_867, 575_796),
    orphans_max=131_072,
    time_wait_max=131_072,
    migrates_requests=False,
    memory_bytes=24 * GIB,
    memory_available_bytes=22 * GIB,
    shm_bytes=12 * GIB,
    shm_free_bytes=12 * GIB,
    io_uring_disabled=0,
    io_uring_error="",
)
MILLION = Goal(connections=1_000_000, ends="both")


def server(**changes: Any) -> Facts:
    return msgspec.structs.replace(SERVER, **changes)


def finding(diagnosis: Diagnosis, name: str) -> Finding:
    [found] = [finding for finding in diagnosis.findings if finding.name == name]
    return found


def test_an_ordinary_server_holds_a_million_on_both_ends() -> None:
    """A few processes are enough where the file limit is that of a distribution."""
    diagnosis = examine(SERVER, MILLION)
    assert diagnosis.refusals == []
    assert diagnosis.processes == 3 + 3
    assert not [f for f in diagnosis.findings if f.standing == "blocks"]


def test_a_file_limit_of_20000_takes_more_processes_not_fewer_connections() -> None:
    """As many as `serve` and `load` start: 56 workers and 55 executors."""
    diagnosis = examine(server(files_hard=20_000), MILLION)
    assert diagnosis.refusals == []
    assert diagnosis.processes == 56 + 55
    limits = Limits(connections_max=1_000_000)
    assert worker_count(Config(limits=limits), 2, 20_000) == 56
    plan = Plan(connections=1_000_000, target="127.0.0.1:1")
    assert executors_needed(plan, 20_000, 2) == 55


def test_a_file_limit_of_1024_blocks_a_million() -> None:
    """256 workers of 814 connections, and the commands that raise the limit."""
    diagnosis = examine(server(files_hard=1024), MILLION)
    [refusal] = diagnosis.refusals
    assert refusal.startswith("open files: soft 1,024, hard 1,024")
    assert "this allows 208,384 connections" in refusal
    assert "ulimit -Hn 1048576" in refusal
    assert diagnosis.both.connections == 814 * 256
    assert diagnosis.both.limited_by == "open files"


@pytest.mark.parametrize("applies", [True, False, None])
def test_connection_tracking_blocks_only_where_it_applies(applies: bool | None) -> None:
    """A loaded table that loopback does not use, or may not, is no reason to refuse."""
    table = Conntrack(entries_max=262_144, entries=144, applies=applies)
    diagnosis = examine(server(conntrack=table), MILLION)
    found = finding(diagnosis, "conntrack")
    assert (diagnosis.refusals != []) is (applies is True)
    assert found.standing == {True: "blocks", False: "ok", None: "slows"}[applies]
    if applies:
        assert found.connections == 262_000
        assert "nf_conntrack_max=1250000" in found.change
        assert "unshare --net" not in found.change


def test_an_administrator_is_told_of_the_namespace() -> None:
    """The cheaper way round connection tracking, when both ends are here."""
    table = Conntrack(entries_max=262_144, entries=0, applies=True)
    facts = server(conntrack=table, is_administrator=True)
    assert "unshare --net" in finding(examine(facts, MILLION), "conntrack").change
    alone = Goal(connections=1_000_000, ends="server")
    assert "unshare --net" not in finding(examine(facts, alone), "conntrack").change


def test_a_container_of_128_mib_holds_20000_and_says_what_more_would_take() -> None:
    """The control group's limit counts, not the memory of the machine."""
    facts = server(
        cgroup_version=2, cgroup_memory_bytes=128 * MIB, cgroup_memory_used_bytes=0, cores=1
    )
    assert examine(facts, Goal(connections=20_000)).refusals == []
    diagnosis = examine(facts, Goal(connections=100_000))
    [refusal] = diagnosis.refusals
    assert refusal.startswith("cgroup v2 memory: 128.0 MiB, 0 KiB used")
    wanted = int(refusal.partition("--memory ")[2].partition("m")[0])
    raised = msgspec.structs.replace(facts, cgroup_memory_bytes=wanted * MIB)
    assert examine(raised, Goal(connections=100_000)).refusals == []


def test_both_ends_take_twice_the_memory_and_twice_the_files() -> None:
    """So the machine holds about half as many."""
    diagnosis = examine(server(memory_available_bytes=5 * GIB, memory_bytes=6 * GIB), Goal())
    ratio = diagnosis.server.connections / diagnosis.both.connections
    assert 1.9 < ratio < 2.1
    assert diagnosis.server.limited_by == diagnosis.both.limited_by == "memory"
    files = [finding(examine(SERVER, Goal(ends=e)), "fs.file-max") for e in ("server", "both")]
    assert files[0].connections == 2 * (files[1].connections or 0)


def test_ports_limit_a_client_with_few_addresses() -> None:
    """28,232 from each; on loopback there are as many addresses as are needed."""
    remote = Goal(connections=100_000, ends="client", sources=2)
    [refusal] = examine(SERVER, remote).refusals
    assert "this allows 56,464 connections" in refusal
    assert "ip_local_port_range" in refusal
    assert examine(SERVER, Goal(connections=100_000, ends="client")).refusals == []
    [refusal] = examine(server(ports_reserved=28_000), remote).refusals
    assert "this allows 464 connections" in refusal


def test_a_container_of_few_processes_limits_the_workers() -> None:
    """pids.max, less a few for the supervisor and the rest."""
    facts = server(files_hard=1024, cgroup_pids_max=50, cgroup_pids=4)
    diagnosis = examine(facts, Goal(connections=100_000))
    [refusal] = diagnosis.refusals
    assert refusal.startswith("processes: 46 more (pids.max of the control group)")
    assert diagnosis.server.connections == 30 * 814


def test_what_is_slow_does_not_block() -> None:
    """Queues, messages and shared memory are told, with what to change; the run may go on."""
    facts = server(
        accept_queue_max=128,
        syn_backlog_max=128,
        packet_backlog_max=1000,
        syn_cookies=False,
        shm_bytes=64 * MIB,
        shm_free_bytes=16 * MIB,
        cgroup_cores=0.5,
        tcp_pages=(1000, 2000, 3000),
    )
    diagnosis = examine(facts, Goal(connections=1_000_000, ends="both", message_interval_s=1))
    slow = {found.name for found in diagnosis.findings if found.standing == "slows"}
    assert slow == {
        "net.core.somaxconn",
        "tcp_max_syn_backlog",
        "netdev_max_backlog",
        "/dev/shm",
        "cores",
        "tcp_mem",
    }
    assert diagnosis.refusals == []
    assert all(found.change for found in diagnosis.findings if found.standing == "slows")


def test_what_could_not_be_read_is_said_and_decides_nothing() -> None:
    """On a machine that tells nothing, only the default file limit is assumed."""
    diagnosis = examine(Facts(), Goal(connections=1000))
    assert diagnosis.refusals == []
    assert "unknown" in finding(diagnosis, "memory").value
    assert "unknown" in text(diagnosis)
    assert finding(diagnosis, "/dev/shm").value == "none"


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_io_uring_is_told_and_not_needed(error: str) -> None:
    """Docker forbids it, and nothing depends on it."""
    diagnosis = examine(server(io_uring_error=error, io_uring_disabled=2), MILLION)
    found = finding(diagnosis, "io_uring")
    assert found.value == f"not usable ({error}), kernel.io_uring_disabled=2"
    assert found.standing == "note"


def test_the_lowest_limit_is_marked_when_no_number_is_asked_for() -> None:
    """Just one, and the conclusion names it."""
    diagnosis = examine(SERVER, Goal(ends="both"))
    [lowest] = [found for found in diagnosis.findings if found.standing == "limit"]
    assert lowest.name == diagnosis.both.limited_by
    assert lowest.connections == diagnosis.both.connections
    assert f"limited by: {lowest.name}" in text(diagnosis)


def test_the_text_has_every_finding_and_ends_with_the_answer() -> None:
    """For people: value, effect and remedy; colour only where asked for."""
    diagnosis = examine(server(files_hard=1024), MILLION)
    told = text(diagnosis)
    for found in diagnosis.findings:
        assert f" {found.name} " in told
        assert found.value in told
        assert found.limits in told
    assert "to change: ulimit -Hn" in told
    assert "1,000,000 connections with both ends here: no." in told
    assert "\x1b" not in told
    assert "\x1b[1;31mblocks" in text(diagnosis, colour=True)
    held = examine(SERVER, MILLION)
    assert text(held).endswith("connections with both ends here: yes, in 6 processes.\n")


def test_this_machine_can_be_read() -> None:
    """The facts agree with what the system says elsewhere."""
    facts = read()
    assert facts.kernel == os.uname().release
    assert facts.cores == len(os.sched_getaffinity(0))
    assert facts.memory_bytes is not None
    assert 0 < (facts.memory_available_bytes or 0) < facts.memory_bytes
    assert facts.ports is not None
    assert facts.ports[0] < facts.ports[1]
    assert facts.io_uring_error is not None


def test_reading_leaves_nothing_behind() -> None:
    """No descriptor stays open, whatever the trials found."""
    read()
    # What earlier tests left is closed by now, not meanwhile.
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    read()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_command_answers_with_its_exit_code() -> None:
    """0 when it can be, 1 with the reasons when it cannot."""
    assert (
        CliRunner().invoke(command, ["--connections", "1"], standalone_mode=False).return_value == 0
    )
    refused = CliRunner().invoke(
        command, ["--connections", "99000000000", "--both-ends"], standalone_mode=False
    )
    assert refused.return_value == 1
    assert "99,000,000,000 connections with both ends here: no.\n  open files: " in refused.output


def test_the_command_tells_programs_everything() -> None:
    """Facts, findings and capacities, from a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "agent", "doctor", "--json", "--connections", "1000"],
        capture_output=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert done.returncode == (1 if told["refusals"] else 0)
    assert told["facts"]["cores"] > 0
    assert told["server"]["connections"] > told["both"]["connections"] // 2 > 0
    assert {"name", "value", "limits", "connections", "standing", "change"} <= set(
        told["findings"][0]
    )
