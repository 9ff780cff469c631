"""Apps and collector of different users: what the collector sees, and what nobody else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agent
from collector import DEADLINE_S, Collector, clean_environment, eventually, short_dir

Start = Callable[..., Collector]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

ALICE, BOB, CAROL, COLLECTOR, GROUP = 61_001, 61_002, 61_003, 61_009, 61_000

COUNT = """
import os, sys
os.umask(0o077)
import agent
agent.configure(app=sys.argv[1])
agent.Counter("visits", "Visits.").inc(int(sys.argv[2]))
assert agent.REGISTRY.fallback is None, agent.REGISTRY.fallback
print("counted", flush=True)
sys.stdin.read()
"""
READ = """
import os, sys
try:
    names = os.listdir(sys.argv[1])
except PermissionError:
    print("no list")
else:
    print(sorted(name for name in names if name.endswith(".seg")))
try:
    open(sys.argv[2], "rb").close()
except PermissionError:
    print("no read")
else:
    print("read")
try:
    open(sys.argv[2], "r+b").close()
except PermissionError:
    print("no write")
else:
    print("write")
try:
    open(sys.argv[1] + "/new", "wb").close()
except PermissionError:
    print("no new file")
else:
    print("new file")
"""


def everybodys_python() -> tuple[str, dict[str, str]]:
    """An interpreter that other users may run, and what it needs to find our packages."""
    own = os.path.realpath(sys.executable)
    usual = f"/usr/bin/python3.{sys.version_info.minor}"
    folders = [own, *map(str, Path(own).parents)]
    path = own if all(os.stat(one).st_mode & 0o001 for one in folders) else usual
    if not os.path.exists(path):
        message = f"{own} is for its owner only, and there is no {usual}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    packages = [str(Path(agent.__file__).parents[1]), sysconfig.get_path("purelib")]
    return path, {"PYTHONPATH": ":".join(packages), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def parent() -> Iterator[Path]:
    """What an administrator makes: a folder for each user, readable by the collector's group."""
    with short_dir() as path:
        os.chmod(path, 0o755)
        for name, user in (("alice", ALICE), ("bob", BOB)):
            folder = Path(path, name)
            folder.mkdir()
            os.chown(folder, user, GROUP)
            folder.chmod(0o2750)
        yield Path(path)


