"""From what was started to the project: a name, and the folder that tells it from its namesakes.

Where the search begins: at the script, unless it is a *launcher* (a program that runs somebody
else's code, such as gunicorn or celery), then at the module or file that it is told to run, else at
the working directory. From there upwards the nearest folder with a project file is the project.
Where there is none, it is the outermost package, else the script itself.

A folder whose name says nothing (`app`, `src`, `backend` ...) is called as its project file says,
or as its settings or its only package are called, or as a folder above it.

Limits: project files are read up to `FILE_BYTES_MAX`, by hand. Only files decide, never what other
arguments a program was given: a port or a worker class is no part of an app.
"""

from __future__ import annotations

import os
import stat
import sys

from agent.app.deployment import LEVELS, root_of
from agent.app.program import TEST_PROGRAMS, Program, stem

# Programs that run somebody else's code.
LAUNCHERS = frozenset(
    {
        "arq", "celery", "coverage", "daphne", "debugpy", "django", "django-admin", "dramatiq",
        "fastapi", "flask", "granian", "gunicorn", "huey_consumer", "hypercorn", "ipython",
        "IPython", "kernprof", "locust", "mod_wsgi", "py-spy", "rq", "scrapy", "streamlit",
        "taskiq", "uvicorn", "uwsgi", "viztracer", "waitress",
        "waitress-serve", "watchfiles", "watchmedo", "xdist",
    }
)  # fmt: skip
# Options whose value is a file of settings, which may lie anywhere and says nothing of the app.
SETTINGS_OPTIONS = frozenset({"-c", "--config", "--config-file", "--config-path", "--log-config"})
# Options whose value is the app itself, and variables that stand for them.
APP_OPTIONS = ("-A", "--app", "--application")
APP_VARIABLES = ("FLASK_APP", "CELERY_APP", "DJANGO_SETTINGS_MODULE")

PYPROJECT = "pyproject.toml"
MANAGE = "manage.py"
# Each makes a folder a project.
FILES = frozenset({PYPROJECT, MANAGE, "setup.py", "setup.cfg", "Pipfile", "requirements.txt"})
LEVELS_MAX = 16
FILE_BYTES_MAX = 65536

# Names of folders and files that say where something is, not what it is.
GENERIC = frozenset(
    {
        "", "__main__", "api", "app", "application", "apps", "asgi", "backend", "bin", "cli",
        "cmd", "code", "conf", "config", "core", "current", "data", "deploy", "django",
        "home", "index", "lib", "local", "main", "manage", "mnt", "opt", "package", "packages",
        "prod", "production", "project", "projects", "python", "release", "releases", "repo",
        "root", "run", "script", "scripts", "server", "service", "services", "settings", "site",
        "source", "src", "srv", "start", "task", "tasks", "tmp", "usr", "var", "web", "work",
        "worker", "workers", "workspace", "wsgi", "www",
    }
)  # fmt: skip
# Packages beside the one of a project.
HELPERS = frozenset({"benchmarks", "docs", "examples", "migrations", "test", "testing", "tests"})


class Project:
    """A name and the folder or file that it stands for.

    `part`: what is less than a project and is so on purpose: a snippet of code, a notebook.
    """

    __slots__ = ("is_known", "name", "part", "root")

    def __init__(self, name: str, root: str, part: str = "") -> None:
        self.name = name or "app"
        self.root = root
        self.part = part
        # False where only a folder that is called alike everywhere could be found.
        self.is_known = bool(name)


def of_notebook(started: Program) -> Project:
    """One app for each notebook where Jupyter tells its path, else for each folder."""
    path = started.notebook or ""
    if path.endswith(".ipynb"):
        name = os.path.splitext(os.path.basename(path))[0]
        return Project(name, os.path.join(started.start_dir, path), "notebook")
    return Project("notebook", started.start_dir, path or "notebook")


def of_program(started: Program) -> Project:
    """The project of a script, a module, a launcher's target, code or the prompt."""
    cwd = os.path.realpath(started.start_dir or "/")
    if not started.path:
        if started.tests:
            return _above(cwd) or _by_folder(cwd)
        return _above(cwd) or Project("python", cwd, started.code or "prompt")
    # A frozen program is one file; what it unpacks lies somewhere else each time.
    frozen = getattr(sys, "frozen", False)
    path = os.path.realpath(sys.executable if frozen else started.path)
    if frozen or (not _is_installed(path) and not _is_launcher(path) and os.path.exists(path)):
        return of_file(path)
    tool = _package_of(path)
    if tool in LAUNCHERS | TEST_PROGRAMS or stem(path) in LAUNCHERS or not os.path.exists(path):
        # Which tests are run makes no other app.
        target = "" if tool in TEST_PROGRAMS else _target(started.arguments, cwd)
        if target and _is_installed(target):
            return _of_installed(_package_of(target))
        found = (
            of_file(target) if target else _above(cwd) or _above_settings(started.arguments, cwd)
        )
        return found or (_above_environment() if not _folder_name(cwd) else None) or _by_folder(cwd)
    file = _module_file(tool, cwd)
    if not file or _is_installed(file):
        # A tool that nobody listed may have loaded a program of the user's: then it is that one.
        file = _loaded_from(cwd)
    return of_file(file) if file else _of_installed(tool)


