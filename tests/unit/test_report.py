"""Reports: what the page and the terminal show of a result, and what they never let through."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.report import command
from agent.report import chart, quantity
from agent.report.html import EMBEDDED_BYTES_MAX, html
from agent.report.model import Moment, Result, from_data
from agent.report.text import text
from agent.report.timeline import condense
from results import result_data

VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """The elements of a page; fails where they are not nested."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.by_id: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("id") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1][1]:
            self.by_id[self._open[-1][1]] = data

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(
            name == tag and all(found.get(k) == v for k, v in attributes.items())
            for name, found in self.tags
        )


def result(**options: Any) -> Result:
    return from_data(result_data(**options))


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No address, no file: the policy forbids what the page does not use anyway."""
    source = html(result())
    page = Page(source)
    assert not re.findall(r"(?:https?:|//|url\(|@import)", source.replace("// ", ""))
    assert not [one for _, found in page.tags for one in found if one in ("src", "href")]
    [policy] = [
        found["content"] for _, found in page.tags if "http-equiv" in found and found["content"]
    ]
    [script] = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_verdict_comes_first_with_its_reasons() -> None:
    """Before any figure, in words."""
    source = html(result(outcome="fail"))
    verdict = source.index('<div class="verdict fail"><strong>Failed</strong>')
    assert verdict < source.index("17 connections were lost (17 broken)") < source.index("Figures")
    assert html(result()).count('<div class="verdict pass"><strong>Passed</strong>') == 1


def test_an_invalid_run_says_that_its_figures_say_nothing() -> None:
    """Whatever they are."""
    for view in (html, text):
        assert "these figures say nothing of the target" in view(result(outcome="invalid"))


def test_the_page_shows_everything_that_was_measured() -> None:
    """Targets, figures, four time lines with their phases, distributions, account, method."""
    page = Page(html(result()))
    assert page.count("svg", **{"class": "chart"}) == 6
    names = [found.get("data-chart") for tag, found in page.tags if tag == "svg"]
    assert names == ["open", "rates", "answers", "cpu", None, None]
    for words in (
        "missed",
        "not measured",
        "4.3 ms",
        "8,123 B",
        "33,113",
        "counted by the collector",
        "Example CPU @ 2.50GHz",
        "one each every 60 s",
        "Agent 0.1.0, Python 3.11.7",
    ):
        assert words in page.text
    assert page.texts.count("hold") == 4


def test_the_data_in_the_page_is_the_result() -> None:
    """It can be taken out again, complete."""
    page = Page(html(result()))
    assert from_data(json.loads(page.by_id["result"])) == result()
    charts = json.loads(page.by_id["charts"])
    assert len(charts["times"]) == 100
    assert set(charts["series"]) == {
        found["data-of"] for tag, found in page.tags if tag == "output" and found["data-of"]
    }
    assert all(len(values) == 100 for _, values in charts["series"].values())


HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "'><svg/onload=alert(1)>",
    "&lt;b&gt;<!--",
    "]]></style>\u2028",
]


def with_every_text(value: Any, payload: str) -> Any:
    """The same data, with the payload in each text and each name that a result may choose."""
    if isinstance(value, str):
        return payload
    if isinstance(value, dict):
        return {name: with_every_text(one, payload) for name, one in value.items()}
    return [with_every_text(one, payload) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("payload", HOSTILE)
def test_no_text_of_a_result_becomes_markup(payload: str) -> None:
    """The page has the same elements and attributes, whatever the texts are."""
    data = result_data(outcome="fail")
    data["totals"] |= {"failed": {"x": 1}, "lost": {"y": 2}}
    hostile = with_every_text(data, payload)
    hostile["verdict"]["outcome"] = "fail"
    hostile["status"] = "interrupted"
    data["status"] = "interrupted"
    for part, name in (("totals", "failed"), ("totals", "lost")):
        hostile[part][name] = {payload: 1}
    hostile["latency"][payload] = hostile["latency"]["message"]
    data["latency"]["other"] = data["latency"]["message"]
    calm, wild = Page(html(from_data(data))), Page(html(from_data(hostile)))

    def shape(page: Page) -> list[tuple[str, list[str]]]:
        # Room for a phase's name depends on its length.
        return [(tag, sorted(found)) for tag, found in page.tags if found.get("class") != "phase"]

    assert shape(wild) == shape(calm)
    assert json.loads(wild.by_id["result"])["plan"]["target"] == payload


def test_no_text_of_a_result_steers_the_terminal() -> None:
    """Escape sequences and new lines come out as question marks."""
    data = with_every_text(result_data(), "\x1b]0;owned\x07\r\n\x9b31m")
    data["verdict"]["outcome"] = "pass"
    data["totals"]["failed"] = {"\x1b[2J": 1}
    for colour in (False, True):
        told = text(from_data(data), colour=colour)
        ours = re.sub(r"\x1b\[(?:0|2|1;3[123])m", "", told) if colour else told
        assert all(c.isprintable() or c == "\n" for c in ours)
        assert "?]0;owned???" in ours


def test_a_run_of_a_day_makes_a_page_of_ordinary_size() -> None:
    """86,400 points are drawn as 400; the page says so, and what was done to them."""
    source = html(result(seconds=86_400))
    assert len(source) < EMBEDDED_BYTES_MAX + 256 * 1024
    page = Page(source)
    assert "86,400 points are drawn as 400" in page.text
    assert len(json.loads(page.by_id["charts"])["times"]) == 400
    assert len(json.loads(page.by_id["result"])["timeline"]) == 400
    assert "Its time line is the condensed one" in page.text


def moments(values: list[tuple[int, float | None]]) -> list[Moment]:
    return [
        Moment(t=i + 1.0, open=n, failed_per_s=float(n), sent_per_s=float(n), p99_s=p99)
        for i, (n, p99) in enumerate(values)
    ]


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.none() | st.floats(0, 100)), max_size=500),
    st.integers(1, 60),
)
def test_condensing_keeps_ends_and_peaks(
    values: list[tuple[int, float | None]], points: int
) -> None:
    """The last count, the highest p99 and the worst second survive; the mean rate does too."""
    given_ones = moments(values)
    short = condense(given_ones, points)
    assert len(short) <= points or len(short) == len(given_ones)
    if not values:
        assert short == []
        return
    assert (short[-1].t, short[-1].open) == (given_ones[-1].t, given_ones[-1].open)
    assert max(m.failed_per_s for m in short) == max(m.failed_per_s for m in given_ones)
    peaks = [
        max((m.p99_s for m in ms if m.p99_s is not None), default=None)
        for ms in (short, given_ones)
    ]
    assert peaks[0] == peaks[1]


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 10**9)), max_size=200))
def test_a_distribution_loses_no_count(buckets: list[tuple[float, int]]) -> None:
    """However the buckets lie, the bars hold them all."""
    bars, edges = chart.rebin(buckets)
    assert sum(bars) == sum(n for _, n in buckets)
    assert edges == sorted(edges)
    assert len(edges) == len(bars) + 1 <= chart.BARS + 1


@given(st.lists(st.none() | st.floats(0, 1e15), max_size=50), st.floats(0, 1e15))
def test_an_axis_has_room_for_every_value(values: list[float | None], least: float) -> None:
    """And its ticks are within the picture."""
    for scale in (chart.linear(values, least), chart.logarithmic(values)):
        for value in [*(v for v in values if v is not None), *scale.ticks]:
            assert chart.TOP - 0.01 <= scale.y(value) <= chart.BOTTOM + 0.01
    linear = chart.linear(values, least)
    assert linear.high >= max([least, *(v for v in values if v is not None)]) * 0.999


def test_a_gap_breaks_the_line_and_a_lone_value_is_a_dot() -> None:
    """Nothing is drawn where nothing was measured."""
    line = chart.Line("p99", "blue", [1.0, 2.0, None, 3.0])
    source = chart.time_chart([1, 2, 3, 4], [line], chart.linear([3]), [], name="x", title="X")
    [path] = re.findall(r'<path class="line blue" d="([^"]+)"', source)
    assert path.count("M") == 2
    dot = path.rpartition("M")[2].split("L")
    assert dot[0] == dot[1]


def test_a_run_that_ended_before_it_began_has_a_page_too() -> None:
    """No time line, no latency, no figures: the verdict is still told."""
    least = {
        "schema": 1,
        "kind": "connections",
        "started": "",
        "plan": {"connections": 10},
        "verdict": {"outcome": "invalid", "reasons": ["no executor started"]},
        "totals": {},
    }
    told = from_data(least)
    page = Page(html(told))
    assert "no executor started" in page.text
    assert page.count("svg") == 0
    assert "no executor started" in text(told)
    quiet = msgspec.structs.replace(told, timeline=[Moment(t=0.0)])
    assert Page(html(quiet)).count("svg") == 1


def with_every_number(value: Any, number: float) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {name: with_every_number(one, number) for name, one in value.items()}
    if isinstance(value, list):
        return [with_every_number(one, number) for one in value]
    return type(value)(number)


@pytest.mark.parametrize("number", [0, 5e-324, 1e-12, 1, 1e12])
def test_no_number_breaks_a_view(number: float) -> None:
    """From the smallest there is to the largest that a result may have, everywhere at once."""
    data = with_every_number(result_data(), number) | {"schema": 1}
    page = Page(html(from_data(data)))
    assert page.count("svg") > 0
    assert "nan" not in " ".join(str(found) for _, found in page.tags)
    assert text(from_data(data))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0, "0 s"), (4.1e-7, "0.41 µs"), (0.00041, "410 µs"), (0.0009999, "1 ms"),
     (0.0043, "4.3 ms"), (1.234, "1.23 s"), (119, "119 s"), (240, "4 min")],
)  # fmt: skip
def test_durations_have_three_digits_and_a_fitting_unit(seconds: float | None, words: str) -> None:
    """From nanoseconds to minutes."""
    assert quantity.duration(seconds) == words


def test_all_is_100_per_cent_and_almost_all_is_not() -> None:
    """One message in a million that is missing must be seen."""
    assert quantity.ratio(1_000_000, 1_000_000) == "100 %"
    assert quantity.ratio(999_999, 1_000_000) == "over 99.9 %"
    assert quantity.ratio(0, 0) == "–"


def test_what_is_wrong_in_the_account_is_marked() -> None:
    """A message that is neither answered nor lost, and a total that does not fit."""
    data = result_data()
    data["totals"] |= {"messages_acked": 999_990, "counted_by_collector": 999_980}
    source = html(from_data(data))
    bad = re.findall(r'<tr class="bad"[^>]*><th scope="row">([^<]+)</th>', source)
    assert bad == ["difference", "counted by the collector"]
    assert "999,990 of 1,000,000 messages were answered" in source
    marked = [
        line.split("  ")[1] for line in text(from_data(data)).splitlines() if line.endswith("!")
    ]
    assert marked == ["difference", "counted by the collector"]


def test_the_text_ends_with_the_verdict() -> None:
    """Where the eye is after a run, with the reasons."""
    lines = text(result(outcome="fail")).splitlines()
    assert lines[-2].startswith("Failed: All 1,000,000 connections were held for 60 s")
    assert lines[-1] == "  - 17 connections were lost (17 broken)"
    assert "\x1b" not in text(result())


def run(*arguments: str, given: bytes = b"") -> Any:
    return CliRunner().invoke(command, arguments, input=given, standalone_mode=False)


def test_the_command_shows_a_file_or_makes_a_page(tmp_path: Path) -> None:
    """From a file or standard input."""
    document = msgspec.json.encode(result_data())
    file, page = tmp_path / "result.json", tmp_path / "out.html"
    file.write_bytes(document)
    shown = run(str(file))
    assert (shown.return_value, shown.output) == (0, text(result()))
    assert run("-", given=document).output == text(result())
    made = run(str(file), "--html", str(page))
    assert (made.return_value, made.stdout) == (0, "")
    assert page.read_text(encoding="utf-8") == html(result())


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    """66 for no file, 65 for one that is no result, 73 for a page that cannot be written."""
    missing = run(str(tmp_path / "none.json"))
    assert missing.return_value == 66
    assert "none.json: No such file or directory" in missing.stderr
    damaged = run("-", given=b'{"schema": 9}')
    assert (damaged.return_value, damaged.stderr) == (
        65,
        "Error: -: a result of schema 9; this version reads 1\n",
    )
    refused = run(
        "-", "--html", str(tmp_path / "no" / "x"), given=msgspec.json.encode(result_data())
    )
    assert refused.return_value == 73
