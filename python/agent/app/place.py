"""The folder of segments, and the marks in it that say which deployment a found name stands for.

A mark is a symbolic link `.STEM.at` to the deployment's folder. Nobody follows it; it is made by
the first process of a deployment, which then is the one that looks around and warns.
"""

from __future__ import annotations

import os
import stat
import sys

from agent.app import given
from agent.app.deployment import root_of
from agent.errors import FolderError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.app.project import Project

MARK = ".at"
VARIABLE = "AGENT_METRICS_DIR"


def where() -> str:
    """Where the folder of segments is, or would be; a whole path, or FolderError is raised.

    Without the variable it depends on the user only, so that a login shell, a cron job and a
    service of one user meet: `$XDG_RUNTIME_DIR` is there for the first and not for the others.
    """
    path = os.environ.get(VARIABLE, "")
    path = path or f"/dev/shm/agent-metrics-{os.geteuid()}"  # noqa: S108 - owner and mode are checked
    if not os.path.isabs(path):
        # Each working directory would have a folder of its own.
        raise FolderError(f"{VARIABLE} is {path!r}: write the whole path, from / on")
    return os.path.normpath(path)


def folder() -> str:
    """The folder of segments, made with mode 0700. Raises FolderError when it is not ours alone."""
    path = where()
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        status = os.lstat(path)
    except FileExistsError:
        raise FolderError(f"{path} is not a folder (symbolic links are refused)") from None
    except OSError as error:
        if is_of_program(error):
            raise
        raise FolderError(
            f"the folder of segments {path} cannot be made: {error.strerror}; let "
            "AGENT_METRICS_DIR be one that can"
        ) from None
    if stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
        raise FolderError(f"{path} is not a folder (symbolic links are refused)")
    if status.st_uid != os.geteuid():
        raise FolderError(
            f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}: run this as that user,"
            f" or let {VARIABLE} be a folder of your own"
        )
    if status.st_mode & 0o022:
        # A folder that gives its group to its files is shared with a collector, and shall stay so.
        remedy = "2750" if status.st_mode & stat.S_ISGID else "700"
        raise FolderError(
            f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):03o}): "
            f"chmod {remedy} it"
        )
    return path


def is_of_program(error: OSError) -> bool:
    """Whether a signal handler of the program raised it (a TimeoutError), not the kernel."""
    return error.errno is None


def mark_path(where: str, stem: str) -> str:
    return os.path.join(where, f".{stem}{MARK}")


def mark(where: str, app: str, stem: str, found: Project) -> None:
    """Says which deployment the name stands for; who says it first warns of what is doubtful."""
    at = root_of(found.root)
    try:
        os.symlink(at, mark_path(where, stem))
    except OSError as error:
        if is_of_program(error):
            raise
        # It is there, or it cannot be made: then only `apps list` knows less.
        return
    if given.clean(found.name) == given.COLLECTOR:
        warn(
            f"the project {found.root} is called {given.COLLECTOR!r} as the collector's own segment"
            f" is, so this app is {app!r}; {given.VARIABLE}=NAME gives it another name"
        )
    if not found.is_known:
        warn(
            f"nothing says which app this is: neither a project file nor a package nor the folder"
            f" {found.root} has a name of its own, so it is {app!r} on this machine only;"
            " AGENT_METRICS_APP=NAME says it"
        )
        return
    others = [other for other in _others(where, app, stem) if other != at]
    if others and not found.part:
        warn(
            f"there are two deployments of {app!r}: {at} and {', '.join(others)}. They are counted"
            f" apart, this one as {stem!r}; AGENT_METRICS_APP={app} in both joins them, another"
            " NAME in one of them names it; `agent-metrics apps remove` forgets one that is gone"
        )


def _others(where: str, app: str, stem: str) -> list[str]:
    """Folders of the other deployments with this name, sorted."""
    found = []
    for name in os.listdir(where):
        other = name[1 : -len(MARK)]
        if name.startswith(f".{app}-") and name.endswith(MARK) and is_of(other, app):
            try:
                target = os.readlink(os.path.join(where, name))
            except OSError as error:
                if is_of_program(error):
                    raise
                continue
            if other != stem:
                found.append(target)
    return sorted(found)


def is_of(stem: str, app: str) -> bool:
    """Whether a file of this name is of an app whose name was found: `APP-3f9c21d0`."""
    name, _, mark = stem.rpartition("-")
    return name == app and len(mark) == 8 and all(sign in "0123456789abcdef" for sign in mark)


def warn(text: str, above: int = 2) -> None:
    """Warns whoever called the metric's method; `above`: functions of this package before it."""
    import warnings

    from agent.errors import AgentWarning

    try:
        warnings.warn(text, AgentWarning, stacklevel=above + 2)
    except AgentWarning:
        # `-W error`: an update never raises for such a reason.
        print(f"AgentWarning: {text}", file=sys.stderr)
