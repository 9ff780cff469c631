"""The result of a run as plain data, and the verdict. Pure.

Purpose: one document that a report is drawn from, with everything that was measured and how.

The verdict: *invalid* when the generator was not what it should have been (an executor died, its
own lateness was too large, the run was interrupted), so that the figures say nothing about the
target; *fail* when the target did not do what was asked; else *pass*.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .account import Account, lost
from .histogram import Histogram
from .plan import Plan

SCHEMA = 1
# Percentiles that every result has, even when nothing was recorded.
LATENCIES = ("connect", "message", "service", "dispatch")


class Facts(msgspec.Struct, kw_only=True):
    """What the controller saw beside the account."""

    plan: Plan
    executors: int
    machine: dict[str, Any] = {}
    started: str = ""
    is_interrupted: bool = False
    deaths: list[str] = []
    failures: list[str] = []
    open_seconds: float | None = None
    opened_first: int = 0
    open_held: int = 0
    open_cpu_s: float = 0.0
    kernel_before: int | None = None
    kernel_held: int | None = None
    server_cpu_before_s: float | None = None
    server_cpu_opened_s: float | None = None
    server_cpu_after_s: float | None = None
    server_private_before: int | None = None
    server_private_held: int | None = None
    counted: int | None = None
    ledger: dict[str, float] = {}

    def note_failure(self, sentence: str) -> None:
        self.failures.append(sentence)


def build(facts: Facts, account: Account, phases: list[dict[str, Any]]) -> dict[str, Any]:
    """The document."""
    plan = facts.plan
    latency = {name: histogram.summary() for name, histogram in account.latency.items()}
    return {
        "schema": SCHEMA,
        "kind": "connections",
        "started": facts.started,
        "status": "interrupted" if facts.is_interrupted else "complete",
        "plan": {
            "connections": plan.connections,
            "open_rate": plan.open_rate,
            "hold_s": plan.hold_s,
            "message_interval_s": plan.message_interval_s,
            "protocol": plan.protocol,
            "target": plan.target,
            "ack_every": plan.ack_every,
            "executors": facts.executors,
            "sources": list(plan.sources) if isinstance(plan.sources, tuple) else plan.sources,
            "reconnect": plan.reconnect,
            "run": plan.run,
        },
        "machine": facts.machine,
        "verdict": verdict(facts, account),
        "totals": totals(facts, account),
        "latency": {name: Histogram().summary() for name in LATENCIES} | latency,
        "cost": cost(facts, account),
        "ledger": facts.ledger,
        "timeline": account.timeline(),
        "phases": phases,
    }


def totals(facts: Facts, account: Account) -> dict[str, Any]:
    counts = account.counts
    seconds = facts.open_seconds
    return {
        "opened": counts["opened"],
        "failed": dict(account.failures),
        "closed_by_peer": counts["closed_by_peer"] + counts["broken"],
        "lost": {
            reason: counts[reason]
            for reason in ("closed_by_peer", "broken", "ack_timed_out", "answer_bad")
            if counts[reason]
        },
        "reconnected": counts["reconnected"],
        "messages_sent": counts["messages_sent"],
        "messages_acked": counts["messages_acked"],
        "messages_uncertain": counts["messages_uncertain"],
        "messages_deferred": counts["messages_deferred"],
        "messages_skipped": counts["messages_skipped"],
        "nacked": counts["nacked"],
        "counted_by_collector": facts.counted,
        "open_seconds": seconds,
        "open_rate": facts.opened_first / seconds if seconds else None,
        "open_held": facts.open_held,
    }


def cost(facts: Facts, account: Account) -> dict[str, Any]:
    """CPU by operation: of opening, until all were tried; of messages, everything after that."""
    opened, acked = facts.opened_first, account.counts["messages_acked"]

    def spent(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else after - before

    def per(total: float | None, count: int, unit: float) -> float | None:
        return None if total is None or not count else total * unit / count

    server_open = spent(facts.server_cpu_before_s, facts.server_cpu_opened_s)
    server_rest = spent(facts.server_cpu_opened_s, facts.server_cpu_after_s)
    client_rest = account.client_cpu_s - facts.open_cpu_s
    kernel = spent(facts.kernel_before, facts.kernel_held)
    private = spent(facts.server_private_before, facts.server_private_held)
    # Not more than before: somebody gave back what the connections took.
    kernel = None if kernel is not None and kernel <= 0 else kernel
    private = None if private is not None and private <= 0 else private
    return {
        "client_cpu_s": account.client_cpu_s,
        "server_cpu_s": spent(facts.server_cpu_before_s, facts.server_cpu_after_s),
        "client_us_per_message": per(client_rest, acked, 1e6),
        "server_us_per_message": per(server_rest, acked, 1e6),
        "client_us_per_open": per(facts.open_cpu_s, opened, 1e6),
        "server_us_per_open": per(server_open, opened, 1e6),
        "kernel_bytes_per_connection": per(kernel, facts.open_held, 1),
        "server_user_bytes_per_connection": per(private, facts.open_held, 1),
    }


def verdict(facts: Facts, account: Account) -> dict[str, Any]:
    """The outcome and every reason for it."""
    invalid = [*facts.deaths]
    if facts.is_interrupted:
        invalid.append("the run was interrupted")
    late = account.latency.get("dispatch")
    late_s = late.quantile_s(0.99) if late else None
    if late_s is not None and late_s > facts.plan.late_max_s:
        invalid.append(
            f"the generator was late: 1 % of messages went {late_s:.3f} s or more after their time,"
            f" {facts.plan.late_max_s:g} s is allowed"
        )
    failed = [*facts.failures, *_connections(facts, account), *_messages(facts, account)]
    outcome = "invalid" if invalid else "fail" if failed else "pass"
    return {"outcome": outcome, "reasons": [*invalid, *failed]}


def _connections(facts: Facts, account: Account) -> list[str]:
    plan, counts = facts.plan, account.counts
    reasons = []
    if facts.open_held < plan.connections:
        missing = plan.connections - facts.open_held
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(account.failures.items()))
        reasons.append(
            f"{missing} of {plan.connections} connections were not open"
            + (f" (failures: {why})" if why else "")
        )
    gone = lost(counts)
    if gone and not plan.reconnect:
        names = totals(facts, account)["lost"]
        why = ", ".join(f"{n} {reason}" for reason, n in names.items())
        reasons.append(f"{gone} connections were lost ({why})")
    return reasons


def _account(ledger: dict[str, float]) -> str:
    """What the collector says of itself, where its total is not what it should be."""
    rows = sorted(
        f"{name.removeprefix('agent_source_')} {value:.0f}"
        for name, value in ledger.items()
        if name.startswith("agent_source_samples_")
    )
    return f"; its own account: {', '.join(rows)}" if rows else ""


def _messages(facts: Facts, account: Account) -> list[str]:
    counts, counted = account.counts, facts.counted
    sent, acked = counts["messages_sent"], counts["messages_acked"]
    nacked, uncertain = counts["nacked"], counts["messages_uncertain"]
    reasons = []
    if nacked:
        reasons.append(f"{nacked} messages were not taken (nack)")
    if uncertain and not facts.plan.reconnect:
        reasons.append(f"{uncertain} messages have no answer")
    open_account = sent - acked - nacked - uncertain
    if open_account:
        reasons.append(
            f"the account is open: {open_account} messages are neither answered nor lost"
        )
    if facts.plan.messages_expected and not acked:
        reasons.append("no message was acknowledged")
    # Of messages that were refused together, some may have been taken.
    if counted is not None and not acked <= counted <= acked + uncertain + nacked:
        reasons.append(
            f"the collector counted {counted} messages, {acked} were acknowledged"
            + (f" and {uncertain} are uncertain" if uncertain else "")
            + _account(facts.ledger)
        )
    return reasons
