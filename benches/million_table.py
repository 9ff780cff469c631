"""What `make million` found, as a document; and which promises it broke. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from build import facts

PROBE_S_MAX = 0.1
BACK_S_MAX = 2.0
# Of a million.
RETURN_S_MAX = 60.0
# Names of /proc/net/netstat: connections and packets that had to be tried again.
KERNEL_EVENTS = ("ListenOverflows", "ListenDrops", "TCPBacklogDrop", "TCPSynRetrans", "TCPTimeouts")
# Connections die with a killed worker, and with nothing else.
DISRUPTIVE = ("one worker killed",)


@dataclass
class Report:
    """Everything that was measured."""

    connections: int
    # The pair's client with two servers; see million.Beside.
    answered: Any
    silent: Any
    load: dict[str, Any]
    figures: dict[str, Any]
    storms: list[Any]


@dataclass
class Row:
    """A figure and its target."""

    what: str
    target: str
    found: str
    is_met: bool
    floor: str = ""


def beside(what: str, phase: str, measured: Any) -> Row:
    """The collector's rate and the bare pair's, with the same client."""
    ours, floor = (told[phase]["per_second"] for told in (measured.ours, measured.floor))
    ratio = ours / max(1, floor)
    return Row(what, "0.8", f"{ratio:.2f} ({ours:,}/s)", ratio >= 0.8, f"{floor:,}/s")


def cpu(what: str, target: str, measured: Any) -> Row:
    """Server CPU for a message."""
    ours, floor = (told["message"]["server_us_each"] for told in (measured.ours, measured.floor))
    return Row(what, target, f"{ours:.1f} us", not target or ours <= 5, f"{floor:.1f} us")


def rows(report: Report) -> list[Row]:
    totals, cost = report.load["totals"], report.load["cost"]
    errors = report.figures["errors"]
    scale = report.connections / 1_000_000
    each = cost["server_user_bytes_per_connection"]
    whole = report.figures["memory_held"]["Pss"]
    idle, worker = report.figures["idle_cpu"], report.figures["worker_private"]
    table = [
        Row(
            f"connections held, one message a minute on each ({report.connections:,} asked)",
            "all, no error",
            f"{totals['open_held']:,}, {errors:,} errors",
            totals["open_held"] == report.connections and not errors,
        ),
        beside("open rate, by that of the bare pair", "open", report.answered),
        beside("messages answered, by the bare pair's", "message", report.answered),
        beside("messages without answers, by the bare pair's", "message", report.silent),
        Row("our memory for one idle connection", "64 B", f"{each:.0f} B", each < 64.5),
        Row(
            "private memory of a worker without connections (median)",
            "1 MiB",
            f"{worker / 2**20:.2f} MiB",
            worker < 2**20,
        ),
        Row(
            "the whole server, kernel excluded (PSS)",
            f"{250 * scale:,.0f} MB" if scale >= 0.5 else "",
            f"{whole / 1e6:,.0f} MB",
            scale < 0.5 or whole <= 250e6 * scale,
        ),
        cpu("server CPU for a message, parsed and added up", "5 us", report.silent),
        cpu("server CPU for a message, answered as well", "", report.answered),
        Row("all connections idle", "1 % of a core", f"{idle:.2%}", idle < 0.01),
    ]
    for storm in report.storms:
        table.append(storm_row(storm))
        if storm.name == "all return":
            table.append(
                Row(
                    "from nothing back to all of them",
                    f"{RETURN_S_MAX * scale:.3g} s",
                    f"{storm.seconds:.1f} s",
                    storm.seconds <= max(1, RETURN_S_MAX * scale),
                )
            )
        if storm.name == "one worker killed":
            back = storm.back_s
            table.append(
                Row(
                    f"{storm.lost:,} clients of the killed worker connected again",
                    f"{BACK_S_MAX:g} s",
                    f"{back:.1f} s",
                    back <= BACK_S_MAX,
                )
            )
    return table


def storm_row(storm: Any) -> Row:
    """Whether the others noticed."""
    worst = {path: max(times, default=0.0) for path, times in storm.probes.items()}
    is_quick = not storm.unanswered and max(worst.values(), default=0.0) < PROBE_S_MAX
    lost = sum(storm.witness["lost"].values())
    found = ", ".join(f"{path} {seconds * 1000:.0f} ms" for path, seconds in worst.items())
    found += f" at worst (a timer {storm.late_s * 1000:.0f})"
    # Those of the killed worker are among the bystanders.
    whose = "of 200 others were the killed worker's" if storm.name in DISRUPTIVE else "others lost"
    others = f"{lost} {whose}" if lost else "no other lost"
    return Row(
        f"storm: {storm.name} ({storm.seconds:.1f} s)",
        f"probes {PROBE_S_MAX * 1000:.0f} ms, no other lost",
        f"{found}; {others}, {storm.witness['messages_uncertain']} unanswered",
        is_quick and (not lost or storm.name in DISRUPTIVE),
    )


def targets(report: Report) -> list[dict[str, Any]]:
    """The table as the page of the run has it."""
    return [
        {"name": row.what, "wanted": row.target, "got": row.found, "met": row.is_met}
        for row in rows(report)
    ]


def broken(report: Report) -> list[str]:
    """Promises about data; figures are not among them."""
    sentences = list(report.load["verdict"]["reasons"])
    ledger = report.figures["ledger"]
    if ledger["received"] != ledger["applied"] + ledger["rejected"]:
        sentences.append(f"the ledger does not add up: {ledger}")
    for storm in report.storms:
        told = storm.witness
        missing = told["messages_sent"] - told["messages_acked"] - told["messages_uncertain"]
        if missing:
            sentences.append(f"{missing} messages of others were lost in the storm {storm.name}")
        if storm.name not in DISRUPTIVE and sum(told["lost"].values()):
            sentences.append(f"others lost connections in the storm {storm.name}: {told['lost']}")
        if storm.name not in DISRUPTIVE and storm.lost:
            sentences.append(f"{storm.lost} connections were lost in the storm {storm.name}")
    return sentences


def document(report: Report) -> str:
    """The page."""
    totals, ledger = report.load["totals"], report.figures["ledger"]
    lines = [
        f"# {report.connections:,} connections",
        "",
        "Written by `make million`. Both ends are on this machine, in a network namespace of",
        "their own. Bold: the target was missed.",
        "",
        *(f"- {name}: {value}" for name, value in facts()),
        f"- workers: {report.figures['workers']}",
        f"- processes of the load: {report.load['plan']['executors']}",
        f"- started: {report.load['started']}",
        "",
        "| what | at least / at most | found | the bare pair |",
        "|---|---|---|---|",
    ]
    for row in rows(report):
        found = row.found if row.is_met else f"**{row.found}**"
        lines.append(f"| {row.what} | {row.target} | {found} | {row.floor} |")
    message, late = (report.load["latency"][name] for name in ("message", "dispatch"))
    lines += [
        "",
        "## To the message",
        "",
        (
            f"{totals['messages_sent']:,} messages were sent, {totals['messages_acked']:,}"
            f" acknowledged, {totals['messages_uncertain']:,} were on connections that died"
            " (they may count or not);"
            f" the collector counted {totals['counted_by_collector']:,}."
        ),
        (
            f"Its ledger: {ledger['received']:,} received = {ledger['applied']:,} applied"
            f" + {ledger['rejected']:,} rejected."
        ),
        (
            f"Connections: {totals['opened']:,} opened: {report.connections:,} at first, as many"
            f" when all returned, {totals['reconnected']:,} when a worker was killed."
        ),
        (
            f"Answers, from the intended time of the message: p50 {message['p50'] * 1000:.2f} ms,"
            f" p99 {message['p99'] * 1000:.2f} ms, max {message['max'] * 1000:.0f} ms;"
            f" of this the load's own lateness: p99 {late['p99'] * 1000:.2f} ms."
        ),
        (
            f"Kernel memory of a connection, both ends: "
            f"{report.load['cost']['kernel_bytes_per_connection']:,.0f} B."
        ),
        kernel(report.figures["tcp"]),
        "",
        METHOD,
    ]
    return "\n".join(lines)


def kernel(events: dict[str, int]) -> str:
    """What explains waits of a second and more."""
    told = ", ".join(f"{name} {events.get(name, 0):,}" for name in KERNEL_EVENTS)
    return f"The kernel's own counts of the whole run: {told}."


METHOD = """\
## Method

