"""When there is no place for a segment, or another one is in the way: the app goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import Program, running, total

COUNTING = """
import sys, warnings, agent
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    steps = agent.Counter("steps", "Steps.")
    sizes = agent.Histogram("sizes", "Sizes.", ["a"])
    for number in range(1000):
        steps.inc()
        sizes.labels(number).observe(number)
    page = agent.render().decode()
print(len(seen), (agent.REGISTRY.fallback or ("-",))[0], agent.REGISTRY.lost)
print("steps_total 1000\\n" in page, page.count("sizes_count{"))
"""

root = pytest.mark.skipif(os.getuid() != 0, reason="needs to mount a file system")


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    made = Program(tmp_path, segments)
    made.write("counting.py", COUNTING)
    return made


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[str]:
    """A file system in memory of 1 MiB."""
    path = tmp_path / "small"
    path.mkdir(mode=0o700)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr}")
    yield str(path)
    subprocess.run(["umount", path], check=True)


def test_a_limit_of_the_size_of_files_leaves_room_for_a_segment(program: Program) -> None:
    """A segment's file is hardly larger than the 256 MiB that its metrics may take."""
    program.write(
        "limited.py",
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (258 << 20, 258 << 20))\n" + COUNTING,
    )
    told, _ = program.run("limited.py").splitlines()
    assert told == "0 - 0"
    assert total(program.app(), "steps") == 1000


@root
def test_a_file_system_that_fills_up_costs_labels_not_the_app(
    program: Program, small_tmpfs: str
) -> None:
    """1 MiB is soon full: no SIGBUS, no exception; what has no room is in the overflow series."""
    program.segments = small_tmpfs
    told, page = program.run("counting.py").splitlines()
    assert told == "0 - 0"
    assert page.startswith("True ")
    app = program.app()
    assert total(app, "steps") == 1000
    assert total(app, "sizes") + app["usage"]["refused"] == 1000
    assert app["usage"]["overflows"] > 0


@root
def test_a_full_file_system_ends_in_private_memory(program: Program, small_tmpfs: str) -> None:
    """One warning, the cause is told, everything is counted and rendered in the process."""
    program.segments = small_tmpfs
    with open(f"{small_tmpfs}/filler", "wb") as filler:
        filler.write(b"x" * (1 << 20))
    assert program.run("counting.py").splitlines() == ["1 open 0", "True 1000"]


@root
def test_a_metric_that_finds_no_memory_is_counted_aside_alone(
    program: Program, small_tmpfs: str
) -> None:
    """The place fills up after the start: what is there goes on; pages say what is missing."""
    program.segments = small_tmpfs
    program.write(
        "later.py",
        "import os, warnings, agent\n"
        "warnings.simplefilter('ignore')\n"
        "steps = agent.Counter('steps', 'S.'); steps.inc(5)\n"
        "path = os.environ['AGENT_METRICS_DIR'] + '/filler'\n"
        "with open(path, 'wb', 0) as filler:\n"
        "    try:\n"
        "        while True: filler.write(b'x' * 4096)\n"
        "    except OSError: pass\n"
        "made = [agent.Histogram(f'h{n}', 'H.', buckets=range(500)) for n in range(100)]\n"
        "for metric in made: metric.observe(1)\n"
        "steps.inc(7)\n"
        "page = agent.render().decode()\n"
        "print(agent.REGISTRY.fallback, 'steps_total 12\\n' in page)\n"
        "print('\\nagent_private_metrics_total ' in page, page.count('_count 1\\n') < 100)\n"
        "for metric in made: metric.observe(2)\n"
        "os.unlink(path)\n"
        "while not (back := agent.render().decode().count('_count 2\\n')): steps.inc(0)\n"
        "print(back)\n",
    )
    first, second, third = program.run("later.py").splitlines()
    assert (first, second) == ("None True", "True True")
    assert int(third) >= 1, "what was counted aside is back, with what came after"
    assert total(program.app(), "steps") == 12
    assert program.app()["usage"]["fallbacks"] > 0


