"""What is made of the outcomes of a torture: verdict, words, page."""

from __future__ import annotations

import io
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from agent.app.place import where
from agent.cli.torture import command
from agent.torture import sabotage
from agent.torture.cases import CASES, KINDS, seconds_of, select, unknown
from agent.torture.ground import Ground
from agent.torture.html import html
from agent.torture.outcome import Moment, Outcome, Report, Span
from agent.torture.progress import Progress
from agent.torture.session import default_folder
from agent.torture.text import repeat, text

HELD = Outcome(kind="kills", name="fork", status="held", kills=3, difference=1.0, in_flight=3)
BAD = Outcome(kind="full", name="1MB", status="not held", why=["<b>lost & gone</b>\x1b[31m"])
MISSING = Outcome(kind="steps", name="instructions", status="not run", why=["no stepper"])


def report(*outcomes: Outcome) -> Report:
    return Report(
        outcomes=list(outcomes),
        kinds=["kills", "full", "steps"],
        timeline=[Moment(0.5, 1, 100, 2), Moment(1.0, 3, 300, 4)],
        spans=[Span("kills/fork", 0.0, 1.0)],
    )


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((HELD,), "held"),
        ((HELD, MISSING), "held"),
        ((HELD, BAD), "not held"),
        ((MISSING,), "not run"),
        ((), "not run"),
    ],
)
def test_what_could_not_run_never_counts_as_held(
    outcomes: tuple[Outcome, ...], verdict: str
) -> None:
    """And whatever did not hold decides."""
    assert report(*outcomes).verdict == verdict


def test_kinds_that_could_not_run_are_known() -> None:
    """One that did not hold has run."""
    assert report(HELD, BAD, MISSING).unrun_kinds == ["steps"]


def test_a_case_that_was_named_and_could_not_run_is_known_though_its_kind_ran() -> None:
    """Each case that was named is wanted."""
    missing = Outcome(kind="kills", name="celery", status="not run", why=["celery"])
    told = report(HELD, missing)
    told.kinds = ["kills/fork", "kills/celery"]
    assert told.unrun_kinds == ["kills/celery"]
    told.kinds = ["kills"]
    assert told.unrun_kinds == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--time 60s --seed 7"),
        (["kills/fork", "full"], "kills/fork full --time 60s --seed 7"),
        (["slow", "--time", "90m", "--dir", "a b"], "slow --time 5400s --seed 7 --dir 'a b'"),
        (
            ["slow", "--time", "250ms", "--sabotage", "twice"],
            "slow --time 0.25s --seed 7 --sabotage twice",
        ),
    ],
)
def test_the_command_that_repeats_a_run_asks_for_the_same(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read by the same flags."""

    def plan_of(line: list[str]) -> dict[str, Any]:
        given = command.make_context("torture", line).params
        return {name: given[name] for name in ("kinds", "seconds", "seed", "folder", "sabotage")}

    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    asked = plan_of([*arguments, "--seed", "7"])
    told = Report(
        kinds=list(asked["kinds"]) or ["kills"],
        is_named=bool(asked["kinds"]),
        seed=7,
        planned_s=asked["seconds"],
        folder=asked["folder"],
        sabotage=asked["sabotage"],
    )
    assert repeat(told) == f"agent-metrics torture {words}"
    assert plan_of(shlex.split(repeat(told))[2:]) == asked


def test_segments_are_made_beside_those_of_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `place` puts them, wherever a login shell has its own folder."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    monkeypatch.delenv("AGENT_METRICS_DIR", raising=False)
    assert default_folder() == os.path.dirname(where())
    monkeypatch.setenv("AGENT_METRICS_DIR", "/srv/metrics/shop")
    assert default_folder() == "/srv/metrics"


def test_the_text_has_reasons_and_figures_and_steers_no_terminal() -> None:
    """The words of a program that failed are in it, without their control characters."""
    told = text(report(HELD, BAD, MISSING))
    assert "3 kills, difference 1 of at most 3 in flight" in told
    assert "<b>lost & gone</b>?[31m" in told
    assert "1 of 3 cases did not run: not held, not refuted." in told
    assert "\x1b" not in told


def test_the_page_escapes_what_programs_said() -> None:
    """Also inside of the embedded report."""
    page = html(report(HELD, BAD, MISSING))
    assert "&lt;b&gt;lost &amp; gone" in page
    assert "<b>lost" not in page


def test_cases_are_named_by_kind_or_alone() -> None:
    """Every kind has cases, no name is there twice, and shares add up."""
    assert {case.kind for case in CASES} == set(KINDS)
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)
    assert [case.name for case in select(["kills/fork", "full/1MB"])] == ["fork", "1MB"]
    assert select([]) == list(CASES)
    assert unknown(["kills", "kills/fork", "kills/none", "x"]) == ["kills/none", "x"]
    chosen = select(["slow"])
    assert sum(seconds_of(case, chosen, 60.0) for case in chosen) == pytest.approx(60.0)
    for case in CASES:
        assert callable(case.function())
        assert set(case.blind) <= set(sabotage.KINDS)
        assert all(case.blind.values())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals() -> None:
    """One line that is written over; elsewhere nothing at all."""
    pipe, terminal = io.StringIO(), Terminal()
    for out in (pipe, terminal):
        progress = Progress(out, 60.0)
        progress(report(HELD, BAD), select(["kills/fork"])[0], HELD, 12.0)
        progress.end()
    assert pipe.getvalue() == ""
    assert terminal.getvalue().startswith("\r   12 of 60 s  kills/fork  3 kills")
    assert "1 NOT held" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


def test_a_seed_repeats_what_a_case_decides(tmp_path: Path) -> None:
    """Whom, when and which byte are drawn from it, apart for each case."""

    def drawn(number: int, seed: int, name: str) -> list[float]:
        folder = tmp_path / str(number)
        folder.mkdir()
        ground = Ground(
            Outcome(kind="kills", name=name),
            seed=seed,
            seconds=1.0,
            folder=str(folder),
            sabotage=None,
            tell=lambda _: None,
        )
        return [ground.rng.random() for _ in range(5)]

    first = drawn(0, 7, "fork")
    assert drawn(1, 7, "fork") == first
    assert drawn(2, 8, "fork") != first
    assert drawn(3, 7, "spawn") != first
