"""A report of torture as a page: one file that needs nothing from elsewhere. Pure.

Purpose: the verdict, what was done over time, every case as a bar of its time and a row of its
figures, and the report itself as JSON to take away. Style and charts are those of `agent.report`.

Every text is escaped; the content security policy allows the page's own style and nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape

import msgspec

from agent.report import chart
from agent.report.chart import Line
from agent.report.model import Phase
from agent.report.quantity import count, duration
from agent.report.style import CSS

from .outcome import Moment, Outcome, Report
from .text import SENTENCES, details, headline, method

TONES = {"held": "pass", "not held": "fail", "not run": "invalid"}
COLOURS = {"held": "green", "not held": "red", "not run": "orange"}
MARKS = {"held": "met", "not held": "missed", "not run": "unknown"}
POINTS_MAX = 400
BAR_HEIGHT, BAR_LEFT, BAR_RIGHT = 22, 190, 992
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html(report: Report) -> str:
    """The page."""
    title = f"Torture: {report.verdict}"
    document = msgspec.json.encode(report).decode().replace("<", "\\u003c")
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>",
            _heading(report, title),
            _verdict(report),
            _cards(report),
            _over_time(report),
            _bars(report),
            _cases(report),
            _method(report),
            f'</main><script type="application/json" id="report">{document}</script></body></html>',
            "\n",
        ]
    )


def _heading(report: Report, title: str) -> str:
    about = f"{report.started}, seed {report.seed}, {duration(report.seconds)}"
    return f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p></header>"


def _verdict(report: Report) -> str:
    reasons = [
        f"{one.kind}/{one.name}: {why}" for one in report.having("not held") for why in one.why
    ]
    reasons += [
        f"not run: {one.kind}/{one.name}: {why}"
        for one in report.having("not run")
        for why in one.why
    ]
    status = "" if report.status == "complete" else " (interrupted)"
    rows = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return (
        f'<div class="verdict {TONES[report.verdict]}"><strong>'
        f"{escape(SENTENCES[report.verdict])}</strong>{status}<p>{escape(headline(report))}</p>"
        f"{f'<ul>{rows}</ul>' if rows else ''}</div>"
    )


def _cards(report: Report) -> str:
    differences = [one.difference for one in report.outcomes if one.difference is not None]
    in_flight = sum(one.in_flight or 0 for one in report.outcomes)
    figures = [
        ("kills", count(report.kills)),
        ("updates acknowledged", count(report.operations)),
        ("pages checked", count(report.pages)),
        ("counted above acknowledged", f"{count(sum(differences))} of at most {count(in_flight)}"),
    ]
    cards = "".join(
        f'<div class="card"><span>{escape(label)}</span><b>{escape(value)}</b></div>'
        for label, value in figures
    )
    return _section("Figures", f'<div class="cards">{cards}</div>')


def _over_time(report: Report) -> str:
    """Kills and updates a second, with the cases as stretches of the time."""
    moments = _thin(report.timeline)
    if len(moments) < 2:
        return ""
    times = [moment.t for moment in moments]
    phases = [Phase(name=one.name, t0=one.t0, t1=one.t1) for one in report.spans]
    parts = []
    for field, title, colour in (
        ("kills", "Kills a second", "red"),
        ("operations", "Updates acknowledged a second", "blue"),
    ):
        values = _rates(moments, field)
        picture = chart.time_chart(
            times,
            [Line(title, colour, values, is_area=True)],
            chart.linear(values),
            phases,
            name=field,
            title=title,
        )
        parts.append(f"<figure><figcaption><b>{title}</b></figcaption>{picture}</figure>")
    return _section("Over time", "".join(parts))


def _thin(moments: Sequence[Moment]) -> list[Moment]:
    """At most POINTS_MAX, the last of each stretch: all values are totals."""
    each = -(-len(moments) // POINTS_MAX) or 1
    return [moments[min(at + each, len(moments)) - 1] for at in range(0, len(moments), each)]


def _rates(moments: Sequence[Moment], field: str) -> list[float | None]:
    rates: list[float | None] = [0.0]
    for before, now in itertools.pairwise(moments):
        seconds = now.t - before.t
        gained = getattr(now, field) - getattr(before, field)
        rates.append(max(0.0, gained / seconds) if seconds > 0 else None)
    return rates


def _bars(report: Report) -> str:
    """When each case ran, in the colour of what came of it."""
    end = max([one.t1 for one in report.spans], default=0.0)
    if not end:
        return ""
    status = {f"{one.kind}/{one.name}": one.status for one in report.outcomes}
    parts = []
    for number, span in enumerate(report.spans):
        y = number * BAR_HEIGHT
        left = BAR_LEFT + span.t0 / end * (BAR_RIGHT - BAR_LEFT)
        width = max(2.0, (span.t1 - span.t0) / end * (BAR_RIGHT - BAR_LEFT))
        told = status.get(span.name, "not run")
        parts.append(
            f'<text class="y" x="{BAR_LEFT - 8}" y="{y + 15}">{escape(span.name)}</text>'
            f'<path class="wide {COLOURS[told]}" d="M{left:.1f} {y + 11}h{width:.1f}">'
            f"<title>{escape(told)}: {escape(duration(span.t1 - span.t0))}</title></path>"
        )
    height = BAR_HEIGHT * len(report.spans)
    picture = (
        f'<svg role="img" viewBox="0 0 1000 {height}" aria-label="Cases over time">'
        f"{''.join(parts)}</svg>"
    )
    return _section("Cases", f"<figure>{picture}</figure>")


def _cases(report: Report) -> str:
    rows = "".join(map(_row, report.outcomes))
    head = '<th>case</th><th></th><th class="n">time</th><th>what was done</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="sheet">{table}</div>'


def _row(one: Outcome) -> str:
    reasons = "".join(f"<br>{escape(why)}" for why in one.why)
    name = escape(f"{one.kind}/{one.name}")
    return (
        f'<tr title="{escape(one.about)}"><th scope="row">{name}</th>'
        f'<td class="{MARKS[one.status]}">{escape(one.status)}</td>'
        f'<td class="n">{escape(duration(one.seconds))}</td>'
        f'<td class="note">{escape(details(one))}{reasons}</td></tr>'
    )


def _method(report: Report) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in method(report)
    )
    about = (
        "The report is in this file as JSON, in the element with the id <code>report</code>. The"
        " seed repeats whom, when and what; the order in which processes run is the kernel's."
    )
    sheet = f'<div class="sheet"><table><tbody>{rows}</tbody></table></div>'
    return _section("Method", f'<p class="about">{about}</p>{sheet}')


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"
