"""What no single field shows: addresses, contradictions between settings, and what only a restart
can change.

Purpose: the checks after every field has passed its own bounds. Pure, like `config`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from .config import Config, MappingRule, value_at

# The address of a Unix socket holds 108 bytes with its terminating zero.
SOCKET_PATH_BYTES_MAX = 107
# Finite bounds of a histogram in a segment.
BUCKETS_MAX = 512


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`; ValueError says what is wrong."""
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: write HOST:PORT, for example 127.0.0.1:9464")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, for example [::1]:9464")
    if not host:
        raise ValueError(f"{text!r} has no host: write 0.0.0.0:{port_text} to listen everywhere")
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= 65_535):
        raise ValueError(f"{text!r}: the port must be a number from 0 to 65535")
    return host, int(port_text)


def check(config: Config) -> Iterator[tuple[str, str]]:
    """Contradictions, as (path, message)."""
    yield from _check_folders(config)
    yield from _check_listeners(config)
    yield from _check_sizes(config)
    yield from _check_buckets(config.histograms.buckets, "histograms.buckets")
    if not config.histograms.buckets and not config.histograms.native:
        yield "histograms.buckets", "is empty: give one bound, or set histograms.native"
    for index, rule in enumerate(config.mapping):
        yield from check_rule(rule, f"mapping[{index}]")


def _check_folders(config: Config) -> Iterator[tuple[str, str]]:
    if config.dir and not config.dir.startswith("/"):
        # Each working directory would have a folder of its own.
        yield "dir", f"write the whole path, from / on, got {config.dir!r}"
    for path in config.apps.shared_dirs:
        if not path.startswith("/"):
            message = f"write the whole path, from / on, got {path!r}"
        elif "*" in path.rpartition("/")[0]:
            message = f"only the last part may have a *, got {path!r}"
        else:
            continue
        yield "apps.shared_dirs", message


def _check_listeners(config: Config) -> Iterator[tuple[str, str]]:
    for path in ("http.address", "statsd.address"):
        text = value_at(config, path)
        if text:
            try:
                parse_address(text)
            except ValueError as error:
                yield path, str(error)
    http, lines = config.http.address, config.statsd.address
    if http and http == lines and not http.endswith(":0"):
        yield "statsd.address", f"{lines} is the address of http already: both take TCP connections"
    statsd = config.statsd
    if not (
        config.http.address or statsd.address or statsd.socket or statsd.stream_socket != "auto"
    ):
        yield "http.address", "nothing listens: set http.address, statsd.address or statsd.socket"
    for path in ("socket", "stream_socket"):
        room = SOCKET_PATH_BYTES_MAX
        if path == "socket" and statsd.stream_socket == "auto":
            room -= len(".stream")
        if len(getattr(statsd, path).encode()) > room:
            yield f"statsd.{path}", f"the path of a Unix socket has at most {room} bytes here"
    if statsd.socket and statsd.socket == statsd.stream_socket:
        yield "statsd.stream_socket", "must differ from statsd.socket"


def _check_sizes(config: Config) -> Iterator[tuple[str, str]]:
    """Each pair: the first must not be larger than the second."""
    for less, more in (
        ("limits.name_bytes_max", "limits.line_bytes_max"),
        ("limits.body_bytes_max", "limits.body_decompressed_bytes_max"),
        ("limits.body_decompressed_bytes_max", "limits.bodies_bytes_max"),
        ("series.metric_series_max", "series.series_max"),
    ):
        if value_at(config, less) > value_at(config, more):
            yield less, f"is larger than {more}"


def _check_buckets(buckets: tuple[float, ...], path: str) -> Iterator[tuple[str, str]]:
    finite = buckets[:-1] if buckets[-1:] == (math.inf,) else buckets
    if len(finite) > BUCKETS_MAX:
        yield path, f"has {len(finite)} finite bounds, at most {BUCKETS_MAX} are possible"
    elif buckets and not finite:
        yield path, "has no finite bound"
    elif not all(map(math.isfinite, finite)):
        yield path, "all bounds but a last inf must be finite"
    elif not all(less < more for less, more in pairwise(finite)):
        yield path, "bounds must ascend"


def check_rule(rule: MappingRule, path: str) -> Iterator[tuple[str, str]]:
    """Contradictions within one rule."""
    if not rule.match:
        yield f"{path}.match", "is empty: it would match nothing"
    if rule.action == "drop" and (rule.name or rule.labels or rule.type):
        yield f"{path}.action", 'is "drop": name, labels and type have no effect'
    yield from _check_buckets(rule.buckets, f"{path}.buckets")
    if rule.buckets and rule.native:
        yield f"{path}.native", "excludes buckets: a native histogram has none to choose"
    if rule.action == "map" and not rule.name:
        yield f"{path}.name", "is missing: a rule gives a name, or drops"


# Settings that live in sockets and in the segment's header, so that only a restart can change them.
RESTART_ONLY = (
    "dir",
    "workers",
    "http.address",
    "http.backlog_max",
    "statsd.address",
    "statsd.socket",
    "statsd.stream_socket",
    "statsd.socket_mode",
    "statsd.receive_buffer_bytes",
    "statsd.backlog_max",
    "series.series_max",
    "series.metric_series_max",
    "series.metrics_max",
    "series.segment_bytes_max",
)


def restart_needed(old: Config, new: Config) -> tuple[str, ...]:
    """The changed settings that a reload cannot apply."""
    return tuple(path for path in RESTART_ONLY if value_at(old, path) != value_at(new, path))
