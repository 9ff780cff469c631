"""The judge of one damaged byte, and the clock of programs: what they must not take for right."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent._native import open_segment
from agent.torture import contained, witness
from agent.torture.clock import Clock
from agent.torture.ground import CannotRunError, Ground
from agent.torture.outcome import Outcome


@pytest.fixture
def ground(segments: str) -> Ground:
    outcome = Outcome(kind="damage", name="contained")
    folder = Path(segments) / "case"
    folder.mkdir()
    return Ground(
        outcome, seed=3, seconds=0.1, folder=str(folder), sabotage=None, tell=lambda _: None
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "ends with 1"), (-11, "dies of signal 11"), (None, "hangs")],
)
def test_a_process_that_does_not_count_to_its_end_did_not_hold(
    code: int | None, reason: str, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the page says: an exception other than AmountError is one of them."""
    judge = contained.Judge(ground)
    monkeypatch.setattr(contained, "in_child", lambda *_: code)
    judge.trial(judge.page_words[0], 1)
    assert ground.is_bad
    assert reason in ground.outcome.why[0]


def test_an_update_that_raises_is_an_exit_code(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is neither that of success nor that of what the product said."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(witness, "open_segment", broken)
    assert witness.in_child(ground.segment(), 1) == 1


def test_a_page_word_may_hide_series_and_show_nothing_wrong(ground: Ground) -> None:
    """What is written of them: less than the whole, and each value right."""
    judge = contained.Judge(ground)
    seen = {name: dict(series) for name, series in judge.reference.items()}
    seen = {
        name: witness.after(series, contained.INCREMENTS) or {} for name, series in seen.items()
    }
    seen.pop("counter_0_total")
    seen["sizes"].popitem()
    judge._missing("byte", seen)
    assert not ground.is_bad
    seen["counter_1_total"][next(iter(seen["counter_1_total"]))] -= 1
    judge._missing("byte", seen)
    assert ground.is_bad


def test_the_words_of_pages_are_where_the_judge_looks_for_them(ground: Ground) -> None:
    """Each has a size class and a number of blocks in use; the first byte before them has not."""
    path = ground.segment("witness")
    assert witness.in_child(path, 1) == 0
    words = witness.page_words(path)
    with open(path, "rb") as file:
        data = file.read(words.stop + 8)
    assert 3 <= len(words) // 8 <= 16
    for place in words[::8]:
        word = int.from_bytes(data[place : place + 8], "little")
        assert 1 <= word & 0x3F <= 39
        assert 0 < word >> 8 & 0x7FF <= 1024
    assert not any(data[words.stop :])
    before = int.from_bytes(data[words.start - 8 : words.start], "little")
    assert not before or before >> 8 & 0x7FF > 1024 or not 1 <= before & 0x3F <= 39
    open_segment(path, "witness")


def clock(ground: Ground) -> Clock:
    try:
        return Clock(ground)
    except CannotRunError as error:
        pytest.skip(str(error))


def test_the_clock_of_a_program_moves_while_it_runs(ground: Ground) -> None:
    """Its wall clock, by the second; not the monotonic one, and nobody else's."""
    moved = clock(ground)
    program = "import time\nwhile input(): print(time.time(), time.monotonic(), flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=ground.environment() | moved.environment,
        pass_fds=moved.pass_fds,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for by in (0, -31_536_000, 31_536_000, 0):
            moved.move(by)
            process.stdin.write("x\n")
            process.stdin.flush()
            wall, monotonic = map(float, process.stdout.readline().split())
            assert abs(wall - by - time.time()) < 60
            assert abs(monotonic - time.monotonic()) < 60
        process.stdin.write("\n")


def test_without_a_compiler_there_is_no_clock(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the case does not run, and says why."""
    monkeypatch.setenv("PATH", ground.folder)
    with pytest.raises(CannotRunError, match="there is no C compiler"):
        Clock(ground)
