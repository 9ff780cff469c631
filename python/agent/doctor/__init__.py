"""What this machine can hold: how many connections, what limits them, and what to change.

    facts = doctor.read()
    diagnosis = doctor.examine(facts, doctor.Goal(connections=1_000_000, ends="both"))
    for sentence in diagnosis.refusals:
        ...

Purpose: to know before a run, not in the middle of it. `facts` is what was read, `rules` and
`examine` are what follows from it (pure), `read` is the only part that touches the system.
"""

from __future__ import annotations

from .examine import Capacity, Diagnosis, examine
from .facts import Conntrack, Facts
from .finding import Finding, Goal
from .read import read

__all__ = ["Capacity", "Conntrack", "Diagnosis", "Facts", "Finding", "Goal", "examine", "read"]
