"""The account of a torture: what it takes for right, and every way to be wrong that it must see."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.torture.account import Account
from agent.torture.board import TALLIES, Board, Tallied, updates
from agent.torture.page import Page
from agent.torture.tallies import (
    BEGIN,
    EACH,
    KINDS,
    KINDS_MAX,
    OPERATIONS,
    OWN_SIZES,
    SIZES,
    STEPS,
    Cell,
    Form,
    amounts,
    in_flight,
    one,
    size_of,
)
from collector import clean_environment

Cells = dict[Cell, float]


def tallied(rounds: int, done: int | None = None) -> Tallied:
    """After so many rounds, in the last of which only the operations up to `done` were done."""
    last = EACH if done is None else done
    return tuple(
        rounds - (tally > last) if BEGIN <= tally <= EACH else 0 for tally in range(TALLIES)
    )


def counted(rows: list[Tallied], more: Iterable[tuple[Cell, float]] = ()) -> Cells:
    """What a product that is right has on its page."""
    cells: Cells = defaultdict(float)
    for row, tallies in enumerate(rows):
        for tally in range(STEPS, EACH):
            for cell, value in amounts(tally, tallies[tally], row, KINDS_MAX):
                cells[cell] += value
    for cell, value in more:
        cells[cell] += value
    return cells


def page(cells: Cells) -> Page:
    """Buckets stand on a page with those below them."""
    lines = []
    below: dict[tuple[str, object], float] = defaultdict(float)

    def order(cell: Cell) -> tuple[str, float]:
        return cell[0], float(dict(cell[1]).get("le", "0"))

    for name, labels in sorted(cells, key=order):
        value = cells[name, labels]
        if name.endswith("_bucket"):
            group = name, tuple(pair for pair in labels if pair[0] != "le")
            below[group] += value
            value = below[group]
        inside = ",".join(f'{label}="{said}"' for label, said in labels)
        lines.append(f"{name}{{{inside}}} {value}\n")
    return Page("".join(lines).encode())


ROWS = [tallied(3017), tallied(40, KINDS), tallied(0), tallied(512, OWN_SIZES)]


def test_a_page_with_what_was_acknowledged_is_right() -> None:
    """Also when all have died, each with nothing above it."""
    account = Account()
    right = page(counted(ROWS))
    assert account.judge(right, ROWS, ROWS) == []
    assert account.judge(right, ROWS, ROWS, ended=range(4)) == []
    assert account.settled == {0, 1, 2, 3}
    # Two of them were killed in an update, which is not counted.
    assert (account.difference(right, ROWS), account.in_flight) == (0, 2)
    assert account.judge(right, ROWS, ROWS) == []


def test_a_killed_process_may_have_counted_the_update_that_it_was_in() -> None:
    """Whole, and that one alone."""
    account = Account()
    tally = in_flight(ROWS[1])
    assert tally is not None
    assert OPERATIONS[tally - STEPS].name == "waits_seconds"
    right = page(counted(ROWS, one(tally, 40, 1, KINDS_MAX)))
    assert account.judge(right, ROWS, ROWS, ended=range(4)) == []
    assert (account.difference(right, ROWS), account.in_flight) == (1, 2)


@pytest.mark.parametrize("operation", range(STEPS, EACH))
@pytest.mark.parametrize("row", [0, 1])
def test_one_update_that_counts_twice_is_seen(operation: int, row: int) -> None:
    """Of a process that ended by itself, and of one that was killed in another update."""
    doubled = page(counted(ROWS, one(operation, 30, row, KINDS_MAX)))
    is_in_flight = in_flight(ROWS[row]) == operation and size_of(30) == size_of(ROWS[row][BEGIN])
    reasons = Account().judge(doubled, ROWS, ROWS, ended=range(4))
    assert bool(reasons) != is_in_flight


@pytest.mark.parametrize("operation", range(STEPS, EACH))
def test_one_update_that_is_lost_is_seen(operation: int) -> None:
    """As soon as it was acknowledged."""
    less = [(cell, -value) for cell, value in one(operation, 30, 0, KINDS_MAX)]
    assert Account().judge(page(counted(ROWS, less)), ROWS, ROWS)


def test_a_count_that_goes_to_a_wrong_label_or_bucket_is_seen() -> None:
    """Though all sums are right."""
    kind = [(("kinds_total", (("kind", str(n)),)), amount) for n, amount in ((3, -1.0), (4, 1.0))]
    bucket = [(("sizes_bucket", (("le", le),)), amount) for le, amount in (("2.0", -1), ("4.0", 1))]
    for wrong in (kind, bucket):
        assert Account().judge(page(counted(ROWS, wrong)), ROWS, ROWS)
    stranger: Cell = ("own_steps_total", (("process", "77"),))
    assert Account().judge(page(counted(ROWS, [(stranger, 1.0)])), ROWS, ROWS)


def test_half_an_update_of_a_killed_process_is_seen() -> None:
    """Its count without its bucket, in the series of its own."""
    rows = [tallied(9, SIZES)]
    assert in_flight(rows[0]) == OWN_SIZES
    whole = list(one(OWN_SIZES, 9, 0, KINDS_MAX))
    assert Account().judge(page(counted(rows, whole)), rows, rows, ended=[0]) == []
    for left_out in range(len(whole)):
        half = whole[:left_out] + whole[left_out + 1 :]
        assert Account().judge(page(counted(rows, half)), rows, rows, ended=[0])


def test_the_series_of_a_settled_process_stay_until_they_are_released() -> None:
    """Then they may go, and must not come back."""
    account, rows = Account(), [tallied(9), tallied(3)]
    right = counted(rows)
    swept = {cell: value for cell, value in right.items() if ("process", "0") not in cell[1]}
    assert account.judge(page(right), rows, rows, ended=[0]) == []
    assert account.judge(page(swept), rows, rows)
    account.release(0)
    assert account.judge(page(swept), rows, rows) == []
    assert account.judge(page(right), rows, rows)


def test_label_sets_without_room_may_be_in_the_overflow_series() -> None:
    """Then all of a sample together are what they must be, and none has more than it may."""
    overflow: Cell = ("kinds_total", (("agent_overflow", "true"),))
    moved = {("kinds_total", (("kind", "3"),)): -5.0, overflow: 5.0}
    account = Account(has_overflow=True)
    assert Account().judge(page(counted(ROWS, moved.items())), ROWS, ROWS)
    assert account.judge(page(counted(ROWS, moved.items())), ROWS, ROWS) == []
    assert account.judge(page(counted(ROWS, {**moved, overflow: 4.0}.items())), ROWS, ROWS)
    wrong = {("kinds_total", (("kind", "3"),)): -1.0, ("kinds_total", (("kind", "4"),)): 1.0}
    assert account.judge(page(counted(ROWS, wrong.items())), ROWS, ROWS)


@pytest.mark.parametrize("rounds", [0, 1, 7, 8, 9, 24, 25, 1000])
def test_what_rounds_are_on_a_page_is_the_sum_of_its_updates(rounds: int) -> None:
    """The short way and the long way."""
    for tally in range(STEPS, EACH):
        short: Cells = defaultdict(float)
        long: Cells = defaultdict(float)
        for cell, value in amounts(tally, rounds, 5, 24):
            short[cell] += value
        for number in range(1, rounds + 1):
            for cell, value in one(tally, number, 5, 24):
                long[cell] += value
        assert {c: v for c, v in short.items() if v} == long


def test_updates_are_counted_and_not_their_values(tmp_path: Path) -> None:
    """What the board says, against an independent count of the calls that reached the metrics."""
    program = """
