"""A sub-interpreter, as mod_wsgi has one for each app."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import Program

# Misuse is refused there, in words, and the process goes on; in the main interpreter too.
INSIDE = """
import agent
steps = agent.Counter("steps", "S.")
labelled = agent.Counter("labelled", "L.", ["a"])
times = agent.Histogram("times", "T.")
level = agent.Gauge("level", "G.")
for call in (
    lambda: steps.inc(-1),
    lambda: steps.inc("x"),
    lambda: labelled.labels(),
    lambda: labelled.labels(b=1),
    lambda: labelled.inc(),
    lambda: times.observe(float("nan")),
    lambda: level.set("x"),
    lambda: steps.inc_many([-1]),
):
    try:
        call()
    except (agent.AgentError, TypeError) as error:
        print(type(error).__name__)
steps.inc()
labelled.labels(a="x").inc()
print(next(x for x in agent.render().decode().splitlines() if x.startswith("steps_total")))
"""


@pytest.fixture
def program(tmp_path: Path, segments: str) -> Program:
    return Program(tmp_path, segments)


def test_misuse_in_a_sub_interpreter_is_an_exception(program: Program) -> None:
    program.write("inside.py", INSIDE)
    program.write(
        "outside.py",
        "import _xxsubinterpreters as interpreters\n"
        "code = open('inside.py').read()\n"
        "interpreters.run_string(interpreters.create(), code)\n"
        "exec(code)\n",
    )
    told = "AmountError TypeError LabelError LabelError LabelError AmountError TypeError "
    told += "AmountError"
    lines = program.run("outside.py").split("\n")
    assert lines == [*told.split(), "steps_total 1", *told.split(), "steps_total 2", ""]
