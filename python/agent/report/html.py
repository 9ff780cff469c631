"""A result as a page: one file that needs nothing from elsewhere, on any browser, for years. Pure.

Purpose: the verdict first, then the promises, the figures, the time lines, the distributions, the
account, how it was measured, and the whole result as data to take away.

Every text of the result is escaped; the content security policy allows the page's own style and
script and nothing else: no address is ever contacted.

Limits: time lines are condensed to POINTS_MAX points for drawing. The result that is put into the
page is complete up to EMBEDDED_BYTES_MAX; above that its time line is the condensed one, and the
page says so.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from html import escape

import msgspec

from . import chart
from .chart import Line, Values
from .model import Moment, Result
from .quantity import NOTHING, count, duration, short
from .style import CSS, JAVASCRIPT
from .summary import (
    OUTCOMES,
    PERCENTILES,
    Row,
    account,
    figures,
    headline,
    latencies,
    method,
)
from .timeline import condense

EMBEDDED_BYTES_MAX = 768 * 1024
TITLES = {"connections": "Many connections"}
UNITS: dict[str, Callable[[float], str]] = {
    "count": count,
    "duration": duration,
    "cores": lambda value: f"{value:.2f}",
}


class Drawing(msgspec.Struct, frozen=True):
    """A chart with its heading, its unit and its lines."""

    name: str
    title: str
    unit: str
    lines: list[Line]
    scale: chart.Scale
    mark: tuple[float, str] | None = None


def html(result: Result) -> str:
    """The page."""
    title = f"{TITLES.get(result.kind, result.kind)}: {OUTCOMES[result.verdict.outcome].lower()}"
    moments = condense(result.timeline)
    drawings = _drawings(result, moments)
    script = base64.b64encode(hashlib.sha256(JAVASCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    document, note = _document(result, moments)
    body = [
        _heading(result),
        _verdict(result),
        _targets(result),
        _figures(result),
        _over_time(result, moments, drawings),
        _latency(result),
        _accounts(result),
        _data(note),
    ]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>",
            *body,
            "</main>",
            _embed("result", document),
            _embed("charts", msgspec.json.encode(_cursor_data(moments, drawings))),
            f"<script>{JAVASCRIPT}</script></body></html>\n",
        ]
    )


def _heading(result: Result) -> str:
    plan, machine = result.plan, result.machine
    title = TITLES.get(result.kind, result.kind)
    line = f"{count(plan.connections)} to {plan.target} ({plan.protocol}), {result.started}"
    where = (
        f"{machine.cores} × {machine.cpu}, Linux {machine.kernel}, Agent {machine.agent_version}"
    )
    return f"<header><h1>{escape(title)}</h1><p>{escape(line)}</p><p>{escape(where)}</p></header>"


def _verdict(result: Result) -> str:
    verdict = result.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    status = "" if result.status == "complete" else f" ({escape(result.status)})"
    return (
        f'<div class="verdict {verdict.outcome}"><strong>{OUTCOMES[verdict.outcome]}</strong>'
        f"{status}<p>{escape(headline(result))}</p>{f'<ul>{reasons}</ul>' if reasons else ''}</div>"
    )


def _targets(result: Result) -> str:
    if not result.targets:
        return ""
    marks = {True: ("met", "met"), False: ("missed", "missed"), None: ("unknown", "not measured")}
    rows = [
        f'<tr><th scope="row">{escape(one.name)}</th><td class="n">{escape(one.wanted)}</td>'
        f'<td class="n">{escape(one.got)}</td><td class="{marks[one.met][0]}">{marks[one.met][1]}'
        "</td></tr>"
        for one in result.targets
    ]
    head = '<th>what</th><th class="n">wanted</th><th class="n">measured</th><th></th>'
    return _section("Targets", _table(head, rows))


def _figures(result: Result) -> str:
    cards = "".join(
        f'<div class="card"><span>{escape(one.label)}</span><b>{escape(one.value)}</b>'
        f"<span>{escape(one.note)}</span></div>"
        for one in figures(result)
    )
    return _section("Figures", f'<div class="cards">{cards}</div>')


# --- charts -------------------------------------------------------------------------------------


def _drawings(result: Result, moments: Sequence[Moment]) -> list[Drawing]:
    """The charts of the time line; one without any value is left out."""
    plan, cores = result.plan, float(result.machine.cores)

    def values(field: str) -> Values:
        return [getattr(moment, field) for moment in moments]

    is_open, wanted = values("open"), float(plan.connections)
    rates = [
        Line("opened", "blue", values("opened_per_s")),
        Line("messages sent", "purple", values("sent_per_s"), is_wide=True),
        Line("answered", "green", values("acked_per_s")),
        Line("failed", "red", values("failed_per_s")),
        Line("lost", "orange", values("lost_per_s")),
    ]
    rates = [line for line in rates if any(line.values)]
    answers = [
        Line("p99", "orange", values("p99_s")),
        Line("p50", "blue", values("p50_s")),
    ]
    used = [
        Line("server", "orange", values("server_cpu")),
        Line("client", "blue", values("client_cpu")),
    ]
    drawings = [
        Drawing(
            "open",
            "Open connections",
            "count",
            [Line("open", "blue", is_open, is_area=True)],
            chart.linear(is_open, wanted),
            (wanted, "wanted"),
        ),
        Drawing("rates", "Rates, a second", "count", rates, chart.linear(_all(rates))),
        Drawing(
            "answers", "Time to the answer", "duration", answers, chart.logarithmic(_all(answers))
        ),
        Drawing(
            "cpu",
            "CPU, in cores",
            "cores",
            used,
            chart.linear(_all(used), cores),
            (cores, "all cores"),
        ),
    ]
    return [one for one in drawings if any(value is not None for value in _all(one.lines))]


def _all(lines: Iterable[Line]) -> list[float | None]:
    return [value for line in lines for value in line.values]


def _over_time(result: Result, moments: Sequence[Moment], drawings: Sequence[Drawing]) -> str:
    if not moments:
        return ""
    times = [moment.t for moment in moments]
    parts = []
    for one in drawings:
        picture = chart.time_chart(
            times,
            one.lines,
            one.scale,
            result.phases,
            name=one.name,
            title=f"{one.title} over time",
            tick=duration if one.unit == "duration" else short,
            mark=one.mark,
        )
        parts.append(f"<figure>{_caption(one)}{picture}</figure>")
    about = (
        "All charts have the same time axis. The numbers beside the names are the highest values."
    )
    if len(result.timeline) > len(moments):
        about += (
            f" {count(len(result.timeline))} points are drawn as {count(len(moments))}: counts at"
            " the end of each stretch, rates and CPU as its mean, p99, failures and losses as"
            " its highest."
        )
    return _section("Over time", f'<p class="about">{about}</p>{"".join(parts)}')


def _caption(drawing: Drawing) -> str:
    legend = []
    for number, line in enumerate(drawing.lines):
        highest = max((value for value in line.values if value is not None), default=None)
        shown = NOTHING if highest is None else UNITS[drawing.unit](highest)
        legend.append(
            f'<span><i class="{line.colour}"></i>{escape(line.name)}'
            f' <output data-of="{drawing.name}.{number}">{escape(shown)}</output></span>'
        )
    title = f'<b>{escape(drawing.title)}</b><span><output data-of=""></output></span>'
    return f"<figcaption>{title}{''.join(legend)}</figcaption>"


def _cursor_data(moments: Sequence[Moment], drawings: Sequence[Drawing]) -> dict[str, object]:
    series = {
        f"{one.name}.{number}": (one.unit, line.values)
        for one in drawings
        for number, line in enumerate(one.lines)
    }
    return {
        "times": [moment.t for moment in moments],
        "series": series,
        "width": chart.WIDTH,
        "left": chart.LEFT,
        "right": chart.RIGHT,
    }


def _latency(result: Result) -> str:
    recorded = latencies(result)
    if not recorded:
        return ""
    head = '<th>what</th><th class="n">count</th>'
    head += "".join(f'<th class="n">{name}</th>' for name in (*PERCENTILES, "mean"))
    rows = []
    for name, meaning, told in recorded:
        cells = "".join(
            f'<td class="n">{escape(duration(getattr(told, field)))}</td>'
            for field in (*PERCENTILES, "mean")
        )
        rows.append(
            f'<tr title="{escape(meaning)}"><th scope="row">{escape(name)}</th>'
            f'<td class="n">{count(told.count)}</td>{cells}</tr>'
        )
    pictures = []
    for name, meaning, told in recorded:
        if name in ("message", "connect") and told.buckets:
            shown = [(p, v) for p in PERCENTILES if (v := getattr(told, p)) is not None]
            title = f"Distribution: {name}"
            picture = chart.distribution_chart(told.buckets, shown, title=title)
            caption = f"<b>{escape(title)}</b><span>{escape(meaning)}</span>"
            pictures.append(f"<figure><figcaption>{caption}</figcaption>{picture}</figure>")
    return _section("Latency", "".join(pictures) + _table(head, rows))


# --- tables and data ----------------------------------------------------------------------------


def _accounts(result: Result) -> str:
    parts = [_section("Account", _rows(account(result))), _section("Method", _rows(method(result)))]
    return f'<div class="two">{"".join(parts)}</div>'


def _rows(rows: Iterable[Row]) -> str:
    told = []
    for row in rows:
        bad = ' class="bad"' if row.is_bad else ""
        title = f' title="{escape(row.note)}"' if row.note else ""
        told.append(
            f'<tr{bad}{title}><th scope="row">{escape(row.label)}</th>'
            f'<td class="n">{escape(row.value)}</td></tr>'
        )
    return _table("", told)


def _table(head: str, rows: Sequence[str]) -> str:
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="sheet"><table>{top}<tbody>{"".join(rows)}</tbody></table></div>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _data(note: str) -> str:
    about = (
        "The result is in this file as JSON, in the element with the id <code>result</code>."
        f" <code>agent-metrics report result.json</code> shows it on a terminal.{note}"
    )
    button = '<button id="save" type="button" hidden>Save result.json</button>'
    return _section("Data", f'<p class="about">{about}</p>{button}')


def _document(result: Result, moments: Sequence[Moment]) -> tuple[bytes, str]:
    """The result to embed, and what is to be said about it."""
    document = msgspec.json.encode(result)
    if len(document) <= EMBEDDED_BYTES_MAX:
        return document, ""
    short_one = msgspec.structs.replace(result, timeline=list(moments))
    return msgspec.json.encode(short_one), " Its time line is the condensed one, for its size."


def _embed(name: str, document: bytes) -> str:
    """JSON in an element that no browser runs; `<` is written so that nothing can end it."""
    text = document.decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return f'<script type="application/json" id="{name}">{text}</script>'
