"""The apps of a folder, as the commands see them: what they are called, who is alive, how old.

Purpose: read every segment of our layout once and give plain values; nothing is changed. An app is
called as the collector calls it (`rust/agent-net/src/apps/called.rs`), and may be asked for by that
name or by the name of its file.

Limits: when an app was last alive is known to the minute while a collector of its user runs beside
it; else it is its last start, or the last minute in which a process of it looked at its file (one
update in 64, every slow call), whichever is later. The end of a process leaves no time.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from typing import Any

import msgspec

from agent import SegmentError, app
from agent._native import LAYOUT_VERSION
from agent._native import inspect as read_segment
from agent.app import other_layout, place

SUFFIX = f".v{LAYOUT_VERSION}.seg"


class Found(msgspec.Struct, kw_only=True):
    """One app. Times are unix milliseconds; `last_alive_ms` is now while a process lives."""

    app: str
    stem: str
    path: str
    # Where its deployment is, when its name was found and not given.
    folder: str = ""
    pids: list[int] = []
    series: int = 0
    metrics: int = 0
    bytes_committed: int = 0
    created_ms: int = 0
    last_alive_ms: int = 0
    # Why the file cannot be read; then nothing else is known.
    error: str = ""
    # Of which layout it is, and whether somebody lives in it when it is not ours.
    layout: int = LAYOUT_VERSION
    is_locked: bool = False

    @property
    def is_alive(self) -> bool:
        return bool(self.pids) or self.is_locked

    @property
    def is_known(self) -> bool:
        """Whether it may be pruned: it was read, or is whole and of another version."""
        return not self.error or self.layout != LAYOUT_VERSION


class UnknownAppError(LookupError):
    """No app, or more than one, of a name."""


def folder_of(directory: str | None) -> str:
    """The folder of segments. Raises OSError with the reason."""
    if directory:
        # From a command line, a relative path is meant as it is from here.
        os.environ[place.VARIABLE] = os.path.abspath(directory)
    return app.folder()


def segments(folder: str) -> dict[str, str]:
    """Paths by the names of the files; one of another layout keeps its version in the name."""
    found = {}
    for path in glob.glob(f"{glob.escape(folder)}/*.seg"):
        name = os.path.basename(path).removesuffix(".seg")
        found[name.removesuffix(SUFFIX.removesuffix(".seg"))] = path
    return found


def find_all(folder: str) -> list[Found]:
    """The apps of the folder by name; the collector's own segment is none."""
    found = [
        _read(folder, stem, path)
        for stem, path in segments(folder).items()
        if path.endswith(SUFFIX) and stem != app.COLLECTOR
    ]
    for one in found:
        one.app = one.app if place.is_of(one.stem, one.app) else one.stem
    names = [one.app for one in found]
    for one in found:
        one.app = one.app if names.count(one.app) == 1 else one.stem
    found += [_other(one) for one in other_layout.find(folder)]
    return sorted(found, key=lambda one: one.app)


def find(name: str, folder: str) -> Found:
    """The app that is called so. Raises UnknownAppError with what there is."""
    found = find_all(folder)
    for one in found:
        if name in {one.app, one.stem}:
            return one
    alike = [one.app for one in found if place.is_of(one.stem, name)]
    if alike:
        raise UnknownAppError(
            f"{len(alike)} deployments of {name!r} in {folder}: name one of {', '.join(alike)}"
        )
    known = ", ".join(one.app for one in found) or "none"
    raise UnknownAppError(f"no app {name!r} in {folder} (there: {known})")


def forget(one: Found) -> None:
    """Removes an app's file and its mark; a file that is gone already is as good."""
    for path in (one.path, place.mark_path(os.path.dirname(one.path), one.stem)):
        if os.path.lexists(path):
            os.unlink(path)


def forget_marks(folder: str, oldest_ms: float) -> None:
    """Removes older marks whose app is gone, so that nobody is warned of it."""
    known = segments(folder)
    for path in glob.glob(f"{glob.escape(folder)}/.*{place.MARK}"):
        stem = os.path.basename(path)[1 : -len(place.MARK)]
        with contextlib.suppress(OSError):
            if stem not in known and os.lstat(path).st_mtime * 1000 <= oldest_ms:
                os.unlink(path)


def _read(folder: str, stem: str, path: str) -> Found:
    try:
        told: dict[str, Any] = read_segment(path, series_shown_max=0)
        modified_ms = int(os.stat(path).st_mtime * 1000)
    except (SegmentError, OSError) as error:
        return Found(app=stem, stem=stem, path=path, error=str(error))
    pids = [slot["pid"] for slot in told["slots"] if slot["alive"]]
    started_ms = max((slot["started_unix_ms"] for slot in told["slots"]), default=0)
    return Found(
        app=told["header"]["app"],
        stem=stem,
        path=path,
        folder=_deployment(folder, stem),
        pids=sorted(pids),
        series=told["usage"]["series"],
        metrics=told["usage"]["metrics"],
        bytes_committed=told["usage"]["bytes_committed"],
        created_ms=told["header"]["created_unix_ms"],
        last_alive_ms=time.time_ns() // 1_000_000 if pids else max(started_ms, modified_ms),
    )


def _other(one: other_layout.Other) -> Found:
    """A file of another layout: nothing in it is known but whether somebody lives there."""
    with contextlib.suppress(OSError):
        status = os.lstat(one.path)
        return Found(
            app=one.stem,
            stem=one.stem,
            path=one.path,
            bytes_committed=status.st_blocks * 512,
            last_alive_ms=int(status.st_mtime * 1000),
            error=f"layout {one.version} is not read by this version (layout {LAYOUT_VERSION})",
            layout=one.version,
            is_locked=other_layout.has_writers(one.path),
        )
    return Found(app=one.stem, stem=one.stem, path=one.path, error="it vanished")


def _deployment(folder: str, stem: str) -> str:
    try:
        return os.readlink(place.mark_path(folder, stem))
    except OSError:
        return ""
