"""A real Prometheus scrapes the collector, and promtool reads what it serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collector import DEADLINE_S, Collector, child_pids, clean_environment, eventually
from prometheus_server import prometheus

pytestmark = pytest.mark.peer

APP = """
import os, agent
orders = agent.Counter("orders", "Orders taken.", ["region"])
seconds = agent.Histogram("order_seconds", "Time to take an order.", buckets=(0.1, 0.5, 1.0))
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(1000):
            orders.labels("eu").inc()
            seconds.observe(0.25)
        os._exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


def run_app(segments: str, name: str = "shop") -> None:
    env = clean_environment(AGENT_METRICS_DIR=segments, AGENT_METRICS_APP=name)
    subprocess.run(
        [sys.executable, "-c", APP], check=True, env=env, cwd=segments, timeout=DEADLINE_S
    )


def test_prometheus_stores_the_totals_that_were_acknowledged(
    collector: Collector, program: Callable[[str], str], tmp_path: Path
) -> None:
    """What StatsD senders and an app of several processes counted is what the query API answers."""
    with prometheus(program("prometheus"), tmp_path, collector.http_port) as server:
        collector.send_tcp([b"shop.sold:1|c|#region:eu"] * 700 + [b"shop.sold:2|c|#region:us"] * 50)
        collector.send_tcp([b"shop.wait:250|ms"] * 90 + [b"shop.wait:900|ms"] * 10)
        collector.send_tcp([b"shop.stock:40|g", b"shop.stock:+2|g"])
        run_app(collector.dir)
        server.wait_for('sum(shop_sold_total{region="eu"})', 700)
        server.wait_for("sum(shop_sold_total)", 800)
        server.wait_for("sum(shop_wait_seconds_count)", 100)
        server.wait_for("max(shop_stock)", 42)
        server.wait_for('sum(orders_total{app="shop",region="eu"})', 3000)
        server.wait_for('sum(order_seconds_count{app="shop"})', 3000)
        server.wait_for('sum(order_seconds_sum{app="shop"})', 750)
        assert server.query('order_seconds_bucket{app="shop",le="0.5"}') == [3000]
        [median] = server.query("histogram_quantile(0.5, sum by (le) (shop_wait_seconds_bucket))")
        assert 0.1 <= median <= 0.25
        # A second scrape after more traffic sees the new total, and no scrape had anything to say.
        collector.send_tcp([b"shop.sold:1|c|#region:eu"] * 300)
        server.wait_for('sum(shop_sold_total{region="eu"})', 1000)
        eventually(server.target, lambda told: told == ("up", ""), "a scrape without an error")
        # What was refused is refused whatever the time it took.
        assert server.query(
            "sum(scrape_samples_post_metric_relabeling - scrape_samples_scraped)"
        ) == [0]


def test_a_restarted_worker_leaves_no_dent_in_the_graph(
    collector: Collector, program: Callable[[str], str], tmp_path: Path
) -> None:
    """Killing every child of the supervisor makes no counter fall between two scrapes."""
    with prometheus(program("prometheus"), tmp_path, collector.http_port) as server:
        collector.send_tcp([b"steps:1|c"] * 100)
        server.wait_for("sum(steps_total)", 100)
        for child in child_pids(collector.process.pid):
            os.kill(child, signal.SIGKILL)
        collector.send_tcp([b"steps:1|c"] * 100)
        server.wait_for("sum(steps_total)", 200)
        assert server.query("resets(steps_total[5m])") == [0]


@pytest.mark.parametrize("traffic", ["idle", "busy"])
def test_promtool_has_no_complaint(
    collector: Collector, program: Callable[[str], str], traffic: str
) -> None:
    """`promtool check metrics` accepts our own metrics and those of senders and apps."""
    if traffic == "busy":
        collector.send_tcp(
            [
                b"shop.sold:1|c|#region:eu,city:Z\xc3\xbcrich",
                b"shop.wait:250|ms|#path:/a\\b",
                b"shop.size_bytes:512|h",
                b"shop.load:0.5|g",
                b"shop.users:anna|s",
                b"_e{5,4}:title|text",
                b"_sc|db|1|m:slow",
                b"not a metric",
            ]
        )
        run_app(collector.dir)
    text = collector.get("/metrics")
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (checked.stdout + checked.stderr, checked.returncode) == ("", 0)


def test_promtool_has_no_complaint_about_a_rendered_app(
    segments: str, program: Callable[[str], str]
) -> None:
    """`agent.render()` in a program without a collector passes the same check."""
    script = APP + "import sys; sys.stdout.buffer.write(bytes(agent.render()))\n"
    env = clean_environment(AGENT_METRICS_DIR=segments, AGENT_METRICS_APP="shop")
    text = subprocess.run(
        [sys.executable, "-c", script], check=True, env=env, cwd=segments, capture_output=True
    ).stdout
    assert b'orders_total{region="eu"} 3000' in text
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (checked.stdout + checked.stderr, checked.returncode) == (b"", 0)
