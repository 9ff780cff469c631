"""`_core.pyi` says what `agent._core` is: the same names, the same parameters, documented."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import subprocess
import sys

import pytest

import agent
from agent import _core

STUB = os.path.join(os.path.dirname(agent.__file__), "_core.pyi")
API = os.path.join(os.path.dirname(__file__), "typing", "api.py")


def stub() -> ast.Module:
    with open(STUB) as file:
        return ast.parse(file.read())


CLASSES = {node.name: node for node in stub().body if isinstance(node, ast.ClassDef)}
PUBLIC_CLASSES = {name: node for name, node in CLASSES.items() if not name.startswith("_")}
FUNCTIONS = {node.name: node for node in stub().body if isinstance(node, ast.FunctionDef)}


def parameters(node: ast.FunctionDef) -> list[str]:
    arguments = node.args
    names = [
        a.arg for a in (*arguments.posonlyargs, *arguments.args) if a.arg not in ("self", "cls")
    ]
    for star in (arguments.vararg, arguments.kwarg):
        names += [star.arg] if star else []
    return sorted(names + [a.arg for a in arguments.kwonlyargs])


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_help_says_of_a_class_what_the_stub_says(name: str) -> None:
    told = inspect.getdoc(getattr(_core, name))
    assert told == ast.get_docstring(PUBLIC_CLASSES[name])


def test_the_stub_has_the_names_of_the_module() -> None:
    """No name is missing on either side."""
    constants = {n.target.id for n in stub().body if isinstance(n, ast.AnnAssign)}  # type: ignore[union-attr]
    told = {*PUBLIC_CLASSES, *FUNCTIONS, *(name for name in constants if not name.startswith("_"))}
    assert told == {name for name in vars(_core) if not name.startswith("__")}


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_the_stub_has_the_members_of_the_class(name: str) -> None:
    """Methods and properties, and their parameters."""
    built = getattr(_core, name)
    told = {n.name: n for n in PUBLIC_CLASSES[name].body if isinstance(n, ast.FunctionDef)}
    inherited = {"__repr__", "__doc__", "__module__", "__new__"}
    assert set(told) - inherited <= set(dir(built))
    own = {member for member in vars(built) if member not in inherited}
    of_base = set(vars(_core.Metric)) if issubclass(built, _core.Metric) else set()
    assert own - of_base <= set(told)
    for member, node in told.items():
        if member.startswith("__") or node.decorator_list:
            continue
        found = [n for n in inspect.signature(getattr(built, member)).parameters if n != "self"]
        assert sorted(found) == parameters(node), f"{name}.{member}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stub_has_the_parameters_of_the_function(name: str) -> None:
    """By name; order matters to nobody who follows the stub."""
    found = inspect.signature(getattr(_core, name)).parameters
    assert sorted(found) == parameters(FUNCTIONS[name])


@pytest.mark.parametrize("name", sorted({*PUBLIC_CLASSES, *FUNCTIONS}))
def test_everything_is_documented_in_the_stub(name: str) -> None:
    """The stub is the reference; each class and function has a sentence."""
    assert ast.get_docstring({**PUBLIC_CLASSES, **FUNCTIONS}[name])


def test_the_public_names_are_those_promised() -> None:
    """Each name of `__all__` is there, once."""
    assert len(set(agent.__all__)) == len(agent.__all__)
    for name in agent.__all__:
        assert getattr(agent, name) is not None


def test_the_uses_run() -> None:
    """What type-checks in tests/typing/api.py also works."""
    spec = importlib.util.spec_from_file_location("api", API)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.use(agent.Registry()).endswith(b"# EOF\n")


def test_the_uses_type_check() -> None:
    """mypy --strict has no complaint about them."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", API],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_uses_do_not_type_check(tmp_path: object) -> None:
    """The stub is strict enough to catch the usual slips."""
    path = f"{tmp_path}/wrong.py"
    slips = [
        'agent.Counter("a", "A.").dec()',
        'agent.Counter("a", "A.").inc("1")',
        'agent.Gauge("a", "A.", multiprocess_mode="average")',
        'agent.render("xml")',
        'agent.Histogram("a", "A.", buckets="x")',
        'agent.configure("shop")',
    ]
    with open(path, "w") as file:
        file.write("\n".join(["import agent", *slips]))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", path],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert lines == {2, 3, 4, 5, 6, 7}, done.stdout


def test_the_modes_of_a_gauge_are_those_of_the_compiled_part() -> None:
    """What a type checker takes for `multiprocess_mode` is what the constructor takes."""
    with open(agent.metrics.__file__) as file:
        tree = ast.parse(file.read())
    aliases = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    literal = next(node.value for node in aliases if ast.unparse(node.target) == "GaugeMode")
    assert isinstance(literal, ast.Subscript)
    with pytest.raises(agent.InvalidNameError) as refused:
        agent.Gauge("modes", "Modes.", multiprocess_mode="of no sort")  # type: ignore[arg-type]
    known = str(refused.value).partition(" is none of ")[2].split(", ")
    assert list(ast.literal_eval(literal.slice)) == known
