"""Which app is this process of, and where is the app's segment?

All processes of one app must agree on the answer, whatever started them (fork, spawn, forkserver, a
pre-fork server), and two apps of one user must never give the same one by accident. Nothing is
asked of the user, so the name is made of what the processes of an app share and two apps do not:

    gunicorn-shop.wsgi-3f9c21d07a
    |        |         +-- 40 bits of a hash of (sys.argv, working directory at start, sys.prefix,
    user id) |        +-- the first positional argument, when the program is a launcher of others
    +-- the program's stem

`AGENT_METRICS_APP` replaces all of it; `agent` is the collector's own name and becomes `agent-app`.
The name is found when the first metric is made, never at import.

- Children of `multiprocessing` (spawn, forkserver) get their parent's `sys.argv` and first working
  directory before user code runs, so they find their parent's name. A forkserver that preloads
  modules is not yet anybody's child: there `find` gives no app, and metrics live in private memory
  until the fork.
- `python -c CODE`: the code is part of the hash, so two snippets are two apps, and the same snippet
  is one.
- A program from standard input and the interactive prompt: one app per folder (there is nothing
  else to tell them apart).
- Notebooks: one app per notebook where Jupyter tells its path (`JPY_SESSION_NAME`), else one per
  folder.
- After an exec of another program its own arguments count: it is another app.

Not promised: a program that rewrites `sys.argv` or changes folder between two processes' first
metrics splits into two apps; give it a name by `AGENT_METRICS_APP`.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import NamedTuple

# The name of the collector's segment: no app may write into it.
COLLECTOR = "agent"

# Programs that run somebody else's code: their first argument says whose.
LAUNCHERS = frozenset(
    {
        "celery",
        "daphne",
        "django-admin",
        "flask",
        "granian",
        "gunicorn",
        "hypercorn",
        "manage",
        "uvicorn",
        "waitress-serve",
    }
)
# Options of those whose next argument is a value that looks like a module.
VALUE_OPTIONS = frozenset(
    {
        "-b",
        "--bind",
        "-c",
        "--config",
        "-k",
        "--worker-class",
        "-n",
        "--name",
        "-p",
        "--pool",
        "-P",
        "-l",
        "--loglevel",
        "--log-level",
        "-u",
        "--user",
        "-g",
        "--group",
        "--log-config",
        "--loop",
        "--http",
        "--ws",
        "--lifespan",
        "--interface",
        "-e",
        "--env",
        "--settings",
    }
)
# Options whose next argument is the app itself.
APP_OPTIONS = ("-A", "--app")

NAME_BYTES_MAX = 64
PART_BYTES_MAX = 24
LAYOUT = "v1"
# Processes between a `-c` program and a multiprocessing child whose command lines are looked at.
ANCESTORS_MAX = 8

_MODULE = re.compile(r"[A-Za-z_][\w.]*(:[\w.]+)?(\(.*\))?\Z", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Place(NamedTuple):
    """The app's name and its segment's path. Empty: not known yet, use private memory for now."""

    app: str
    path: str


class Program(NamedTuple):
    """What a name is made of."""

    argv: tuple[str, ...]
    start_dir: str
    prefix: str
    uid: int
    # The code of `-c`, the notebook's path: what the arguments do not say.
    code: str = ""


def find(start_dir: str) -> Place:
    """The place of this process's app. `start_dir`: where it was when `agent` was imported."""
    given = os.environ.get("AGENT_METRICS_APP", "")
    if not given and _is_bare_forkserver():
        return Place("", "")
    app = clean(given) if given else derive(_program(start_dir))
    if app == COLLECTOR:
        app = f"{COLLECTOR}-app"
    return Place(app, os.path.join(folder(), f"{app}.{LAYOUT}.seg"))


def derive(program: Program) -> str:
    """The name of a program that has none."""
    parts = [_stem(program.argv)]
    target = _target(parts[0], program.argv[1:])
    if target:
        parts.append(target)
    label = "-".join(
        _UNSAFE.sub("_", part)[:PART_BYTES_MAX].strip("._-") or "program" for part in parts
    )
    argv = program.argv[:1] if _is_notebook(program.argv) else program.argv
    facts = [*argv, program.start_dir, program.prefix, str(program.uid), program.code]
    return f"{label}-{digest(facts)}"


def clean(name: str) -> str:
    """A given name as a file name: unchanged when it can be one, else marked by a hash."""
    safe = _UNSAFE.sub("_", name).lstrip(".")
    if safe == name and len(safe) <= NAME_BYTES_MAX:
        return name
    return f"{safe[: NAME_BYTES_MAX - 11] or 'app'}-{digest([name])}"


