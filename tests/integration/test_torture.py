"""`python -m agent torture`: each kind runs and holds, can fail, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import _native
from agent.torture.cases import CASES, KINDS
from collector import clean_environment, eventually

KINDS_TRIED = {
    "kills": ["kills/fork", "kills/forkserver", "kills/gunicorn", "kills/celery"],
    "collector": ["kills/collector"],
    "slow": ["slow"],
    "full": ["full/1MB", "full/32MB"],
    "damage": ["damage"],
    "restarts": ["restarts"],
}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent", "torture", *arguments]


def torture(*arguments: str, **env: str) -> tuple[int, str]:
    """The exit code, and what it wrote to standard output."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(**env),
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", KINDS_TRIED)
def test_each_kind_runs_and_holds(kind: str, segments: str, tmp_path: Path) -> None:
    """A few seconds of each; what cannot run on this machine says why, and nothing is left.

    The user's own folder of segments is not touched.
    """
    arguments = [*KINDS_TRIED[kind], "--time", "2s", "--seed", "7", "--dir", segments, "--json"]
    code, told = torture(*arguments, AGENT_METRICS_DIR=str(tmp_path))
    report = json.loads(told)
    bad = [one for one in report["outcomes"] if one["status"] == "not held"]
    assert not bad, bad
    ran = [one for one in report["outcomes"] if one["status"] == "held"]
    if not ran:
        pytest.skip("; ".join(one["why"][0] for one in report["outcomes"]))
    assert code == 0
    for one in ran:
        assert one["operations"] > 0 or one["figures"]["bytes flipped"] > 0, one
    for one in report["outcomes"]:
        assert one["status"] == "held" or one["why"], one
    if kind == "kills":
        assert all(one["kills"] >= 12 for one in ran)
        assert all(0 <= one["difference"] <= one["in_flight"] for one in ran)
    assert os.listdir(segments) == os.listdir(tmp_path) == []


REASONS = {
    "early": "was acknowledged before it",
    "lost": "was acknowledged before it",
    "twice": "own_steps_total",
    "label": 'kinds_total{kind="',
    "doubled": "the series is there twice",
}


@pytest.mark.parametrize("sabotage", REASONS)
def test_an_app_that_is_wrong_is_found(sabotage: str, segments: str) -> None:
    """For the reason for which it is wrong, and with exit code 1."""
    arguments = ["kills/fork", "--time", "1s", "--dir", segments, "--sabotage", sabotage]
    code, told = torture(*arguments, "--json")
    (outcome,) = json.loads(told)["outcomes"]
    assert (code, outcome["status"]) == (1, "not held")
    assert any(REASONS[sabotage] in why for why in outcome["why"]), outcome["why"]
    assert os.listdir(segments) == []


