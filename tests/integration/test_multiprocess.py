"""One app of many processes: however they are started, their counts meet in one place, exactly."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from collector import eventually
from programs import Program, running, total

COUNTING = """
import agent
steps = agent.Counter("steps", "Steps.", ["kind"])
sizes = agent.Histogram("sizes", "Sizes.")

def work(count):
    for number in range(count):
        steps.labels("a" if number % 2 else "b").inc()
        sizes.observe(number)
"""

POOL = """
import multiprocessing, os, sys
import counting

def main():
    context = multiprocessing.get_context(sys.argv[1])
    counting.work(100)
    processes = [context.Process(target=counting.work, args=(1000,)) for _ in range(4)]
    for process in processes:
        process.start()
    counting.work(100)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    counting.work(100)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    made = Program(tmp_path, segments)
    made.write("counting.py", COUNTING)
    return made


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("how", ["script", "module", "package"])
def test_every_start_method_is_one_app_with_an_exact_total(
    program: Program, method: str, how: str
) -> None:
    """Parent and four children, metrics made at import, counted before, during and after."""
    if how == "package":
        (program.folder / "pack").mkdir()
        program.write("pack/__init__.py", "import counting\ncounting.work(0)\n")
        program.write("pack/__main__.py", POOL)
        program.run("-m", "pack", method)
    else:
        program.write("pool.py", POOL)
        program.run(*(["-m", "pool"] if how == "module" else ["pool.py"]), method)
    assert program.total("steps") == 4300
    assert program.total("sizes") == 4300


def test_code_on_the_command_line_is_one_app_with_its_children(program: Program) -> None:
    """`python -c` too, through spawn and forkserver; other code is another app."""
    code = (
        "import multiprocessing, counting\n"
        "for method in ('spawn', 'forkserver'):\n"
        "    context = multiprocessing.get_context(method)\n"
        "    process = context.Process(target=counting.work, args=(5,))\n"
        "    process.start(); process.join()\n"
        "counting.work(1)\n"
    )
    program.run("-c", code)
    assert program.total("steps") == 11
    program.run("-c", code + "# other")
    assert len(program.apps()) == 2


def test_a_forkserver_that_preloads_the_metrics_is_not_an_app(program: Program) -> None:
    """It does not know whose server it is; its children do, and what they count is there."""
    program.write(
        "pool.py",
        POOL.replace(
            "    counting.work(100)\n    proc",
            "    context.set_forkserver_preload(['counting'])\n    counting.work(100)\n    proc",
        ),
    )
    program.run("pool.py", "forkserver")
    assert program.total("steps") == 4300


def test_metrics_sent_to_a_spawned_process_are_the_same(program: Program) -> None:
    """Handles travel by pickle and find their series."""
    program.write(
        "send.py",
        "import multiprocessing\n"
        "from counting import steps\n"
        "def use(child): child.inc(5)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    process = context.Process(target=use, args=(steps.labels('sent'),))\n"
        "    process.start(); process.join()\n"
        "    assert process.exitcode == 0\n",
    )
    program.run("send.py")
    assert program.total("steps") == 5


def test_a_pool_of_futures_counts(program: Program) -> None:
    """concurrent.futures, forked and spawned."""
    program.write(
        "pool.py",
        "import multiprocessing, sys\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "import counting\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn'):\n"
        "        context = multiprocessing.get_context(method)\n"
        "        with ProcessPoolExecutor(3, mp_context=context) as pool:\n"
        "            list(pool.map(counting.work, [100] * 10))\n",
    )
    program.run("pool.py")
    assert program.total("steps") == 2000


def test_a_child_forked_beside_busy_threads_never_hangs(program: Program) -> None:
    """60 forks while two threads increment; each child increments too, and the total is exact."""
    program.write(
        "threads.py",
        "import os, threading, warnings\n"
        "import counting\n"
        # From 3.12 on the interpreter itself warns of what is tested here.
        "warnings.filterwarnings('ignore', 'This process .* is multi-threaded')\n"
        "child = counting.steps.labels('thread')\n"
        "busy, counted = True, [0, 0]\n"
        "def spin(index):\n"
        "    while busy:\n"
        "        child.inc(); counting.sizes.observe(1); counted[index] += 1\n"
        "threads = [threading.Thread(target=spin, args=(index,)) for index in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "for _ in range(60):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        child.inc(1000000); counting.sizes.observe(2)\n"
        "        os._exit(0)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0\n"
        "busy = False\n"
        "for thread in threads: thread.join()\n"
        "print(sum(counted))\n",
    )
    by_threads = int(program.run("threads.py"))
    assert program.total("steps") == by_threads + 60_000_000
    assert program.total("sizes") == by_threads + 60


