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
        build = Gauge("agent_build_info", "Always 1.", ("version", "python"), registry=registry)
        build.clear()
        python = ".".join(map(str, sys.version_info[:3]))
        build.labels(version, python).set(1)
        Gauge("agent_workers", "Workers that should run.", registry=registry).set(workers)
        self.ready = Gauge(
            "agent_children_ready", "Children that are ready.", ("kind",), registry=registry
        )
        self.exits_seen: dict[str, int] = {}
        self.exits = Counter(
            "agent_child_exits",
            "Children that died or left while they should run.",
            ("child",),
            registry=registry,
        )
        self.settled = Counter(
            "agent_ledger_settled_samples",
            "Samples that dead workers had received and not applied, booked as rejected.",
            ("child",),
            registry=registry,
        )
        self.reloads = Counter(
            "agent_config_reloads", "Reloads of the settings.", ("result",), registry=registry
        )
        self.reload_ok = Gauge(
            "agent_config_last_reload_successful",
            "1 when the settings in force are those of the last reload.",
            registry=registry,
        )
        self.reload_time = Gauge(
            "agent_config_last_reload_success_timestamp",
            "When settings were last taken, in unix time.",
            unit="seconds",
            registry=registry,
        )
        self.logs_dropped = Gauge(
            "agent_log_records_dropped",
            "Log records that could not be written since the start.",
            registry=registry,
        )
        # Zero is shown, not absence.
        for result in ("success", "failure"):
            self.reloads.labels(result).inc(0)
        self.took_settings()

    def took_settings(self) -> None:
        self.reload_ok.set(1)
        self.reload_time.set(time.time())

    def reloaded(self, success: bool) -> None:
        self.reloads.labels("success" if success else "failure").inc()
        if success:
            self.took_settings()
        else:
            self.reload_ok.set(0)

    def state(self, state: plan.State) -> None:
        """The children as the plan sees them."""
        ready = [child for child in state.children if child.phase == "ready"]
        workers = sum(child.name != plan.AGGREGATOR for child in ready)
        self.ready.labels("worker").set(workers)
        self.ready.labels("aggregator").set(len(ready) - workers)
        for child in state.children:
            new = child.exits - self.exits_seen.get(child.name, 0)
            if new or child.name not in self.exits_seen:
                self.exits.labels(child.name).inc(new)
                self.exits_seen[child.name] = child.exits