- *The bare pair* is `benches/floor/epoll_pair.c`: processes with a listener and a level-triggered
  epoll each, that read into one buffer and answer `_ack|TOKEN` lines without looking at the rest.
  Its client opens flat out, holds, then sends a 64-byte counter on each connection in turn: with an
  `_ack` line and 256 unanswered a process, and again without. The same client drives the collector,
  so the ratios are of the servers. CPU is that of the processes, with loopback's soft interrupts.
- *The load* is `python -m agent load connections` as a library: opened at 40,000/s, idle, then one
  message a minute on each connection, times spread evenly, every message acknowledged. Its
  processes run with niceness 10, so that the collector keeps its share of the cores.
- *Idle* is user and system time of all processes of the collector while nothing is sent.
- *Memory of a connection* is the growth of private memory of all processes by the connections held;
  the whole server is the sum of PSS.
- *Storms*: `all vanish` resets every connection at once, `all return` opens them at once, flat out.
  A probe asks for /livez and /metrics over a new connection every 0.1 s, with niceness -20 because
  it stands for a client elsewhere; 200 other connections send a message each second. A timer beside
  the probe shows how late the machine itself was: no answer is in time while it stands still. When
  a worker is killed its connections die with it, theirs among them; in a rolling restart they go to
  its successor.
- As root the run raises `net.core.netdev_max_backlog` to 100,000 and puts it back at the end.
- Workers and processes of the load are as many as the limit of open files asks for.
"""
