"""Log records: whole lines, in the right form, that no value can break."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from agent.log import RECORD_BYTES_MAX, Log

NOW = datetime(2026, 11, 21, 10, 0, 0, 123_456, tzinfo=UTC)


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)

    def lines(self) -> list[str]:
        try:
            return os.read(self.reader, 1 << 20).decode().splitlines()
        except BlockingIOError:
            return []


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)
    os.close(made.writer)


def log(pipe: Pipe, form: str, level: str = "info") -> Log:
    return Log(pipe.writer, form, level, now=lambda: NOW)  # type: ignore[arg-type]


def test_text(pipe: Pipe) -> None:
    log(pipe, "text").warning("worker-1 died", pid=12, why="a b", none="")
    assert pipe.lines() == [
        '2026-11-21T10:00:00.123Z warning worker-1 died pid=12 why="a b" none=""'
    ]


def test_json(pipe: Pipe) -> None:
    log(pipe, "json").error("bad", pid=12)
    assert json.loads(pipe.lines()[0]) == {
        "ts": "2026-11-21T10:00:00.123Z",
        "level": "error",
        "message": "bad",
        "pid": 12,
    }


def test_automatic_is_json_into_a_pipe(pipe: Pipe) -> None:
    assert log(pipe, "auto").form == "json"


def test_records_below_the_level_are_not_written(pipe: Pipe) -> None:
    some = log(pipe, "text", "warning")
    some.info("no")
    some.warning("yes")
    assert len(pipe.lines()) == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_value_starts_a_line_or_reaches_the_terminal(pipe: Pipe, form: str) -> None:
    log(pipe, form).info("a\nb\x1b[2J", key="c\n\x1b]0;x\x07")
    (line,) = pipe.lines()
    assert "\x1b" not in line
    assert "\x07" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_huge_record_is_cut(pipe: Pipe, form: str) -> None:
    log(pipe, form).info("x", key="y" * 100_000)
    (line,) = pipe.lines()
    assert len(line) < RECORD_BYTES_MAX
    if form == "json":
        assert json.loads(line)["message"] == "x"


def test_a_full_pipe_drops_and_counts_instead_of_blocking(pipe: Pipe) -> None:
    some = log(pipe, "text")
    for _ in range(3000):
        some.info("x" * 100)
    assert some.dropped > 0


def test_records_of_children_are_relayed_with_their_source(pipe: Pipe) -> None:
    log(pipe, "json").relay("worker-1", b'{"level":"warning","message":"m","n":1}')
    record = json.loads(pipe.lines()[0])
    assert (record["level"], record["message"], record["source"], record["n"]) == (
        "warning",
        "m",
        "worker-1",
        1,
    )


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b'{"level":"info"}', b"\xff\xfe"])
def test_an_unreadable_record_of_a_child_is_shown_not_lost(pipe: Pipe, text: bytes) -> None:
    log(pipe, "json").relay("worker-1", text)
    assert json.loads(pipe.lines()[0])["message"] == "unreadable record"