import sys
from agent.torture import work
from agent.torture.board import Board
board = Board(sys.argv[1])
made = work.Work(board)
calls = 0
def noted(count):
    def call(number):
        global calls
        calls += 1
        count(number)
    return call
made.sequence = [(tally, noted(count)) for tally, count in made.sequence]
for _ in range(123):
    made.round()
print(calls, board.updates)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "board")],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(AGENT_METRICS_DIR=str(tmp_path / "segments")),
    )
    assert done.stdout.split() == [str(123 * len(OPERATIONS))] * 2, done.stderr


def test_a_snapshot_has_each_update_once(tmp_path: Path) -> None:
    """Neither rounds that were begun nor refusals are updates."""
    board = Board(str(tmp_path / "board"))
    row = board.claim()
    for tally in range(TALLIES):
        row.add(tally, 10**tally)
    assert updates(board.snapshot()) == sum(10**tally for tally in range(STEPS, EACH + 2))
    assert board.updates == updates(board.snapshot())


def test_every_form_is_compared() -> None:
    """Shared and of one process alike, but for labels and native ones."""
    forms = {(operation.form, operation.is_own) for operation in OPERATIONS}
    for form in (Form.COUNTER, Form.HISTOGRAM, Form.SUMMARY):
        assert {(form, True), (form, False)} <= forms
