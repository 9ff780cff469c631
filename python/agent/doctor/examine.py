"""From facts to a diagnosis: what limits, how many connections result, what to say no to. Pure.

Purpose: the findings of all rules, judged against what is wanted. A *hard* finding caps the number;
the others say what gets slower or lost beyond theirs.
"""

from __future__ import annotations

import msgspec

from .facts import Facts
from .finding import Finding, Goal, processes
from .rules import RULES


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections, what stops there, and how many processes hold them."""

    connections: int
    limited_by: str
    processes: int


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, and what they come to. `refusals`: why the goal is out of reach."""

    goal: Goal
    findings: list[Finding]
    server: Capacity
    both: Capacity
    # Processes that hold the goal; None without one.
    processes: int | None = None
    refusals: list[str] = []


def examine(facts: Facts, goal: Goal | None = None) -> Diagnosis:
    """What the facts mean for the goal."""
    goal = goal or Goal()
    findings = [rule(facts, goal) for rule in RULES]
    lowest = min(_allowed(findings), default=None)
    judged = [_judge(finding, goal, lowest) for finding in findings]
    wanted = goal.connections
    return Diagnosis(
        goal=goal,
        findings=judged,
        server=_capacity(facts, msgspec.structs.replace(goal, ends="server")),
        both=_capacity(facts, msgspec.structs.replace(goal, ends="both")),
        processes=None if wanted is None else processes(facts, wanted, goal.ends),
        refusals=[
            f"{finding.name}: {finding.value}; this allows {finding.connections:,} connections"
            f" (to change: {finding.change})"
            for finding in judged
            if finding.standing == "blocks"
        ],
    )


def _allowed(findings: list[Finding]) -> list[int]:
    return [f.connections for f in findings if f.is_hard and f.connections is not None]


def _judge(finding: Finding, goal: Goal, lowest: int | None) -> Finding:
    count, wanted = finding.connections, goal.connections
    standing = finding.standing
    if count is not None and wanted is not None and count < wanted:
        standing = "blocks" if finding.is_hard else "slows"
    elif count is not None and wanted is None and finding.is_hard and count == lowest:
        standing = "limit"
    return msgspec.structs.replace(finding, standing=standing)


def _capacity(facts: Facts, goal: Goal) -> Capacity:
    limits = [f for f in (rule(facts, goal) for rule in RULES) if f.is_hard]
    known = [(f.connections, f.name) for f in limits if f.connections is not None]
    count, name = min(known, default=(0, "unknown"))
    return Capacity(
        connections=count, limited_by=name, processes=processes(facts, count, goal.ends)
    )
