"""Where a torture ran: kernel, processor, and the file system under the segments."""

from __future__ import annotations

import os
from typing import Any

from agent.lab.machine import describe as describe_machine


def describe(folder: str) -> dict[str, Any]:
    """What a report says of it."""
    return describe_machine() | {
        "user": os.geteuid(),
        "file_system": file_system(folder),
        "container": _container(),
    }


def file_system(folder: str) -> str:
    """Type and options of the mount that a folder is on, as the kernel tells them."""
    path, found = os.path.realpath(folder), ("", "unknown")
    try:
        with open("/proc/self/mountinfo") as file:
            for line in file:
                words, _, rest = line.partition(" - ")
                point = words.split()[4]
                is_above = path == point or path.startswith(point.rstrip("/") + "/")
                if is_above and len(point) >= len(found[0]):
                    kind, _, options = rest.split()[:3]
                    found = (point, f"{kind} on {point} ({options})")
    except (OSError, ValueError, IndexError):
        pass
    return found[1]


def _container() -> str:
    """What it runs in, if that can be seen."""
    if os.path.exists("/.dockerenv"):
        return "docker"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    return "none seen"
