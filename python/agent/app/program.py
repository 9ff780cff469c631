"""What was started: the facts about this process that say which app it is of.

Purpose: read `sys.argv`, the folder at the start, and where there is no other way, the command line
of an ancestor, into one value. `project.py` decides with it.

- Children of `multiprocessing` (spawn, forkserver) get their parent's `sys.argv` and first working
  directory before user code runs, so they are the same program. A forkserver that preloads modules
  is not yet anybody's child.
- `python -c CODE`: the code is a fact; that of a `multiprocessing` child is its ancestor's.
- Notebooks: the path that Jupyter tells (`JPY_SESSION_NAME`), else the folder.
- Tests are no part of the app that they test: pytest, unittest and `manage.py test` are known, and
  so is what a test starts (`PYTEST_CURRENT_TEST`).
"""

from __future__ import annotations

import os
import sys

# Processes between a `-c` program and a multiprocessing child whose command lines are looked at.
ANCESTORS_MAX = 8
TEST_PROGRAMS = frozenset({"_pytest", "py.test", "pytest", "unittest", "xdist"})
CODE = "-c"


class Program:
    """A program that runs; all paths are absolute."""

    __slots__ = ("arguments", "code", "notebook", "path", "start_dir", "tests")

    def __init__(
        self,
        path: str,
        arguments: list[str],
        start_dir: str,
        code: str = "",
        notebook: str | None = None,
        tests: str = "",
    ) -> None:
        # The file that runs; empty for code, standard input and the interactive prompt.
        self.path = path
        self.arguments = arguments
        self.start_dir = start_dir
        # Of `-c`.
        self.code = code
        # The notebook's path, empty when it is not told; None: no notebook.
        self.notebook = notebook
        # `tests`, or `tests-gw0` in a worker of pytest-xdist; empty: no tests.
        self.tests = tests


def read(start_dir: str) -> Program:
    """This process's program. `start_dir`: where it was when `agent` was imported."""
    # Programs write what they like into `sys.argv`.
    argv = [str(one).replace("\0", "") for one in getattr(sys, "argv", None) or ()]
    argv = argv or [os.path.basename(sys.executable or "python")]
    if argv[0] == "-m":
        argv[0] = _main_path()
    # multiprocessing hands its idea of the first folder to its children; take it wherever it
    # exists.
    process = sys.modules.get("multiprocessing.process")
    # A folder that was removed meanwhile has no name.
    start_dir = getattr(process, "ORIGINAL_DIR", None) or start_dir or "/"
    path = code = ""
    if argv[0] == CODE:
        code = _code_of(sys.orig_argv) or _code_of_ancestor()
    elif argv[0] == "python -m unittest":
        # What `unittest.__main__` makes of it.
        path = os.path.join(start_dir, "unittest")
    elif argv[0] not in {"-", ""}:
        # While multiprocessing imports the main module of a child, it is an absolute path.
        path = os.path.normpath(os.path.join(start_dir, argv[0]))
    notebook = os.environ.get("JPY_SESSION_NAME", "") if _is_notebook(path) else None
    return Program(path, argv[1:], start_dir, code, notebook, _tests(path, argv[1:]))


def stem(path: str) -> str:
    """What people would call the file: its name, for a `__main__` that of its folder."""
    base = os.path.basename(path)
    name, suffix = os.path.splitext(base)
    name = name if suffix in {".py", ".pyc", ".pyw", ".pyz"} else base
    return stem(os.path.dirname(path)) if name == "__main__" else name


def is_bare_forkserver() -> bool:
    """True in the server process of `forkserver`, false in its children once they are told."""
    if not any(part.startswith("from multiprocessing.forkserver ") for part in sys.orig_argv[1:]):
        return False
    process = sys.modules.get("multiprocessing.process")
    return process is None or process.current_process().name == "MainProcess"


def _main_path() -> str:
    """What `sys.argv[0]` of `python -m MODULE` will be once its package is imported."""
    try:
        from importlib.util import find_spec

        module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
        spec = find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{module}.__main__")
    except (ImportError, ValueError, IndexError, AttributeError):
        return ""
    return spec.origin or "" if spec is not None else ""


def _is_notebook(path: str) -> bool:
    folder_name, base = os.path.split(path)
    return base.startswith("ipykernel_launcher") or os.path.basename(folder_name) == "ipykernel"


def _tests(path: str, arguments: list[str]) -> str:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        return f"tests-{worker}"
    name = stem(path)
    is_django = name in {"manage", "django-admin"} and arguments[:1] == ["test"]
    if name in TEST_PROGRAMS or is_django or "PYTEST_CURRENT_TEST" in os.environ:
        return "tests"
    return ""


def _code_of(command: list[str]) -> str:
    """The code in a command line `python ... -c CODE ...`, unless it is multiprocessing's own."""
    if CODE not in command:
        return ""
    code = command[command.index(CODE) + 1 :][:1]
    return "" if not code or code[0].startswith("from multiprocessing.") else code[0]


def _code_of_ancestor() -> str:
    """A multiprocessing child of a `-c` program: the nearest ancestor that has the code."""
    pid = os.getppid()
    for _ in range(ANCESTORS_MAX):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().decode("utf-8", "surrogateescape").split("\0")
            with open(f"/proc/{pid}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return ""
        code = _code_of(command)
        if code or parent <= 1:
            return code
        pid = parent
    return ""
