"""A run for people: the line that follows it, and the summary at its end.

Purpose: text from snapshots and results, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

from .connections import Snapshot

# Seconds between two lines where there is no terminal.
LINE_INTERVAL_S = 5


class Progress:
    """One line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self, out: TextIO, connections: int) -> None:
        self.out = out
        self.connections = connections
        self.is_terminal = out.isatty()
        self.before: Snapshot | None = None
        self.shown_s = 0.0

    def __call__(self, now: Snapshot) -> None:
        before, self.before = self.before, now
        is_new_phase = before is None or before.phase != now.phase
        is_due = now.elapsed_s - self.shown_s >= LINE_INTERVAL_S
        if not (self.is_terminal or is_new_phase or is_due):
            return
        self.shown_s = now.elapsed_s
        text = line(now, before, self.connections)
        # Over the line before, and nothing of it left.
        self.out.write(f"\r{text}\x1b[K" if self.is_terminal else f"{text}\n")
        self.out.flush()

    def end(self) -> None:
        """What comes next begins a new line."""
        if self.is_terminal and self.before:
            self.out.write("\n")


def line(now: Snapshot, before: Snapshot | None, connections: int) -> str:
    """`  12 s  open  412,345 of 1,000,000 open (+39,870/s)  16,650 msg/s ...`"""
    seconds = now.elapsed_s - (before.elapsed_s if before else 0.0)

    def rate(field: Callable[[Snapshot], int]) -> float:
        return (field(now) - (field(before) if before else 0)) / seconds if seconds else 0.0

    parts = [
        f"{now.elapsed_s:5.0f} s  {now.phase:<6}",
        f"{now.open:,} of {connections:,} open",
    ]
    if opened := rate(lambda s: s.opened):
        parts.append(f"+{opened:,.0f}/s")
    if now.sent:
        parts.append(f"{rate(lambda s: s.sent):,.0f} msg/s, {now.awaiting:,} unanswered")
    if now.p99_s is not None:
        parts.append(f"p99 {duration(now.p99_s)}")
    parts += [f"{count:,} {what}" for count, what in trouble(now) if count]
    return "  ".join(parts)


def trouble(now: Snapshot) -> list[tuple[int, str]]:
    return [(now.failed, "failed"), (now.lost, "lost")]


def duration(seconds: float | None) -> str:
    """Three digits and the unit that fits."""
    if seconds is None:
        return "-"
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def summary(told: dict[str, Any]) -> str:
    """The result on a screen; the last line is the verdict."""
    plan, totals, costs = told["plan"], told["totals"], told["cost"]
    failed = sum(totals["failed"].values())
    rows = [
        ("connections", f"{totals['open_held']:,} of {plan['connections']:,} open"),
        ("opened in", _opened(totals, plan)),
        ("failed", f"{failed:,} {_reasons(totals['failed'])}"),
        ("lost", f"{sum(totals['lost'].values()):,} {_reasons(totals['lost'])}"),
        ("messages", _messages(totals)),
    ]
    for name, title in (
        ("connect", "connect"),
        ("message", "answer"),
        ("service", "  from the real send"),
        ("dispatch", "  own lateness"),
        ("recovery", "back after a loss"),
    ):
        latency = told["latency"].get(name)
        if latency and latency["count"]:
            shown = ("p50", "p90", "p99", "p999", "max")
            text = "  ".join(f"{what} {duration(latency[what])}" for what in shown)
            rows.append((title, text))
    rows += [
        ("CPU per open", _both(costs, "us_per_open", "us")),
        ("CPU per message", _both(costs, "us_per_message", "us")),
        ("kernel memory", _bytes(costs["kernel_bytes_per_connection"], "both ends, machine-wide")),
        ("collector memory", _bytes(costs["server_user_bytes_per_connection"], "private")),
    ]
    lines = [f"{title:<20} {text}".rstrip() for title, text in rows]
    verdict = told["verdict"]
    lines += [f"  - {reason}" for reason in verdict["reasons"]]
    return "\n".join([*lines, f"verdict: {verdict['outcome']}"])


def _opened(totals: dict[str, Any], plan: dict[str, Any]) -> str:
    if not totals["open_seconds"]:
        return "-"
    asked = f"{plan['open_rate']:,.0f}/s asked" if plan["open_rate"] else "all at once"
    return f"{totals['open_seconds']:.2f} s, {totals['open_rate']:,.0f}/s ({asked})"


def _messages(totals: dict[str, Any]) -> str:
    text = f"{totals['messages_sent']:,} sent, {totals['messages_acked']:,} acknowledged"
    if totals["counted_by_collector"] is not None:
        text += f", {totals['counted_by_collector']:,} counted by the collector"
    for name, what in (
        ("nacked", "refused"),
        ("messages_uncertain", "uncertain"),
        ("messages_deferred", "deferred"),
        ("messages_skipped", "not sent"),
    ):
        if totals[name]:
            text += f", {totals[name]:,} {what}"
    return text


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return "(" + ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) + ")"


def _both(costs: dict[str, Any], name: str, unit: str) -> str:
    ends = ((costs[f"client_{name}"], "here"), (costs[f"server_{name}"], "collector"))
    return ", ".join(f"{value:.1f} {unit} {end}" for value, end in ends if value is not None) or "-"


def _bytes(value: float | None, what: str) -> str:
    return "-" if value is None else f"{value:,.0f} B per connection ({what})"
