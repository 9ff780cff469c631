"""What a result comes to: the sentence, the key figures, the account. Pure.

Purpose: the words and numbers that the views on a terminal and in a browser have in common.
"""

from __future__ import annotations

import msgspec

from .model import Distribution, Result
from .quantity import count, duration, microseconds, ratio, size

OUTCOMES = {"pass": "Passed", "fail": "Failed", "invalid": "Not valid"}
# What each kind of latency is measured from and to.
LATENCIES = {
    "message": "from the planned time of a message to its answer",
    "service": "from the real time of sending to the answer",
    "dispatch": "from the planned time to the real one: the generator's own lateness",
    "connect": "from the planned time of opening to the connection being open",
    "connect_service": "from the real time of opening to the connection being open",
    "recovery": "from the loss of a connection to its being open again",
}
PERCENTILES = ("p50", "p90", "p99", "p999", "max")


class Figure(msgspec.Struct, frozen=True):
    """A key figure: what, how much, and what to read it against."""

    label: str
    value: str
    note: str = ""


class Row(msgspec.Struct, frozen=True):
    """A line of the account."""

    label: str
    value: str
    note: str = ""
    is_bad: bool = False


def headline(result: Result) -> str:
    """The outcome in a sentence."""
    totals, plan = result.totals, result.plan
    if result.verdict.outcome == "invalid":
        return "The generator was not what it has to be: these figures say nothing of the target."
    held = totals.opened if totals.open_held is None else totals.open_held
    every = held == plan.connections
    parts = [
        f"All {count(held)} connections were held"
        if every
        else f"{count(held)} of {count(plan.connections)} connections were held"
    ]
    if plan.hold_s:
        parts[0] += f" for {duration(plan.hold_s)}"
    if totals.messages_sent:
        counted, acked = totals.counted_by_collector, totals.messages_acked
        is_complete = acked == totals.messages_sent and counted in (None, acked)
        where = "answered" if counted is None else "answered, and in the collector's total"
        parts.append(
            f"every one of {count(acked)} messages was {where}"
            if is_complete
            else f"{count(acked)} of {count(totals.messages_sent)} messages were answered"
        )
    return "; ".join(parts) + "."


def figures(result: Result) -> list[Figure]:
    """What is looked at first; figures that were not measured are left out."""
    plan, totals, cost = result.plan, result.totals, result.cost
    held = totals.opened if totals.open_held is None else totals.open_held
    found = [Figure("connections held", count(held), f"of {count(plan.connections)} wanted")]
    if totals.open_rate is not None:
        asked = f"{count(plan.open_rate)}/s asked" if plan.open_rate else "all at once"
        note = f"in {duration(totals.open_seconds)}, {asked}"
        found.append(Figure("opened a second", count(round(totals.open_rate)), note))
    if totals.messages_sent:
        note = f"{ratio(totals.messages_acked, totals.messages_sent)} of those sent"
        found.append(Figure("messages answered", count(totals.messages_acked), note))
    message = result.latency.get("message", Distribution())
    if message.count:
        note = f"p50 {duration(message.p50)}, max {duration(message.max)}"
        found.append(Figure("answer p99", duration(message.p99), note))
    for label, server, client in (
        ("server CPU a message", cost.server_us_per_message, cost.client_us_per_message),
        ("server CPU an open", cost.server_us_per_open, cost.client_us_per_open),
    ):
        if server is not None:
            note = "" if client is None else f"client {microseconds(client)}"
            found.append(Figure(label, microseconds(server), note))
    for label, value, note in (
        ("kernel memory", cost.kernel_bytes_per_connection, "a connection, both ends"),
        ("our memory", cost.server_user_bytes_per_connection, "a connection, all workers"),
    ):
        if value is not None:
            found.append(Figure(label, size(value), note))
    return found


def account(result: Result) -> list[Row]:
    """Where every connection and every message went."""
    totals = result.totals
    rows = [Row("connections opened", count(totals.opened))]
    rows += [
        Row(f"not opened: {reason}", count(n), is_bad=n > 0) for reason, n in totals.failed.items()
    ]
    lost = totals.lost or {"closed by the other end": totals.closed_by_peer}
    rows += [Row(f"lost: {reason}", count(n), is_bad=True) for reason, n in lost.items() if n]
    if not any(lost.values()):
        rows.append(Row("lost", "0"))
    if totals.reconnected:
        rows.append(Row("opened again", count(totals.reconnected)))
    sent, acked = totals.messages_sent, totals.messages_acked
    rows += [
        Row("messages sent", count(sent)),
        Row("answered", count(acked)),
        Row("refused", count(totals.nacked), "answered with _nack", totals.nacked > 0),
        Row(
            "uncertain",
            count(totals.messages_uncertain),
            "sent on a connection that was lost before the answer",
            totals.messages_uncertain > 0,
        ),
    ]
    rest = sent - acked - totals.nacked - totals.messages_uncertain
    rows.append(Row("difference", count(rest), "sent less all of these: must be 0", rest != 0))
    if totals.messages_deferred or totals.messages_skipped:
        rows.append(Row("sent later than planned", count(totals.messages_deferred)))
        rows.append(Row("planned and not sent", count(totals.messages_skipped)))
    counted = totals.counted_by_collector
    if counted is not None:
        is_bad = not acked <= counted <= acked + totals.messages_uncertain
        note = "between answered and answered + uncertain"
        rows.append(Row("counted by the collector", count(counted), note, is_bad))
    return rows


def latencies(result: Result) -> list[tuple[str, str, Distribution]]:
    """Name, meaning and distribution of what was recorded, the most important first."""
    names = [*LATENCIES, *sorted(set(result.latency) - set(LATENCIES))]
    return [
        (name, LATENCIES.get(name, ""), result.latency[name])
        for name in names
        if name in result.latency and result.latency[name].count
    ]


def method(result: Result) -> list[Row]:
    """What somebody who repeats the run must know."""
    plan, machine = result.plan, result.machine
    every = duration(plan.message_interval_s)
    sources = plan.sources if isinstance(plan.sources, int) else len(plan.sources)
    return [
        Row("started", result.started),
        Row("machine", f"{machine.cores} × {machine.cpu}, {size(machine.memory_bytes)}"),
        Row("kernel", machine.kernel),
        Row("versions", f"Agent {machine.agent_version}, Python {machine.python}"),
        Row("target", f"{plan.target} ({plan.protocol})"),
        Row("connections", count(plan.connections)),
        Row("open rate", f"{count(plan.open_rate)}/s" if plan.open_rate else "all at once"),
        Row("held", duration(plan.hold_s)),
        Row("messages", f"one each every {every}" if plan.message_interval_s else "none"),
        *([Row("answers", f"one for {count(plan.ack_every)}")] if plan.ack_every > 1 else []),
        Row("generator", f"{count(plan.executors)} processes"),
        Row("source addresses", count(sources) if sources else "as many as needed"),
        Row("lost connections", "come back" if plan.reconnect else "stay lost"),
        *([Row("run", plan.run)] if plan.run else []),
    ]
