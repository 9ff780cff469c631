"""Names of apps that somebody gave: in code, or by an environment variable.

Purpose: which of them holds, how one becomes a file name, and what `agent.configure` refuses.

A name of `agent.configure` travels to children of `multiprocessing` that run no code of the main
program's `if __name__ == "__main__"`: by an environment variable that they alone look at.
"""

from __future__ import annotations

import os
import sys

from agent._native import configure as keep
from agent._native import configured, default_registry
from agent.app.deployment import digest
from agent.errors import ConfigureError, InvalidNameError

# The name of the collector's segment: no app may write into it.
COLLECTOR = "agent"
# What an app is called that is called so.
INSTEAD = "agent-app"
NAME_BYTES_MAX = 64
VARIABLE = "AGENT_METRICS_APP"
# Set by `agent.configure` for children of multiprocessing.
INHERITED = "_AGENT_METRICS_APP"

SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def name() -> str:
    """The name that was given, as a file name; empty when none was."""
    given = configured()[0]
    if not given and _is_multiprocessing_child():
        inherited, _, main = os.environ.get(INHERITED, "").partition("\n")
        # A program started by that of `configure` has children of its own, with its own main file.
        given = inherited if main == _main() else ""
    given = clean(given or os.environ.get(VARIABLE, ""))
    return INSTEAD if given == COLLECTOR else given


def clean(text: str) -> str:
    """A name as a file name: unchanged when it can be one, else marked by a hash."""
    safe = safely(text).lstrip(".")
    if safe == text and len(safe) <= NAME_BYTES_MAX:
        return text
    return f"{safe[: NAME_BYTES_MAX - 11] or 'app'}-{digest([text])}"


def safely(text: str) -> str:
    """The text with `_` for each run of what a file name should not have."""
    signs: list[str] = []
    for sign in text:
        if sign in SAFE:
            signs.append(sign)
        elif not signs or signs[-1] != "":
            signs.append("")
    return "".join(sign or "_" for sign in signs)


def configure(app: str | None, strict: bool | None) -> None:
    """See `agent.configure`."""
    if app is not None:
        _check(app)
        before = configured()[0] or _bound()
        if before and clean(app) != clean(before):
            raise ConfigureError(
                f"configure(app={app!r}) comes too late: this process belongs to the app"
                f" {before!r} since its first update or an earlier configure(); call it once,"
                " before anything is counted"
            )
        os.environ[INHERITED] = f"{app}\n{_main()}"
    keep(app, strict)


def _is_multiprocessing_child() -> bool:
    """True in processes that `multiprocessing` or joblib started, once they run user code."""
    return any(
        part.startswith("from multiprocessing.") or "loky.backend." in part
        for part in sys.orig_argv[1:4]
    )


def _main() -> str:
    """What multiprocessing gives to its children: the main file as it was started."""
    return sys.argv[0] if getattr(sys, "argv", None) else ""


def _check(app: str) -> None:
    if not isinstance(app, str):
        raise TypeError(f"the name of an app is a str, not {type(app).__name__}")
    if not app.strip():
        raise InvalidNameError("the name of an app cannot be empty")
    if app == COLLECTOR:
        raise InvalidNameError(f"the app cannot be called {app!r}: that is the collector's segment")


def _bound() -> str:
    """The app that this process counts for already; empty while it counts for none."""
    registry = default_registry()
    # Private memory without a reason: a forkserver, which is nobody's yet.
    return registry.app if registry.path or registry.fallback else ""
