"""Whose metrics are these? Names that keep apps apart and their processes together."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import app
from agent.app import Program, clean, derive, digest


def program(*argv: str, start_dir: str = "/srv", prefix: str = "/venv", uid: int = 7) -> Program:
    return Program(argv, start_dir, prefix, uid)


@pytest.mark.parametrize(
    ("argv", "label"),
    [
        (["/venv/bin/gunicorn", "shop.wsgi"], "gunicorn-shop.wsgi"),
        (
            ["/venv/bin/gunicorn", "-w", "4", "-k", "gevent", "shop.wsgi:app"],
            "gunicorn-shop.wsgi_app",
        ),
        (["/venv/bin/gunicorn", "-c", "gunicorn.conf.py", "--preload", "blog"], "gunicorn-blog"),
        (["/venv/bin/uvicorn", "--host", "0.0.0.0", "shop.asgi:app"], "uvicorn-shop.asgi_app"),
        (["/venv/bin/celery", "-A", "shop", "worker", "-c", "4"], "celery-shop"),
        (["/venv/bin/celery", "--app=shop.tasks", "worker"], "celery-shop.tasks"),
        (["/venv/lib/gunicorn/__main__.py", "shop.wsgi"], "gunicorn-shop.wsgi"),
        (["/srv/shop/__main__.py", "--port", "8000"], "shop"),
        (["/srv/shop/manage.py", "runserver", "8000"], "manage-runserver"),
        (["/srv/report.py", "shop"], "report"),
        (["./tool"], "tool"),
        (["-c"], "python-c"),
        ([""], "python"),
        (["/venv/lib/ipykernel_launcher.py", "-f", "/run/kernel-1.json"], "notebook"),
    ],
)
def test_the_readable_part_names_program_and_target(argv: list[str], label: str) -> None:
    """A person recognises the app; the hash behind it keeps it apart from others."""
    name = derive(program(*argv))
    assert name.rpartition("-")[0] == label
    assert len(name.rpartition("-")[2]) == 10


def test_every_fact_makes_another_app() -> None:
    """Arguments, folder, environment and user each tell two apps apart."""
    names = {
        derive(program("gunicorn", "shop.wsgi")),
        derive(program("gunicorn", "blog.wsgi")),
        derive(program("gunicorn", "shop.wsgi", "-w", "2")),
        derive(program("gunicorn", "shop.wsgi", start_dir="/srv/2")),
        derive(program("gunicorn", "shop.wsgi", prefix="/other")),
        derive(program("gunicorn", "shop.wsgi", uid=8)),
        derive(program("gunicorn", "shop.wsgi")._replace(code="x")),
    }
    assert len(names) == 7


def test_notebooks_of_one_path_are_one_app() -> None:
    """Every start of a kernel has another connection file; that does not make another app."""
    one = program("/lib/ipykernel_launcher.py", "-f", "/run/kernel-1.json")
    two = program("/lib/ipykernel_launcher.py", "-f", "/run/kernel-2.json")
    assert derive(one) == derive(two)
    assert derive(one) != derive(one._replace(code="/srv/other.ipynb"))


def test_facts_do_not_run_into_each_other() -> None:
    """`ab`, `c` and `a`, `bc` differ."""
    assert digest(["ab", "c"]) != digest(["a", "bc"])


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_program_gets_a_name_that_can_be_a_file(argv: list[str]) -> None:
    """Whatever the arguments are, the name is short, printable ASCII and no hidden file."""
    name = derive(program(*argv))
    assert len(name.encode()) <= app.NAME_BYTES_MAX
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not name.startswith(".")


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_given_names_stay_two(one: str, two: str) -> None:
    """A name that cannot be a file is changed, but never into another app's."""
    assert (clean(one) == clean(two)) == (one == two)
    assert "/" not in clean(one)
    assert clean(one) not in {".", ".."}
    assert len(clean(one).encode()) <= app.NAME_BYTES_MAX


def test_a_given_name_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`AGENT_METRICS_APP=shop` makes `shop.v1.seg` in `AGENT_METRICS_DIR`."""
    monkeypatch.setenv("AGENT_METRICS_APP", "shop")
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path))
    assert app.find("/anywhere") == ("shop", f"{tmp_path}/shop.v1.seg")


def test_no_app_writes_into_the_segment_of_the_collector(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`AGENT_METRICS_APP=agent` makes `agent-app.v1.seg`: `agent.v1.seg` is the collector's."""
    monkeypatch.setenv("AGENT_METRICS_APP", "agent")
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path))
    assert app.find("/anywhere") == ("agent-app", f"{tmp_path}/agent-app.v1.seg")


def test_folders_by_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AGENT_METRICS_DIR, then the user's runtime folder when it exists, then /dev/shm."""
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert app.folder() == str(tmp_path / "given")
    monkeypatch.delenv("AGENT_METRICS_DIR")
    assert app.folder() == str(tmp_path / "agent-metrics")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert app.folder() == f"/dev/shm/agent-metrics-{os.getuid()}"


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


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who made the folder first does not get to read our metrics."""
    os.chown(tmp_path, 12345, 12345)
    monkeypatch.setenv("AGENT_METRICS_DIR", str(tmp_path))
    with pytest.raises(PermissionError, match="12345"):
        app.folder()


def test_a_bare_forkserver_has_no_app_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It preloads modules before anybody told it whose server it is."""
    monkeypatch.delenv("AGENT_METRICS_APP", raising=False)
    code = "from multiprocessing.forkserver import main; main(3, 4, [])"
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", code])
    assert app.find("/srv") == ("", "")
