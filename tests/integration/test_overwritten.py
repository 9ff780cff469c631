"""Bytes of a segment that others overwrite: by a closed stream's number, by zeros, by one bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from programs import DEADLINE_S, Program, running

# Counts, waits for a line, counts again until the page has it, and goes on until the next line.
COUNTING = """
import agent, sys, time
steps = agent.Counter("steps", "S.")
steps.inc(5)
print("counts", flush=True)
sys.stdin.readline()
end = time.monotonic() + 60
while agent.render().decode().count("steps_total 5\\n") == 0 and time.monotonic() < end:
    time.sleep(0.01)
steps.inc()
print("again", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    made = Program(tmp_path, segments)
    made.write("counting.py", COUNTING)
    return made


@pytest.mark.parametrize("closed", ["0<&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_nothing_that_is_written_to_a_closed_stream_is_written_into_the_segment(
    program: Program, closed: str
) -> None:
    program.write(
        "closed.py",
        "import agent, ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "steps = agent.Counter('steps', 'S.')\n"
        "steps.inc()\n"
        "for number in (0, 1, 2):\n"
        "    for _ in range(100): libc.write(number, b'x' * 60, 60)\n"
        "steps.inc()\n",
    )
    command = program.command("closed.py")
    python, script = command.pop("args")
    done = subprocess.run(
        f"{python} {script} {closed}",
        shell=True,
        **command,
        stdout=subprocess.DEVNULL,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0
    assert program.total("steps") == 2


def overwrite(program: Program, offset: int, data: bytes) -> None:
    (path,) = Path(program.segments).glob("*.seg")
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("offset", "data"),
    [(0, bytes(96)), (2048, bytes(96)), (0, bytes(128)), (128, bytes(8))],
    ids=["first half", "second half", "up to what is committed", "what is committed"],
)
def test_a_living_writer_mends_the_header(program: Program, offset: int, data: bytes) -> None:
    with running(program, "counting.py") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "counts\n"
        overwrite(program, offset, data)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "again\n"
        assert program.total("steps") == 6


@pytest.mark.parametrize("how", ["zeros", "hole"])
def test_a_first_page_of_zeros_is_that_of_a_damaged_file(program: Program, how: str) -> None:
    """Its name says whose it is; nobody counts alone for it."""
    program.write("once.py", "import agent\nagent.Counter('steps', 'S.').inc()\n")
    program.run("once.py")
    if how == "zeros":
        overwrite(program, 0, bytes(4096))
    else:
        (path,) = Path(program.segments).glob("*.seg")
        punch = ["fallocate", "--punch-hole", "--offset", "0", "--length", "4096", path]
        subprocess.run(punch, check=True)
    program.run("once.py")
    assert program.total("steps") == 1
    assert len(list(Path(program.segments).glob("*.damaged"))) == 1