def test_a_folder_without_permission_ends_in_private_memory(program: Program) -> None:
    """The same for a folder that cannot be written."""
    os.chmod(program.segments, 0o500)
    command = program.command("counting.py")
    if os.getuid() == 0:
        # Root may write everywhere, unless the program is started without that capability.
        command["args"][:0] = ["setpriv", "--bounding-set=-dac_override"]
    done = subprocess.run(**command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 open 0", "True 1000"]


@pytest.mark.parametrize("trap", ["link", "open", "file"])
def test_a_folder_that_is_not_ours_alone_is_not_used(program: Program, trap: str) -> None:
    """Nothing is written to it, and the app goes on."""
    path = Path(program.segments, "trap")
    if trap == "link":
        path.symlink_to(program.segments)
    elif trap == "open":
        path.mkdir()
        path.chmod(0o777)
    else:
        path.write_text("")
    program.segments = str(path)
    assert program.run("counting.py").splitlines() == ["1 folder 0", "True 1000"]
    assert trap == "file" or not list(path.glob("*.seg"))


def test_a_truncated_file_is_kept_aside_and_counters_begin_anew(program: Program) -> None:
    """Nobody lives in it: whoever wants to know why has the file."""
    program.run("counting.py", AGENT_METRICS_APP="shop")
    path = Path(program.segments, "shop.v3.seg")
    os.truncate(path, 5000)
    before = path.read_bytes()
    told = program.run("counting.py", AGENT_METRICS_APP="shop").splitlines()
    assert told == ["0 - 0", "True 1000"]
    assert Path(f"{path}.damaged").read_bytes() == before


def test_a_segment_whose_first_words_are_damaged_is_kept_aside(program: Program) -> None:
    """Both copies. The file is ours by name, owner and length: the app begins anew, and shares."""
    program.run("counting.py", AGENT_METRICS_APP="shop")
    path = Path(program.segments, "shop.v3.seg")
    data = bytearray(path.read_bytes())
    data[8:16] = data[2056:2064] = b"\xff" * 8
    path.write_bytes(data)
    told = program.run("counting.py", AGENT_METRICS_APP="shop").splitlines()
    assert told == ["0 - 0", "True 1000"]
    assert path.with_name("shop.v3.seg.damaged").read_bytes() == bytes(data)


@pytest.mark.parametrize("damage", ["text", "link"])
def test_a_file_that_is_no_segment_is_left_alone(program: Program, damage: str) -> None:
    """It is not ours to replace; the process goes on in private memory and says so once."""
    program.run("counting.py", AGENT_METRICS_APP="shop")
    path = Path(program.segments, "shop.v3.seg")
    if damage == "text":
        path.write_bytes(b"precious " * 100_000)
    else:
        path.rename(path.with_suffix(".other"))
        path.symlink_to(path.with_suffix(".other"))
    before = path.read_bytes()
    told = program.run("counting.py", AGENT_METRICS_APP="shop").splitlines()
    assert told == ["1 open 0", "True 1000"]
    assert path.read_bytes() == before


def test_address_space_can_run_out(program: Program) -> None:
    """Under a limit of the process no segment can be mapped; the app goes on all the same."""
    program.write(
        "limited.py",
        "import resource, warnings, agent\n"
        "warnings.simplefilter('ignore')\n"
        "with open('/proc/self/statm') as file: used = int(file.read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), -1))\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "for _ in range(10): steps.inc()\n"
        "print(agent.REGISTRY.fallback[0])\n",
    )
    done = subprocess.run(
        **program.command("limited.py"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "open\n"), done.stderr


def test_without_any_address_space_updates_are_counted_as_lost(program: Program) -> None:
    """Not even private memory can be had: no exception, no noise but one warning."""
    program.write(
        "nothing.py",
        "import resource, warnings, agent, agent.app\n"
        "warnings.simplefilter('always')\n"
        "with open('/proc/self/statm') as file: used = int(file.read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 20), -1))\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "for _ in range(10): steps.inc()\n"
        "print(agent.REGISTRY.fallback[0], agent.REGISTRY.lost)\n",
    )
    done = subprocess.run(
        **program.command("nothing.py"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "open 10\n"), done.stderr
    assert done.stderr.count("AgentWarning") == 1
    assert "panicked" not in done.stderr


# --- how long counters live
# -------------------------------------------------------------------------

RESTARTED = """
import agent
steps = agent.Counter("steps", "Steps.")
steps.inc()
sizes = agent.Histogram("sizes", "Sizes.", buckets=[BUCKETS])
sizes.observe(1)
"""


def test_counters_outlive_their_processes(program: Program) -> None:
    """Started three times, counted three times; `created` says when it began."""
    program.write("app.py", RESTARTED.replace("BUCKETS", "1, 2"))
    born = []
    for expected in (1, 2, 3):
        program.run("app.py")
        assert program.total("steps") == program.total("sizes") == expected
        steps = next(f for f in program.app()["families"] if f["name"] == "steps")
        born.append(steps["series"][0]["created_unix_ms"])
    assert len(set(born)) == 1


def test_counters_begin_anew_when_the_file_is_removed(program: Program) -> None:
    """All of them at once, with a new time of creation."""
    program.write("app.py", RESTARTED.replace("BUCKETS", "1, 2"))
    program.run("app.py")
    born = program.app()["header"]["created_unix_ms"]
    for path in Path(program.segments).iterdir():
        path.unlink()
    program.run("app.py")
    assert program.total("steps") == program.total("sizes") == 1
    assert program.app()["header"]["created_unix_ms"] > born


def test_a_changed_definition_begins_anew_alone(program: Program) -> None:
    """A program that comes back with other buckets: that metric begins at 0, all others go on."""
    program.write("app.py", RESTARTED.replace("BUCKETS", "1, 2"))
    program.run("app.py")
    program.run("app.py")
    program.write("app.py", RESTARTED.replace("BUCKETS", "1, 2, 3"))
    program.run("app.py")
    assert (program.total("steps"), program.total("sizes")) == (3, 1)
    program.run("app.py")
    assert (program.total("steps"), program.total("sizes")) == (4, 2)
    # Rolled back: from 0 as well.
    program.write("app.py", RESTARTED.replace("BUCKETS", "1, 2"))
    program.run("app.py")
    assert (program.total("steps"), program.total("sizes")) == (5, 1)


SHAPES = {
    "counter": "agent.Counter('m', 'M.').inc(3)",
    "labelled": "agent.Counter('m', 'M.', ['a']).labels('x').inc(3)",
    "gauge": "agent.Gauge('m', 'M.').inc(3)",
    "per process": "agent.Gauge('m', 'M.', multiprocess_mode='sum').inc(3)",
    "default": "for _ in range(3): agent.Histogram('m', 'M.').observe(1)",
    "native": "for _ in range(3): agent.Histogram('m', 'M.', native=True).observe(1)",
    "coarse": "for _ in range(3): agent.Histogram('m', 'M.', schema=1).observe(1)",
    "explicit": "for _ in range(3): agent.Histogram('m', 'M.', buckets=[1, 2]).observe(1)",
    "summary": "for _ in range(3): agent.Summary('m', 'M.').observe(1)",
    "other quantiles": "for _ in range(3): agent.Summary('m', 'M.', quantiles=[0.1]).observe(1)",
}


@pytest.mark.parametrize("old", SHAPES)
def test_another_shape_of_a_metric_never_mixes_with_what_is_there(
    program: Program, old: str
) -> None:
    """An upgrade makes a metric another type, gives it labels or other buckets: it begins anew."""
    for new in SHAPES.keys() - {old}:
        for version in (old, new, new):
            program.write("app.py", f"import agent\n{SHAPES[version]}\n")
            program.run("app.py")
        assert program.total("m") == 6, f"{old} to {new}"
        for path in Path(program.segments).iterdir():
            path.unlink()


def test_in_a_rolling_upgrade_old_and_new_live_beside_each_other(program: Program) -> None:
    """One app: the new definition is shown, the old process goes on unseen, all else adds up."""
    wait = "print('up', flush=True); input(); steps.inc(); sizes.observe(1)\n"
    program.write("app.py", RESTARTED.replace("BUCKETS", "1, 2") + wait)
    with running(program, "app.py") as old:
        assert old.stdout is not None
        assert old.stdout.readline() == "up\n"
        program.write("app.py", RESTARTED.replace("BUCKETS", "1, 2, 3") + wait)
        with running(program, "app.py") as new:
            assert new.stdout is not None
            assert new.stdout.readline() == "up\n"
            assert (program.total("steps"), program.total("sizes")) == (2, 1)
            for process in (old, new):
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.wait(60) == 0
    assert (program.total("steps"), program.total("sizes")) == (4, 2)