def of_file(path: str) -> Project:
    """The project of a script or a package of the user's. `path`: without links."""
    top = _top(path)
    found = _above(os.path.dirname(top), os.path.dirname(path))
    if found:
        return found
    name = stem(top)
    return Project(name, top) if name not in GENERIC else _by_folder(os.path.dirname(top))


def _of_installed(package: str) -> Project:
    """A program in an environment: another one of the same name is in another environment."""
    return Project(package, os.path.realpath(sys.prefix))


def _by_folder(folder: str) -> Project:
    return Project(_folder_name(folder), folder)


# --- project files ------------------------------------------------------------------------------


def _above(base: str, start: str = "") -> Project | None:
    """The project of the nearest folder with a project file; `base` holds the package or script."""
    folder = start or base
    hidden = {"/", "/tmp", os.environ.get("HOME", "")}  # noqa: S108 - only compared
    nameless = ""
    for _ in range(LEVELS_MAX):
        files = {name for name in FILES if os.path.exists(os.path.join(folder, name))}
        # What lies about in a home says nothing of what is below, nor do settings of tools alone.
        if files and (folder not in hidden or folder == base):
            name = _declared_name(folder, files)
            if name:
                return Project(name, folder)
            if not nameless and (files != {PYPROJECT} or folder == base):
                nameless = folder
                if os.path.basename(root_of(folder)) not in GENERIC:
                    break
        parent = os.path.dirname(folder)
        if folder in hidden or (nameless and nameless.count("/") - folder.count("/") >= LEVELS):
            break
        folder = parent
    return Project(_name_of(nameless), nameless) if nameless else None


def _above_settings(arguments: list[str], cwd: str) -> Project | None:
    """The project that a launcher's file of settings lies in: for where the folder is none."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        path = os.path.realpath(os.path.join(cwd, argument))
        if before in SETTINGS_OPTIONS and os.path.isfile(path):
            return _above(os.path.dirname(path))
    return None


def _above_environment() -> Project | None:
    """The project that a virtual environment is a folder of."""
    if sys.prefix == sys.base_prefix:
        return None
    return _above(os.path.dirname(os.path.realpath(sys.prefix)))


def _declared_name(folder: str, files: set[str]) -> str:
    """What the project file calls the project."""
    for file, sections in ((PYPROJECT, ("project", "tool.poetry")), ("setup.cfg", ("metadata",))):
        if file in files:
            name = _value_of("name", sections, _read(os.path.join(folder, file)))
            if name:
                return name
    return ""


def _value_of(key: str, sections: tuple[str, ...], text: str) -> str:
    """The first text value of a key in one of the sections of TOML or INI text."""
    section = ""
    for whole in text.splitlines():
        line = whole.strip()
        if line.startswith("["):
            section = line.partition("#")[0].strip("[] \t")
        elif section in sections and line.startswith(key):
            name, equals, value = line.partition("=")
            value = value.strip()
            if equals and name.strip() == key and value:
                quote = value[0]
                return value[1:].partition(quote)[0] if quote in "\"'" else value.split()[0]
    return ""


def _name_of(folder: str) -> str:
    """What a project is called whose file does not say it."""
    name = os.path.basename(root_of(folder))
    if name not in GENERIC:
        return name
    return _settings_package(folder) or _only_package(folder) or _folder_name(folder)


def _settings_package(folder: str) -> str:
    """The package of the settings that Django's manage.py names."""
    rest = _read(os.path.join(folder, MANAGE)).partition("DJANGO_SETTINGS_MODULE")[2]
    parts = rest[1:].replace('"', "'").split("'")
    name = parts[1].partition(".")[0] if len(parts) > 1 else ""
    return name if name.isidentifier() and name not in GENERIC else ""


def _only_package(folder: str) -> str:
    """The one package in a folder, or in its `src`."""
    for place in (folder, os.path.join(folder, "src")):
        try:
            names = [name for name in os.listdir(place) if name.isidentifier()]
        except OSError:
            continue
        found = [
            name
            for name in names
            if name not in GENERIC
            and name not in HELPERS
            and os.path.exists(os.path.join(place, name, "__init__.py"))
        ]
        if len(found) == 1:
            return found[0]
    return ""


def _folder_name(folder: str) -> str:
    """The nearest name upwards that says something; empty when there is none."""
    path = root_of(folder)
    while path not in {"/", "", os.environ.get("HOME")}:
        parent, name = os.path.split(path)
        # The name of a user is not one of an app.
        if name not in GENERIC and parent != "/home":
            return name
        path = parent
    return ""


