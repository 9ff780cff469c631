"""Whose metrics are these? What makes a name, what a deployment is, and who may give a name."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import app
from agent._native import LAYOUT_VERSION
from agent.app import clean, deployment, identify, names, place, program, project
from agent.app.program import Program
from agent.errors import FolderError
from collector import clean_environment

SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


@pytest.fixture(autouse=True)
def _no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this test run says which app it is; nothing outside of its folder is a project."""
    for name in [*os.environ]:
        if name.startswith(("AGENT_METRICS_", "_AGENT_METRICS_", *project.APP_VARIABLES)):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path.parent))


def make(folder: Path, *files: str) -> None:
    """Files by their paths, with what a project file needs to be one."""
    for name in files:
        path, _, text = name.partition("=")
        if (folder / path).exists():
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text.replace("\\n", "\n"))


def found(start: Path, path: str = "", *arguments: str) -> project.Project:
    """The project of a program started in a folder."""
    full = os.path.normpath(start / path) if path else ""
    return identify(Program(full, [*arguments], str(start)))


NAMED = 'pyproject.toml=[project]\\nname = "shop"\\n'


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ([NAMED, "tools/report.py"], "tools/report.py"),
        ([NAMED, "shop/__init__.py", "shop/jobs/__init__.py", "shop/jobs/a.py"], "shop/jobs/a.py"),
        (["pyproject.toml=[tool.poetry]\\nname = 'shop'\\n", "main.py"], "main.py"),
        (["pyproject.toml=project.name = 'no'\\n[ project ] # x\\nname='shop'", "a.py"], "a.py"),
        (["setup.cfg=[metadata]\\nname = shop\\n", "main.py"], "main.py"),
        (["shop/requirements.txt", "shop/web.py"], "shop/web.py"),
        (["shop/manage.py", "shop/polls/__init__.py"], "shop/manage.py"),
        (["backend/manage.py=os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')"],
         "backend/manage.py"),
        (["app/requirements.txt", "app/shop/__init__.py", "app/tests/__init__.py"], "app/main.py"),
        (["app/requirements.txt", "app/src/shop/__init__.py"], "app/src/shop/__main__.py"),
        ([NAMED, "src/manage.py"], "src/manage.py"),
        (["shop/releases/20261129/manage.py"], "shop/releases/20261129/manage.py"),
        (["shop/__init__.py", "shop/worker.py"], "shop/worker.py"),
        (["shop/__main__.py"], "shop/__main__.py"),
        (["shop.py"], "shop.py"),
        (["shop/main.py"], "shop/main.py"),
        (["shop/app/server.py"], "shop/app/server.py"),
    ],
)  # fmt: skip
def test_the_name_is_what_a_person_would_say(tmp_path: Path, files: list[str], path: str) -> None:
    """By project file, package, folder or script; `app`, `src` and `main` are no names."""
    make(tmp_path, *files, path)
    assert found(tmp_path, path).name == "shop"
    assert found(tmp_path, path).is_known


def test_settings_of_tools_are_no_project_of_what_lies_below(tmp_path: Path) -> None:
    """A repository's pyproject.toml for ruff does not make one app of all its services."""
    make(tmp_path, "pyproject.toml=[tool.ruff]\\n", "a/billing.py", "b/search.py", "own.py")
    assert found(tmp_path, "a/billing.py").name == "billing"
    assert found(tmp_path, "b/search.py").name == "search"
    assert found(tmp_path, "own.py").root == str(tmp_path)


def test_a_file_in_the_home_is_no_project_of_what_lies_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requirements.txt or pyproject.toml left in the home folder joins nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, NAMED, "requirements.txt", "bin/report.py")
    assert found(tmp_path, "bin/report.py").name == "report"


