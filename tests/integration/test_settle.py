"""The ledger of a worker that was killed: what it had in work is booked, once."""

from __future__ import annotations

import pytest

import agent
from agent._native import open_segment, settle_worker
from samples import samples

LABELS = ("source", "worker")


@pytest.fixture
def registry(segments: str) -> agent.Registry:
    return open_segment(f"{segments}/agent.v3.seg")


def account(registry: agent.Registry, name: str) -> agent.Counter:
    labels = ("reason", *LABELS) if name == "rejected" else LABELS
    return agent.Counter(f"agent_source_samples_{name}", "L.", labels, registry=registry)


def test_what_was_in_work_is_rejected_once(registry: agent.Registry) -> None:
    """Received 100, applied 90, rejected 4: 6 are booked; other workers and sources are not.

    One of the reasons is unknown to this version: it counts all the same.
    """
    for source, worker, received in (("push", 1, 100), ("push", 2, 50), ("statsd_udp", 11, 7)):
        account(registry, "received").labels(source, worker).inc(received)
    account(registry, "applied").labels("push", 1).inc(90)
    account(registry, "applied").labels("push", 2).inc(49)
    account(registry, "rejected").labels("of_tomorrow", "push", 1).inc(3)
    account(registry, "rejected").labels("source_rate", "push", 1).inc(1)
    path = registry.path
    assert path is not None
    assert settle_worker(path, "1") == 6
    assert settle_worker(path, "1") == 0
    page = samples(registry.render())
    booked = {
        (dict(labels)["reason"], dict(labels)["worker"]): value
        for (name, labels), value in page.items()
        if name == "agent_source_samples_rejected_total"
    }
    assert booked == {("of_tomorrow", "1"): 3, ("source_rate", "1"): 1, ("worker_died", "1"): 6}


def test_a_place_that_there_is_not_is_an_error(segments: str) -> None:
    with pytest.raises(
        ValueError, match=r"\"tail\" is neither the number of a worker nor \"desk\""
    ):
        settle_worker(f"{segments}/agent.v3.seg", "tail")


def test_a_path_without_a_segment_is_an_error(segments: str) -> None:
    """The supervisor is told, not shown a zero."""
    with open(f"{segments}/agent.v3.seg", "w") as file:
        file.write("no segment" * 1000)
    with pytest.raises(agent.SegmentError, match="agent"):
        settle_worker(f"{segments}/agent.v3.seg", "0")
