"""What each tally of the board stands for, and the sample of a page that it is compared with."""

from __future__ import annotations

# Sample on the page, amount of one acknowledged unit on it, the most that one update adds.
TALLIES: tuple[tuple[str, float, int], ...] = (
    ("steps_total", 1.0, 1),
    ("halves_total", 0.5, 1),
    ("sizes_count", 1.0, 1),
    ("sizes_sum", 1.0, 8),
    ("kinds_total", 1.0, 1),
    ("waits_seconds_count", 1.0, 1),
)
# Of metrics that a process defines for itself, `late_*_count`; compared by who wants them.
LATE = len(TALLIES)
LATE_METRICS = 40
# Rounds that raised AmountError: only where a counter is damaged.
RAISED = LATE + 1
STEPS, HALVES, SIZES, SIZES_SUM, KINDS, WAITS = range(len(TALLIES))
KINDS_MAX = 24
