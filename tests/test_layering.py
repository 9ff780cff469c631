"""Who may know whom: read from the sources, and seen in a fresh interpreter."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import agent

PACKAGE = os.path.dirname(agent.__file__)
ROOT = os.path.dirname(os.path.dirname(__file__))
# What `import agent` may load of ours, and nothing else.
LIGHT = {"agent", "agent._core", "agent._native", "agent.errors", "agent.metrics"}
HEAVY = {"asyncio", "http", "socket", "threading", "subprocess", "typing", "re", "logging"}
# Functions of settings, plans and reports: time and system are arguments.
PURE = (
    "config",
    "doctor.examine",
    "doctor.facts",
    "doctor.finding",
    "doctor.rules",
    "doctor.text",
    "lab.account",
    "lab.histogram",
    "lab.plan",
    "lab.result",
    "report.html",
    "report.model",
    "report.text",
    "supervisor.plan",
    "torture.html",
    "torture.outcome",
    "torture.page",
    "torture.text",
)
# `signal` is left out: a plan names signals, it handles none.
IMPURE_IMPORTS = {"os", "socket", "time", "subprocess", "threading", "select"}


def modules() -> dict[str, str]:
    """Path of every module of the package, by its name without `agent.`."""
    found = {}
    for folder, _, files in os.walk(PACKAGE):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                name = os.path.relpath(path, PACKAGE)[: -len(".py")].replace(os.sep, ".")
                found[name.removesuffix(".__init__")] = path
    return found


def imports(path: str, *, at_import: bool = False) -> Iterator[str]:
    """Absolute names of what a module imports, optionally only when it is itself imported."""
    with open(path) as file:
        tree = ast.parse(file.read())
    nodes = list(ast.iter_child_nodes(tree)) if at_import else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = modules()


@pytest.mark.parametrize("name", MODULES)
def test_only_native_imports_the_core(name: str) -> None:
    """There is one door to the extension, and it checks the version."""
    wanted = {found for found in imports(MODULES[name]) if found == "agent._core"}
    assert wanted <= ({"agent._core"} if name == "_native" else set())


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] != "cli"])
def test_nothing_imports_the_command_line(name: str) -> None:
    """Only the entry point does."""
    if name == "__main__":
        return
    assert not [found for found in imports(MODULES[name]) if found.startswith("agent.cli")]


METRICS_SIDE = ["__init__", "_native", "metrics", "errors"]
METRICS_SIDE += [name for name in MODULES if name.split(".")[0] == "app"]


@pytest.mark.parametrize("name", METRICS_SIDE)
def test_the_metrics_side_does_not_know_the_collector(name: str) -> None:
    """The library works where nothing of the collector is imported."""
    ours = {found for found in imports(MODULES[name]) if found.startswith("agent.")}
    tops = {found.split(".")[1] for found in ours}
    allowed = {"_core", "_native", "app", "errors", "metrics", "__version__"}
    assert tops <= allowed, tops


def test_finding_the_app_loads_nothing_heavy(segments: str) -> None:
    """The first update is part of somebody's request: no `re`, `typing`, `enum` or `tomllib`."""
    code = (
        f"import os, sys; os.environ['AGENT_METRICS_DIR'] = {segments!r}\n"
        "import agent; before = set(sys.modules)\n"
        "agent.Counter('steps', 'S.').inc()\n"
        "print(*(set(sys.modules) - before))\n"
    )
    loaded = {name for name in run(code).split() if not name.startswith("agent.app")}
    assert not loaded


@pytest.mark.parametrize("name", [n for n in MODULES if n in PURE])
def test_pure_modules_touch_no_system(name: str) -> None:
    """Time, files and signals are arguments there."""
    assert not IMPURE_IMPORTS & {found.split(".")[0] for found in imports(MODULES[name])}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_only_the_metrics() -> None:
    """Compared with the bare interpreter: five modules of ours and nothing heavy."""
    code = "import sys; before = set(sys.modules); {}; print(*(set(sys.modules) - before))"
    loaded = set(run(code.format("import agent")).split())
    assert {name for name in loaded if name.split(".")[0] == "agent"} == LIGHT
    assert not loaded & HEAVY


def test_importing_starts_opens_and_makes_nothing(segments: str) -> None:
    """No thread, no descriptor, no file; the folder appears with the first metric."""
    code = (
        "import os\n"
        "def state(): return [len(os.listdir(f'/proc/self/{kind}')) for kind in ('task', 'fd')]\n"
        f"os.environ['AGENT_METRICS_DIR'] = {segments!r} + '/folder'\n"
        "before = state()\n"
        "import agent\n"
        "assert agent.REGISTRY.app == '' and agent.REGISTRY.path is None\n"
        "assert state() == before\n"
        f"assert os.listdir({segments!r}) == []\n"
        "steps = agent.Counter('steps', 'S.')\n"
        f"assert os.listdir({segments!r}) == []\n"
        "steps.inc()\n"
        f"files = [name for name in os.listdir({segments!r} + '/folder') if name[0] != '.']\n"
        "assert len(files) == 1\n"
        "assert len(os.listdir('/proc/self/task')) == 1\n"
    )
    run(code)


def arrows() -> Iterator[tuple[str, set[str]]]:
    """The crates, and which of ours each depends on."""
    import tomllib

    for crate in sorted(os.listdir(os.path.join(ROOT, "rust"))):
        path = os.path.join(ROOT, "rust", crate, "Cargo.toml")
        if os.path.exists(path):
            with open(path, "rb") as file:
                manifest = tomllib.load(file)
            dependencies = manifest.get("dependencies", {})
            yield crate, {name for name in dependencies if name.startswith(("agent-", "pyo3"))}


@pytest.mark.parametrize(
    ("crate", "allowed"),
    [
        ("agent-metric", set()),
        ("agent-shm", {"agent-metric"}),
        ("agent-wire", {"agent-metric"}),
        ("agent-net", {"agent-metric", "agent-shm", "agent-wire"}),
        # It tests the product from outside, through real bytes.
        ("agent-load", set()),
        # It kills what it walks through; only the segment is walked.
        ("agent-torture", {"agent-metric", "agent-shm"}),
        ("agent-client", {"agent-metric", "agent-shm"}),
        (
            "agent-py",
            {
                "agent-metric",
                "agent-shm",
                "agent-client",
                "agent-wire",
                "agent-net",
                "agent-load",
                "agent-torture",
                "pyo3",
            },
        ),
    ],
)
def test_crates_depend_downwards(crate: str, allowed: set[str]) -> None:
    """shm and wire know what a metric is and nobody else; only agent-py names pyo3."""
    assert dict(arrows())[crate] <= allowed
