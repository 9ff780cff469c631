"""`apps list|show|clear|remove|prune`: what people see, and what stays when it is refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent
from agent._native import LAYOUT_VERSION
from agent.cli import commands
from agent.cli.apps_found import Found
from agent.cli.apps_table import size, span, table
from programs import Program, running


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, segments: str) -> Path:
    monkeypatch.setenv("AGENT_METRICS_DIR", segments)
    return Path(segments)


def file(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.v{LAYOUT_VERSION}.seg"


def make(folder: Path, stem: str, app: str = "", count: int = 1) -> Path:
    """An app that ran; nobody lives when this is over."""
    registry = agent.Registry(file(folder, stem), app or stem)
    agent.Counter("runs", "Runs.", registry=registry).inc(count)
    del registry
    return file(folder, stem)


@pytest.fixture
def alive(folder: Path, tmp_path: Path) -> Iterator[int]:
    """The pid of a process of the app `shop`, which lives."""
    program = Program(tmp_path, str(folder))
    text = "import agent, os\nruns = agent.Counter('runs', 'Runs.')\nruns.inc()\n"
    text += "print('up', flush=True)\ninput()\nruns.inc()\nprint('again', flush=True)\ninput()\n"
    program.write("shop.py", text)
    with running(program, "shop.py") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process.pid


def run(*arguments: str) -> int:
    return commands.run(["apps", *arguments])


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert run("list", "--json") == 0
    return {row["app"]: row for row in json.loads(capsys.readouterr().out)}


def test_the_list_has_the_living_and_the_dead(
    folder: Path, alive: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With processes, series, memory, last alive, age, folder and file."""
    before_ms = int(time.time() * 1000)
    make(folder, "blog")
    make(folder, "agent")
    file(folder, "broken").write_bytes(b"nonsense")
    told = listed(capsys)
    assert sorted(told) == ["blog", "broken", "shop"], "the collector's own is no app"
    assert told["shop"]["pids"] == [alive]
    assert told["blog"]["pids"] == []
    began_ms = before_ms - 60_000
    assert before_ms <= int(str(told["shop"]["last_alive_ms"])) <= time.time() * 1000, "now"
    assert began_ms <= int(str(told["blog"]["last_alive_ms"])) <= time.time() * 1000
    assert str(told["shop"]["folder"]).endswith("/shop.py")
    assert "begin like a segment" in str(told["broken"]["error"])
    assert run("list") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["APP", "PROCESSES", "SERIES", "MEMORY", "LAST", "ALIVE", "AGE", "WHERE"]
    assert rows[0].split()[:3] == ["blog", "0", "1"]
    assert rows[1].split()[:3] == ["shop", "1", "1"]
    assert " now " in rows[1]
    assert rows[2].startswith(f"{file(folder, 'broken')}: ")


def test_two_deployments_have_two_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on the page; asking for what they have in common names both."""
    make(folder, "shop-0000000a", "shop")
    assert list(listed(capsys)) == ["shop"]
    assert commands.run(["inspect", "shop"]) == 0
    make(folder, "shop-0000000b", "shop")
    assert list(listed(capsys)) == ["shop-0000000a", "shop-0000000b"]
    assert run("show", "shop") == 66
    told = capsys.readouterr().err
    assert "shop-0000000a, shop-0000000b" in told
    assert str(folder) in told


def test_show_is_the_page_of_the_app(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In both formats; the segment stays as it was, and nobody lives in it."""
    path = make(folder, "shop", count=7)
    before = path.read_bytes()
    assert run("show", "shop") == 0
    assert "runs_total 7\n" in capsys.readouterr().out
    assert run("show", "shop", "--openmetrics") == 0
    assert capsys.readouterr().out.endswith("# EOF\n")
    assert path.read_bytes() == before


def test_clear_begins_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The app is still there, its counters begin at 0."""
    make(folder, "shop", count=7)
    assert run("clear", "shop") == 0
    assert "shop: 1 series cleared" in capsys.readouterr().out
    make(folder, "shop", count=2)
    run("show", "shop")
    assert "runs_total 2\n" in capsys.readouterr().out


def test_remove_is_refused_while_processes_live(
    folder: Path, alive: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the app, the file and the pids; `--force` removes the file and its mark."""
    path = next(folder.glob("shop-*.seg"))
    assert run("remove", "shop") == 69
    told = capsys.readouterr().err
    assert f"shop ({path}) has living processes: {alive}" in told
    assert path.exists()
    assert run("remove", "shop", "--force") == 0
    assert os.listdir(folder) == []


def test_prune_removes_what_is_dead_for_long_enough(
    folder: Path, alive: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the living, not the young, not what cannot be read, not the collector's."""
    for name in ("agent", "blog"):
        make(folder, name)
    file(folder, "broken").write_bytes(b"nonsense")
    for path in folder.glob("*.seg"):
        os.utime(path, (1, 1))
    assert run("prune") == 0
    assert "nothing to remove" in capsys.readouterr().err, "blog's process began just now"
    assert run("prune", "--older-than", "0s", "--dry-run") == 0
    assert capsys.readouterr().out == f"blog: would be removed ({file(folder, 'blog')})\n"
    for name in ("till-0000000a", "blog"):
        (folder / f".{name}.at").symlink_to("/srv/gone")
    assert run("prune", "--older-than", "0s") == 0
    left = {name for name in os.listdir(folder) if name.endswith(".at")}
    assert len(left) == 1, "the mark of the living app"
    assert sorted(listed(capsys)) == ["broken", "shop"]
    assert file(folder, "agent").exists()


@pytest.mark.parametrize("name", ["show", "clear", "remove"])
def test_errors_name_the_app_and_the_folder(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not there, and what cannot be read."""
    make(folder, "blog")
    assert run(name, "shop") == 66
    assert f"no app 'shop' in {folder} (there: blog)" in capsys.readouterr().err
    file(folder, "broken").write_bytes(b"nonsense")
    if name != "remove":
        assert run(name, "broken") == 65
        assert str(file(folder, "broken")) in capsys.readouterr().err
    folder.chmod(0o777)
    assert run(name, "blog") == 78
    assert "chmod 700" in capsys.readouterr().err
    folder.chmod(0o700)


def test_times_and_sizes_are_for_people() -> None:
    """The two largest units of a time, one of a size."""
    assert [span(ms) for ms in (-5, 999, 61_000, 3_700_000, 90_061_000)] == [
        "0s", "0s", "1m 1s", "1h 1m", "1d 1h",
    ]  # fmt: skip
    assert [size(count) for count in (0, 4096, 5 << 20, 3 << 30)] == [
        "0 B", "4 KiB", "5 MiB", "3.0 GiB",
    ]  # fmt: skip
    now_ms = time.time_ns() // 1_000_000
    one = Found(
        app="shop", stem="shop", path="/x", created_ms=now_ms, last_alive_ms=now_ms - 60_000
    )
    assert "1m 0s ago" in table([one], now_ms)
