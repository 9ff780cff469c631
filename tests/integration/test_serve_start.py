"""Starting and stopping the collector: readiness, every reason not to start, and a clean end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collector import (
    DEADLINE_S,
    Collector,
    acknowledge,
    children,
    clean_environment,
    eventually,
    insist,
)

Start = Callable[..., Collector]


def serve(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A collector that is expected not to start."""
    return subprocess.run(
        [sys.executable, "-m", "agent", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=clean_environment(**env),
    )


def message(done: subprocess.CompletedProcess[str]) -> str:
    """The one record that says why it did not start."""
    (line,) = done.stderr.splitlines()
    return str(json.loads(line)["message"])


def records(collector: Collector) -> list[dict[str, object]]:
    return [json.loads(line) for line in collector.log.splitlines()]


def test_ready_means_that_everything_answers(collector: Collector) -> None:
    assert collector.get("/readyz") == "ok\n"
    collector.send_tcp([b"hello:3|c"])
    assert collector.scrape().one("hello_total") == 3
    (ready,) = [record for record in records(collector) if record["message"] == "ready"]
    assert ready["http"] == f"127.0.0.1:{collector.http_port}"
    assert ready["workers"] == 2


def test_the_line_to_copy_sends_a_metric(
    collector: Collector, program: Callable[[str], str]
) -> None:
    program("curl")
    (ready,) = [record for record in records(collector) if record["message"] == "ready"]
    subprocess.run(shlex.split(str(ready["example"])), check=True, timeout=DEADLINE_S, stdout=-3)
    assert collector.scrape().one("hello_total") == 1


def test_health_asks_the_running_collector(collector: Collector) -> None:
    command = [sys.executable, "-m", "agent", "health"]
    env = clean_environment(AGENT_METRICS_HTTP=f"127.0.0.1:{collector.http_port}")
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0
    collector.stop()
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode == 1


def test_settings_come_from_the_environment_too(segments: str) -> None:
    reader_writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "serve"],
        stderr=subprocess.DEVNULL,
        pass_fds=[reader_writer[1]],
        env=clean_environment(
            AGENT_METRICS_HTTP="127.0.0.1:0",
            AGENT_METRICS_STATSD="",
            AGENT_METRICS_WORKERS="1",
            AGENT_METRICS_DIR=segments,
            AGENT_METRICS_READY_FD=str(reader_writer[1]),
        ),
    )
    os.close(reader_writer[1])
    with os.fdopen(reader_writer[0]) as ready:
        facts = json.loads(ready.readline())
    host, _, port = facts.pop("http").rpartition(":")
    assert (host, int(port) > 0) == ("127.0.0.1", True)
    assert facts == {"workers": 1, "pid": process.pid}
    process.terminate()
    assert process.wait(DEADLINE_S) == 0


def test_a_service_manager_hears_of_every_phase(start_collector: Start, segments: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.path.join(segments, "notify"))
        manager.settimeout(DEADLINE_S)
        collector = start_collector(env={"NOTIFY_SOCKET": os.path.join(segments, "notify")})
        assert manager.recv(100) == b"READY=1"
        collector.process.send_signal(signal.SIGHUP)
        assert manager.recv(100).startswith(b"RELOADING=1\n")
        assert manager.recv(100) == b"READY=1"
        collector.process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
        assert collector.process.wait(DEADLINE_S) == 0


def test_a_person_at_a_terminal_sees_addresses_and_a_line_to_try(segments: str) -> None:
    ours, theirs = pty.openpty()
    ready, ready_end = os.pipe()
    command = [sys.executable, "-m", "agent", "serve", "--workers=1", f"--dir={segments}"]
    command += ["--http=127.0.0.1:0", "--statsd=127.0.0.1:0", f"--ready-fd={ready_end}"]
    process = subprocess.Popen(
        command, stderr=theirs, pass_fds=[ready_end], env=clean_environment()
    )
    os.close(theirs)
    os.close(ready_end)
    with os.fdopen(ready) as line:
        facts = json.loads(line.readline())
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    shown = everything(ours)
    os.close(ours)
    assert f"is ready: 1 workers, pid {process.pid}" in shown
    assert f"http      http://{facts['http']}/" in shown
    assert f"statsd    {facts['statsd']} (UDP and TCP)" in shown
    assert "try       curl --json" in shown


def everything(terminal: int) -> str:
    """What was written to a terminal, up to the end of its last writer (EIO)."""
    seen = b""
    with contextlib.suppress(OSError):
        while got := os.read(terminal, 65_536):
            seen += got
    return seen.decode()


