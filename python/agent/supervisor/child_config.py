"""The JSON that a child gets when it is forked and with each `reload`. Pure.

Purpose: one place that turns settings into what the Rust side reads (`agent_net::config`). Limits
go as they are: what is shared among workers, they share out themselves.

A `reload` has the same form with no listeners: sockets stay as they are.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import orjson

from agent.config import Config, MappingRule, Statsd

from .listeners import Listener


class Site(msgspec.Struct, frozen=True):
    """What stays the same for the life of the supervisor."""

    segment: str
    apps_dir: str
    workers: int
    schema_json: str
    version: str


# Every dialect that the setting knows.
NAME_TAGS = Statsd().name_tags


class Sockets(msgspec.Struct, frozen=True):
    """What a worker is born with; -1 is none."""

    control_fd: int = -1
    handover_out_fd: int = -1
    handover_in_fd: int = -1
    listeners: list[Listener] = []
    # Of the desk, to each worker; of a worker, from the desk.
    desk_out_fds: list[int] = []
    desk_in_fd: int = -1


def worker_config(config: Config, site: Site, place: str, sockets: Sockets) -> bytes:
    """Of a worker, or of the desk: a place is a number or `desk`."""
    return orjson.dumps(
        {
            **_common(config, site, sockets.control_fd),
            "worker": int(place) if place.isdecimal() else place,
            "workers": site.workers,
            "handover_out_fd": sockets.handover_out_fd,
            "handover_in_fd": sockets.handover_in_fd,
            "desk_out_fds": sockets.desk_out_fds,
            "desk_in_fd": sockets.desk_in_fd,
            "listeners": [msgspec.structs.asdict(listener) for listener in sockets.listeners],
            "limits": msgspec.structs.asdict(config.limits),
            "histograms": {
                "buckets": _finite(config.histograms.buckets),
                "native": config.histograms.native,
            },
            "name_tags": {name: name in config.statsd.name_tags for name in NAME_TAGS},
            "mapping": [_rule(rule) for rule in config.mapping],
            "drain_timeout_s": worker_drain_s(config),
            "schema_json": site.schema_json,
            "version": site.version,
        }
    )


def aggregator_config(config: Config, site: Site, control_fd: int) -> bytes:
    return orjson.dumps(
        {
            **_common(config, site, control_fd),
            "windows_series_max": config.windows.series_max,
        }
    )


def trial(config: Config) -> bytes:
    """A worker's JSON without a place to work in, for checking."""
    site = Site("", "", workers=1, schema_json="", version="")
    return worker_config(config, site, "0", Sockets())


def worker_drain_s(config: Config) -> float:
    """A worker cuts connections a little before the supervisor loses patience."""
    return config.supervisor.drain_timeout_s * 0.9


def _common(config: Config, site: Site, control_fd: int) -> dict[str, Any]:
    return {
        "segment": site.segment,
        "apps_dir": site.apps_dir,
        "apps_shared_dirs": config.apps.shared_dirs,
        "apps_idle_s": config.apps.idle_s,
        "control_fd": control_fd,
        "series": msgspec.structs.asdict(config.series),
        "windows": config.windows.enabled,
    }


def _rule(rule: MappingRule) -> dict[str, Any]:
    """Only what was set: an empty text means "not given" here and something else in Rust."""
    given = {**msgspec.structs.asdict(rule), "buckets": _finite(rule.buckets)}
    return {name: value for name, value in given.items() if value not in ("", {}, (), False)}


def _finite(buckets: tuple[float, ...]) -> tuple[float, ...]:
    """Without a last +Inf, which is implied and has no form in JSON."""
    return tuple(bound for bound in buckets if bound != math.inf)