def as_user(
    user: int, code: str, *arguments: str, groups: tuple[int, ...] = (), **env: str
) -> subprocess.Popen[str]:
    """A program of another user, with pipes."""
    python, packages = everybodys_python()
    return subprocess.Popen(
        [python, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=user,
        group=user,
        extra_groups=list(groups),
        cwd="/",
        env=clean_environment(HOME="/", **packages, **env),
    )


def what_can(user: int, folder: Path, file: Path, *groups: int) -> list[str]:
    """What a user can do with a folder of somebody else and a file in it."""
    with as_user(user, READ, str(folder), str(file), groups=groups) as process:
        output, _ = process.communicate(timeout=DEADLINE_S)
    return output.splitlines()


@pytest.mark.parametrize("who", ["member", "root"])
def test_a_collector_of_another_user_shows_the_apps_of_all(
    start_collector: Start, segments: str, parent: Path, who: str
) -> None:
    """As a member of the folders' group, or as root; with each user's app under its own name."""
    if who == "member":
        os.chown(segments, COLLECTOR, COLLECTOR)
    python, packages = everybodys_python()
    options = {"user": COLLECTOR, "group": COLLECTOR, "extra_groups": [GROUP]}
    collector = start_collector(
        command=(python, "-m", "agent"),
        env={"AGENT_METRICS_APPS_SHARED_DIRS": f"{parent}/*"} | packages,
        popen=options if who == "member" else {},
    )
    apps = [(ALICE, "alice", "shop", 3), (ALICE, "alice", "blog", 4), (BOB, "bob", "shop", 5)]
    processes = [
        as_user(user, COUNT, app, str(count), AGENT_METRICS_DIR=f"{parent}/{folder}")
        for user, folder, app, count in apps
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "counted\n"
        seen = collector.scrape()
        assert {labels["app"]: value for labels, value in seen.matching("visits_total")} == {
            f"shop@{parent}/alice": 3,
            "blog": 4,
            f"shop@{parent}/bob": 5,
        }
    finally:
        for process in processes:
            process.communicate()
    file = next((parent / "alice").glob("blog.*.seg"))
    status = file.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (ALICE, GROUP, 0o640)
    assert what_can(CAROL, parent / "alice", file) == [
        "no list", "no read", "no write", "no new file",
    ]  # fmt: skip
    assert what_can(COLLECTOR, parent / "alice", file, GROUP)[1:] == [
        "read", "no write", "no new file",
    ]  # fmt: skip


def test_a_folder_that_others_may_write_to_is_not_shared(
    start_collector: Start, segments: str, parent: Path
) -> None:
    """By its group or by all: then its files are not known to be its owner's. It is counted."""
    collector = start_collector(env={"AGENT_METRICS_APPS_SHARED_DIRS": f"{parent}/*"})
    with as_user(ALICE, COUNT, "shop", "3", AGENT_METRICS_DIR=f"{parent}/alice") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        assert collector.scrape().one("visits_total", app="shop") == 3
        (parent / "alice").chmod(0o2770)
        assert "visits_total" not in collector.scrape()
        # Its own numbers a collector publishes once a second.
        refused = eventually(
            lambda: collector.scrape().sum(
                "agent_apps_refused_total", reason="folder_open_to_others"
            ),
            lambda count: count > 0,
            "it is counted",
        )
        assert refused > 0
        (parent / "alice").chmod(0o2750)
        assert collector.scrape().one("visits_total", app="shop") == 3
        process.communicate()


def test_hostile_files_of_a_user_cost_themselves(
    start_collector: Start, segments: str, parent: Path
) -> None:
    """Links to what the collector can read, pipes, files of others, garbage, a damaged segment."""
    collector = start_collector(env={"AGENT_METRICS_APPS_SHARED_DIRS": f"{parent}/*"})
    with as_user(ALICE, COUNT, "shop", "3", AGENT_METRICS_DIR=f"{parent}/alice") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        good = next((parent / "alice").glob("shop.*.seg"))
        suffix = good.name.removeprefix("shop")
        bob = parent / "bob"
        (bob / f"link{suffix}").symlink_to("/etc/shadow")
        (bob / f"alice{suffix}").symlink_to(good)
        os.mkfifo(bob / f"pipe{suffix}")
        (bob / f"folder{suffix}").mkdir()
        whole = good.read_bytes()[: 1 << 20]
        for name, data in (("garbage", os.urandom(9000)), ("short", whole), ("roots", whole)):
            path = bob / f"{name}{suffix}"
            path.write_bytes(data)
            if name != "roots":
                os.chown(path, BOB, GROUP)
        seen = collector.scrape()
        assert [labels["app"] for labels, _ in seen.matching("visits_total")] == ["shop"]
        rows = json.loads(collector.get("/v1/status"))["apps_refused"]
        names = ["alice", "folder", "garbage", "link", "pipe", "roots", "short"]
        assert [row["file"] for row in rows] == [str(bob / f"{name}{suffix}") for name in names]
        process.communicate()


def test_the_deploy_files_speak_of_one_group_and_one_place() -> None:
    """What the administrator makes is what the collector reads, and nobody else writes."""
    deploy = Path(__file__).parents[2] / "deploy"
    lines = (deploy / "agent-metrics.tmpfiles").read_text().splitlines()
    _, top, shop = (line.split() for line in ["", *lines] if not line.startswith("#"))
    assert (top[1:4], shop[2:5]) == (
        ["/run/agent-metrics-apps", "0755", "root"],
        ["2750", "shop", "agent-metrics"],
    )
    setting = f"AGENT_METRICS_APPS_SHARED_DIRS={os.path.dirname(shop[1])}/*"
    service = (deploy / "agent-metrics.service").read_text().splitlines()
    assert f"Environment={setting}" in service
    assert "SupplementaryGroups=agent-metrics" in service
    assert setting in (deploy / "Dockerfile").read_text()
    assert "g agent-metrics -" in (deploy / "agent-metrics.sysusers").read_text().splitlines()
