"""Which app is this? Every row of the table in docs/APPS.md, with the programs that people run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector import Collector, eventually, reserved_port
from programs import DEADLINE_S, Program, get, running, server, total

NAMED = '[project]\nname = "shop"\nversion = "1"\n'

COUNTED = """
import agent
runs = agent.Counter("runs", "Runs.")
queue = agent.Gauge("queue", "Jobs that wait.")

def run():
    runs.inc()
    queue.set(3)
"""

DJANGO = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "shop/__init__.py": "",
    "shop/settings.py": """
SECRET_KEY = "x" * 60
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["polls"]
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
""",
    "shop/urls.py": """
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("order", lambda request: HttpResponse("ok"))]
""",
    "shop/wsgi.py": """
import os
import signal
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
""",
    "polls/__init__.py": "",
    "polls/counted.py": COUNTED,
    "polls/apps.py": """
from django.apps import AppConfig
class Polls(AppConfig):
    name = "polls"
    def ready(self):
        from polls.counted import run
        run()
""",
    "polls/management/__init__.py": "",
    "polls/management/commands/__init__.py": "",
    "polls/management/commands/work.py": """
from django.core.management.base import BaseCommand
class Command(BaseCommand):
    def handle(self, **options):
        print("worked")
""",
}

FLASK = """
from flask import Flask
import agent
answered = agent.Counter("answered", "Requests answered.")
app = Flask(__name__)

@app.get("/order")
def order():
    answered.inc()
    return "ok"
"""

FASTAPI = """
from fastapi import FastAPI
import agent
answered = agent.Counter("answered", "Requests answered.")
app = FastAPI()

@app.get("/order")
async def order():
    answered.inc()
    return "ok"
"""

TASKS = """
from celery import Celery
import agent
done = agent.Counter("done", "Tasks done.")
sent = agent.Counter("sent", "Tasks sent.")
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "processed_folder": "queue",
    "control_folder": "control",
}
app.conf.worker_hijack_root_logger = False

@app.task
def work(number):
    done.inc()
