"""The folder that stays the same when a release is replaced by the next one.

Two deployments of one project differ by this folder; all releases of one deployment have the same.
What says that a folder is a release, and nothing else does:

    /srv/shop/releases/20261129    a folder in `releases`: the deployment is /srv/shop
    /srv/shop/current -> ...       a link `current` beside the release, or one level above it
    /opt/shop -> /opt/shop-1.2.3   a link whose name the release's begins with

Not promised: that a process which asks after its link was moved on finds what it was.
"""

from __future__ import annotations

import os

RELEASES = "releases"
CURRENT = "current"
# A project in a release's folder, or in a folder of that.
LEVELS = 2
SEPARATORS = "-_."


def root_of(path: str) -> str:
    """The deployment of a folder or file. `path`: absolute, without links."""
    parts = path.split("/")
    for at in range(len(parts) - 2, 0, -1):
        if parts[at] == RELEASES:
            return "/".join(parts[:at] + parts[at + 2 :]) or "/"
    for at in range(len(parts) - 1, max(len(parts) - 1 - LEVELS, 0), -1):
        release = "/".join(parts[: at + 1])
        for link in _links("/".join(parts[:at]), parts[at]):
            if os.path.islink(link) and os.path.realpath(link) == release:
                return "/".join([link, *parts[at + 1 :]])
    return path


def _links(parent: str, name: str) -> list[str]:
    """Where a link to the release `name` in the folder `parent` would be, the likeliest first."""
    likely = [f"{parent}/{CURRENT}", f"{os.path.dirname(parent)}/{CURRENT}"]
    cuts = [at for at, sign in enumerate(name) if sign in SEPARATORS and at]
    return likely + [f"{parent}/{name[:at]}" for at in cuts]


def digest(facts: list[str], bits: int = 40) -> str:
    """At most 64 bits of FNV-1a over the facts with their lengths, in hexadecimal digits."""
    value = 0xCBF29CE484222325
    for fact in facts:
        data = fact.encode("utf-8", "surrogateescape")
        for byte in len(data).to_bytes(4, "little") + data:
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{(value ^ value >> bits) & ((1 << bits) - 1):0{bits // 4}x}"
