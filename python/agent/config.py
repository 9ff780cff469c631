"""The collector's settings: one frozen struct per section, every field documented where it is
declared.

Purpose: say what can be set, within which bounds, and what each setting does. `config_source` fills
these structs from a file, the environment and flags; `config_sample` prints them back as a
commented file.

Pure: nothing here reads a file, the environment, a clock or the machine. What depends on the
machine (`workers = 0`, `dir = ""`) is resolved by functions that take the machine's facts as
arguments.

Rules: units come last in a name (`line_bytes_max`); `0` means "off" or "automatic" only where the
field says so; every field states its effect, its edge value and who should change it. The default
is the value beside the declaration.

Not promised: that two settings make sense together; `config_check` finds the known contradictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from .config_doc import GIB, KIB, MIB, Section, doc
from .config_limits import Histograms, Limits, Series, Windows

# The most workers one supervisor starts. Each holds a listener per source and a slot in the
# segment.
WORKERS_MAX = 256
# File descriptors a worker needs beside its connections: listeners, segments, control pipe, epoll,
# spare.
WORKER_FILES_RESERVED = 128


class Http(Section, frozen=True, kw_only=True):
    """The HTTP listener: scrape, health, push, Pushgateway paths and the status page."""

    address: Annotated[
        str,
        doc(
            "Where HTTP listens, as HOST:PORT or [IPV6]:PORT.",
            edge='"" turns HTTP off; port 0 lets the kernel choose a free one.',
            who=(
                "whoever scrapes from another host; there is no authentication, so keep it private."
            ),
        ),
    ] = "127.0.0.1:9464"
    backlog_max: Annotated[
        int,
        doc(
            "How many connections the kernel queues per worker before it is accepted.",
            edge="The kernel cuts it to net.core.somaxconn.",
            who="hosts where many clients connect in the same instant.",
            ge=1,
            le=1 << 20,
        ),
    ] = 4096


class Statsd(Section, frozen=True, kw_only=True):
    """The StatsD and DogStatsD listeners: UDP and TCP on one address, Unix sockets beside it."""

    address: Annotated[
        str,
        doc(
            "Where StatsD listens, UDP and TCP both, as HOST:PORT or [IPV6]:PORT.",
            edge='"" turns both off; port 0 lets the kernel choose one port free for both.',
            who="hosts that collect from others; UDP senders can forge their address.",
        ),
    ] = "127.0.0.1:8125"
    socket: Annotated[
        str,
        doc(
            "Path of a Unix datagram socket. Nothing is lost silently there: a full queue "
            "blocks the sender.",
            edge='"" turns it off.',
            who="programs on the same host that must not lose datagrams.",
        ),
    ] = ""
    stream_socket: Annotated[
        str,
        doc(
            "Path of a Unix stream socket (lines, `_ack` answered).",
            edge=(
                '"auto" is the path of `socket` plus ".stream" where `socket` is set; "" turns '
                "it off."
            ),
            who="programs on the same host that want acknowledgements.",
        ),
    ] = "auto"
    socket_mode: Annotated[
        int,
        doc(
            "Permission bits of both Unix sockets.",
            edge="0o666 lets every user of the host send.",
            who="hosts where senders run as other users than the collector.",
            ge=0,
            le=0o777,
        ),
    ] = 0o660
    receive_buffer_bytes: Annotated[
        int,
        doc(
            "Receive buffer asked for on each datagram socket; what was granted is logged at "
            "the start.",
            edge="Without CAP_NET_ADMIN the kernel cuts it to net.core.rmem_max.",
            who="hosts that see agent_kernel_drops_total grow.",
            ge=4 * KIB,
            le=GIB,
        ),
    ] = 8 * MIB
    backlog_max: Annotated[
        int,
        doc(
            "How many stream connections the kernel queues per worker before they are accepted.",
            edge="The kernel cuts it to net.core.somaxconn.",
            who="hosts where many clients connect in the same instant.",
            ge=1,
            le=1 << 20,
        ),
    ] = 4096
    name_tags: Annotated[
        tuple[Literal["influx", "librato", "signalfx"], ...],
        doc(
            "Dialects of tags inside of names that are read: `name,k=v`, `name#k=v`, `na[k=v]me`.",
            edge="[] leaves every name as it is.",
            who="senders whose names hold such characters and mean no tags.",
        ),
    ] = ("influx", "librato", "signalfx")


class Apps(Section, frozen=True, kw_only=True):
    """The apps of this host whose segments are in `dir`, and in folders of other users."""

    shared_dirs: Annotated[
        tuple[str, ...],
        doc(
            "Folders of other users, whose apps are shown too: whole paths, the last part may "
            "have `*`. Each belongs to one user, who alone can write to it, and lets the "
            "collector read, by its group or because the collector is root (docs/APPS.md).",
            edge="[] = only `dir`.",
            who="hosts whose apps run as other users than the collector.",
        ),
    ] = ()
    idle_s: Annotated[
        int,
        doc(
            "How long an app without living processes stays on the page. Its counters go on when "
            "it comes back.",
            edge="0 = for ever.",
            who="hosts whose jobs run less often than this and are to be seen all the time.",
            ge=0,
            le=0xFFFF_FFFF,
        ),
    ] = 3600


class Logging(Section, frozen=True, kw_only=True):
    """Logs go to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        doc("The least level that is written.", who="whoever looks for a fault."),
    ] = "info"
    format: Annotated[
        Literal["auto", "text", "json"],
        doc(
            "One line of text or one JSON object per record.",
            edge='"auto" is text on a terminal and JSON otherwise.',
            who="whoever feeds logs to a machine from a terminal, or reads them from a pipe.",
        ),
    ] = "auto"