"""

SCRIPT = "import agent; agent.Counter('runs', 'Runs.').inc()\n"


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    """In a folder `work`, whose name says nothing."""
    (tmp_path / "work").mkdir()
    return Program(tmp_path / "work", segments)


def start(program: Program, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; whatever it warns of is in its answer."""
    command = program.command(*arguments)
    command["env"] |= env
    done = subprocess.run(
        **command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def names(program: Program) -> list[str]:
    return sorted(told["header"]["app"] for told in program.apps().values())


@contextlib.contextmanager
def answering(program: Program, *arguments: str, path: str = "/order") -> Iterator[int]:
    """A server that has answered once; the last argument gets the port in place of PORT."""
    with reserved_port() as port:
        given = [argument.replace("PORT", str(port)) for argument in arguments]
        with server(program, *given, log=f"{port}.log"):
            eventually(lambda: get(port, path), bool, f"{given} answers")
            yield port


def test_five_commands_of_a_django_project_are_one_app(program: Program) -> None:
    """So are its web server, gunicorn on another port, and its own commands: `queue` stays 3."""
    put(program.folder, DJANGO)
    for arguments in (["check"], ["check", "--deploy"], ["migrate", "--plan"], ["showmigrations"]):
        start(program, "manage.py", *arguments)
    assert start(program, "manage.py", "work").stdout == "worked\n"
    # Called from elsewhere, by another path.
    elsewhere = Program(program.folder.parent, program.segments)
    start(elsewhere, "work/manage.py", "work")
    with answering(program, "manage.py", "runserver", "--noreload", "127.0.0.1:PORT"):
        pass
    with answering(program, "-m", "gunicorn", "-b127.0.0.1:PORT", "--no-control-socket",
                   "shop.wsgi"):  # fmt: skip
        pass
    app = program.app()
    assert app["header"]["app"] == "shop"
    assert (total(app, "runs"), total(app, "queue")) == (8, 3)


def test_a_launcher_that_nobody_listed_runs_the_project_that_it_has_loaded(
    tmp_path: Path, segments: str
) -> None:
    """Two projects that one such tool runs, from one environment, are two; it alone is one."""
    put(tmp_path, {
        "tools/runs/__init__.py": "",
        "tools/runs/__main__.py": "import importlib, os, sys\nsys.path.insert(0, os.getcwd())\n"
        "[importlib.import_module(name) for name in sys.argv[1:]]\n"
        "import agent\nagent.Counter('runs', 'Runs.').inc()\n",
        "tools/runs-1.0.dist-info/RECORD": "runs/__init__.py,,\nruns/__main__.py,,\n",
        "a/pyproject.toml": '[project]\nname = "books"\n',
        "a/server.py": "",
        "b/pyproject.toml": '[project]\nname = "flights"\n',
        "b/server.py": "",
    })  # fmt: skip
    for folder, module in (("a", ["server"]), ("b", ["server"]), ("a", []), ("b", [])):
        program = Program(tmp_path / folder, segments)
        start(program, "-m", "runs", *module, PYTHONPATH=str(tmp_path / "tools"))
    assert names(Program(tmp_path, segments)) == ["books", "flights", "runs"]


def test_the_tests_of_a_django_project_are_not_the_project(program: Program) -> None:
    """`manage.py test` counts by itself."""
    put(program.folder, DJANGO)
    start(program, "manage.py", "check")
    start(program, "manage.py", "test")
    assert names(program) == ["shop", "shop-tests"]


def test_a_flask_app_is_one_app_however_it_is_served(program: Program) -> None:
    """By its own server and by gunicorn, with other ports and worker classes."""
    put(program.folder, {"requirements.txt": "flask\n", "shop/__init__.py": FLASK})
    for arguments in (
        ["-m", "flask", "--app", "shop", "run", "-p", "PORT"],
        ["-m", "gunicorn", "-b127.0.0.1:PORT", "--no-control-socket", "shop:app"],
        ["-m", "gunicorn", "-k", "gthread", "--threads", "2", "-w", "2", "-b127.0.0.1:PORT",
         "--no-control-socket", "shop:app"],
        [os.path.join(sys.prefix, "bin/gunicorn"), "-b127.0.0.1:PORT", "--no-control-socket",
         "shop:app"],
    ):  # fmt: skip
        with answering(program, *arguments):
            pass
    assert names(program) == ["shop"]
    assert program.total("answered") == 4


def test_a_fastapi_app_is_one_app_with_one_worker_and_with_many(program: Program) -> None:
    """uvicorn in one process, and spawning two."""
    put(program.folder, {"pyproject.toml": NAMED, "main.py": FASTAPI})
    for more in ([], ["--workers", "2"], ["--loop", "asyncio", "--no-access-log"]):
        with answering(program, "-m", "uvicorn", *more, "--port", "PORT", "main:app"):
            pass
    assert names(program) == ["shop"]
    assert program.total("answered") == 3


def test_a_celery_worker_and_who_sends_it_tasks_are_one_app(program: Program) -> None:
    """The producer is a script, or a snippet in the project's folder."""
    put(program.folder, {
        "pyproject.toml": NAMED,
        "tasks.py": TASKS,
        "tools/send.py": "import sys; sys.path.insert(0, '.')\nimport tasks\n"
                         "tasks.work.delay(1); tasks.sent.inc()\n",
    })  # fmt: skip
    for folder in ("queue", "control"):
        (program.folder / folder).mkdir()
    start(program, "tools/send.py")
    start(program, "-c", "import tasks; tasks.work.delay(2); tasks.sent.inc()")
    arguments = ["-m", "celery", "-A", "tasks", "worker", "-c", "1", "--without-gossip"]
    with server(program, *arguments, "--without-mingle", log="celery.log"):
        eventually(lambda: total(program.app(), "done"), lambda done: done == 2, "both are done")
    assert names(program) == ["shop"]
    assert program.total("sent") == 2


def test_plain_scripts_are_apps_by_their_names(program: Program) -> None:
    """Without a project: not by arguments, not by folder, not by interpreter."""
    put(program.folder, {"report.py": SCRIPT, "cleanup.py": SCRIPT})
    start(program, "report.py")
    start(program, "report.py", "--day", "2026-11-29")
    start(Program(program.folder.parent, program.segments), "work/report.py")
    start(program, "cleanup.py")
    found = {told["header"]["app"]: total(told, "runs") for told in program.apps().values()}
    assert found == {"report": 3, "cleanup": 1}


def test_scripts_modules_and_packages_of_a_project_are_one_app(program: Program) -> None:
    """`python tools/x.py`, `python -m shop`, `python -m shop.jobs.clean`, standard input."""
    put(program.folder, {
        "pyproject.toml": NAMED, "tools/x.py": SCRIPT, "shop/__init__.py": "",
        "shop/__main__.py": SCRIPT, "shop/jobs/__init__.py": "", "shop/jobs/clean.py": SCRIPT,
    })  # fmt: skip
    for arguments in (["tools/x.py"], ["-m", "shop"], ["-m", "shop.jobs.clean"]):
        start(program, *arguments)
    command = program.command("-")
    subprocess.run(**command, input=SCRIPT, text=True, check=True, timeout=DEADLINE_S)
    assert names(program) == ["shop"]
    assert program.total("runs") == 4


def test_every_notebook_is_an_app(program: Program) -> None:
    """Its kernel is started with another file each time; its path is what stays."""
    put(program.folder, {"pyproject.toml": NAMED, "lib/ipykernel_launcher.py": SCRIPT})
    for kernel, path in (("1", "sales.ipynb"), ("2", "sales.ipynb"), ("3", "costs.ipynb")):
        arguments = ["lib/ipykernel_launcher.py", "-f", f"kernel-{kernel}.json"]
        start(program, *arguments, JPY_SESSION_NAME=str(program.folder / path))
    assert names(program) == ["costs", "sales"]


def test_in_a_container_the_project_names_the_app(program: Program) -> None:
    """`/app` says nothing: the project file does, else the only package, else nothing and a word.

    The layout of a container, in a folder of its own.
    """
    for number, files in enumerate((
        {"pyproject.toml": NAMED, "main.py": SCRIPT},
        {"requirements.txt": "", "shop/__init__.py": "", "main.py": SCRIPT},
    )):  # fmt: skip
        root = program.folder / str(number) / "app"
        put(root, files)
        done = start(Program(root, program.segments), "main.py", HOME=str(root.parent))
        assert ("Warning" in done.stderr) == (number == 1), "two folders, one name"
    assert names(program) == ["shop", "shop"]
    root = program.folder / "none" / "app"
    put(root, {"requirements.txt": "", "main.py": SCRIPT})
    one = Program(root, program.segments)
    done = start(one, "main.py", HOME=str(root.parent))
    assert done.stderr.count("AGENT_METRICS_APP=NAME says it") == 1
    assert not start(one, "main.py", HOME=str(root.parent)).stderr
    assert names(program) == ["app", "shop", "shop"]


@pytest.mark.parametrize("layout", ["releases", "link"])
def test_releases_of_one_deployment_are_one_app(program: Program, layout: str) -> None:
    """Through the link and without it, before and after it is moved on."""
    root = program.folder
    one, two = ("releases/1", "releases/2") if layout == "releases" else ("shop-1.1", "shop-1.2")
    link = root / ("current" if layout == "releases" else "shop")
    for release in (one, two):
        put(root / release, {"pyproject.toml": NAMED, "main.py": SCRIPT})
    for release in (one, two):
        link.unlink(missing_ok=True)
        link.symlink_to(release)
        start(Program(link, program.segments), "main.py")
        start(program, f"{link.name}/main.py")
        start(program, f"{release}/main.py")
    if layout == "releases":
        start(program, f"{one}/main.py")
    assert names(program) == ["shop"]
    assert program.total("runs") == (7 if layout == "releases" else 6)


def test_two_deployments_stand_apart_and_one_warning_says_how_to_join_them(
    program: Program, start_collector: Callable[..., Collector]
) -> None:
    """Staging and production of one user: two apps on the page, each with its own total."""
    for place in ("production", "staging"):
        put(program.folder / place, {"pyproject.toml": NAMED, "main.py": SCRIPT})
    collector = start_collector()
    assert not start(program, "production/main.py").stderr
    assert collector.scrape().one("runs_total", app="shop") == 1
    told = start(program, "staging/main.py").stderr
    assert told.count("AgentWarning") == 1
    assert "AGENT_METRICS_APP=shop in both joins them" in told
    for place in ("production", "staging"):
        assert str(program.folder / place) in told
        assert not start(program, f"{place}/main.py").stderr
    page = collector.scrape()
    totals = {labels["app"]: value for labels, value in page.matching("runs_total")}
    assert sorted(totals.values()) == [2, 2]
    assert all(name.startswith("shop-") for name in totals)
    for place in ("production", "staging"):
        start(program, f"{place}/main.py", AGENT_METRICS_APP="joined")
    assert collector.scrape().one("runs_total", app="joined") == 2


CONFIGURED = """
import multiprocessing, sys
import agent
runs = agent.Counter("runs", "Runs.")

def child():
    runs.inc()

if __name__ == "__main__":
    agent.configure(app="till")
    agent.configure(app="till", strict=True)
    runs.inc()
    for method in ("fork", "spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=child)
        process.start(); process.join()
        assert process.exitcode == 0
    try:
        agent.configure(app="other")
    except agent.ConfigureError as error:
        print(error)
    from agent import _native
    print(_native.configured())
"""


def test_a_name_given_in_code_holds_for_all_children(program: Program) -> None:
    """Before the variable and the project's; another one later is refused with both names."""
    # A metric with labels, since one without makes its segment when it is defined.
    text = CONFIGURED.replace('"Runs.")', '"Runs.", ["x"])').replace(
        "runs.inc", "runs.labels(1).inc"
    )
    put(program.folder, {"pyproject.toml": NAMED, "main.py": text, "other.py": SCRIPT})
    told = start(program, "main.py", AGENT_METRICS_APP="no").stdout
    assert "'other'" in told
    assert "'till'" in told
    assert "('till', True)" in told
    assert names(program) == ["till"]
    assert program.total("runs") == 4


def test_a_program_started_by_a_configured_one_is_what_it_is(program: Program) -> None:
    """What `configure` says is for its own program and its children of multiprocessing."""
    text = "import agent, subprocess, sys\nagent.configure(app='super')\n"
    text += "subprocess.run([sys.executable, 'other.py'], check=True)\n" + SCRIPT
    put(program.folder, {"main.py": text, "other.py": SCRIPT})
    start(program, "main.py")
    assert names(program) == ["other", "super"]


@pytest.mark.parametrize("app", ["", " ", "agent"])
def test_names_that_cannot_be_given_are_refused(app: str) -> None:
    """The empty one, and the collector's."""
    import agent

    with pytest.raises(agent.InvalidNameError):
        agent.configure(app=app)


XDIST = """
import pytest, agent

hits = agent.Counter("hits", "Hits.")

def value():
    page = agent.render().decode()
    lines = [line for line in page.splitlines() if line.startswith("hits_total")]
    return float(lines[0].split()[1]) if lines else 0

@pytest.mark.parametrize("number", range(60))
def test_from_zero(number):
    for step in range(30):
        assert value() == step
        hits.inc()
"""


def recipes() -> list[str]:
    """The blocks of Python in the docs."""
    page = Path(__file__).parents[2] / "docs" / "APPS.md"
    return [part.partition("```")[0] for part in page.read_text().split("```python\n")[1:]]


def test_workers_of_pytest_xdist_do_not_meet(program: Program) -> None:
    """60 tests of exact counts in three processes, twice, with the fixture of the docs.

    Nor do they meet the project; and with the other recipe they leave nothing at all.
    """
    folder, fixture = recipes()
    put(program.folder, {
        "pyproject.toml": NAMED, "conftest.py": fixture, "test_hits.py": XDIST, "main.py": SCRIPT,
    })  # fmt: skip
    start(program, "main.py")
    arguments = ["-m", "pytest", "-q", "-p", "xdist", "-n", "3", "-p", "no:cacheprovider"]

    def run_tests() -> str:
        # Without the plug-ins of this run, which take long to load.
        return start(program, *arguments, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1").stdout

    for _ in range(2):
        assert "60 passed" in run_tests()
    workers = ["shop-tests-gw0", "shop-tests-gw1", "shop-tests-gw2"]
    assert names(program) == ["shop", *workers]
    for path in Path(program.segments).glob("shop-tests-*"):
        path.unlink()
    put(program.folder, {"conftest.py": folder + fixture})
    assert "60 passed" in run_tests()
    assert names(program) == ["shop"]


def test_what_a_test_starts_is_part_of_the_tests(program: Program) -> None:
    """pytest without workers, and a program that it starts, count beside the project."""
    put(program.folder, {
        "pyproject.toml": NAMED,
        "main.py": SCRIPT,
        "test_main.py": "import subprocess, sys\n" + SCRIPT
        + "def test_main(): subprocess.run([sys.executable, 'main.py'], check=True)\n",
    })  # fmt: skip
    start(program, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_main.py")
    assert names(program) == ["shop-tests"]
    assert program.total("runs") == 2


def test_an_app_leaves_the_page_and_comes_back_with_its_counters(
    program: Program, start_collector: Callable[..., Collector]
) -> None:
    """Nobody lives for `apps.idle_s`: it is gone. It is started again: it goes on counting.

    The setting is changed by SIGHUP; until then apps stay for ever.
    """
    settings = program.folder / "agent.toml"
    settings.write_text("[apps]\nidle_s = 0\n")
    put(program.folder, {"shop.py": SCRIPT + "print('up', flush=True); input()\n"})
    collector = start_collector(f"--config={settings}")
    with running(program, "shop.py") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    assert collector.scrape().one("runs_total", app="shop") == 1
    settings.write_text("[apps]\nidle_s = 1\n")
    os.kill(collector.process.pid, signal.SIGHUP)
    eventually(lambda: "runs_total" in collector.scrape(), lambda there: not there, "it leaves")
    with running(program, "shop.py") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        collector.wait_for(2, "runs_total", app="shop")
