"""Results of load runs: the verdict, the account, and what the reports can read."""

from __future__ import annotations

from typing import Any

import click
import msgspec
import pytest

from agent.cli.duration import duration
from agent.lab.account import Account
from agent.lab.executor import Delta, Line
from agent.lab.plan import Plan
from agent.lab.result import Facts, build, verdict
from agent.lab.target import Page
from agent.report import model

PLAN = Plan(connections=10, target="127.0.0.1:8125", hold_s=1.0, message_interval_s=0.1, run="r1")


def line(second: int = 0, **change: Any) -> Line:
    return msgspec.structs.replace(Line(second=second), **change)


def facts(**change: Any) -> Facts:
    usual = Facts(plan=PLAN, executors=1, open_held=10, counted=100, open_seconds=1.0)
    return msgspec.structs.replace(usual, **change)


def account(late_ns: int = 1000, **change: int) -> Account:
    """A run in which all went well, but for the counts given."""
    counts = {"opened": 10, "messages_sent": 100, "messages_acked": 100} | change
    made = Account()
    delta = Delta([(bucket_of(late_ns), 100)], 100 * late_ns, late_ns)
    made.add(0, line(counts=counts, latency={"dispatch": delta, "message": delta}, open=10))
    return made


def bucket_of(ns: int) -> int:
    octave = max(0, ns.bit_length() - 8)
    return octave * 128 + (ns >> octave)


def test_a_run_in_which_all_was_answered_and_counted_passes() -> None:
    """No reason is given."""
    assert verdict(facts(), account()) == {"outcome": "pass", "reasons": []}


@pytest.mark.parametrize(
    ("seen", "counts", "sentence"),
    [
        ({"open_held": 9}, {}, "1 of 10 connections were not open"),
        ({}, {"closed_by_peer": 2}, "2 connections were lost (2 closed_by_peer)"),
        ({}, {"nacked": 1, "messages_acked": 99}, "1 messages were not taken"),
        ({}, {"messages_uncertain": 1, "messages_acked": 99}, "1 messages have no answer"),
        ({"counted": 99}, {"messages_acked": 99}, "the account is open: 1 messages"),
        ({"counted": 0}, {"messages_sent": 0, "messages_acked": 0}, "no message was acknowledged"),
        ({"counted": 99}, {}, "the collector counted 99 messages, 100 were acknowledged"),
        ({"counted": 101}, {}, "the collector counted 101 messages, 100 were acknowledged"),
        ({"failures": ["closing was not over"]}, {}, "closing was not over"),
    ],
)
def test_each_failure_of_the_target_is_a_reason(
    seen: dict[str, Any], counts: dict[str, int], sentence: str
) -> None:
    """With its number, and the outcome is fail."""
    told = verdict(facts(**seen), account(**counts))
    assert told["outcome"] == "fail"
    assert any(sentence in reason for reason in told["reasons"]), told


def test_a_generator_that_was_late_says_nothing_of_the_target() -> None:
    """Even when something failed as well."""
    told = verdict(facts(open_held=9), account(late_ns=200_000_000))
    assert told["outcome"] == "invalid"
    assert "the generator was late" in told["reasons"][0]
    assert len(told["reasons"]) == 2


def test_with_reconnect_uncertain_messages_may_have_been_counted_or_not() -> None:
    """The collector's total must lie between the two."""
    plan = msgspec.structs.replace(PLAN, reconnect=True)
    counts = {"messages_acked": 98, "messages_uncertain": 2, "broken": 2}
    for counted, outcome in ((97, "fail"), (98, "pass"), (100, "pass"), (101, "fail")):
        told = verdict(facts(plan=plan, counted=counted), account(**counts))
        assert told["outcome"] == outcome, counted


def test_the_document_is_one_that_reports_read() -> None:
    """Of a good run, and of one in which nothing happened."""
    told = build(facts(), account(), [{"name": "open", "t0": 0.0, "t1": 1.0}])
    read = model.from_data(told)
    assert read.totals.messages_acked == 100
    assert read.latency["message"].count == 100
    assert read.totals.open_rate == 0
    nothing = model.from_data(build(Facts(plan=PLAN, executors=1), Account(), []))
    assert nothing.verdict.outcome == "fail"
    assert nothing.latency["message"].p99 is None
    assert nothing.cost.client_us_per_message is None


def test_the_time_line_keeps_what_is_open_while_nobody_reports() -> None:
    """Executors report at their own pace; a second without news is as the one before."""
    made = Account()
    made.add(0, line(0, open=5, counts={"opened": 5}, cpu_s=0.5))
    made.add(1, line(2, open=7, counts={"opened": 7}, cpu_s=0.25))
    made.add(0, line(3, open=4, cpu_s=0.75))
    told = made.timeline()
    assert [moment["open"] for moment in told] == [5, 5, 12, 11]
    assert [moment["opened_per_s"] for moment in told] == [5, 0, 7, 0]
    assert [moment["client_cpu"] for moment in told] == [0.5, 0, 0.25, 0.25]
    assert [moment["t"] for moment in told] == [1, 2, 3, 4]


def test_a_page_gives_the_total_of_one_run_and_the_account_of_all_workers() -> None:
    """Other runs, and other metrics, are not in it."""
    page = Page(
        b"# TYPE load_messages_total counter\n"
        b'load_messages_total{run="r1"} 12\n'
        b'load_messages_total{app="x",run="r1"} 3\n'
        b'load_messages_total{run="r10"} 100\n'
        b'agent_source_samples_received_total{source="statsd_tcp",worker="0"} 7\n'
        b'agent_source_samples_received_total{source="statsd_tcp",worker="11"} 8\n'
        b'agent_source_samples_received_total{source="statsd_tcp",worker="desk"} 5\n'
    )
    assert page.counted("load_messages", "r1") == 15
    assert page.counted("load_messages", "r2") == 0
    assert page.ledger() == {'agent_source_samples_received_total{source="statsd_tcp"}': 20.0}


def test_durations_are_read_with_their_unit() -> None:
    """A bare number is seconds; anything else is refused with an example."""
    wanted = {"250ms": 0.25, "60s": 60, "1.5m": 90, "1h": 3600, "7d": 604_800, "7": 7}
    assert {text: duration(text) for text in wanted} == wanted
    for text in ("", "-1s", "1w", "s", "1 s"):
        with pytest.raises(click.BadParameter, match="250ms"):
            duration(text)
