"""What a run of many connections is, and how it is divided among executors. Pure.

Purpose: one checked value; the shares, addresses and deadlines that follow from it.

An executor is a process with one thread. It gets as many connections as its file limit has room
for, with some to spare; more executors than that only compete for the cores.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any, Literal

import msgspec

CONNECTIONS_MAX = 10_000_000
EXECUTORS_MAX = 1024
# Share of an executor's file limit that its connections may take.
FILES_RATIO = 0.92
# Connections of one loopback source address: `PORTS_MAX` of rust/agent-load/src/source.rs.
PORTS_MAX = 10_000
# The counter that messages add to. `agent_*` is refused from senders.
METRIC = "load_messages"
OPENING_MAX = 1000
# Above this p99 of the executors' own lateness the load was not the one that was asked for.
LATE_MAX_S = 0.1

Protocol = Literal["statsd", "http"]


class PlanError(ValueError):
    """A plan that cannot be carried out; says which part and why."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Durations are seconds."""

    connections: int
    # Address and port as resolved.
    target: str
    protocol: Protocol = "statsd"
    # A second, all executors together; 0 is all at once.
    open_rate: float = 40_000.0
    hold_s: float = 60.0
    # Between two messages of one connection; 0 sends none.
    message_interval_s: float = 60.0
    # Every how many messages of a connection an answer is asked for.
    ack_every: int = 1
    # 0 chooses.
    executors: int = 0
    # A number of loopback addresses (0 chooses), or addresses.
    sources: int | tuple[str, ...] = 0
    reconnect: bool = False
    connect_timeout_s: float = 10.0
    ack_timeout_s: float = 10.0
    late_max_s: float = LATE_MAX_S
    run: str = "run"

    @property
    def address(self) -> tuple[str, int]:
        """Host without brackets, and port."""
        host, _, port = self.target.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.address[0]).is_loopback

    @property
    def open_deadline_s(self) -> float:
        """When opening is given up: at a quarter of the rate, or a tenth of the usual one."""
        rate = self.open_rate / 4 if self.open_rate else 4000
        return 2 * self.connect_timeout_s + self.connections / rate

    @property
    def messages_expected(self) -> int:
        """Messages that the schedule has within the hold, give or take one a connection."""
        if not self.message_interval_s:
            return 0
        return round(self.connections * self.hold_s / self.message_interval_s)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One executor's part: fields of `rust/agent-load/src/plan.rs`."""

    connections: int
    target: str
    protocol: Protocol
    ack_every: int
    sources: Any
    opening_max: int
    connect_timeout_s: float
    ack_timeout_s: float
    reconnect: dict[str, float] | None
    metric: str
    run: str
    seed: int
    control_fd: int
    report_fd: int


def check(plan: Plan) -> None:
    """Raises PlanError for what the flags allow and nobody can do."""
    bounds = (
        ("connections", plan.connections, 1, CONNECTIONS_MAX),
        ("open rate", plan.open_rate, 0, 10_000_000),
        ("hold", plan.hold_s, 0, 7 * 86_400),
        ("message interval", plan.message_interval_s, 0, 86_400),
        ("messages an answer", plan.ack_every, 1, 60_000 if plan.protocol == "statsd" else 1),
        ("executors", plan.executors, 0, EXECUTORS_MAX),
        ("connect timeout", plan.connect_timeout_s, 0.001, 3600),
        ("answer timeout", plan.ack_timeout_s, 0.001, 3600),
    )
    for name, value, least, most in bounds:
        if not (math.isfinite(value) and least <= value <= most):
            raise PlanError(f"{name} must be {least:g} to {most:g}, not {value:g}")
    host, port = plan.address
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise PlanError(f"target {plan.target!r} is not an address and a port") from None
    if not 1 <= port <= 65_535:
        raise PlanError(f"target {plan.target!r} has no port from 1 to 65535")
    if isinstance(plan.sources, int):
        if not 0 <= plan.sources <= CONNECTIONS_MAX:
            raise PlanError(f"sources must be 0 to {CONNECTIONS_MAX}, not {plan.sources}")
        if plan.sources and not (ip.version == 4 and ip.is_loopback):
            raise PlanError("a number of sources needs an IPv4 loopback target; list the addresses")
        return
    for source in plan.sources:
        try:
            version = ipaddress.ip_address(source).version
        except ValueError:
            raise PlanError(f"source {source!r} is not an IP address") from None
        if version != ip.version:
            raise PlanError(f"source {source} and target {host} are of different families")


def executors_needed(plan: Plan, files_max: int, cores: int) -> int:
    """How many executors: what the file limit demands, and with many cores a few more."""
    room = max(1, int(files_max * FILES_RATIO))
    needed = -(-plan.connections // room)
    if plan.executors:
        if plan.executors < needed:
            raise PlanError(
                f"{plan.executors} executors cannot hold {plan.connections} connections with"
                f" {files_max} descriptors each; {needed} can"
            )
        return min(plan.executors, plan.connections)
    if needed > EXECUTORS_MAX:
        raise PlanError(
            f"{plan.connections} connections need {needed} processes of {files_max} descriptors;"
            f" at most {EXECUTORS_MAX} are started (raise the file limit, `ulimit -Hn`)"
        )
    return max(needed, min(cores // 2, plan.connections // 20_000), 1)


def shares(plan: Plan, executors: int, seed: int) -> list[Share]:
    """The parts of all executors; the descriptors are filled in when their pipes are there."""
    base, more = divmod(plan.connections, executors)
    parts = [base + (number < more) for number in range(executors)]
    host = plan.address[0]
    is_v4_loopback = plan.is_loopback and ipaddress.ip_address(host).version == 4
    made = []
    for number, connections in enumerate(parts):
        sources: Any = "any"
        if isinstance(plan.sources, tuple):
            # Each executor its own; when there are fewer they are shared.
            mine = plan.sources[number::executors]
            sources = {"listed": mine or [plan.sources[number % len(plan.sources)]]}
        elif is_v4_loopback:
            each = -(-plan.sources // executors) or -(-parts[0] // PORTS_MAX)
            sources = {"loopback": {"first": number * each, "count": each}}
        made.append(
            Share(
                connections=connections,
                target=plan.target,
                protocol=plan.protocol,
                ack_every=plan.ack_every,
                sources=sources,
                opening_max=max(1, min(OPENING_MAX, 4 * OPENING_MAX // executors)),
                connect_timeout_s=plan.connect_timeout_s,
                ack_timeout_s=plan.ack_timeout_s,
                reconnect={"min_s": 0.1, "max_s": 5.0} if plan.reconnect else None,
                metric=METRIC,
                run=plan.run,
                seed=seed + number,
                control_fd=-1,
                report_fd=-1,
            )
        )
    return made
