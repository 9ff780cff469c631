"""The result of a run as data: what is measured, written as JSON, and read back by the views.

Purpose: one document, versioned, that a report can be drawn from years later. The load laboratory
makes it, `text` and `html` show it, people and scripts read it. Pure.

Units stand in the names: seconds `_s` (and in `latency`), bytes, microseconds `_us`, rates
`_per_s`. CPU in `timeline` is in cores: CPU seconds by second. None is "not measured", never zero.

Limits: `read` takes documents up to BYTES_MAX. Fields that this version does not know are ignored,
so that a later one can add some; another `schema` is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

SCHEMA = 1
BYTES_MAX = 256 * 1024 * 1024

# Bounds far beyond any run, so that no view has to think of more.
Count = Annotated[int, Meta(ge=0, le=10**15)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
# A difference: negative when memory was given back, or a process ended between two readings.
Signed = Annotated[float, Meta(ge=-1e15, le=1e15)]


class ReportError(ValueError):
    """A document that is not a result, or of a version that is not known here."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    connections: Count
    open_rate: Amount = 0.0
    hold_s: Seconds = 0.0
    message_interval_s: Seconds = 0.0
    # Messages that one answer stands for.
    ack_every: Count = 1
    protocol: str = ""
    target: str = ""
    executors: Count = 0
    sources: int | list[str] = 0
    reconnect: bool = False
    run: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran."""

    cpu: str = ""
    cores: Count = 0
    memory_bytes: Count = 0
    kernel: str = ""
    python: str = ""
    agent_version: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome. *invalid*: the generator was not good enough to say anything of the target."""

    outcome: Literal["pass", "fail", "invalid"]
    reasons: list[str] = []


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One promise and what came of it. `met` None: it could not be measured, `got` says why."""

    name: str
    wanted: str
    got: str
    met: bool | None = None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The account of the whole run."""

    opened: Count = 0
    open_held: Count | None = None
    open_seconds: Seconds | None = None
    open_rate: Amount | None = None
    failed: dict[str, Count] = {}
    lost: dict[str, Count] = {}
    closed_by_peer: Count = 0
    reconnected: Count = 0
    messages_sent: Count = 0
    messages_acked: Count = 0
    messages_uncertain: Count = 0
    messages_deferred: Count = 0
    messages_skipped: Count = 0
    nacked: Count = 0
    counted_by_collector: Count | None = None


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds. `buckets` are [longest, count], ascending, empty ones left out."""

    count: Count = 0
    p50: Seconds | None = None
    p90: Seconds | None = None
    p99: Seconds | None = None
    p999: Seconds | None = None
    max: Seconds | None = None
    mean: Seconds | None = None
    buckets: list[tuple[Seconds, Count]] = []


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What both ends used. Kernel bytes are those of both ends when both were on this machine."""

    client_cpu_s: Signed | None = None
    server_cpu_s: Signed | None = None
    client_us_per_message: Signed | None = None
    server_us_per_message: Signed | None = None
    client_us_per_open: Signed | None = None
    server_us_per_open: Signed | None = None
    kernel_bytes_per_connection: Signed | None = None
    server_user_bytes_per_connection: Signed | None = None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the time line, most often a second; `t` is its end."""

    t: Seconds
    open: Count = 0
    opening: Count = 0
    opened_per_s: Amount = 0.0
    sent_per_s: Amount = 0.0
    acked_per_s: Amount = 0.0
    failed_per_s: Amount = 0.0
    lost_per_s: Amount = 0.0
    p50_s: Seconds | None = None
    p99_s: Seconds | None = None
    client_cpu: Signed | None = None
    server_cpu: Signed | None = None


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the time line with a name: open, hold, finish, close, storm-..."""

    name: str
    t0: Seconds
    t1: Seconds


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A run."""

    schema: int = SCHEMA
    kind: str
    started: str
    status: str = "complete"
    plan: Plan
    machine: Machine = Machine()
    verdict: Verdict
    targets: list[Target] = []
    totals: Totals
    latency: dict[str, Distribution] = {}
    cost: Cost = Cost()
    timeline: list[Moment] = []
    phases: list[Phase] = []
    ledger: dict[str, float] = {}


def write(result: Result) -> bytes:
    """The document, indented, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def read(document: bytes) -> Result:
    """The result in a document. Raises ReportError with a sentence that says what is wrong."""
    if len(document) > BYTES_MAX:
        raise ReportError(f"larger than {BYTES_MAX} bytes")
    try:
        _check_schema(msgspec.json.decode(document))
        return msgspec.json.decode(document, type=Result)
    except msgspec.ValidationError as error:
        raise ReportError(f"not a result: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"not JSON: {error}") from None
    except RecursionError:
        raise ReportError("not a result: nested too deeply") from None


def from_data(data: Any) -> Result:
    """The same of a document that is in memory already, as dicts and lists."""
    _check_schema(data)
    try:
        return msgspec.convert(data, type=Result)
    except msgspec.ValidationError as error:
        raise ReportError(f"not a result: {error}") from None


def _check_schema(data: Any) -> None:
    version = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise ReportError("not a result: an object with `schema` is expected")
    if version != SCHEMA:
        raise ReportError(f"a result of schema {version}; this version reads {SCHEMA}")
