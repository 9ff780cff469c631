"""Plans of load runs: what is refused, and how a run is divided."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lab.plan import EXECUTORS_MAX, Plan, PlanError, check, executors_needed, shares

GOOD = Plan(connections=1000, target="127.0.0.1:8125")


def test_a_usual_plan_is_taken() -> None:
    """So is one of IPv6, and one of another host (the command line asks for a flag there)."""
    check(GOOD)
    check(Plan(connections=1, target="[::1]:1"))
    check(Plan(connections=1, target="10.0.0.1:80", sources=("10.0.0.2",)))
    assert GOOD.is_loopback
    assert not Plan(connections=1, target="10.0.0.1:80").is_loopback


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"connections": 0}, "connections must be 1 to"),
        ({"open_rate": -1.0}, "open rate"),
        ({"hold_s": float("inf")}, "hold"),
        ({"message_interval_s": 1e9}, "message interval"),
        ({"ack_timeout_s": 0.0}, "answer timeout"),
        ({"target": "localhost:1"}, "not an address"),
        ({"target": "127.0.0.1:0"}, "port"),
        ({"sources": 3, "target": "10.0.0.1:80"}, "loopback target"),
        ({"sources": ("nowhere",)}, "not an IP address"),
        ({"sources": ("::1",)}, "different families"),
    ],
)
def test_what_nobody_can_do_is_refused_by_name(change: dict[str, Any], word: str) -> None:
    """Before anything is opened, with the part that is wrong."""
    with pytest.raises(PlanError, match=word):
        check(msgspec.structs.replace(GOOD, **change))


def test_executors_follow_from_the_file_limit() -> None:
    """As few as can hold the connections, 8 % of the limit left over."""
    million = msgspec.structs.replace(GOOD, connections=1_000_000)
    assert executors_needed(million, 20_000, cores=2) == 55
    assert executors_needed(million, 1_048_576, cores=2) == 2
    assert executors_needed(GOOD, 20_000, cores=2) == 1
    assert executors_needed(million, 1_048_576, cores=16) == 8


def test_too_few_executors_are_refused_with_the_number_that_works() -> None:
    """And so is a file limit that would need more processes than anybody wants."""
    plan = msgspec.structs.replace(GOOD, connections=100_000, executors=2)
    with pytest.raises(PlanError, match="6 can"):
        executors_needed(plan, 20_000, cores=2)
    with pytest.raises(PlanError, match=f"at most {EXECUTORS_MAX}"):
        executors_needed(msgspec.structs.replace(plan, executors=0), 64, cores=2)


@given(st.integers(1, 2_000_000), st.integers(1, 100))
def test_shares_add_up_and_have_addresses_of_their_own(connections: int, executors: int) -> None:
    """No connection is lost in the division, no address has more than 10,000 of them."""
    executors = min(executors, connections)
    plan = msgspec.structs.replace(GOOD, connections=connections)
    made = shares(plan, executors, seed=5)
    assert sum(share.connections for share in made) == connections
    assert max(s.connections for s in made) - min(s.connections for s in made) <= 1
    taken = set()
    for share in made:
        where = share.sources["loopback"]
        assert share.connections <= 10_000 * where["count"]
        mine = set(range(where["first"], where["first"] + where["count"]))
        assert not taken & mine
        taken |= mine


def test_listed_sources_are_dealt_out() -> None:
    """Each executor has its own; when there are fewer addresses they are shared."""
    listed = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    plan = Plan(connections=10, target="10.0.0.9:80", sources=listed)
    two = [share.sources["listed"] for share in shares(plan, 2, seed=0)]
    assert sorted(source for mine in two for source in mine) == list(listed)
    five = [share.sources["listed"] for share in shares(plan, 5, seed=0)]
    assert all(len(mine) == 1 for mine in five)
