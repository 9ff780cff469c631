"""The account closes when there is no place left for names, and when a worker is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from collector import DEADLINE_S, Collector, acknowledge, child, eventually

Start = Callable[..., Collector]


def test_a_full_table_of_names_is_counted_and_nothing_is_left_over(start_collector: Start) -> None:
    """Senders take every place before the first refusal; the refusals have theirs all the same."""
    collector = start_collector(workers=1, env={"AGENT_METRICS_SERIES_METRICS_MAX": "300"})
    collector.send_tcp(f"full.m{number}:1|c".encode() for number in range(1000))
    seen = collector.scrape()
    received, applied, rejected = (
        seen.sum(f"agent_source_samples_{name}_total", source="statsd_tcp")
        for name in ("received", "applied", "rejected")
    )
    assert received == 1000
    assert applied + rejected == received
    assert seen.sum("agent_source_samples_rejected_total", reason="metrics_full") == rejected > 0


def test_connections_of_a_killed_worker_are_booked_as_closed(start_collector: Start) -> None:
    collector = start_collector(workers=2)
    address = ("127.0.0.1", collector.statsd_port)
    streams = [socket.create_connection(address, DEADLINE_S) for _ in range(100)]
    collector.wait_for(100, "agent_connections_open", source="statsd_tcp")
    os.kill(child(collector, "agent-worker-0"), signal.SIGKILL)
    for stream in streams:
        stream.close()

    def balance() -> float:
        seen = collector.scrape()
        of = {
            name: seen.sum(f"agent_connections_{name}_total", source="statsd_tcp")
            for name in ("opened", "taken_over", "closed")
        }
        return of["opened"] + of["taken_over"] - of["closed"]

    eventually(balance, lambda left: left == 0, "every connection has ended")
    seen = collector.scrape()
    died = seen.sum("agent_connections_closed_total", source="statsd_tcp", reason="worker_died")
    assert 0 < died < 100


def test_a_cap_below_what_is_open_keeps_no_probe_out(
    start_collector: Start, tmp_path: Path
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("")
    collector = start_collector("--config", str(file), workers=1)
    address = ("127.0.0.1", collector.statsd_port)
    streams = [socket.create_connection(address, DEADLINE_S) for _ in range(200)]
    for stream in streams:
        acknowledge(stream)
    file.write_text("[limits]\nconnections_max = 50")
    collector.process.send_signal(signal.SIGHUP)
    eventually(lambda: "new settings are in force" in collector.log, bool, "the reload")
    for _ in range(10):
        assert collector.get("/livez") == "ok\n"
    for stream in streams:
        acknowledge(stream)
        stream.close()


def test_half_requests_keep_no_probe_out(start_collector: Start) -> None:
    collector = start_collector(workers=1, env={"AGENT_METRICS_LIMITS_CONNECTIONS_MAX": "20"})
    address = ("127.0.0.1", collector.http_port)
    hoard = [socket.create_connection(address, DEADLINE_S) for _ in range(80)]
    for stream in hoard:
        # Who found no place may know it by now.
        with contextlib.suppress(ConnectionError):
            stream.send(b"GET /li")

    def is_alive() -> bool:
        try:
            return collector.get("/livez") == "ok\n"
        except OSError:
            return False

    eventually(is_alive, bool, "a probe is answered")
    assert collector.scrape().sum("agent_connections_closed_total", reason="evicted") > 0
    for stream in hoard:
        stream.close()
