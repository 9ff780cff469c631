"""The supervisor's own metrics: what it started, what died, what it settled, and how reloads went.

Purpose: one table of names. All live in the collector's segment, beside those of the workers.
"""

from __future__ import annotations

import sys
import time

from agent.metrics import Counter, Gauge

from . import plan
from .worker import Registry


class Telemetry:
    """Handles of the supervisor's metrics."""

    def __init__(self, registry: Registry, version: str, workers: int) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = (), unit: str = "") -> Gauge:
            return Gauge(name, text, labels, unit=unit, registry=registry)

        def counter(name: str, text: str, label: str) -> Counter:
            return Counter(name, text, (label,), registry=registry)

        build = gauge("agent_build_info", "Always 1.", ("version", "python"))
        build.clear()
        python = ".".join(map(str, sys.version_info[:3]))
        ready = gauge("agent_children_ready", "Children that are ready.", ("kind",))
        # Every gauge with its value: they are written again and again, so that none expires.
        self.values: dict[Gauge, float] = {
            build.labels(version, python): 1,
            gauge("agent_workers", "Workers that should run."): workers,
        }
        self.ready_workers = ready.labels("worker")
        self.ready_desk = ready.labels(plan.DESK)
        self.ready_aggregator = ready.labels(plan.AGGREGATOR)
        self.reload_ok = gauge(
            "agent_config_last_reload_successful",
            "1 when the settings in force are those of the last reload.",
        )
        self.reload_time = gauge(
            "agent_config_last_reload_success_timestamp",
            "When settings were last taken, in unix time.",
            unit="seconds",
        )
        self.logs_dropped = gauge(
            "agent_log_records_dropped", "Log records that could not be written since the start."
        )
        self.exits = counter(
            "agent_child_exits", "Children that died or left while they should run.", "child"
        )
        self.settled = counter(
            "agent_ledger_settled_samples",
            "Samples that dead workers had received and not applied, booked as rejected.",
            "child",
        )
        self.reloads = counter("agent_config_reloads", "Reloads of the settings.", "result")
        self.restarts = counter(
            "agent_worker_restarts", "Workers that were started again.", "reason"
        )
        self.exits_seen: dict[str, int] = {}
        self.renewed_seen = 0
        # Zero is shown, not absence.
        self.counters: set[Counter] = {
            *(self.reloads.labels(word) for word in ("success", "failure")),
            *(self.restarts.labels(word) for word in ("died", "renewed")),
        }
        self.took_settings()

    def took_settings(self) -> None:
        self.values[self.reload_ok] = 1
        self.values[self.reload_time] = time.time()
        self.write()

    def reloaded(self, success: bool) -> None:
        if success:
            self.took_settings()
        else:
            self.values[self.reload_ok] = 0
            self.write()
        # Last, so that whoever waits for the count finds the rest as it is now.
        self.reloads.labels("success" if success else "failure").inc()

    def settled_samples(self, child: str, samples: int) -> None:
        self.counters.add(self.settled.labels(child))
        self.settled.labels(child).inc(samples)

    def state(self, state: plan.State, logs_dropped: int) -> None:
        """The children as the plan sees them; called about every second."""
        ready = [child.name for child in state.children if child.phase == "ready"]
        desk, aggregator = ready.count(plan.DESK), ready.count(plan.AGGREGATOR)
        self.values[self.ready_desk] = desk
        self.values[self.ready_aggregator] = aggregator
        self.values[self.ready_workers] = len(ready) - desk - aggregator
        self.values[self.logs_dropped] = logs_dropped
        for child in state.children:
            self.counters.add(self.exits.labels(child.name))
            more = child.exits - self.exits_seen.get(child.name, 0)
            self.exits.labels(child.name).inc(more)
            if child.name != plan.AGGREGATOR:
                self.restarts.labels("died").inc(more)
            self.exits_seen[child.name] = child.exits
        self.restarts.labels("renewed").inc(state.renewed - self.renewed_seen)
        self.renewed_seen = state.renewed
        self.write()

    def write(self) -> None:
        """Writes everything, changed or not: what is not written for a day expires."""
        for gauge, value in self.values.items():
            gauge.set(value)
        for counter in self.counters:
            counter.inc(0)
