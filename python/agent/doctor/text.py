"""A diagnosis for people: one entry for each limit, then what the machine can hold. Pure."""

from __future__ import annotations

from .examine import Capacity, Diagnosis
from .finding import Finding

# The SGR codes of a terminal.
COLOURS = {"ok": "32", "note": "2", "limit": "33", "slows": "33", "blocks": "1;31"}
DIM = "2"
MARK, NAME, COUNT = 8, 22, 13


def text(diagnosis: Diagnosis, *, colour: bool = False) -> str:
    """The whole diagnosis, with a newline at its end."""
    heading = f"{'':{MARK}}{'what':{NAME}}{'connections':>{COUNT}}  in force, and what it limits"
    lines = [_paint(heading, DIM, colour)]
    for finding in diagnosis.findings:
        lines += _entry(finding, colour)
    lines += ["", *conclusion(diagnosis)]
    return "\n".join(lines) + "\n"


def conclusion(diagnosis: Diagnosis) -> list[str]:
    """What the findings come to, in sentences."""
    lines = [
        f"As the server alone this machine holds {_capacity(diagnosis.server)}.",
        f"With both ends on it, it holds {_capacity(diagnosis.both)}.",
    ]
    goal = diagnosis.goal
    if goal.connections is None:
        return lines
    ends = {"server": "as the server", "client": "as the client", "both": "with both ends here"}
    wanted = f"{goal.connections:,} connections {ends[goal.ends]}"
    if diagnosis.refusals:
        return [*lines, f"{wanted}: no.", *(f"  {reason}" for reason in diagnosis.refusals)]
    return [*lines, f"{wanted}: yes, in {diagnosis.processes:,} processes."]


def _entry(finding: Finding, colour: bool) -> list[str]:
    mark = _paint(f"{finding.standing:{MARK}}", COLOURS[finding.standing], colour)
    count = "-" if finding.connections is None else f"{finding.connections:,}"
    indent = " " * (MARK + NAME + COUNT + 2)
    lines = [
        f"{mark}{finding.name:{NAME}}{count:>{COUNT}}  {finding.value}",
        _paint(f"{indent}{finding.limits}", DIM, colour),
    ]
    if finding.change and finding.standing in ("limit", "blocks", "slows"):
        lines.append(f"{indent}to change: {finding.change}")
    return lines


def _capacity(capacity: Capacity) -> str:
    return (
        f"{capacity.connections:,} connections, in {capacity.processes:,} processes"
        f" (limited by: {capacity.limited_by})"
    )


def _paint(words: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if colour else words