def test_a_project_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """An update waits for nobody."""
    make(tmp_path, "shop/main.py")
    os.mkfifo(tmp_path / "shop/pyproject.toml")
    assert found(tmp_path, "shop/main.py").name == "shop"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("gunicorn", ["shop.wsgi"]),
        ("gunicorn", ["-w", "4", "-k", "gevent", "-b", "127.0.0.1:80", "shop.wsgi:app"]),
        ("gunicorn", ["-c", "gunicorn.conf.py", "--preload", "shop.wsgi:create('x')"]),
        ("uvicorn", ["--host", "0.0.0.0", "--port", "8000", "shop.wsgi:app"]),
        ("celery", ["-A", "shop", "worker", "-c", "4"]),
        ("celery", ["--app=shop.tasks", "worker"]),
        ("flask", ["--app", "shop", "run"]),
        ("python-tool-without-a-file", []),
    ],
)
@pytest.mark.parametrize("how", ["project", "package", "elsewhere"])
def test_launchers_are_what_they_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, arguments: list[str], how: str
) -> None:
    """Options, ports and worker classes are no part of an app; nor is the launcher."""
    folder = tmp_path / "x"
    make(folder, "shop/__init__.py", "shop/wsgi.py", "gunicorn.conf.py")
    if how != "package" or not arguments:
        make(folder, NAMED)
    cwd = folder
    if how == "elsewhere" and arguments:
        monkeypatch.syspath_prepend(folder)
        cwd = tmp_path
    command = os.path.join(sys.prefix, "bin", tool)
    told = identify(Program(command, arguments, str(cwd)))
    assert told.name == "shop"
    root = folder / "shop" if how == "package" and arguments else folder
    assert told.root == str(root)


def test_a_service_without_a_folder_is_the_project_of_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn of /srv/shop/.venv with its settings in a file, started in `/`; not in a folder."""
    make(tmp_path, NAMED.replace("pyproject", "s/pyproject"), "s/.venv/bin/gunicorn", "blog/a")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "s/.venv"))
    command = str(tmp_path / "s/.venv/bin/gunicorn")
    assert identify(Program(command, ["-c", "none.py"], "/")).name == "shop"
    assert identify(Program(command, ["-c", "none.py"], str(tmp_path / "blog"))).name == "blog"


@pytest.mark.parametrize("option", ["-c", "--config"])
def test_settings_of_a_launcher_may_lie_anywhere(tmp_path: Path, option: str) -> None:
    """`gunicorn -c /etc/bank/gunicorn.conf.py` in the folder of shop is shop, not bank."""
    make(tmp_path, "etc/bank/gunicorn.conf.py", "s/blog/conf.py", "x/a")
    make(tmp_path, NAMED.replace("pyproject", "s/pyproject"))
    command = os.path.join(sys.prefix, "bin", "gunicorn")

    def name(cwd: str, settings: str, *more: str) -> str:
        arguments = [option, str(tmp_path / settings), *more]
        return identify(Program(command, arguments, str(tmp_path / cwd))).name

    assert name("s", "etc/bank/gunicorn.conf.py") == "shop"
    assert name("s", "etc/bank/gunicorn.conf.py", "--preload") == "shop"
    # Where the working directory is no project, the settings may lie in one.
    assert name("x", "s/blog/conf.py") == "shop"
    assert name("x", "etc/bank/gunicorn.conf.py") == "x"


def test_an_installed_program_is_named_after_its_package(tmp_path: Path) -> None:
    """Whatever the folder is that it was called from."""
    installed = "env/lib/python3/site-packages/till/tools/clean.py"
    make(tmp_path, NAMED, installed)
    told = found(tmp_path, installed)
    assert (told.name, told.root) == ("till", os.path.realpath(sys.prefix))


TARGET = (
    "lib/gunicorn/__init__.py",
    "lib/gunicorn/__main__.py",
    "lib/gunicorn-27.0.1.dist-info/RECORD=../../bin/gunicorn,,\\ngunicorn/__init__.py,,\\n",
    "lib/bin/gunicorn=import sys\\nfrom gunicorn.app.wsgiapp import run\\n",
)


@pytest.mark.parametrize("command", ["lib/gunicorn/__main__.py", "lib/bin/gunicorn"])
@pytest.mark.parametrize("kept", [2, 4], ids=["unpacked", "installed"])
def test_a_launcher_is_one_wherever_it_lies(tmp_path: Path, command: str, kept: int) -> None:
    make(tmp_path, *TARGET[:kept], TARGET[3], "one/billing.py", "two/shop.py")
    for folder, module in (("one", "billing"), ("two", "shop")):
        told = found(tmp_path / folder, f"../{command}", "-w", "2", f"{module}:app")
        assert (told.name, told.root) == (module, str(tmp_path / folder / f"{module}.py"))


def test_what_an_installer_recorded_beside_it_is_installed(tmp_path: Path) -> None:
    record = "lib/till_tools-1.dist-info/RECORD=../../bin/clean,,\\ntill/a.py,,\\ntally.py,,\\n"
    command = "lib/bin/clean=from till.a import main\\n"
    make(tmp_path, record, command, "lib/till/__init__.py", "lib/till/a.py", "lib/tally.py")
    make(tmp_path, "lib/own.py", "lib/bin/serve=from till.a import main\\n", "x/shop.py")
    environment = os.path.realpath(sys.prefix)
    for path, name in (("till/a.py", "till"), ("bin/clean", "till"), ("tally.py", "tally")):
        told = found(tmp_path, f"lib/{path}")
        assert (told.name, told.root) == (name, environment), path
    # Somebody's own code among installed packages (a function in the cloud) stays their own.
    for path, name in (("own.py", "own"), ("bin/serve", "serve")):
        told = found(tmp_path, f"lib/{path}")
        assert (told.name, told.root) == (name, str(tmp_path / "lib" / path)), path


@pytest.mark.parametrize("path", ["celery.py", "flask/run.py", "django/manage.py"])
def test_a_script_that_is_called_as_a_launcher_is_a_script(tmp_path: Path, path: str) -> None:
    make(tmp_path, f"x/{path}", "x/y/shop.py")
    assert str(tmp_path / "x" / path).startswith(found(tmp_path / "x/y", f"../{path}", "shop").root)


def test_a_frozen_program_is_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it unpacks itself, and even in a folder of commands."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "_MEI1"))
    monkeypatch.setattr(sys, "executable", "/usr/local/bin/shop")
    told = found(tmp_path, "/usr/local/bin/shop", "--port", "80")
    assert (told.name, told.root) == ("shop", "/usr/local/bin/shop")


def test_what_is_called_alike_everywhere_is_known_on_this_machine_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """/app/main.py of one container is not that of another; the host's name tells them apart."""
    nameless = project.Project("", "/app")
    assert not nameless.is_known
    assert names(nameless)[0] == "app"
    here = names(nameless)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "other", "6", "1", "x")))
    assert names(nameless) != here
    assert names(project.Project("shop", "/app"))[1] == "shop-" + deployment.digest(
        ["/app", ""], 32
    )


