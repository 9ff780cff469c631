"""`load connections` against a real collector: every message counts, and trouble is told."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.lab.connections import Controller, run
from agent.lab.plan import Plan
from agent.lab.target import Collector as Asked
from agent.report.html import html
from agent.report.model import read as read_result
from collector import (
    DEADLINE_S,
    Collector,
    child,
    clean_environment,
    eventually,
    reserved_port,
)

# A loaded machine makes the generator late; how late is not what these tests are about.
PATIENT = 30.0


def plan_for(collector: Collector, **change: Any) -> Plan:
    port = collector.http_port if change.get("protocol") == "http" else collector.statsd_port
    usual: dict[str, Any] = {
        "connections": 500,
        "hold_s": 1.0,
        "message_interval_s": 0.5,
        "late_max_s": PATIENT,
        "ack_timeout_s": PATIENT,
        "run": os.urandom(4).hex(),
    }
    return Plan(target=f"127.0.0.1:{port}", **(usual | change))


def asked(collector: Collector) -> Asked:
    return Asked(collector.url(""))


def command(*arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "load", "connections", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=clean_environment(),
    )


def test_five_thousand_connections_and_every_message_in_the_total(
    collector: Collector, tmp_path: Path
) -> None:
    """The command opens, holds, sends, checks the collector's total, and leaves with 0."""
    file, page = tmp_path / "result.json", tmp_path / "result.html"
    done = command(
        "--connections=5000",
        "--hold=3s",
        "--message-interval=1s",
        f"--target=127.0.0.1:{collector.statsd_port}",
        f"--collector={collector.url('')}",
        "--ack-timeout=30s",
        "--late-max=30s",
        f"--json={file}",
        f"--html={page}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert page.read_text(encoding="utf-8") == html(read_result(file.read_bytes()))
    assert "\nPassed: All 5,000 connections were held" in done.stdout
    told = json.loads(file.read_text())
    totals = told["totals"]
    assert (totals["opened"], totals["open_held"], totals["failed"]) == (5000, 5000, {})
    # One in each of three seconds, give or take one a connection; fewer where the machine is late.
    assert 0 < totals["messages_sent"] <= 20_000
    assert totals["messages_acked"] == totals["messages_sent"]
    assert totals["counted_by_collector"] == totals["messages_sent"]
    label = {"run": told["plan"]["run"]}
    assert collector.scrape().one("load_messages_total", **label) == totals["messages_sent"]
    ledger = told["ledger"]
    sent = totals["messages_sent"]
    assert ledger['agent_source_samples_received_total{source="statsd_tcp"}'] == sent
    assert ledger['agent_source_samples_applied_total{source="statsd_tcp"}'] == sent
    assert ledger['agent_connections_opened_total{source="statsd_tcp"}'] == 5000
    assert told["latency"]["message"]["count"] == totals["messages_acked"]
    assert sum(n for _, n in told["latency"]["connect"]["buckets"]) == 5000
    assert [phase["name"] for phase in told["phases"]] == ["open", "hold", "finish", "close"]
    assert sum(second["sent_per_s"] for second in told["timeline"]) == totals["messages_sent"]
    assert told["cost"]["server_cpu_s"] > 0
    assert told["cost"]["client_us_per_message"] > 0


def test_http_connections_are_kept_and_answered(collector: Collector) -> None:
    """One request after another on each connection; each is counted once."""
    controller = Controller(plan_for(collector, protocol="http"), collector=asked(collector))
    with controller:
        controller.open()
        controller.message(0.5)
        eventually(
            lambda: (controller.hold(0.5), controller.account.counts["messages_acked"])[1],
            lambda count: count > 500,
            "a second request on a connection",
        )
        controller.finish()
        controller.close()
    told = controller.result()
    assert told["verdict"] == {"outcome": "pass", "reasons": []}
    totals = told["totals"]
    assert totals["opened"] == 500
    assert totals["messages_acked"] == totals["counted_by_collector"] > 500


def test_several_executors_make_one_run(collector: Collector) -> None:
    """Their figures are added up; nothing is counted twice."""
    controller = Controller(plan_for(collector, executors=3), collector=asked(collector))
    told = run(controller)
    assert told["verdict"] == {"outcome": "pass", "reasons": []}
    assert told["plan"]["executors"] == 3
    assert told["totals"]["opened"] == 500
    assert told["totals"]["messages_acked"] == told["totals"]["counted_by_collector"]


def test_a_killed_executor_makes_the_run_invalid(collector: Collector) -> None:
    """What is left is no measurement; the verdict says who died."""
    controller = Controller(plan_for(collector, executors=2))
    with controller:
        controller.open()
        os.kill(controller.executors[1].pid, signal.SIGKILL)
        controller.hold(3600)
        controller.finish()
        controller.close()
    told = controller.result()
    assert told["verdict"]["outcome"] == "invalid"
    assert "executor 1 was killed by signal 9" in told["verdict"]["reasons"]
    assert told["phases"][1]["t1"] < 3600, "it did not wait for the end of the hold"


def test_connections_of_a_killed_worker_come_back(
    start_collector: Callable[..., Collector],
) -> None:
    """With reconnect they return by themselves, and the time that took is in the result."""
    collector = start_collector(workers=2)
    with Controller(plan_for(collector, reconnect=True), collector=asked(collector)) as controller:
        controller.open()
        # The kernel opens connections; those that were not accepted yet survive a worker.
        collector.wait_for(500, "agent_connections_opened_total", source="statsd_tcp")
        os.kill(child(collector, "agent-worker-1"), signal.SIGKILL)
        eventually(
            lambda: (controller.hold(0.2), controller.account.counts["reconnected"])[1],
            lambda count: count > 100,
            "connections came back",
        )
        eventually(
            lambda: (controller.hold(0.2), controller.account.now("open"))[1],
            lambda n: n == 500,
            "all open",
        )
        controller.hold(1, 0.5)
        controller.finish()
        controller.close()
    told = controller.result()
    assert told["verdict"] == {"outcome": "pass", "reasons": []}
    assert told["latency"]["recovery"]["count"] == told["totals"]["reconnected"]


def test_a_storm_is_ridden_and_its_phases_are_told(collector: Collector) -> None:
    """All vanish at once, all return at once, and messages are answered again."""
    controller = Controller(plan_for(collector), collector=asked(collector))
    told = run(controller, storm="return")
    assert told["verdict"] == {"outcome": "pass", "reasons": []}
    names = [phase["name"] for phase in told["phases"]]
    assert names == [
        *("open", "hold", "finish", "storm-vanish", "storm-return", "hold", "finish", "close")
    ]
    assert told["totals"]["opened"] == 1000


def test_a_dead_target_is_a_clear_failure() -> None:
    """Nothing listens: code 1, the reason and how often."""
    with reserved_port() as port:
        done = command(
            "--connections=200", "--hold=0s", f"--target=127.0.0.1:{port}", "--collector=none"
        )
    assert done.returncode == 1, done.stderr
    assert "200 of 200 connections were not open (failures: 200 refused)" in done.stdout
    assert "\nFailed: " in done.stdout


def test_more_than_the_machine_can_hold_is_refused_with_the_limit() -> None:
    """Code 69 and what to change, before anything is opened."""
    done = command("--connections=9999999", "--executors=0", "--hold=0s", "--collector=none")
    assert done.returncode in (64, 69), done.stderr
    assert "connections" in done.stderr
    two_hundred = command("--connections=200000", "--sources=1", "--hold=0s", "--collector=none")
    assert two_hundred.returncode == 69, two_hundred.stderr
    assert "200,000 connections cannot be held here" in two_hundred.stderr
    assert "to change:" in two_hundred.stderr


def test_a_collector_that_does_not_answer_is_told_before_the_run() -> None:
    """Code 69: without its totals nothing could be checked."""
    with reserved_port() as port:
        done = command(
            "--connections=10", f"--target=127.0.0.1:{port}", f"--collector=http://127.0.0.1:{port}"
        )
    assert done.returncode == 69
    assert "cannot ask the collector" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target=192.0.2.1:8125"], "--allow-remote"),
        (["--target=nowhere"], "is not HOST:PORT"),
        (["--hold=soon"], "is not a duration"),
        (["--open-rate=-1"], "open-rate"),
        (["--message-interval=2000h"], "message interval must be"),
        (["--executors=2000"], "executors must be"),
        (["--sources=a,b"], "is not an IP address"),
        (["--connections=99999999"], "connections must be"),
        (["--protocol=smtp"], "smtp"),
    ],
)
def test_bad_flags_leave_with_64_and_a_sentence(arguments: list[str], sentence: str) -> None:
    """Nothing is opened."""
    done = command("--connections=10", *arguments)
    assert done.returncode == 64, done.stdout + done.stderr
    assert sentence in done.stderr


