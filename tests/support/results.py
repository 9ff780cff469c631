"""Made-up results of runs, as plain data, for tests of what is drawn from them."""

from __future__ import annotations

import math
from typing import Any


def result_data(seconds: int = 100, outcome: str = "pass") -> dict[str, Any]:
    """A run of `seconds`: 30 % of the time opening, then held with messages, then closed."""
    opening, closing = max(1, seconds * 3 // 10), max(1, seconds // 10)
    per_s = 1_000_000 // opening
    timeline = []
    is_open = 0
    for second in range(seconds):
        opened = min(per_s, 1_000_000 - is_open) if second < opening else 0
        is_open += opened
        if second >= seconds - closing:
            is_open -= is_open // 2
        sent = 16_667 + 400 * math.sin(second / 3) if opening <= second < seconds - closing else 0
        timeline.append(
            {
                "t": second + 1,
                "open": is_open,
                "opening": 12 if opened else 0,
                "opened_per_s": opened,
                "sent_per_s": round(sent),
                "acked_per_s": round(sent),
                "failed_per_s": 0,
                "lost_per_s": 0,
                "p50_s": 0.0004 + 0.0001 * math.sin(second / 5) if sent else None,
                "p99_s": 0.0031 + 0.002 * abs(math.sin(second / 7)) if sent else None,
                "client_cpu": 1.1 if opened else 0.2,
                "server_cpu": 0.6 if opened else 0.12,
            }
        )
    buckets = [[0.0001 * 1.2**i, round(40_000 * math.exp(-((i - 9) ** 2) / 18))] for i in range(30)]
    message = {
        "count": sum(int(count) for _, count in buckets),
        "p50": 0.0005,
        "p90": 0.0012,
        "p99": 0.0043,
        "p999": 0.011,
        "max": 0.0191,
        "mean": 0.0007,
        "buckets": buckets,
    }
    nothing = dict.fromkeys(("p50", "p90", "p99", "p999", "max", "mean"))
    return {
        "schema": 1,
        "kind": "connections",
        "started": "2026-11-21T14:30:00+00:00",
        "status": "complete",
        "plan": {
            "connections": 1_000_000,
            "open_rate": 40_000.0,
            "hold_s": 60.0,
            "message_interval_s": 60.0,
            "ack_every": 1,
            "protocol": "statsd",
            "target": "127.0.0.1:8125",
            "executors": 56,
            "sources": 0,
            "reconnect": False,
            "run": "0a1b2c3d",
        },
        "machine": {
            "cpu": "Example CPU @ 2.50GHz",
            "cores": 2,
            "memory_bytes": 25_276_000_000,
            "kernel": "6.18.0",
            "python": "3.11.7",
            "agent_version": "0.1.0",
        },
        "verdict": {
            "outcome": outcome,
            "reasons": [] if outcome == "pass" else ["17 connections were lost (17 broken)"],
        },
        "targets": [
            {"name": "connections held", "wanted": "1,000,000", "got": "1,000,000", "met": True},
            {"name": "open rate, ratio to the pair", "wanted": "0.8", "got": "0.71", "met": False},
            {"name": "lines a second", "wanted": "3,000,000", "got": "not run", "met": None},
        ],
        "totals": {
            "opened": 1_000_000,
            "failed": {},
            "closed_by_peer": 0,
            "lost": {},
            "reconnected": 0,
            "messages_sent": 1_000_000,
            "messages_acked": 1_000_000,
            "messages_uncertain": 0,
            "messages_deferred": 0,
            "messages_skipped": 0,
            "nacked": 0,
            "counted_by_collector": 1_000_000,
            "open_seconds": 30.2,
            "open_rate": 33_112.6,
            "open_held": 1_000_000,
        },
        "latency": {
            "connect": {**message, "count": 1_000_000},
            "message": message,
            "service": {"count": 0, **nothing, "buckets": []},
            "dispatch": {**message, "p99": 0.0008},
        },
        "cost": {
            "client_cpu_s": 44.1,
            "server_cpu_s": 19.8,
            "client_us_per_message": 9.2,
            "server_us_per_message": 4.4,
            "client_us_per_open": 30.1,
            "server_us_per_open": 11.9,
            "kernel_bytes_per_connection": 8123.4,
            "server_user_bytes_per_connection": 64.0,
        },
        "ledger": {"agent_samples_received_total": 1_000_000.0},
        "timeline": timeline,
        "phases": [
            {"name": "open", "t0": 0.05, "t1": float(opening)},
            {"name": "hold", "t0": float(opening), "t1": float(seconds - closing)},
            {"name": "close", "t0": float(seconds - closing), "t1": float(seconds)},
        ],
    }