def test_code_and_prompt_belong_to_the_project_of_their_folder(tmp_path: Path) -> None:
    """Elsewhere each snippet is an app, and each folder's prompt."""
    make(tmp_path, NAMED.replace("pyproject", "in/pyproject"))
    inside, outside = str(tmp_path / "in"), str(tmp_path)
    assert identify(Program("", [], inside, code="import shop")).name == "shop"
    one = names(identify(Program("", [], outside, code="1")))
    assert one != names(identify(Program("", [], outside, code="2")))
    assert one == names(identify(Program("", [], outside, code="1")))
    assert one[0] == "python"


def test_every_notebook_is_an_app(tmp_path: Path) -> None:
    """By the path that Jupyter tells, else by its folder; a project around it changes nothing."""
    make(tmp_path, NAMED)
    kernel, start = "/x/ipykernel_launcher.py", str(tmp_path)
    one = identify(Program(kernel, ["-f", "k1.json"], start, notebook="work/sales.ipynb"))
    again = identify(Program(kernel, ["-f", "k2.json"], start, notebook="work/sales.ipynb"))
    other = identify(Program(kernel, ["-f", "k1.json"], start, notebook="work/costs.ipynb"))
    assert names(one) == names(again) != names(other)
    assert (one.name, other.name) == ("sales", "costs")
    assert identify(Program(kernel, [], start, notebook="")).name == "notebook"


def test_tests_are_no_part_of_the_app(tmp_path: Path) -> None:
    """Nor do the workers of pytest-xdist share one; which tests are run makes no other one."""
    make(tmp_path, "plain/tests/__init__.py", "plain/tests/test_a.py")
    pytest_file = os.path.join(os.path.dirname(pytest.__file__), "__main__.py")
    for arguments in ([], ["tests/test_a.py"]):
        one = Program(pytest_file, arguments, str(tmp_path / "plain"), tests="tests")
        assert names(identify(one))[0] == "plain-tests"
    make(tmp_path, NAMED)
    told = [
        names(identify(Program("", [], str(tmp_path), tests=tests)))
        for tests in ("", "tests", "tests-gw0", "tests-gw1")
    ]
    assert [name for name, _ in told] == ["shop", "shop-tests", "shop-tests-gw0", "shop-tests-gw1"]
    assert len({stem for _, stem in told}) == 4
    make(tmp_path, NAMED.replace("shop", "s" * 60).replace("pyproject", "long/pyproject"))
    long = [Program("", [], str(tmp_path / "long"), tests=f"tests-gw{n}") for n in (0, 1)]
    assert len({names(identify(started)) for started in long}) == 2


