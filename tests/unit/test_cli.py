"""The command line: exit codes, messages, and what is not imported."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent
from agent.cli import commands, health
from agent.config import Config
from agent.config_source import load
from collector import DEADLINE_S, clean_environment


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AGENT_METRICS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path / "segments"))
    (tmp_path / "segments").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)


def shell(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=clean_environment(**env),
    )


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in commands.COMMANDS:
        assert f"  {name} " in shown
    code = (
        "import sys\nfrom agent.cli import commands\ncommands.run(['--help'])\n"
        "heavy = {'psutil', 'orjson', 'msgspec', 'tomllib', 'agent.config'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(["--version"]) == 0
    assert capsys.readouterr().out == f"agent-metrics {agent.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serv"], "No such command 'serv'. Did you mean 'serve'?"),
        (["serve", "--workerz", "2"], "No such option '--workerz'"),
        (["serve", "--ready-fd", "x"], "'x' is not a valid integer"),
        (["serve", "--ready-fd", "987"], "987 is not an open descriptor"),
        (["serve", "extra"], "unexpected extra argument"),
        (["serve", "--workers", "many"], "--workers: workers: expected a whole number"),
        (["serve", "--workers", "-1"], "--workers: workers: expected int >= 0, got -1"),
        (["check-config", "--http", "nine"], "--http: http.address: 'nine' has no port"),
        (["health", "--htpp", "x:1"], "No such option: --htpp"),
        (["health", "--http"], "requires an argument"),
        (["health", "--http", "x"], "'x' is not HOST:PORT"),
        (["health", "--timeout", "-1"], "not a number of seconds"),
    ],
)
def test_wrong_usage_exits_64_and_says_what(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    run = health.run if arguments[0] == "health" else commands.run
    assert run(arguments[1:] if arguments[0] == "health" else arguments) == 64
    told = capsys.readouterr()
    assert words in told.err.replace("\n", " ")
    assert told.out == ""


# --- settings ---------------------------------------------------------------------------------


def test_check_config_says_ok(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("good.toml").write_text("workers = 2\n")
    assert commands.run(["check-config", "--config", "good.toml"]) == 0
    assert capsys.readouterr().out == "good.toml: ok\n"


def test_a_descriptor_that_can_only_be_read_is_no_ready_fd(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reader, writer = os.pipe()
    try:
        assert commands.run(["serve", "--ready-fd", str(reader)]) == 64
        assert f"{reader} is open for reading only" in capsys.readouterr().err
    finally:
        os.close(reader)
        os.close(writer)


def test_check_config_shows_every_mistake_of_every_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        """\
workerz = 1
[[mapping]]
match = "a.(b"
match_type = "regex"
labels = { "" = "x" }
tll = 4

