"""What the README shows works as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from collector import Collector, Samples, clean_environment

ROOT = Path(__file__).parent.parent
README = ROOT.joinpath("README.md").read_text()


def test_the_python_example_counts(segments: str) -> None:
    """The first example, run as a program, shows up in what it renders."""
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code + "print(bytes(agent.render()).decode())"],
        env=clean_environment(AGENT_METRICS_DIR=segments, AGENT_METRICS_APP="shop"),
        cwd=segments,
        capture_output=True,
        text=True,
        check=True,
    )
    samples = Samples(done.stdout)
    assert samples.one("orders_total", region="eu") == 1
    assert samples.one("order_seconds_count") == 1


def test_the_shell_lines_send_and_read_a_metric(collector: Collector) -> None:
    """The two lines for another terminal, with the ports of this test's collector."""
    block = README.split("in another terminal:\n\n", 1)[1].split("\n\n", 1)[0]
    send, read = (line.strip() for line in block.splitlines())
    assert "8125" in send
    assert "9464" in read
    shell = ["bash", "-euc"]
    subprocess.run([*shell, send.replace("8125", str(collector.statsd_port))], check=True)
    collector.wait_for(1, "shop_orders_total", region="eu")
    seen = subprocess.run(
        [*shell, read.replace("9464", str(collector.http_port))],
        check=True,
        capture_output=True,
        text=True,
    )
    assert re.search(r'^shop_orders_total\{.*region="eu".*\} 1$', seen.stdout, re.MULTILINE)


def test_every_make_target_that_is_named_exists() -> None:
    """`make NAME` in the README and the guide is a target of the Makefile."""
    text = README + ROOT.joinpath("CONTRIBUTING.md").read_text()
    makefile = ROOT.joinpath("Makefile").read_text()
    named = set(re.findall(r"(?:`|    )make ([a-z-]+)", text))
    assert {"serve", "test", "bench"} <= named
    assert {name for name in named if f"\n{name}:" not in makefile} == set()
