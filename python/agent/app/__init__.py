"""Which app is this process of, and where is the app's segment?

The name is what a person would call the app, so that web workers, task workers and management
commands of one project meet in one segment. It is, in this order:

1. what `agent.configure(app=...)` was told,
2. `AGENT_METRICS_APP`,
3. the project: that of the nearest folder with a project file (`project.py`), else the package, or
   else the script, that was started (`program.py`).

    shop.v3.seg             a name that was given
    shop-3f9c21d0.v3.seg    a name that was found
         +-- 32 bits of a hash of the deployment's folder (`deployment.py`)

So two deployments of one project stand apart and two releases of one deployment meet. The hash is
part of the file's name only; the collector shows the app as `shop` while it is the only one.
docs/APPS.md has the whole decision as a table.

It is found at the first update, never at import, and costs no `re`, `typing` or `tomllib`.

Not promised: a process that was started before the project file was made, moved or renamed, or
before a link to a release was changed, stays with what it found.
"""

from __future__ import annotations

import os

from agent._native import LAYOUT_VERSION, default_registry
from agent.app import deployment, given, place
from agent.app.given import COLLECTOR, clean
from agent.app.place import folder
from agent.errors import FolderError

# What `typing` has, without its 8 ms: type checkers take the name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.app.program import Program
    from agent.app.project import Project

__all__ = ["COLLECTOR", "clean", "find", "folder", "identify"]


def prepare() -> None:
    """Loads what `find` will need, when the first metric is defined.

    The first update may come in a thread while another one forks: a module that was half loaded at
    that moment would stay locked in the child for ever.
    """
    if not given.name():
        from agent.app import program, project  # noqa: F401
    if os.geteuid() == 0:
        # A child may become another user before it counts (`gunicorn --preload --user nobody`),
        # and then can neither make the segment nor open it.
        os.register_at_fork(before=open_before_fork)


def open_before_fork() -> None:
    """Opens the segment of the app in a parent that has defined metrics."""
    default_registry().open()


def find(start_dir: str) -> tuple[str, str]:
    """The app of this process and the path of its segment; two empty texts while it is not known.

    `start_dir`: where the process was when `agent` was imported. Raises FolderError when the folder
    of segments cannot be used, and what a signal handler raises meanwhile.
    """
    try:
        return _find(start_dir)
    except OSError as error:
        if isinstance(error, FolderError) or place.is_of_program(error):
            raise
        raise FolderError(str(error)) from None


def _find(start_dir: str) -> tuple[str, str]:
    name = given.name()
    if name:
        if name == given.INSTEAD and os.environ.get(given.VARIABLE) == COLLECTOR:
            place.warn(
                f"{given.VARIABLE}={COLLECTOR} is the name of the collector's own segment, so this"
                f" app is {name!r}; give it another name",
                above=1,
            )
        return name, os.path.join(folder(), f"{name}.v{LAYOUT_VERSION}.seg")
    # Not needed where a name was given.
    from agent.app import program

    if program.is_bare_forkserver():
        return "", ""
    found = identify(program.read(start_dir))
    app, stem = names(found)
    where = folder()
    place.mark(where, app, stem, found)
    return app, os.path.join(where, f"{stem}.v{LAYOUT_VERSION}.seg")


def identify(started: Program) -> Project:
    """The project of a program that has no name of its own."""
    from agent.app import project

    if started.notebook is not None:
        return project.of_notebook(started)
    found = project.of_program(started)
    if started.tests:
        found.name += f"-{started.tests}"
        # A long name is cut.
        found.part += f"-{started.tests}"
    return found


def names(found: Project) -> tuple[str, str]:
    """What the app is called, and the name of its file before the layout."""
    app = given.clean(found.name[: given.NAME_BYTES_MAX - 24].strip("._- ") or "app")
    if app == COLLECTOR:
        app = given.INSTEAD
    facts = [deployment.root_of(found.root), found.part]
    if not found.is_known:
        # Folders such as /app are alike in all containers. What tells those apart is their name.
        facts.append(os.uname().nodename)
    return app, f"{app}-{deployment.digest(facts, 32)}"
