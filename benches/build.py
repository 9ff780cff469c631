"""What is being measured: the build, the machine, the versions; and the floors, compiled. Refuses a
debug build."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

RIVALS = ("prometheus-client", "opentelemetry-sdk", "datadog")
DEBIAN_RIVALS = ("collectd-core", "netdata-core", "victoria-metrics")


class DebugBuildError(RuntimeError):
    """The extension was built without optimisation."""


def require_release() -> None:
    from agent import _core

    if _core.BUILD_PROFILE != "release":
        raise DebugBuildError(
            f"agent._core is a {_core.BUILD_PROFILE} build; `make build` makes the release build"
        )


def floor_tool(name: str) -> str:
    """The compiled floor/NAME.c, built when it is missing or older than its source."""
    source = Path(__file__).parent / "floor" / f"{name}.c"
    build = Path(__file__).parent.parent / ".build"
    binary = build / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        build.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(binary), str(source)], check=True)
    return str(binary)


def processor() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def debian_version(package: str) -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout or "not installed"


def facts() -> list[tuple[str, str]]:
    """Name and value of everything that somebody who repeats the measurement must know."""
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False)
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return [
        ("machine", f"{processor()}, {memory_gib():.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("Rust", rust.stdout.strip() or "unknown"),
        ("Agent", f"{metadata.version('agent-metrics')}, {revision.stdout.strip() or 'no git'}"),
    ]


def rivals() -> str:
    """Name and version of everything that is measured beside us."""
    versions = [f"{name} {metadata.version(name)}" for name in RIVALS]
    return ", ".join(versions + [f"{name} {debian_version(name)}" for name in DEBIAN_RIVALS])
