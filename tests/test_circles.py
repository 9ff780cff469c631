"""Imports have no circles, in Rust or in Python: each module needs only what does not need it.

Read from the sources. Of Rust, every path counts that begins with `crate`, `super` or `self`, and
what the crate's root re-exports; tests are left out. A module and those in its own folder are one:
`engine` and `engine::accept`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CRATES = sorted(path.parent for path in ROOT.glob("rust/*/src"))
# Modules, by name; which others each imports.
Graph = dict[str, set[str]]


def circle(graph: Graph) -> list[str]:
    """The modules of one circle, each imported by the one before; nothing when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # It names each behind the one that it imports.
        return [str(name) for name in reversed(error.args[1])]
    return []


def use_paths(tree: str) -> Iterator[str]:
    """The paths of a Rust use tree: `a::{b, c::{d, e}}` has `a::b`, `a::c::d` and `a::c::e`."""
    head, brace, rest = tree.partition("{")
    if not brace:
        yield tree.partition(" as ")[0].strip()
        return
    depth, start = 0, 0
    inside = rest[: rest.rindex("}")]
    for index, letter in enumerate([*inside, ","]):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            if branch := inside[start:index].strip():
                yield from (head.strip() + path for path in use_paths(branch))
            start = index + 1


# A module of tests: one that has a file of its own, one on a line, or one that ends where it began.
TESTS = re.compile(
    r"^( *)#\[cfg\((?:all\()?test\b[^\n]*\n"
    r"(?: *#\[[^\n]*\n)*"
    r" *(?:pub(?:\(\w+\))? )?mod \w+ *(?:;|\{[^\n]*\}$|\{\n.*?^\1\})",
    re.MULTILINE | re.DOTALL,
)


def code_of(text: str) -> str:
    """Without comments, and without modules of tests."""
    return TESTS.sub("", re.sub(r"//[^\n]*", "", text))


def shown_by(crate: Path) -> dict[str, str]:
    """What the root of a crate shows of its modules: each name, and the path that it stands for."""
    root = code_of((crate / "src" / "lib.rs").read_text(encoding="utf-8"))
    return {
        path.split("::")[-1]: path
        for match in re.finditer(r"\bpub use ([^;]*);", root)
        for path in use_paths(match[1])
    }


def paths_in(text: str) -> Iterator[list[str]]:
    """Every path of this crate that the text names."""
    trees = re.compile(r"\buse\s+((?:crate|super|self)::[^;]*);")
    for match in trees.finditer(text):
        yield from (path.split("::") for path in use_paths(match[1]))
    for match in re.finditer(r"\b(?:crate|super|self)(?:::\w+)+", trees.sub("", text)):
        yield match[0].split("::")


def rust_graph(crate: Path) -> Graph:
    """The modules of a crate, and which of the others each imports."""
    source = crate / "src"
    texts: dict[str, str] = {}
    for path in source.rglob("*.rs"):
        parts = path.relative_to(source).with_suffix("").parts
        if parts not in (("lib",), ("main",)) and not path.stem.endswith("_test"):
            name = "::".join(parts).removesuffix("::mod")
            texts[name] = code_of(path.read_text(encoding="utf-8"))
    shown = shown_by(crate)

    def module_of(here: str, path: list[str]) -> str | None:
        parts = [] if path[0] == "crate" else here.split("::")
        for step in path:
            if step == "super":
                parts = parts[:-1]
            elif step not in ("crate", "self"):
                parts.append(step)
        if parts and parts[0] in shown and parts[0] not in texts:
            parts = shown[parts[0]].split("::")
        while parts and "::".join(parts) not in texts:
            parts.pop()
        return "::".join(parts) or None

    graph: Graph = {}
    for here, text in texts.items():
        found = {module_of(here, path) for path in paths_in(text)}
        graph[here] = {
            other
            for other in found
            if other
            and other != here
            and not here.startswith(f"{other}::")
            and not other.startswith(f"{here}::")
        }
    return graph


def python_graph(package: Path) -> Graph:
    """The modules of a package, and which of the others each imports, in functions too."""
    texts: dict[str, Path] = {}
    for path in package.rglob("*.py"):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        texts[".".join(parts).removesuffix(".__init__")] = path
    graph: Graph = {}
    for here, path in texts.items():
        found = graph.setdefault(here, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                folder = here if path.name == "__init__.py" else here.rpartition(".")[0]
                above = folder.split(".")[: folder.count(".") + 2 - node.level]
                parts = [*above, node.module] if node.level else [node.module]
                source = ".".join(filter(None, parts))
                names = {f"{source}.{alias.name}" for alias in node.names}
                found |= {name if name in texts else source for name in names}
        # The root is what users see of the metrics; below it everybody may look at its version.
        found &= texts.keys() - {here, package.name}
    return graph


@pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.name)
def test_the_modules_of_a_crate_have_no_circle(crate: Path) -> None:
    """Each can be read when those that it imports are known."""
    assert circle(rust_graph(crate)) == []


def test_the_modules_of_the_package_have_no_circle() -> None:
    """The same in Python, where a circle also decides what is there when."""
    assert circle(python_graph(ROOT / "python" / "agent")) == []


def test_a_circle_is_found_however_it_is_written(tmp_path: Path) -> None:
    """By trees of `use`, by paths in the code, over the root and out of a folder."""

    def crate(**texts: str) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in {"lib": "", **texts}.items():
            path = folder / "src" / (name.replace("__", "/") + ".rs")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return folder

    def found(**texts: str) -> list[str]:
        return circle(rust_graph(crate(**texts)))

    assert found(a="use crate::b::X;", b="use crate::c::Y;", c="") == []
    assert set(found(a="use crate::b::X;", b="fn f() { crate::a::g() }")) == {"a", "b"}
    assert set(found(a="use crate::{b::{X, Y}, c};", b="", c="use super::a::Z;")) == {"a", "c"}
    assert set(found(lib="pub use a::Z;", a="use crate::b;", b="use crate::Z;")) == {"a", "b"}
    assert found(a="use crate::a::b::X;", a__b="use super::Y;") == []
    assert set(found(a="use crate::c;", a__b="use crate::c;", c="use crate::a::b;")) == {
        "a::b",
        "c",
    }
    assert set(found(a__b="use super::c::X;", a__c="use super::b::Y;")) == {"a::b", "a::c"}
    quiet = "// crate::a::Z\n#[cfg(test)]\nmod tests { use crate::a::Z; }"
    assert found(a="use crate::b::X;", b=quiet) == []
    tests = "#[cfg(all(test, not(model)))]\n#[allow(x)]\nmod tests {\n    crate::a::f();\n}\n"
    assert found(a="use crate::b::X;", b=tests) == []
    assert set(found(a="use crate::b::X;", b=tests + "use crate::a::Z;")) == {"a", "b"}
    root = "#[cfg(all(test, not(model)))]\nmod damage_test;\npub use a::Z;"
    assert set(found(lib=root, a="use crate::b;", b="use crate::Z;")) == {"a", "b"}


def test_the_sources_are_read() -> None:
    """A graph without arrows has no circle either."""
    arrows = rust_graph(ROOT / "rust" / "agent-shm")
    assert {"layout", "region"} <= arrows["block"]
    assert "writer" in arrows["registry"]
    shown = shown_by(ROOT / "rust" / "agent-shm")
    assert shown["Segment"] == "segment::Segment"
    assert len(shown) >= 40
    graph = python_graph(ROOT / "python" / "agent")
    assert "agent.supervisor.plan" in graph["agent.supervisor.arbiter"]