def test_the_schema_is_published(collector: Collector) -> None:
    document = json.loads(collector.get("/v1/schema"))
    assert document["$defs"]["Sample"]["required"] == ["name", "type"]


# --- what cannot start ------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--http", "--statsd"])
def test_a_port_in_use_exits_69_and_names_it(segments: str, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--statsd" if flag == "--http" else "--http"
        done = serve(f"--dir={segments}", f"{flag}={address}", f"{other}=127.0.0.1:0")
    assert done.returncode == 69
    assert f"cannot listen on {address}: the port is in use" in message(done)


def test_a_second_collector_in_the_folder_exits_69(collector: Collector) -> None:
    done = serve(f"--dir={collector.dir}", "--http=127.0.0.1:0", "--statsd=127.0.0.1:0")
    assert done.returncode == 69
    assert f"in use by another collector (pid {collector.process.pid})" in message(done)
    assert collector.get("/readyz") == "ok\n"


def test_a_second_collector_on_the_ports_exits_69(collector: Collector, tmp_path: Path) -> None:
    """SO_REUSEPORT would let them share the port, and each would get half of the samples."""
    address = f"127.0.0.1:{collector.http_port}"
    done = serve(f"--dir={tmp_path / 'other'}", f"--http={address}", "--statsd=127.0.0.1:0")
    assert done.returncode == 69
    assert "port is in use" in message(done)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("a file"), "is not a folder"),
        (lambda path: path.symlink_to("/tmp"), "symbolic links are refused"),
        (lambda path: (path.mkdir(), path.chmod(0o777)), "can be written by others"),
    ],
)
def test_a_folder_that_is_not_ours_exits_78(tmp_path: Path, make, words: str) -> None:
    make(tmp_path / "d")
    done = serve(f"--dir={tmp_path / 'd'}", "--http=127.0.0.1:0", "--statsd=127.0.0.1:0")
    assert done.returncode == 78
    assert words in message(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_folder_of_another_user_exits_78(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    done = serve(f"--dir={folder}", "--http=127.0.0.1:0", "--statsd=127.0.0.1:0")
    assert done.returncode == 78
    assert "belongs to user 12345" in message(done)


def test_wrong_settings_exit_78_with_all_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("workerz = 1\n[http]\nadress = '127.0.0.1:1'\n")
    done = serve("--config", str(file))
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        f"Error: {file}:1: workerz: unknown setting (did you mean 'workers'?)",
        f"Error: {file}:3: http.adress: unknown setting (did you mean 'http.address'?)",
    ]


def test_a_missing_settings_file_exits_78(tmp_path: Path) -> None:
    done = serve("--config", str(tmp_path / "none.toml"))
    assert done.returncode == 78
    assert "none.toml: cannot be read: No such file" in done.stderr


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_mapping_rule_that_only_rust_can_judge_exits_78(tmp_path: Path, command: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("\n[[mapping]]\nmatch = '(open'\nmatch_type = 'regex'\nname = 'x'\n")
    done = subprocess.run(
        [sys.executable, "-m", "agent", command, f"--config={file}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 78
    assert f"Error: {file}:2: mapping[0]: " in done.stderr


# --- the end ----------------------------------------------------------------------------------


def test_term_ends_with_0_and_leaves_no_process_and_no_socket(start_collector: Start) -> None:
    collector = start_collector(workers=3)
    assert stat.S_ISSOCK(os.stat(collector.socket_path).st_mode)
    pids = [child["pid"] for child in collector.supervisor()["children"]]
    assert len(pids) == 3 + 2
    assert collector.stop() == 0
    assert not os.path.exists(collector.socket_path)
    assert not os.path.exists(f"{collector.socket_path}.stream")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_interrupt_ends_with_0_too(collector: Collector) -> None:
    assert collector.stop(signal.SIGINT) == 0


def test_what_was_acknowledged_survives_the_restart_of_the_collector(
    start_collector: Start,
) -> None:
    first = start_collector()
    first.send_tcp([b"kept:5|c"] * 100)
    assert first.stop() == 0
    second = start_collector()
    assert second.scrape().one("kept_total") == 500


def test_datagrams_in_the_socket_buffer_are_taken_before_the_end(start_collector: Start) -> None:
    first = start_collector(workers=1)
    worker = pid_of(first, "worker-0")
    os.kill(worker, signal.SIGSTOP)
    first.send_udp(*[b"late:1|c"] * 50)
    first.process.terminate()
    os.kill(worker, signal.SIGCONT)
    assert first.process.wait(DEADLINE_S) == 0
    assert start_collector().scrape().one("late_total") == 50


def test_readyz_says_no_before_the_listeners_close(start_collector: Start) -> None:
    collector = start_collector(env={"AGENT_METRICS_SUPERVISOR_UNREADY_S": "600"})
    collector.process.terminate()
    command = [sys.executable, "-m", "agent", "health", f"--http=127.0.0.1:{collector.http_port}"]

    def ask() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, capture_output=True, check=False)

    done = eventually(ask, lambda done: done.returncode == 1, "not ready")
    assert b"503: supervisor: the collector is unready" in done.stderr
    live = subprocess.run([*command, "--live"], capture_output=True, check=False)
    assert live.returncode == 0, "alive all the time"
    # Traffic goes on until the listeners close.
    collector.send_tcp([b"still:1|c"])
    assert insist(collector.process) == 128 + signal.SIGTERM
    collector.process.returncode = 0


def test_an_open_stream_is_drained_and_a_hanging_one_is_cut_at_the_limit(
    start_collector: Start,
) -> None:
    collector = start_collector(env={"AGENT_METRICS_SUPERVISOR_DRAIN_TIMEOUT_S": "1"})
    with socket.create_connection(("127.0.0.1", collector.statsd_port), DEADLINE_S) as stream:
        stream.sendall(b"busy:1|c\nhalf")
        acknowledge_after(stream)
        assert collector.stop() == 0


def test_half_a_line_does_not_hold_up_the_exit(start_collector: Start) -> None:
    collector = start_collector(env={"AGENT_METRICS_SUPERVISOR_DRAIN_TIMEOUT_S": "600"})
    with socket.create_connection(("127.0.0.1", collector.statsd_port), DEADLINE_S) as stream:
        stream.sendall(b"half:1")
        collector.process.terminate()
        assert collector.process.wait(DEADLINE_S) == 0


def test_a_stop_that_reaches_the_children_too_starts_none_of_them_again(
    start_collector: Start,
) -> None:
    collector = start_collector()
    os.killpg(collector.process.pid, signal.SIGTERM)
    assert collector.process.wait(DEADLINE_S) == 0
    assert "starting it again" not in collector.log


def acknowledge_after(stream: socket.socket) -> None:
    """The half line becomes whole, and everything before the acknowledgement counts."""
    stream.sendall(b":1|c\n")
    acknowledge(stream)
    stream.sendall(b"never finished")


def pid_of(collector: Collector, name: str) -> int:
    crew = collector.supervisor()["children"]
    return int(next(child["pid"] for child in crew if child["name"] == name))


# --- the segment of the last run --------------------------------------------------------------


def test_changed_limits_are_taken_and_counters_begin_anew(start_collector: Start) -> None:
    first = start_collector(env={"AGENT_METRICS_SERIES_SERIES_MAX": "20000"})
    first.send_tcp([b"kept:1|c"])
    assert first.stop() == 0
    same = start_collector(env={"AGENT_METRICS_SERIES_SERIES_MAX": "20000"})
    assert same.scrape().one("kept_total") == 1, "the same limits: counters go on"
    assert same.stop() == 0
    other = start_collector(env={"AGENT_METRICS_SERIES_SERIES_MAX": "30000"})
    assert "kept_total" not in other.scrape()
    assert json.loads(other.get("/v1/status"))["segment"]["series_max"] == 30_000
    assert "series.series_max (20000 to 30000)" in other.log


@pytest.mark.parametrize("damage", ["noise", "short", "empty"])
def test_a_damaged_segment_is_put_aside_and_said(start_collector: Start, damage: str) -> None:
    first = start_collector()
    assert first.stop() == 0
    path = Path(first.dir, "agent.v3.seg")
    data = path.read_bytes()[:8192]
    path.write_bytes({"noise": b"\xa5" * 8192, "short": data[:100], "empty": b""}[damage])
    second = start_collector()
    second.send_tcp([b"fresh:1|c"])
    assert second.scrape().one("fresh_total") == 1
    assert "the segment cannot be used; counters begin anew" in second.log
    assert Path(f"{path}.damaged").exists()


def test_processes_are_named_for_people(collector: Collector) -> None:
    names = set(children(collector))
    assert names == {"agent-aggregato", "agent-desk", "agent-worker-0", "agent-worker-1"}


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_an_idle_worker_has_less_than_a_mebibyte_to_itself(start_collector: Start) -> None:
    crew = children(start_collector(workers=8))
    used = sorted(private_kib(pid) for name, pid in crew.items() if name.startswith("agent-worker"))
    assert len(used) == 8
    assert used[-1] < 1024, used
