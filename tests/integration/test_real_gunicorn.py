"""gunicorn, unchanged: its own StatsD output, and an app whose four workers are killed."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector import (
    DEADLINE_S,
    Collector,
    Samples,
    child_pids,
    clean_environment,
    eventually,
    reserved_port,
)

pytestmark = pytest.mark.peer

PLAIN_APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""

COUNTING_APP = """
import agent

answered = agent.Counter("answered", "Requests answered.", ["path"])
seconds = agent.Histogram("answer_seconds", "Time to answer.")

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [bytes(agent.render())]
    answered.labels(environ["PATH_INFO"]).inc()
    seconds.observe(0.125)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@contextlib.contextmanager
def gunicorn(folder: Path, code: str, *arguments: str, **env: str) -> Iterator[tuple[int, int]]:
    """Runs gunicorn with `code` as its app; gives its port and the pid of its master."""
    folder.joinpath("shop.py").write_text(code)
    log_path = folder / "gunicorn.log"
    with reserved_port() as port, served(folder, log_path, port, *arguments, **env) as process:
        eventually(lambda: process.poll() is not None or answers(port), bool, "gunicorn answers")
        assert process.poll() is None, log_path.read_text()
        yield port, process.pid


@contextlib.contextmanager
def served(
    folder: Path, log_path: Path, port: int, *arguments: str, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of it, told to leave in the end."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                f"--bind=127.0.0.1:{port}",
                "--no-control-socket",
                *arguments,
                "shop:app",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=clean_environment(**env),
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def get(port: int, path: str) -> bytes | None:
    """The body of a 200 answer; nothing when the connection broke: its worker died."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def answers(port: int) -> bool:
    return get(port, "/metrics") is not None


def test_gunicorns_own_statsd_output_is_counted(collector: Collector, tmp_path: Path) -> None:
    """`--statsd-host` is all it takes: requests, status codes, durations, workers."""
    host = f"--statsd-host=127.0.0.1:{collector.statsd_port}"
    with gunicorn(tmp_path, PLAIN_APP, host, "--workers=2", "--statsd-prefix=shop") as (port, _):
        for _ in range(100):
            assert get(port, "/") == b"hello"
        # One more than the test sent: the request that found out whether gunicorn answers.
        samples = eventually(
            collector.scrape,
            lambda seen: seen.sum("shop_gunicorn_requests_total") >= 101,
            "100 requests are counted",
        )
        requests = samples.sum("shop_gunicorn_requests_total")
        # Each fact is a datagram of its own, and they come from two workers.
        collector.wait_for(requests, "shop_gunicorn_request_status_200_total")
        collector.wait_for(requests, "shop_gunicorn_request_duration_seconds_count")
        samples = collector.wait_for(2, "shop_gunicorn_workers")
        assert samples.sum("agent_rejected_total") == 0


@pytest.mark.parametrize("preload", [False, True], ids=["load", "preload"])
def test_killed_workers_lose_no_answered_request(
    collector: Collector, tmp_path: Path, preload: bool
) -> None:
    """Four workers, killed with SIGKILL under load: every answered request is in the total.

    The oracle: a worker counts, then answers, one request at a time. So the total is at least the
    number of answers, and at most one more for each worker that was killed.
    """
    env = {"AGENT_METRICS_DIR": collector.dir, "AGENT_METRICS_APP": "shop"}
    arguments = ["--workers=4", *(["--preload"] if preload else [])]
    with gunicorn(tmp_path, COUNTING_APP, *arguments, **env) as (port, master):
        answered, kills = load_while_killing(port, master, requests=1200, kills=12)
        exported = Samples(get_until_answered(port).decode())
        total = exported.sum("answered_total", path="/order")
        assert answered <= total <= answered + kills
        # The histogram is written after the counter, so a kill may leave it one behind.
        assert answered <= exported.sum("answer_seconds_count") <= total
        seen = collector.scrape()
        assert seen.sum("answered_total", app="shop", path="/order") == total


def get_until_answered(port: int) -> bytes:
    body = eventually(lambda: get(port, "/metrics"), lambda seen: seen is not None, "a scrape")
    assert body is not None
    return body


def load_while_killing(port: int, master: int, requests: int, kills: int) -> tuple[int, int]:
    """Requests from four threads, until there were that many and a random worker was killed that
    often between them: (answered, killed).
    """
    ended, all_killed = threading.Event(), threading.Event()
    answered = [0] * 4

    def client(index: int) -> None:
        asked = 0
        while asked < requests // 4 or not all_killed.is_set():
            answered[index] += get(port, "/order") is not None
            asked += 1

    threads = [threading.Thread(target=client, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    killed = 0
    chooser = random.Random(7)
    deadline = time.monotonic() + 2 * DEADLINE_S
    while any(thread.is_alive() for thread in threads):
        if killed == kills or time.monotonic() > deadline:
            all_killed.set()
        alive = child_pids(master)
        if killed < kills and len(alive) == 4 and sum(answered) >= killed * requests // (2 * kills):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chooser.choice(alive), signal.SIGKILL)
                killed += 1
        ended.wait(0.005)
    for thread in threads:
        thread.join()
    assert killed == kills, "gunicorn did not replace its workers in time"
    return sum(answered), killed


def test_the_apps_names_are_told_apart(
    collector: Collector, tmp_path: Path, start_collector: Callable[..., Collector]
) -> None:
    """Two gunicorns of one user, in two folders, with no setting but the folder: two apps."""
    env = {"AGENT_METRICS_DIR": collector.dir}
    folders = [tmp_path / "shop", tmp_path / "blog"]
    for folder in folders:
        folder.mkdir()
        with gunicorn(folder, COUNTING_APP, "--workers=1", **env) as (port, _):
            for _ in range(5):
                assert get(port, "/order") == b"hello"
            samples = collector.scrape()
    by_app = [value for _, value in samples.matching("answered_total", path="/order")]
    assert by_app == [5, 5]