@given(st.lists(st.one_of(st.text(), st.sampled_from(["-m", "-c", "-A", "--app=x", "gunicorn"]))))
def test_whatever_stands_in_the_arguments_gives_a_name(argv: list[str]) -> None:
    """Finding the app raises for no `sys.argv`: a program may have written anything into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        name, stem = names(identify(program.read("/nowhere")))
    assert place.is_of(stem, name)


def test_a_program_may_run_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    """A release that was removed under it: the name is found without asking where one is."""
    code = (
        "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "import sys; sys.argv = ['manage.py']\n"
        "import agent; agent.Counter('steps', 'S.').inc()\n"
        "print(agent.REGISTRY.fallback)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(AGENT_METRICS_DIR=str(tmp_path / "segments")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "None\n", done.stderr


def test_arguments_may_be_no_texts() -> None:
    """Nor does it raise for paths and numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [Path("/srv/shop.py"), 8000])
        assert program.read("/").path == "/srv/shop.py"


# --- deployments --------------------------------------------------------------------------------


def test_releases_of_one_deployment_meet(tmp_path: Path) -> None:
    """In a folder `releases`, with and without the link; beside a link; for a project inside."""
    make(tmp_path, "s/releases/1/x/a", "s/releases/2/x/a", "opt/shop-1.2/a", "opt/shop-1.3/a")
    make(tmp_path, "b/builds/1/a", "b/builds/2/a")
    root = str(tmp_path)
    of = deployment.root_of
    assert of(f"{root}/s/releases/1") == of(f"{root}/s/releases/2") == f"{root}/s"
    assert of(f"{root}/s/releases/1/x") == of(f"{root}/s/releases/2/x") == f"{root}/s/x"
    for link, target in (("opt/shop", "shop-1.2"), ("b/current", "builds/1")):
        (tmp_path / link).symlink_to(target)
    assert of(f"{root}/opt/shop-1.2") == f"{root}/opt/shop"
    assert of(f"{root}/opt/shop-1.2/web") == f"{root}/opt/shop/web"
    assert of(f"{root}/b/builds/1") == f"{root}/b/current"
    assert of(f"{root}/b/builds/2") == f"{root}/b/builds/2"
    (tmp_path / "b/current").unlink()
    (tmp_path / "b/current").symlink_to("builds/2")
    assert of(f"{root}/b/builds/2") == f"{root}/b/current"


def test_links_that_name_no_release_join_nothing(tmp_path: Path) -> None:
    """`production` and `staging` may point to two folders, or to one."""
    make(tmp_path, "shop-1/a", "shop-2/a")
    (tmp_path / "production").symlink_to("shop-1")
    (tmp_path / "staging").symlink_to("shop-2")
    told = {deployment.root_of(f"{tmp_path}/shop-{n}") for n in (1, 2)}
    assert told == {f"{tmp_path}/shop-1", f"{tmp_path}/shop-2"}


def test_the_first_of_a_second_deployment_warns_and_nobody_else(tmp_path: Path) -> None:
    """With both folders, and the line that joins or names them."""
    segments = tmp_path / "segments"
    segments.mkdir()
    one, two = project.Project("shop", "/srv/a/shop"), project.Project("shop", "/srv/b/shop")
    other = project.Project("shop-tests", "/srv/b/shop")
    for made in (one, one, other):
        place.mark(str(segments), *names(made), made)
    with pytest.warns(Warning, match="AGENT_METRICS_APP=shop in both joins them") as seen:
        place.mark(str(segments), *names(two), two)
    assert "/srv/a/shop" in str(seen[0].message)
    assert "/srv/b/shop" in str(seen[0].message)
    place.mark(str(segments), *names(two), two)