class Supervisor(Section, frozen=True, kw_only=True):
    """How the process tree starts, restarts and stops."""

    drain_timeout_s: Annotated[
        float,
        doc(
            "Time to finish after SIGTERM: requests in progress, rings, windows. Then "
            "connections are cut.",
            who="orchestrators that kill later or earlier than after 30 s.",
            ge=0.1,
            le=3600,
        ),
    ] = 25.0
    unready_s: Annotated[
        float,
        doc(
            "How long /readyz answers 503 after SIGTERM before the listeners stop accepting.",
            edge="0 = they stop at once.",
            who="collectors behind a load balancer that polls /readyz: twice its interval.",
            ge=0,
            le=600,
        ),
    ] = 0.0
    start_timeout_s: Annotated[
        float,
        doc(
            "A child that is not ready after this time is killed and started again.",
            who="very slow machines.",
            ge=1,
            le=600,
        ),
    ] = 30.0
    restart_delay_s_max: Annotated[
        float,
        doc(
            "The longest pause before a child that keeps dying is started again. It never "
            "gives up.",
            who="rarely anyone.",
            ge=0.1,
            le=600,
        ),
    ] = 10.0
    host_interval_s: Annotated[
        float,
        doc(
            "How often host, process and cgroup figures are read.",
            edge="0 = never.",
            who="hosts that have a node exporter already: 0.",
            ge=0,
            le=3600,
        ),
    ] = 10.0