def test_an_interrupt_ends_the_run_with_what_there_is(collector: Collector, tmp_path: Path) -> None:
    """Ctrl-C: connections are closed, the result is written and says that it is partial."""
    file = tmp_path / "result.json"
    run_ = subprocess.Popen(
        [
            *(sys.executable, "-m", "agent", "load", "connections", "--connections=300"),
            *("--hold=10m", "--message-interval=200ms", f"--json={file}", "--collector=none"),
            *("--ack-timeout=30s", f"--target=127.0.0.1:{collector.statsd_port}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        # As a terminal does: the signal goes to the whole group.
        process_group=0,
    )
    # The second message of a connection follows the answer to the first.
    eventually(
        lambda: collector.scrape().sum("load_messages_total"),
        lambda count: count > 300,
        "an answer has come",
    )
    os.killpg(run_.pid, signal.SIGINT)
    out, err = run_.communicate(timeout=DEADLINE_S)
    assert run_.returncode == 130, err
    told = json.loads(file.read_text())
    assert told["status"] == "interrupted"
    assert told["verdict"]["outcome"] == "invalid"
    assert told["totals"]["messages_acked"] > 0
    assert "\nNot valid: " in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_as_an_interrupt_does(
    collector: Collector, tmp_path: Path, number: signal.Signals
) -> None:
    """Also where Ctrl-C is ignored, as in the background of a script."""
    file = tmp_path / "result.json"
    run_ = subprocess.Popen(
        [
            *(sys.executable, "-m", "agent", "load", "connections", "--connections=200"),
            *("--hold=1h", "--message-interval=0.1s", f"--json={file}", "--quiet"),
            f"--target=127.0.0.1:{collector.statsd_port}",
            f"--collector={collector.url('')}",
        ],
        env=clean_environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    eventually(lambda: "load_messages" in collector.get("/metrics"), bool, "messages have come")
    run_.send_signal(signal.SIGINT)
    run_.send_signal(number)
    assert run_.wait(DEADLINE_S) == 130
    assert json.loads(file.read_text())["status"] == "interrupted"


def test_executors_do_not_outlive_the_controller(collector: Collector) -> None:
    """However it dies, the end of its pipe ends them."""
    code = (
        "import sys\n"
        "from agent.lab.connections import Controller\n"
        "from agent.lab.plan import Plan\n"
        f"c = Controller(Plan(connections=100, target='127.0.0.1:{collector.statsd_port}'))\n"
        "c.__enter__()\nc.open()\n"
        "print(c.executors[0].pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    executor = int(process.stdout.readline())
    process.kill()
    process.communicate()
    eventually(lambda: os.path.exists(f"/proc/{executor}"), lambda is_there: not is_there, "gone")


def test_running_out_of_descriptors_is_a_reason_not_a_crash(collector: Collector) -> None:
    """More connections than the file limit has room for are counted as such."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Controller(plan_for(collector, connections=200)) as controller:
        pid = controller.executors[0].pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (100, hard))
        controller.open()
        controller.close()
    told = controller.result()
    assert told["verdict"]["outcome"] == "fail"
    assert told["totals"]["failed"].keys() == {"no_file"}
    assert told["totals"]["opened"] + told["totals"]["failed"]["no_file"] == 200


def test_it_takes_the_newest_address_family(start_collector: Callable[..., Collector]) -> None:
    """IPv6 loopback works as well, from the one address that there is."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    collector = start_collector("--statsd=[::1]:0")
    plan = plan_for(collector, connections=50)
    plan = Plan(
        connections=50,
        target=f"[::1]:{collector.statsd_port}",
        hold_s=0.5,
        message_interval_s=0.2,
        late_max_s=PATIENT,
        run=plan.run,
    )
    told = run(Controller(plan, collector=asked(collector)))
    assert told["verdict"] == {"outcome": "pass", "reasons": []}


def test_a_result_that_could_not_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    """Not after an hour: the folder is looked at first."""
    for option in ("--json", "--html"):
        file = tmp_path / "none" / "result"
        done = command("--connections=1", "--target=127.0.0.1:9", f"{option}={file}")
        assert done.returncode == 64
        assert f"{file}: {tmp_path}/none is not a folder that can be written to" in done.stderr
        done = command("--connections=1", "--target=127.0.0.1:9", f"{option}={tmp_path}")
        assert done.returncode == 64
        assert f"{tmp_path} is a folder; the name of a file is needed" in done.stderr