def _read(path: str) -> str:
    """The text of a regular file; nothing of what an update could wait for, as a pipe."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return ""
        return os.read(file, FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(file)


# --- where code lies ----------------------------------------------------------------------------


def _top(path: str) -> str:
    """The outermost package that a file or folder is in, else itself."""
    top, folder = path, os.path.dirname(path)
    while os.path.exists(os.path.join(folder, "__init__.py")) and folder != "/":
        top, folder = folder, os.path.dirname(folder)
    return top


def _library() -> str:
    return os.path.dirname(os.path.realpath(os.__file__))


def _commands() -> set[str]:
    """Folders of commands that installers fill."""
    home = os.path.join(os.environ.get("HOME", "/"), ".local/bin")
    return {"/bin", "/usr/bin", "/usr/local/bin", home, os.path.realpath(f"{sys.prefix}/bin")}


def _is_command(path: str) -> bool:
    folder, name = os.path.split(path)
    if name.endswith((".py", ".pyz")):
        return False
    return folder in _commands() or (
        os.path.basename(folder) == "bin"
        and (name in LAUNCHERS or _is_recorded(os.path.dirname(folder), name, f"/bin/{name},"))
    )


def _is_launcher(path: str) -> bool:
    """A launcher runs somebody else's code wherever it lies: its command, or `python -m` it."""
    is_module = os.path.basename(path) == "__main__.py"
    return stem(path) in LAUNCHERS and (is_module or not path.endswith((".py", ".pyz")))


def _is_installed(path: str) -> bool:
    """Whether it came with an installer, not from the user's hands."""
    if "/site-packages/" in path or "/dist-packages/" in path:
        return True
    if path.startswith(_library() + "/") or _is_command(path):
        return True
    folder, name = os.path.split(_top(path))
    return _is_recorded(folder, stem(name), f"\n{name}/", f"\n{name},")


def _is_recorded(folder: str, name: str, *entries: str) -> bool:
    """Whether an installer's record in the folder (`pip install --target`) lists one of these."""
    try:
        records = [one for one in os.listdir(folder) if one.endswith(".dist-info")]
    except OSError:
        return False
    # The one that is called alike comes first: most often it is the one.
    records.sort(key=lambda one: not one.lower().startswith(name.lower() + "-"))
    for one in records:
        text = "\n" + _read(os.path.join(folder, one, "RECORD"))
        if any(entry in text for entry in entries):
            return True
    return False


def _package_of(path: str) -> str:
    """The package that an installed file belongs to, or that a command imports."""
    if _is_command(path):
        for line in _read(path)[:4096].splitlines():
            words = line.split()
            if words[:1] == ["from"] and words[2:3] == ["import"] and words[1] != "importlib":
                return words[1].partition(".")[0]
        return stem(path)
    for folder in ("/site-packages/", "/dist-packages/", _library() + "/"):
        if folder in path:
            return stem(path.rpartition(folder)[2].partition("/")[0])
    return stem(_top(path))


def _target(arguments: list[str], cwd: str) -> str:
    """What a launcher is told to run: its file or folder, without links; empty if nothing is."""
    said: list[str] = []
    sure: list[str] = []
    values: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if before in APP_OPTIONS:
            said.append(argument)
        elif option in APP_OPTIONS and equals:
            said.append(value)
        elif not argument.startswith("-") and before not in SETTINGS_OPTIONS:
            # The value of an option may be the app too: which have one is the launcher's secret.
            (values if before.startswith("-") else sure).append(argument)
    rest = [*sure, *(os.environ[name] for name in APP_VARIABLES if os.environ.get(name)), *values]
    rest.sort(key=lambda text: (":" not in text, text.endswith(".py")))
    found = [(text, _resolve(text, cwd)) for text in [*said, *rest]]
    own = [file for _, file in found if file and not _is_installed(file)]
    if own:
        return own[0]
    installed = [file for text, file in found if file and _names_app(text) and text not in values]
    return installed[0] if installed else ""


def _names_app(text: str) -> bool:
    """`shop.wsgi` and `shop:app` do; `run` and `worker` name commands of launchers."""
    return "." in text or ":" in text


def _resolve(text: str, cwd: str) -> str:
    """The file behind `shop.wsgi:app`, `shop` or `tools/shop.py`."""
    if text.endswith(".py"):
        path = os.path.realpath(os.path.join(cwd, text))
        return path if os.path.isfile(path) else ""
    module = text.partition(":")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        return ""
    return _module_file(module.partition(".")[0], cwd)


def _loaded_from(cwd: str) -> str:
    """The file of the first module that was loaded from below a folder, and not installed there."""
    if cwd in {"/", os.environ.get("HOME")}:
        return ""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(cwd + "/"):
            path = os.path.realpath(file)
            if not path.startswith(os.path.realpath(sys.prefix) + "/") and not _is_installed(path):
                return path
    return ""


def _module_file(name: str, cwd: str) -> str:
    """The file of a module that is loaded or could be, the folder of a package without one."""
    module = sys.modules.get(name)
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    for place in places:
        if isinstance(place, str) and place:
            return os.path.realpath(place)
    for folder in [cwd, *sys.path]:
        base = os.path.join(folder or cwd, name)
        for path in (os.path.join(base, "__init__.py"), f"{base}.py", base):
            if os.path.exists(path):
                return os.path.realpath(path)
    return ""
