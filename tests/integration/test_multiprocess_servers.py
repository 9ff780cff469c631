"""Servers that fork: gunicorn with and without preload, Celery's prefork pool. No setting."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import child_pids, eventually, reserved_port
from programs import Program, get, server, total

pytestmark = pytest.mark.peer

SHOP = """
import os
import agent
answered = agent.Counter("answered", "Requests answered.", ["path"])
took = agent.Histogram("took", "Time to answer.", unit="seconds")
working = agent.Gauge("working", "Requests being answered.", multiprocess_mode="livesum")

def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/metrics":
        return [agent.render()]
    with took.time(), working.track_inprogress():
        answered.labels(path).inc()
        return [str(os.getpid()).encode()]
"""

TASKS = """
import os
from celery import Celery
import agent
done = agent.Counter("done", "Tasks done.", ["task"])
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "processed_folder": "queue",
    "control_folder": "control",
}
app.conf.worker_hijack_root_logger = False

@app.task
def work(number):
    done.labels(task="work").inc()
    with open(f"pids/{os.getpid()}", "a") as file:
        file.write(f"{number}\\n")
"""


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    return Program(tmp_path, segments)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as held:
        yield held


@pytest.mark.parametrize("preload", [False, True], ids=["load", "preload"])
def test_gunicorn_counts_in_one_place(
    program: Program, stack: contextlib.ExitStack, preload: bool
) -> None:
    """Four workers, each killed once with SIGKILL: the total is exact, and so is any worker's page.

    Workers are killed between requests, so no request is half done.
    """
    program.write("shop.py", SHOP)
    port = stack.enter_context(reserved_port())
    arguments = ["-m", "gunicorn", "-w", "4", f"-b127.0.0.1:{port}", "--no-control-socket"]
    arguments += ["--preload"] if preload else []
    with server(program, *arguments, "shop:app", log="gunicorn.log") as master:
        eventually(lambda: get(port, "/first"), bool, "gunicorn answers")
        answered = 0
        killed: set[int] = set()
        for _ in range(4):
            for _ in range(50):
                answered += get(port, "/order") is not None
            alive = eventually(
                lambda: child_pids(master.pid), lambda pids: len(pids) == 4, "four workers"
            )
            victim = next(pid for pid in alive if pid not in killed)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            eventually(
                lambda: killed & {*child_pids(master.pid)}, lambda left: not left, "it is gone"
            )
        page = eventually(lambda: get(port, "/metrics"), bool, "a page")
        assert page is not None
        assert answered == 200
        assert f'answered_total{{path="/order"}} {answered}\n'.encode() in page
        assert b"working 0\n" in page
        app = program.app()
        assert app["header"]["app"] == "shop"
        assert total(app, "answered") == answered + 1
        assert total(app, "took_seconds") == answered + 1


def test_two_gunicorns_are_two_apps(program: Program, stack: contextlib.ExitStack) -> None:
    """The gunicorn of shop and the gunicorn of blog, in one folder."""
    for name, count in (("shop", 3), ("blog", 5)):
        program.write(f"{name}.py", SHOP)
        port = stack.enter_context(reserved_port())
        arguments = ["-m", "gunicorn", f"-b127.0.0.1:{port}", "--no-control-socket"]
        with server(program, *arguments, f"{name}:app", log=f"{name}.log"):
            eventually(lambda: get(port, "/first"), bool, "gunicorn answers")  # noqa: B023
            for _ in range(count - 1):
                assert get(port, "/order")
    totals = {app["header"]["app"]: total(app, "answered") for app in program.apps().values()}
    assert totals == {"shop": 3, "blog": 5}


def test_celery_workers_count_in_one_place(program: Program) -> None:
    """The prefork pool, whose processes are replaced after five tasks each.

    They are not killed here: a killed process of the pool may hold the pool's own lock.
    """
    program.write("tasks.py", TASKS)
    for folder in ("queue", "control", "pids"):
        (program.folder / folder).mkdir()
    # It makes a metric with labels and uses none of them: no segment.
    program.run("-c", "import tasks\nfor number in range(40): tasks.work.delay(number)")
    assert program.apps() == {}

    def done() -> int:
        return (program.folder / "celery.log").read_text().count(" succeeded in ")

    arguments = ["-m", "celery", "-A", "tasks", "worker", "-c", "2", "--max-tasks-per-child", "5"]
    arguments += ["--without-gossip", "--without-mingle", "-l", "INFO"]
    with server(program, *arguments, log="celery.log"):
        eventually(done, lambda count: count == 40, "40 tasks are done")
        by_process = [path.read_text().split() for path in (program.folder / "pids").iterdir()]
        assert sorted(int(number) for done_by in by_process for number in done_by) == [*range(40)]
        assert len(by_process) >= 8
        assert program.total("done") == 40
    # `tasks` is no name, and there is no project file: its folder's.
    assert program.app()["header"]["app"] == program.folder.name
