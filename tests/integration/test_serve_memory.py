"""In a control group with 128 MiB: more connections come than fit, and nobody is killed for it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.lab.connections import Controller
from agent.lab.plan import Plan
from agent.lab.target import Collector as Asked
from collector import DEADLINE_S, Collector, Samples, child, eventually

Start = Callable[..., Collector]
LIMIT_BYTES = 128 << 20
FULL = "of the memory limit is used: new connections are refused"
# How late the generator is, and when an answer comes, depends on the machine.
PATIENT_S = 300.0
ROOT = Path("/sys/fs/cgroup")


class Group:
    """A memory control group, version 1 or 2."""

    def __init__(self) -> None:
        is_v1 = (ROOT / "memory").is_dir()
        self.folder = (ROOT / "memory" if is_v1 else ROOT) / f"agent-test-{os.getpid()}"
        self.limit = "memory.limit_in_bytes" if is_v1 else "memory.max"
        self.kills = "memory.oom_control" if is_v1 else "memory.events"
        if not is_v1:
            (ROOT / "cgroup.subtree_control").write_text("+memory")
        self.folder.mkdir()
        (self.folder / self.limit).write_text(str(LIMIT_BYTES))

    def command(self) -> tuple[str, ...]:
        """Starts our program inside."""
        join = f'echo $$ >{self.folder}/cgroup.procs && exec "$@"'
        return ("sh", "-c", join, "sh", sys.executable, "-m", "agent")

    def killed(self) -> int:
        lines = (self.folder / self.kills).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@pytest.fixture
def group() -> Iterator[Group]:
    try:
        made = Group()
    except OSError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"no memory control group can be made here: {error}"
        )
    yield made
    eventually((made.folder / "cgroup.procs").read_text, lambda pids: not pids, "it left")
    made.folder.rmdir()


def test_connections_are_taken_as_far_as_memory_goes_and_the_rest_is_reset(
    group: Group, start_collector: Start
) -> None:
    """However fast they come: nobody is killed, who is refused is counted and told, and who is in
    stays in. Most of the memory is used before anybody is refused.
    """
    collector = start_collector(workers=6, command=group.command())
    plan = Plan(
        connections=90_000,
        target=f"127.0.0.1:{collector.statsd_port}",
        late_max_s=PATIENT_S,
        connect_timeout_s=PATIENT_S,
        ack_timeout_s=PATIENT_S,
    )
    controller = Controller(plan, collector=Asked(collector.url("")))
    with controller:
        controller.open()
        # The kernel has opened them; those that wait are accepted, or refused, as memory allows.
        seen = eventually(
            collector.scrape,
            lambda seen: arrived(seen) == plan.connections,
            f"all {plan.connections} are let in or refused",
        )
        assert seen.sum("agent_connections_refused_total", reason="memory") > 0
        eventually(lambda: refusal(collector), lambda why: FULL in why, "it says that it is full")
        assert collector.get("/livez") == "ok\n"
        ratios = [ratio for _, ratio in seen.matching("agent_memory_used_ratio")]
        assert len(ratios) == 6 + 1
        assert max(ratios) > 0.7
        held = eventually(
            lambda: (controller.hold(0.5), controller.account.now("open"))[1],
            lambda count: count == seen.sum("agent_connections_open", source="statsd_tcp"),
            "those that were refused know it",
        )
        assert held > 0
        # Those that are there lose nothing by it.
        controller.hold(2, message_interval_s=2)
        controller.finish()
        controller.close()
    totals = controller.result()["totals"]
    assert totals["messages_acked"] == totals["messages_sent"] == totals["counted_by_collector"]
    assert totals["messages_sent"] > 0
    assert group.killed() == 0
    eventually(lambda: refusal(collector), lambda why: why == "", "connections are welcome again")


def arrived(seen: Samples) -> float:
    """Connections that the workers have seen, by StatsD's listener."""
    opened = seen.sum("agent_connections_opened_total", source="statsd_tcp")
    return opened + seen.sum("agent_connections_refused_total", source="statsd_tcp")


def refusal(collector: Collector) -> str:
    """Why the collector is not ready, or nothing."""
    try:
        answer = collector.get("/readyz")
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code}: {error.read().decode()}"
    return "" if answer == "ok\n" else answer


def test_idle_http_connections_make_room_for_probes(start_collector: Start) -> None:
    """Somebody opens more than there may be, and asks for nothing."""
    collector = start_collector(workers=1, env={"AGENT_METRICS_LIMITS_CONNECTIONS_MAX": "50"})
    address = ("127.0.0.1", collector.http_port)
    hoard = [socket.create_connection(address, DEADLINE_S) for _ in range(200)]
    # Those that came last must be silent for a second before they give way.
    eventually(lambda: all(alive(collector) for _ in range(20)), bool, "probes are answered")
    seen = collector.scrape()
    assert seen.sum("agent_connections_closed_total", reason="evicted") >= 1
    assert seen.sum("agent_connections_open", source="http") <= 50 + 64
    assert seen.sum("agent_connections_refused_total", source="http") > 0
    for stream in hoard:
        stream.close()


def alive(collector: Collector) -> bool:
    try:
        return collector.get("/livez") == "ok\n"
    except (urllib.error.HTTPError, OSError):
        return False


def test_the_cap_holds_for_all_workers_together_however_connections_are_dealt(
    start_collector: Start,
) -> None:
    """Also when a worker dies: its clients find a place with the others at once."""
    collector = start_collector(workers=3, env={"AGENT_METRICS_LIMITS_CONNECTIONS_MAX": "90"})
    address = ("127.0.0.1", collector.statsd_port)

    def dial(count: int) -> list[socket.socket]:
        streams = []
        for _ in range(count):
            # One that is refused may be reset before we know that it was there.
            with contextlib.suppress(ConnectionResetError):
                streams.append(socket.create_connection(address, DEADLINE_S))
        return streams

    def held() -> float:
        # This scrape has a connection as well.
        return collector.scrape().sum("agent_worker_connections") - 1

    streams = dial(120)
    eventually(
        lambda: collector.scrape().sum("agent_connections_refused_total", source="statsd_tcp"),
        # Workers that look at the same moment may both take the last place; probes have one too.
        lambda refused: 30 - 6 <= refused <= 30 + 6,
        "the rest is refused",
    )
    before = held()
    assert 84 <= before <= 97
    # The one that has most: the kernel deals them out by chance.
    by_worker = collector.scrape().matching("agent_worker_connections")
    worker = max(by_worker, key=lambda found: found[1])[0]["worker"]
    os.kill(child(collector, f"agent-worker-{worker}"), signal.SIGKILL)
    eventually(held, lambda count: count < before - 10, "its connections are gone")
    streams += dial(60)
    eventually(held, lambda count: 84 <= count <= 97, "others have taken their places")
    for stream in streams:
        stream.close()