def digest(facts: list[str]) -> str:
    """40 bits of FNV-1a over the facts with their lengths, as ten hexadecimal digits."""
    value = 0xCBF29CE484222325
    for fact in facts:
        data = fact.encode("utf-8", "surrogateescape")
        for byte in len(data).to_bytes(4, "little") + data:
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{(value ^ value >> 40) & 0xFFFFFFFFFF:010x}"


def folder() -> str:
    """The folder of segments, made with mode 0700. Raises OSError when it is not ours alone."""
    path = os.environ.get("AGENT_METRICS_DIR", "")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not path and runtime and os.path.isdir(runtime):
        path = os.path.join(runtime, "agent-metrics")
    path = path or f"/dev/shm/agent-metrics-{os.getuid()}"  # noqa: S108 - owner and mode are checked
    path = os.path.abspath(path)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        status = os.lstat(path)
    except FileExistsError:
        raise NotADirectoryError(f"{path} is not a folder (symbolic links are refused)") from None
    except OSError as error:
        raise type(error)(
            f"the folder of segments {path} cannot be made: {error.strerror}; let "
            "AGENT_METRICS_DIR be one that can"
        ) from None
    if stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{path} is not a folder (symbolic links are refused)")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & 0o022:
        raise PermissionError(
            f"{path} can be written by others (mode {status.st_mode & 0o777:03o}): chmod 700 it"
        )
    return path


def _program(start_dir: str) -> Program:
    argv = tuple(getattr(sys, "argv", ())) or (os.path.basename(sys.executable or "python"),)
    if argv[0] == "-m":
        argv = (_main_path(), *argv[1:])
    # multiprocessing hands its idea of the first folder to its children; take it wherever it
    # exists.
    process = sys.modules.get("multiprocessing.process")
    start_dir = getattr(process, "ORIGINAL_DIR", None) or start_dir
    if argv[0] not in {"-c", "-", ""}:
        # While multiprocessing imports the main module of a child, it is an absolute path.
        argv = (os.path.normpath(os.path.join(start_dir, argv[0])), *argv[1:])
    code = ""
    if argv[0] == "-c":
        code = _code_of(sys.orig_argv) or _code_of_ancestor()
    elif _is_notebook(argv):
        code = os.environ.get("JPY_SESSION_NAME", "")
    return Program(argv, start_dir, sys.prefix, os.getuid(), code)


def _main_path() -> str:
    """What `sys.argv[0]` of `python -m MODULE` will be once its package is imported."""
    try:
        from importlib.util import find_spec

        module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
        spec = find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{module}.__main__")
    except (ImportError, ValueError, IndexError, AttributeError):
        return "-m"
    return spec.origin or "-m" if spec is not None else "-m"


def _stem(argv: tuple[str, ...]) -> str:
    """What people would call the program."""
    first = argv[0] if argv else ""
    if first in {"", "-", "-c", "-m"}:
        return {"-c": "python-c", "": "python", "-": "python"}.get(first, "python")
    if _is_notebook(argv):
        return "notebook"
    folder_name, base = os.path.split(first)
    stem = os.path.splitext(base)[0] if base.endswith((".py", ".pyc", ".pyz")) else base
    # `python -m pkg` runs pkg/__main__.py; a folder or zip with a __main__ likewise.
    return os.path.basename(folder_name) if stem == "__main__" else stem


def _target(stem: str, arguments: tuple[str, ...]) -> str:
    """The module that a launcher is told to run, or nothing."""
    if stem not in LAUNCHERS:
        return ""
    positional = []
    waiting = ""
    for argument in arguments:
        if waiting:
            if waiting in APP_OPTIONS:
                return argument
            waiting = ""
        elif argument.startswith("-"):
            option, _, value = argument.partition("=")
            if option in APP_OPTIONS and value:
                return value
            waiting = argument if argument in VALUE_OPTIONS or argument in APP_OPTIONS else ""
        elif _MODULE.match(argument):
            positional.append(argument)
    return positional[0] if positional else ""


def _is_notebook(argv: tuple[str, ...]) -> bool:
    if not argv:
        return False
    folder_name, base = os.path.split(argv[0])
    return base.startswith("ipykernel_launcher") or os.path.basename(folder_name) == "ipykernel"


def _code_of(command: list[str]) -> str:
    """The code in a command line `python ... -c CODE ...`, unless it is multiprocessing's own."""
    if "-c" not in command:
        return ""
    code = command[command.index("-c") + 1 :][:1]
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


def _is_bare_forkserver() -> bool:
    """True in the server process of `forkserver`, false in its children once they are told."""
    if not any(part.startswith("from multiprocessing.forkserver ") for part in sys.orig_argv[1:]):
        return False
    process = sys.modules.get("multiprocessing.process")
    return process is None or process.current_process().name == "MainProcess"