def test_forks_of_forks_before_and_after_the_first_metric(program: Program) -> None:
    """Whoever makes the metric first, all of the family meet."""
    program.write(
        "family.py",
        "import os\n"
        "def fork(then):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        then()\n"
        "        os._exit(0)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0\n"
        "def leaf():\n"
        "    import counting; counting.work(10)\n"
        "def branch():\n"
        "    fork(leaf); leaf(); fork(leaf)\n"
        "fork(branch)\n"
        "leaf()\n"
        "fork(branch)\n",
    )
    program.run("family.py")
    assert program.total("steps") == 70


def test_after_an_exec_another_program_is_another_app(program: Program) -> None:
    """And the same program, run again, goes on with the same counters."""
    program.write("second.py", "import counting; counting.work(7)\n")
    program.write(
        "first.py",
        "import os, sys, counting\n"
        "counting.work(5)\n"
        "os.execv(sys.executable, [sys.executable, 'second.py'])\n",
    )
    program.run("first.py")
    program.run("first.py")
    totals = sorted(total(app, "steps") for app in program.apps().values())
    assert totals == [10, 14]


def test_a_script_is_one_app_wherever_it_is_called_from(program: Program, tmp_path: Path) -> None:
    """Neither the working directory nor the arguments make another one."""
    path = program.write("first.py", "import counting; counting.work(5)\n")
    program.run(path, PYTHONPATH=str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    other = Program(tmp_path / "elsewhere", program.segments)
    other.run(path, "--port", "8001", PYTHONPATH=str(tmp_path))
    assert program.total("steps") == 10


def test_a_change_of_folder_does_not_change_the_app(program: Program) -> None:
    """What counts is where the program was when it was started."""
    program.write(
        "moving.py",
        "import agent, os, multiprocessing, counting\n"
        "if __name__ == '__main__':\n"
        "    counting.work(1)\n"
        "    os.chdir('/')\n"
        "    process = multiprocessing.get_context('spawn').Process("
        "target=counting.work, args=(1,))\n"
        "    process.start(); process.join()\n",
    )
    program.run("moving.py")
    assert program.total("steps") == 2


def test_killed_processes_lose_nothing_they_acknowledged(program: Program) -> None:
    """SIGKILL at random moments: each process's last word is in the total, at most one more.

    A process says how far it is before every step, through a pipe that outlives it.
    """
    program.write(
        "killed.py",
        "import os, random, signal, struct\n"
        "import counting\n"
        "child = counting.steps.labels('k')\n"
        "said = 0\n"
        "for round in range(20):\n"
        "    read, write = os.pipe()\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        done = 0\n"
        "        while True:\n"
        "            child.inc(); done += 1\n"
        "            os.write(write, struct.pack('q', done))\n"
        "    os.close(write)\n"
        "    last = b''\n"
        "    for _ in range(random.Random(round).randrange(1, 400)):\n"
        "        last = os.read(read, 8)\n"
        "    os.kill(pid, signal.SIGKILL)\n"
        "    os.waitpid(pid, 0)\n"
        "    while chunk := os.read(read, 65536):\n"
        "        last = chunk[-8:]\n"
        "    os.close(read)\n"
        "    said += struct.unpack('q', last)[0]\n"
        "print(said)\n",
    )
    said = int(program.run("killed.py"))
    assert said <= program.total("steps") <= said + 20


def test_a_stopped_process_keeps_its_slot_and_a_dead_one_does_not(program: Program) -> None:
    """Liveness is the kernel's word: no time-out, no clean-up, and the slot is used again."""
    program.write(
        "wait.py", "import counting; counting.work(1); print('up', flush=True); input()\n"
    )

    def slots() -> list[tuple[int, bool]]:
        return [(slot["index"], slot["alive"]) for slot in program.app()["slots"]]

    def up(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    with running(program, "wait.py") as started:
        one = up(started)
        with running(program, "wait.py") as second:
            two = up(second)
            os.kill(one.pid, signal.SIGSTOP)
            assert slots() == [(0, True), (1, True)]
            two.kill()
            two.wait()
        assert slots() == [(0, True), (1, False)]
        with running(program, "wait.py") as third:
            three = up(third)
            assert slots() == [(0, True), (1, True)]
            assert program.app()["slots"][1]["pid"] == three.pid
        os.kill(one.pid, signal.SIGCONT)


SLOTLESS = """
import os, warnings, agent
warnings.simplefilter("ignore")
EXTRA = int(os.environ["PROCESSES"])
registry = agent.Registry(os.environ["AGENT_METRICS_DIR"] + "/shop.v3.seg", "shop", slots_max=2)
steps = agent.Counter("steps", "Steps.", registry=registry)
sizes = agent.Histogram("sizes", "Sizes.", ["kind"], registry=registry)
jobs = agent.Gauge("jobs", "Jobs.", registry=registry)
busy = agent.Gauge("busy", "Busy.", multiprocess_mode="livesum", registry=registry)
steps.inc()
read, up = os.pipe()
stay, leave = os.pipe()
for number in range(EXTRA):
    if os.fork() == 0:
        os.close(leave)
        for round in range(1000):
            steps.inc()
            steps.inc(0.5)
            sizes.labels(round % 3).observe(round)
            jobs.inc()
        busy.set(1)
        os.write(up, b"x")
        os.read(stay, 1)
        os._exit(0)
"""


def test_a_process_without_a_slot_counts_aside_until_it_gets_one(program: Program) -> None:
    """Two slots, three processes: the third says so once; what it counted is there in the end."""
    program.write(
        "promoted.py",
        SLOTLESS.replace("EXTRA = ", "EXTRA = 1 or ") + "os.read(read, 1)\n"
        "if (pid := os.fork()) == 0:\n"
        "    warnings.simplefilter('always')\n"
        "    with warnings.catch_warnings(record=True) as seen:\n"
        "        for _ in range(500): steps.inc()\n"
        "        print(len(seen), 'in private memory' in str(seen[0].message), flush=True)\n"
        "        print('agent_private_metrics_total 1\\n' in registry.render().decode())\n"
        "        os.close(leave); os.write(up, b'x')\n"
        "        while registry.fallback: steps.inc(0)\n"
        "        steps.inc(0.5)\n"
        "        print(len(seen), registry.path is not None, flush=True)\n"
        "        os._exit(0)\n"
        "os.read(read, 1); os.close(leave)\n"
        "os.waitpid(pid, 0)\n",
    )
    out = program.run("promoted.py", PROCESSES="1")
    assert out.splitlines() == ["1 True", "True", "1 True"]
    assert program.total("steps") == 1 + 1500 + 500.5


def test_five_hundred_living_processes_of_an_app_have_a_slot_each(program: Program) -> None:
    program.write(
        "many.py",
        "import os, warnings, agent\n"
        "warnings.simplefilter('ignore')\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "steps.inc()\n"
        "read, up = os.pipe()\n"
        "stay, leave = os.pipe()\n"
        "for number in range(520):\n"
        "    if os.fork() == 0:\n"
        "        os.close(leave)\n"
        "        for _ in range(10): steps.inc()\n"
        "        os.write(up, b'x'); os.read(stay, 1); os._exit(0)\n"
        "got = 0\n"
        "while got < 520: got += len(os.read(read, 1000))\n"
        "print('steps_total 5201\\n' in agent.render().decode())\n",
    )
    assert program.run("many.py") == "True\n"
    assert len(program.app()["slots"]) == 521


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("counted", ["", "counting.steps.labels('early').inc(0)\n"])
def test_workers_that_drop_their_privileges_meet_in_the_segment(
    program: Program, counted: str
) -> None:
    """As `gunicorn --preload --user nobody` does it, in a folder that nobody else may enter."""
    program.write(
        "dropped.py",
        "import os\n"
        "import counting\n" + counted + "for worker in range(4):\n"
        "    if os.fork() == 0:\n"
        "        os.setgid(65534); os.setuid(65534)\n"
        "        for n in range(2000): counting.steps.labels(str(n % 50)).inc()\n"
        "        os._exit(0)\n"
        "for worker in range(4): assert os.wait()[1] == 0\n",
    )
    program.run("dropped.py")
    assert program.total("steps") == 8000


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("strict", [False, True])
def test_a_worker_without_privileges_notices_that_the_file_is_gone(
    program: Program, strict: bool
) -> None:
    """It may not look into the folder any more, and must not count into what nobody can read."""
    program.write(
        "gone.py",
        "import os, pathlib, sys, time, warnings\n"
        "import agent\n"
        "warnings.simplefilter('always')\n"
        f"agent.configure(strict={strict})\n"
        "steps = agent.Counter('steps', 'Steps.')\n"
        "steps.inc()\n"
        "if os.fork() == 0:\n"
        "    os.setgid(65534); os.setuid(65534)\n"
        "    steps.inc()\n"
        "    sys.stdout.write('counts\\n'); sys.stdout.flush()\n"
        "    sys.stdin.readline()\n"
        "    end = time.monotonic() + 60\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        try:\n"
        "            while not caught and time.monotonic() < end: steps.inc()\n"
        "            told = str(caught[0].message)\n"
        "        except agent.SegmentError as error: told = f'refused: {error}'\n"
        "    print(told, flush=True)\n"
        "    os._exit(0)\n"
        "assert os.wait()[1] == 0\n",
    )
    os.chmod(program.segments, 0o700)
    with running(program, "gone.py") as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "counts\n"
        for path in Path(program.segments).glob("*.seg"):
            path.unlink()
        worker.stdin.write("go\n")
        worker.stdin.flush()
        told = worker.stdout.read()
    assert told.startswith("refused: ") == strict, told
    assert program.segments in told, told


def test_a_forked_child_does_not_keep_its_parents_slot(program: Program) -> None:
    """The parent dies; its slot is free at once although the child lives on."""
    program.write(
        "orphan.py",
        "import os, counting\n"
        "counting.work(1)\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); counting.work(1); print(os.getpid(), flush=True); os.read(0, 1)\n"
        "else:\n"
        "    os.read(0, 1)\n",
    )
    with running(program, "orphan.py") as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        try:
            told = eventually(program.app, lambda app: not app["slots"][0]["alive"], "slot is free")
            assert [slot["alive"] for slot in told["slots"]] == [False, True]
            assert told["slots"][1]["pid"] == child
        finally:
            os.kill(child, signal.SIGKILL)


def test_per_process_gauges_follow_life_and_death(program: Program) -> None:
    """livesum forgets a dead process, sum does not, mostrecent is one number for all."""
    program.write(
        "gauges.py",
        "import os, agent\n"
        "kinds = {m: agent.Gauge(m, 'G.', multiprocess_mode=m)"
        " for m in ('livesum', 'sum', 'mostrecent', 'max', 'liveall')}\n"
        "def work(value):\n"
        "    for gauge in kinds.values(): gauge.set(value)\n"
        "for value in (5, 7):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        work(value); os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "work(1)\n"
        "print(agent.render().decode())\n",
    )
    page = program.run("gauges.py")
    values = dict(line.split() for line in page.splitlines() if line and line[0] != "#")
    assert (values["livesum"], values["sum"], values["max"]) == ("1", "13", "7")
    assert values["mostrecent"] == "1"
    assert len([name for name in values if name.startswith("liveall{")]) == 1


def test_quantiles_are_of_the_values_of_all_processes(program: Program) -> None:
    """Four children observe a number each, beside a busy one; what they saw outlives them."""
    program.write(
        "quantiles.py",
        "import os, agent\n"
        "sizes = agent.Summary('sizes', 'S.', quantiles=[0, 0.5, 1])\n"
        "busy = agent.Summary('busy', 'B.')\n"
        "sizes.observe(0)\n"
        "for number in range(1, 5):\n"
        "    if os.fork() == 0:\n"
        "        sizes.observe(number)\n"
        "        for _ in range(50_000): busy.observe(number)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "page = agent.render().decode().splitlines()\n"
        "print(*[line for line in page if line.startswith('sizes')], sep='\\n')\n",
    )
    assert program.run("quantiles.py").splitlines() == [
        'sizes{quantile="0.0"} 0',
        'sizes{quantile="0.5"} 2',
        'sizes{quantile="1.0"} 4',
        "sizes_sum 10",
        "sizes_count 5",
    ]


def test_two_apps_of_one_user_never_mix(program: Program) -> None:
    """Programs in one folder, with no setting at all."""
    for name in ("shop", "blog"):
        program.write(f"{name}.py", "import counting; counting.work(3)\n")
        program.run(f"{name}.py")
    assert {app.rpartition("-")[0] for app in program.apps()} == {"shop", "blog"}
    assert [total(app, "steps") for app in program.apps().values()] == [3, 3]


def test_a_given_name_joins_programs(program: Program) -> None:
    """AGENT_METRICS_APP makes one app of what belongs together."""
    for name in ("web", "worker"):
        program.write(f"{name}.py", "import counting; counting.work(3)\n")
        program.run(f"{name}.py", AGENT_METRICS_APP="shop")
    assert list(program.apps()) == ["shop"]
    assert program.total("steps") == 6