@pytest.mark.parametrize("sabotage", REASONS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_case_holds_with_a_sabotage(kind: str, sabotage: str, segments: str) -> None:
    """Each is not held; or it did not run, and says why: 69 if nothing of the kind ran."""
    arguments = [kind, "--time", "0.5s", "--seed", "7", "--dir", segments, "--json"]
    code, told = torture(*arguments, "--sabotage", sabotage)
    outcomes = json.loads(told)["outcomes"]
    assert [one["name"] for one in outcomes] == [one.name for one in CASES if one.kind == kind]
    held = [one for one in outcomes if one["status"] == "held"]
    assert not held, held
    assert all(one["why"] for one in outcomes)
    assert code == (1 if any(one["status"] == "not held" for one in outcomes) else 69)


def test_a_case_that_is_blind_to_a_sabotage_says_so(segments: str) -> None:
    """It did not run, which is 69, also beside one that did."""
    arguments = ["damage/contained", "--time", "1s", "--dir", segments, "--sabotage", "early"]
    code, told = torture(*arguments)
    assert code == 69
    assert "with --sabotage early: nothing is acknowledged here" in told


def test_the_clock_of_the_app_is_what_moves(segments: str) -> None:
    """Processes begin in another time, and no byte of the segment is the torture's."""
    code, told = torture("slow/clock", "--time", "2s", "--dir", segments, "--json")
    (outcome,) = json.loads(told)["outcomes"]
    if outcome["status"] == "not run":
        pytest.skip(outcome["why"][0])
    assert (code, outcome["status"]) == (0, "held"), outcome
    assert outcome["figures"]["steps of the clock"] >= 6
    assert outcome["figures"]["began in another time"] > 0


def test_a_case_that_could_not_run_is_69_beside_one_that_held(segments: str) -> None:
    """Both were asked for by name. There is no `unshare` for one of them."""
    code, told = torture(
        *("slow/dead", "full/1MB", "--time", "1s", "--dir", segments), PATH=segments
    )
    assert code == 69, told
    assert "  held      slow/dead" in told
    assert "  not run   full/1MB" in told


def test_a_kind_that_cannot_run_is_not_held(segments: str) -> None:
    """Without `unshare` there is no file system of one's own: not run, why, and exit code 69."""
    done = subprocess.run(
        command("full", "--time", "1s", "--dir", segments),
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(PATH=segments),
    )
    assert done.returncode == 69, done.stdout
    assert done.stdout.count("not run ") == 3
    assert "there is no `unshare`" in done.stdout
    assert "Nothing could run here." in done.stdout


def test_the_stepper_runs_where_it_is_compiled_in(segments: str) -> None:
    """Else its case says that it is not available."""
    code, told = torture("steps", "--time", "2s", "--seed", "7", "--dir", segments, "--json")
    (outcome,) = json.loads(told)["outcomes"]
    if outcome["status"] == "not run":
        assert code == 69
        assert outcome["why"][0].startswith("not available: ")
    else:
        assert hasattr(_native, "torture_steps")
        assert (code, outcome["status"]) == (0, "held"), outcome
        assert outcome["figures"]["kill points"] > 0


def test_ctrl_c_ends_with_the_report_so_far_and_cleans_up(segments: str, tmp_path: Path) -> None:
    """Exit code 130; no process and no folder of the run is left."""
    page = tmp_path / "page.html"
    process = subprocess.Popen(
        command("kills/fork", "--time", "1h", "--dir", segments, "--html", str(page)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        process_group=0,
    )
    try:
        eventually(
            lambda: list(Path(segments).glob("*/*/segments/*.seg")), bool, "a segment is made"
        )
        os.killpg(process.pid, signal.SIGINT)
        told, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told + errors
    assert "interrupted before its end" in told
    assert "Interrupted: what came later did not run." in told
    assert "(interrupted)" in page.read_text()
    assert os.listdir(segments) == []
    assert not [line for line in commands() if segments in line]


def commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_the_page_has_every_case_and_the_report(segments: str, tmp_path: Path) -> None:
    """`--html` writes a file that needs no other, beside the text."""
    page = tmp_path / "page.html"
    code, told = torture(
        *("kills/fork", "slow/reused", "--time", "1s", "--seed", "7", "--dir", segments),
        *("--html", str(page)),
    )
    assert code == 0, told
    assert "seed 7" in told
    assert "Held: everything that ran." in told
    text = page.read_text()
    for name in ("kills/fork", "slow/reused", "Kills a second", "--seed 7"):
        assert name in text
    begin = text.index('id="report">') + len('id="report">')
    report: dict[str, Any] = json.loads(text[begin : text.index("</script>", begin)])
    assert [one["status"] for one in report["outcomes"]] == ["held", "held"]
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kils"], "'kils' is neither a kind"),
        (["kills/none"], "'kills/none' is neither a kind"),
        (["--time", "soon"], "'soon' is not a duration"),
        (["--dir", "/nowhere"], "/nowhere"),
        (["--html", "/nowhere/page.html"], "/nowhere/page.html: its folder"),
    ],
)
def test_wrong_usage_exits_64_and_says_what(arguments: list[str], said: str) -> None:
    """Nothing is started."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert said in done.stderr


def test_the_list_has_all_cases() -> None:
    """`--list` runs nothing."""
    code, told = torture("--list")
    assert code == 0
    for kind in ("steps", "kills", "slow", "full", "damage", "restarts"):
        assert f"{kind}: " in told
        assert f"  {kind}/" in told