class MappingRule(Section, frozen=True, kw_only=True):
    """One rule `[[mapping]]`: the first whose `match` fits a raw StatsD name decides what it is."""

    match: Annotated[
        str,
        doc(
            "The raw name: a glob where * is one part between dots, or a regular expression.",
            who="the author of the rule.",
        ),
    ]
    match_type: Annotated[
        Literal["glob", "regex"],
        doc(
            "How `match` is read. A regular expression searches: anchor it with ^ and $.",
            who="the author of the rule.",
        ),
    ] = "glob"
    match_metric_type: Annotated[
        Literal["", "counter", "gauge", "timer", "histogram", "distribution", "set"],
        doc(
            "The StatsD type the rule is for.",
            edge='"" = every type.',
            who="the author of the rule.",
        ),
    ] = ""
    action: Annotated[
        Literal["map", "drop"],
        doc("What to do: rename, or drop and count.", who="the author of the rule."),
    ] = "map"
    name: Annotated[
        str,
        doc(
            "The new name; $1, ${1} and ${group} stand for captures, $$ for a dollar.",
            edge='"" only with action = "drop".',
            who="the author of the rule.",
        ),
    ] = ""
    labels: Annotated[
        dict[str, str],
        doc(
            "Labels to add, with captures; they win over tags.",
            edge="{} = none.",
            who="the author of the rule.",
        ),
    ] = msgspec.field(default_factory=dict)
    type: Annotated[
        Literal["", "counter", "gauge", "timer", "histogram", "distribution", "set"],
        doc(
            "The type the sample is taken for.",
            edge='"" = its own. Nothing becomes a set, and no set becomes anything else.',
            who="the author of the rule.",
        ),
    ] = ""
    help: Annotated[
        str, doc("The HELP text of the metric.", edge='"" = none.', who="the author of the rule.")
    ] = ""
    buckets: Annotated[
        tuple[float, ...],
        doc(
            "Upper bounds of the histogram that a timer, histogram or distribution becomes.",
            edge="[] = as [histograms] says.",
            who="the author of the rule.",
        ),
    ] = ()
    native: Annotated[
        bool,
        doc(
            "It becomes a native histogram.",
            edge="false = as [histograms] says.",
            who="the author of the rule.",
        ),
    ] = False


class Config(Section, frozen=True, kw_only=True):
    """All settings of the collector."""

    dir: Annotated[
        str,
        doc(
            "Folder of the segments; created with mode 0700. Apps and collector must agree on it.",
            edge='"" = /dev/shm/agent-metrics-UID.',
            who="hosts without /dev/shm; for apps of other users see [apps] shared_dirs.",
        ),
    ] = ""
    workers: Annotated[
        int,
        doc(
            "Number of worker processes.",
            edge="0 = one per core, more only where connections_max needs more file descriptors.",
            who="hosts where the collector shall not use every core.",
            ge=0,
            le=WORKERS_MAX,
        ),
    ] = 0
    http: Http = Http()
    statsd: Statsd = Statsd()
    limits: Limits = Limits()
    apps: Apps = Apps()
    series: Series = Series()
    histograms: Histograms = Histograms()
    windows: Windows = Windows()
    logging: Logging = Logging()
    supervisor: Supervisor = Supervisor()
    mapping: Annotated[
        tuple[MappingRule, ...],
        doc(
            "Rules for StatsD names, tried in order.",
            edge="None: dots become _ and tags become labels.",
            who="senders that hide labels in dotted names.",
        ),
    ] = ()


class Setting(msgspec.Struct, frozen=True):
    """One field of `Config`, found by `settings`: what the file, the environment and the printers
    need.
    """

    path: str
    type: Any
    default: Any
    effect: str
    edge: str
    who: str


def settings(struct: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[Setting]:
    """Every setting below `struct`, in the order of declaration. `mapping` counts as one."""
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield from settings(field.type, f"{prefix}{field.name}.")
            continue
        meta = field.type.__metadata__[0]
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        yield Setting(f"{prefix}{field.name}", field.type, default, meta.description, **meta.extra)


def value_at(config: msgspec.Struct, path: str) -> Any:
    """The value of a setting by its dotted path."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def stream_socket_path(statsd: Statsd) -> str:
    """The path of the Unix stream socket, "" for none."""
    if statsd.stream_socket == "auto":
        return f"{statsd.socket}.stream" if statsd.socket else ""
    return statsd.stream_socket


def worker_room(files_max: int) -> int:
    """Connections to plan for in one worker.

    The kernel deals connections out by chance, so one of many workers may have four standard
    deviations more than its share (of 1,000,000 over 56 workers 3 %), and when a worker dies its
    connections come back to all of them.
    """
    return max(1, (files_max - WORKER_FILES_RESERVED) * 10 // 11)


def worker_count(config: Config, cores: int, files_max: int) -> int:
    """The number of workers to start on a machine with `cores`, each allowed `files_max` open
    files.
    """
    if config.workers:
        return config.workers
    needed = -(-config.limits.connections_max // worker_room(files_max))
    return max(1, min(WORKERS_MAX, max(cores, needed)))