[[mapping]]
match = "a.*"
name = "x_$2"
labels = { host = "${nobody}", ok = "$1" }
"""
    )
    assert commands.run(["check-config", "--config", str(file)]) == 78
    shown = capsys.readouterr().err.replace(f"Error: {file}:", "")
    assert [line for line in shown.splitlines() if not line.startswith((" ", "error:"))] == [
        "1: workerz: unknown setting (did you mean 'workers'?)",
        "6: mapping[0].tll: unknown setting",
        "2: mapping[0].name: is missing: a rule gives a name, or drops",
        "2: mapping[0]: `match` is no usable expression: regex parse error:",
        "2: mapping[0]: a label name is empty",
        '8: mapping[1]: in "x_$2", $2 catches nothing',
        '8: mapping[1]: label "host": in "${nobody}", $nobody catches nothing',
    ]


@pytest.mark.parametrize("command", ["check-config", "serve", "config show"])
def test_wrong_settings_exit_78_with_all_mistakes(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    Path("bad.toml").write_text("workerz = 2\n[limits]\nlabels_max = -1\n")
    assert commands.run([*command.split(), "--config", "bad.toml"]) == 78
    assert capsys.readouterr().err.splitlines() == [
        "Error: bad.toml:1: workerz: unknown setting (did you mean 'workers'?)",
        "Error: bad.toml:3: limits.labels_max: expected int >= 0, got -1",
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "bad.toml: cannot be read: No such file"),
        (lambda path: path.mkdir(), "bad.toml: cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"a = 1\nb = '\xff'"), "bad.toml:2: is not UTF-8"),
        (lambda path: path.write_text("a = "), "bad.toml:1: not valid TOML"),
        (lambda path: path.write_bytes(b"#" * (5 << 20)), "bad.toml: is larger than"),
    ],
)
def test_an_unreadable_file_exits_78(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make, words: str
) -> None:
    make(tmp_path / "bad.toml")
    assert commands.run(["check-config", "--config", "bad.toml"]) == 78
    assert words in capsys.readouterr().err


def test_an_unknown_variable_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METRICS_WORKER", "2")
    assert commands.run(["check-config"]) == 0
    assert "did you mean 'AGENT_METRICS_WORKERS'" in capsys.readouterr().err


def test_config_show_names_the_source_of_each_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("some.toml").write_text("[logging]\nlevel = 'error'\n")
    monkeypatch.setenv("AGENT_METRICS_CONFIG", "some.toml")
    monkeypatch.setenv("AGENT_METRICS_HTTP", "127.0.0.1:1")
    assert commands.run(["config", "show", "--json", "--workers", "3"]) == 0
    rows = {row["path"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["workers"]["value"], rows["workers"]["source"]) == (3, "--workers")
    assert rows["http.address"]["source"] == "AGENT_METRICS_HTTP"
    assert rows["logging.level"]["source"] == "some.toml:2"
    assert rows["statsd.address"]["source"] == "default"


def test_config_init_writes_once_and_the_file_is_good(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert commands.run(["config", "init", "new.toml"]) == 0
    assert load(Path("new.toml").read_text()).config == Config()
    Path("new.toml").write_text("mine")
    assert commands.run(["config", "init", "new.toml"]) == 73
    assert "exists" in capsys.readouterr().err
    assert Path("new.toml").read_text() == "mine"
    assert commands.run(["config", "init", "--force", "new.toml"]) == 0
    assert commands.run(["config", "init", "no/such/folder.toml"]) == 73


# --- health -----------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[object]:
    """Starts a server that gives one fixed answer; returns its address."""
    servers: list[socket.socket] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def answer_one() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threading.Thread(target=answer_one, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def test_health_is_0_for_200_and_1_for_anything_else(answering, capsys) -> None:
    good = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
    assert health.run([f"--http={good}"]) == 0
    assert capsys.readouterr().out == "ok\n"
    bad = answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\nsupervisor: it is draining\n")
    assert health.run(["--http", bad, "--live"]) == 1
    assert f"http://{bad}/livez: 503: supervisor: it is draining" in capsys.readouterr().err
    assert health.run(["--http", answering(b"SSH-2.0-x\r\n")]) == 1
    assert "no HTTP answer" in capsys.readouterr().err


def test_health_is_1_where_nobody_listens_or_answers(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert health.run(["--http", address, "--timeout", "0.1"]) == 1
    assert health.run(["--http", address]) == 1
    assert "refused" in capsys.readouterr().err


def test_health_finds_the_address_as_serve_does(answering, monkeypatch, tmp_path, capsys) -> None:
    good = b"HTTP/1.1 200 OK\r\n\r\nok\n"
    address = answering(good)
    Path("some.toml").write_text(f"[http]\naddress = '{address.replace('127.0.0.1', '0.0.0.0')}'\n")
    assert health.run(["--config", "some.toml"]) == 0
    monkeypatch.setenv("AGENT_METRICS_HTTP", answering(good))
    assert health.run(["--config", "some.toml"]) == 0
    monkeypatch.setenv("AGENT_METRICS_HTTP", "nonsense")
    assert health.run([]) == 64


def test_a_probe_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['agent', 'health', '--http', '127.0.0.1:1']\n"
        "from agent.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert e.code == 1\n"
        "heavy = {'click', 'psutil', 'orjson', 'msgspec', 'tomllib', 'http', 'json', 'asyncio'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_runs_as_a_program() -> None:
    assert shell("--version").stdout.startswith("agent-metrics ")
    assert shell("nonsense").returncode == 64
    assert shell("health", "--help").stdout.startswith("Usage: agent-metrics health")


# --- inspect ----------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "segments" / "shop.v3.seg"
    registry = agent.Registry(path, "shop")
    orders = agent.Counter("orders", "Orders placed.", ["shop"], registry=registry)
    orders.labels("eu").inc(3)
    orders.labels("us").inc(4)
    agent.Histogram("took", "Time.", unit="seconds", registry=registry).observe(0.5)
    yield path
    # The writer's slot was alive until here, because somebody held the registry.
    assert registry.path == str(path)


def test_inspect_finds_a_segment_by_app_and_by_path(shop: Path, capsys) -> None:
    for name in ("shop", str(shop)):
        assert commands.run(["inspect", name]) == 0
        shown = capsys.readouterr().out
        assert 'orders (counter): 2 series\n    {shop="eu"} 3\n    {shop="us"} 4\n' in shown
        assert "took_seconds (histogram, seconds): 1 series\n    {} count 1 sum 0.5\n" in shown
        assert f"alive  pid {os.getpid()}" in shown


def test_inspect_as_json_has_everything(shop: Path, capsys) -> None:
    assert commands.run(["inspect", "--json", "shop"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["header"]["app"] == "shop"
    values = {
        s["labels"]: s["value"] for f in told["families"] for s in f["series"] if "value" in s
    }
    assert values == {'shop="eu"': 3, 'shop="us"': 4}


def test_inspect_lists_the_segments(shop: Path, capsys) -> None:
    assert commands.run(["inspect"]) == 0
    assert capsys.readouterr().out.startswith("shop: 3 series of 2 metrics, 1 writers")
    assert commands.run(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["app"] == "shop"


def test_inspect_limits_what_it_shows(shop: Path, capsys) -> None:
    assert commands.run(["inspect", "shop", "--series", "1"]) == 0
    assert "... and 2 more series" in capsys.readouterr().out


def test_inspect_of_nothing_exits_66_and_of_nonsense_65(shop: Path, capsys) -> None:
    assert commands.run(["inspect", "shp"]) == 66
    assert "(there: shop)" in capsys.readouterr().err
    broken = shop.with_name("broken.v3.seg")
    broken.write_bytes(b"not a segment" * 1000)
    assert commands.run(["inspect", "broken"]) == 65
    assert "broken.v3.seg" in capsys.readouterr().err
    assert commands.run(["inspect"]) == 0
    assert "broken: " in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["/proc/no", "/dev/null/no"])
def test_a_folder_that_cannot_be_is_told_in_a_sentence(folder: str, capsys, monkeypatch) -> None:
    """With its path and what to do, the same for an app, by `inspect`."""
    monkeypatch.delenv("AGENT_METRICS_DIR", raising=False)
    assert commands.run(["inspect", "--dir", folder]) == 78
    said = capsys.readouterr().err
    assert said.startswith(f"Error: the folder of segments {folder} cannot be made: No")
    assert said.endswith("let AGENT_METRICS_DIR be one that can\n")


def test_inspect_says_a_path_once(shop: Path, capsys) -> None:
    """Of a file that is none, and of a link."""
    broken = shop.with_name("broken.v3.seg")
    broken.write_bytes(b"not a segment" * 1000)
    link = shop.with_name("link.v3.seg")
    link.symlink_to(shop)
    for path, reason in ((broken, "does not begin like a segment"), (link, "is a symbolic link")):
        assert commands.run(["inspect", str(path)]) == 65
        assert capsys.readouterr().err == f"Error: {path} is not a usable segment: it {reason}\n"


def test_inspect_changes_nothing(shop: Path) -> None:
    before = shop.read_bytes()
    assert commands.run(["inspect", "shop"]) == 0
    assert shop.read_bytes() == before