def test_who_turns_warnings_into_errors_gets_a_line_and_no_exception(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An update never raises because of a name."""
    nameless = project.Project("", "/app")
    place.mark(str(tmp_path), *names(nameless), nameless)
    assert "AGENT_METRICS_APP=NAME" in capsys.readouterr().err


# --- names as files -----------------------------------------------------------------------------


def test_facts_do_not_run_into_each_other() -> None:
    """`ab`, `c` and `a`, `bc` differ."""
    assert deployment.digest(["ab", "c"]) != deployment.digest(["a", "bc"])


@given(st.text(), st.text())
def test_any_project_gets_a_name_that_can_be_a_file(name: str, root: str) -> None:
    """Short, printable ASCII, no hidden file, and never the collector's."""
    app_name, stem = names(project.Project(name, f"/{root}"))
    for one in (app_name, stem):
        assert 0 < len(one.encode()) <= app.given.NAME_BYTES_MAX
        assert set(one) <= set(SAFE)
        assert not one.startswith(".")
    assert app_name != app.COLLECTOR
    assert place.is_of(stem, app_name)


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_given_names_stay_two(one: str, two: str) -> None:
    """A name that cannot be a file is changed, but never into another app's."""
    assert (clean(one) == clean(two)) == (one == two)
    assert "/" not in clean(one)
    assert clean(one) not in {".", ".."}
    assert len(clean(one).encode()) <= app.given.NAME_BYTES_MAX


@pytest.mark.parametrize(("given_name", "kept"), [("shop", "shop"), ("agent", "agent-app")])
def test_a_given_name_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given_name: str, kept: str
) -> None:
    """`AGENT_METRICS_APP=shop` makes `shop.vN.seg`; `agent.vN.seg` is the collector's."""
    monkeypatch.setenv("AGENT_METRICS_APP", given_name)
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert app.find("/anywhere") == (kept, f"{tmp_path}/{kept}.v{LAYOUT_VERSION}.seg")
    told = [str(one.message) for one in said]
    if given_name == "agent":
        assert len(told) == 1
        assert told[0].startswith("AGENT_METRICS_APP=agent is the name of the collector's own")
        assert "'agent-app'" in told[0]
    else:
        assert told == []


def test_a_project_that_is_called_as_the_collector_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once, by its first process: it is `agent-app`."""
    project_file = NAMED.replace("shop", "agent")
    make(tmp_path, f"p/{project_file}", "p/main.py")
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path / "segments"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "p/main.py")])
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    for message in ("is called 'agent'", ""):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert app.find(str(tmp_path))[0] == "agent-app"
        assert len(said) == (1 if message else 0), [str(one.message) for one in said]
        assert all(message in str(one.message) for one in said)


# --- the folder of segments ---------------------------------------------------------------------
def test_folders_by_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AGENT_METRICS_DIR, else one folder for a user, with a runtime folder (login) and without."""
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert app.folder() == str(tmp_path / "given")
    monkeypatch.delenv("AGENT_METRICS_DIR")
    assert app.folder() == f"/dev/shm/agent-metrics-{os.getuid()}"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert app.folder() == f"/dev/shm/agent-metrics-{os.getuid()}"


@pytest.mark.parametrize("path", ["segments", "./segments", "../segments"])
def test_a_relative_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    """It would be another one after each change of the working directory; nothing is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_METRICS_DIR", path)
    with pytest.raises(OSError, match=f"AGENT_METRICS_DIR is '{re.escape(path)}': write the whole"):
        app.folder()
    assert os.listdir(tmp_path) == []


def test_a_new_folder_is_ours_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Mode 0700, whatever parents had to be made."""
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path / "a" / "b"))
    assert stat.S_IMODE(os.stat(app.folder()).st_mode) == 0o700


@pytest.mark.parametrize("trap", ["link", "file", "open"])
def test_a_folder_that_is_not_ours_alone_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trap: str
) -> None:
    """Symbolic links, files, and folders that others may write to."""
    path = tmp_path / "segments"
    if trap == "link":
        path.symlink_to(tmp_path)
    elif trap == "file":
        path.write_text("")
    else:
        path.mkdir()
        path.chmod(0o777)
    monkeypatch.setenv("AGENT_METRICS_DIR", str(path))
    with pytest.raises(OSError, match=str(path)):
        app.folder()


@pytest.mark.parametrize(
    ("mode", "remedy"), [(0o2770, "2750"), (0o2777, "2750"), (0o770, "700"), (0o1777, "700")]
)
def test_the_remedy_for_an_open_folder_leaves_a_shared_one_shared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, remedy: str
) -> None:
    path = tmp_path / "segments"
    path.mkdir()
    path.chmod(mode)
    monkeypatch.setenv("AGENT_METRICS_DIR", str(path))
    with pytest.raises(FolderError, match=rf"\(mode {mode:o}\): chmod {remedy} it"):
        app.folder()
    path.chmod(int(remedy, 8))
    assert app.folder() == str(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who made the folder first does not get to read our metrics."""
    os.chown(tmp_path, 12345, 12345)
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path))
    with pytest.raises(FolderError, match="12345"):
        app.folder()


def test_a_bare_forkserver_has_no_app_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It preloads modules before anybody told it whose server it is."""
    monkeypatch.delenv("AGENT_METRICS_APP", raising=False)
    code = "from multiprocessing.forkserver import main; main(3, 4, [])"
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", code])
    assert app.find("/srv") == ("", "")
