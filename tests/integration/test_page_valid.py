"""No mix of sources makes a page that a reader refuses, and every format shows the same samples.

Apps with any definitions and labels, pushed groups and StatsD senders, all with few names, so that
they clash; read by prometheus_client's strict parsers, by promtool, and by the field numbers of
protobuf.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

import agent
import protobuf_page
from collector import Collector, eventually

pytestmark = pytest.mark.peer

NUMBERS = itertools.count()
OPEN = "application/openmetrics-text"

NAMES = st.builds(
    "{}{}".format,
    st.sampled_from("xy"),
    st.sampled_from(["", "", "", "_total", "_created", "_sum", "_count", "_bucket", "_seconds"]),
)
LABEL_NAMES = ["a", "app", "exported_app", "job", "instance", "pid"]
LABELS = st.dictionaries(
    st.sampled_from(LABEL_NAMES), st.sampled_from(["", "s", "t", 'q"\\\n']), max_size=3
)
VALUES = st.lists(st.sampled_from([-3.5, -1.0, 0.0, 0.3, 1.0, 7.0, 1e9, 1e308]), max_size=4)
KINDS = st.sampled_from(["counter", "gauge", "all", "histogram", "below", "native", "summary"])
SERIES = st.tuples(NAMES, KINDS, LABELS, VALUES)
APP = st.lists(SERIES, max_size=5)
LINES = st.lists(
    st.tuples(NAMES, st.sampled_from(["c", "g", "ms", "h", "d", "s"]), LABELS, VALUES), max_size=5
)
PUSHED_KINDS = st.sampled_from(["counter", "gauge", "untyped", "histogram", "summary"])
FAMILIES = st.lists(
    st.tuples(NAMES, PUSHED_KINDS, LABELS, VALUES), max_size=5, unique_by=lambda family: family[0]
)
PATHS = st.sampled_from(
    [
        "job/j",
        "job/j/a/s",
        "job/j/app/s",
        "job/j/a@base64/=",
        "job/j/instance/s",
        "job/j/app/s0/a/s",
    ]
)
GROUPS = st.lists(st.tuples(PATHS, FAMILIES), max_size=3)

Series = list[tuple[str, str, dict[str, str], list[float]]]
Table = dict[tuple[str, frozenset[tuple[str, str]]], float]


def write_app(folder: str, app: str, prefix: str, series: Series) -> None:
    """An app of one process; what the library refuses is not there."""
    registry = agent.Registry(f"{folder}/{app}.v3.seg", app)
    makers: dict[str, Callable[..., agent.Metric]] = {
        "counter": agent.Counter,
        "gauge": agent.Gauge,
        "all": lambda *given, **more: agent.Gauge(*given, multiprocess_mode="all", **more),
        "histogram": lambda *given, **more: agent.Histogram(*given, buckets=[0.5, 1], **more),
        "below": lambda *given, **more: agent.Histogram(*given, buckets=[-2, 1], **more),
        "native": lambda *given, **more: agent.Histogram(*given, native=True, **more),
        "summary": agent.Summary,
    }
    for name, kind, labels, values in series:
        with contextlib.suppress(agent.AgentError):
            metric = makers[kind](prefix + name, "Help.", sorted(labels), registry=registry)
            one = metric.labels(**labels) if labels else metric
            for value in values:
                if isinstance(one, agent.Counter):
                    one.inc(abs(value))
                elif isinstance(one, agent.Gauge):
                    one.set(value)
                elif isinstance(one, agent.Histogram | agent.Summary):
                    one.observe(value)


def text_of(labels: dict[str, str], **more: str) -> str:
    escaped = {
        name: value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
        for name, value in (labels | more).items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def push(
    collector: Collector,
    path: str,
    prefix: str,
    pushed: Series,
) -> None:
    """A group; what the gateway refuses is not there."""
    lines = []
    for ending, kind, labels, values in pushed:
        name = prefix + ending
        lines.append(f"# TYPE {name} {kind}")
        total, count = sum(values), len(values)
        if kind == "histogram":
            below = sum(value <= -1 for value in values)
            lines.append(f"{name}_bucket{text_of(labels, le='-1')} {below}")
            lines.append(f"{name}_bucket{text_of(labels, le='+Inf')} {count}")
        elif kind == "summary":
            lines += [f"{name}{text_of(labels, quantile='1')} {value}" for value in values[:1]]
        else:
            lines += [f"{name}{text_of(labels)} {abs(value)}" for value in values[:1]]
            continue
        lines += [f"{name}_sum{text_of(labels)} {total}", f"{name}_count{text_of(labels)} {count}"]
    body = "".join(f"{line}\n" for line in lines).encode()
    request = urllib.request.Request(
        collector.url(f"/metrics/{path}"),
        data=body,
        method="PUT",
        headers={"Content-Type": "text/plain"},
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise


def delete(collector: Collector, path: str) -> None:
    request = urllib.request.Request(collector.url(f"/metrics/{path}"), method="DELETE")
    urllib.request.urlopen(request, timeout=30).close()


def send(collector: Collector, prefix: str, lines: Series) -> None:
    encoded = []
    for name, kind, labels, values in lines:
        tags = ",".join(
            f"{label}:{value}" for label, value in labels.items() if value in ("s", "t")
        )
        encoded += [
            f"{prefix}{name}:{abs(v) if kind == 'c' else v}|{kind}|#{tags}".encode() for v in values
        ]
    collector.send_tcp(encoded)


def table_of(families: Iterator[object]) -> Table:
    """Samples as a scraper stores them: without empty labels, bounds as numbers."""
    table: Table = {}
    for family in families:
        for sample in family.samples:  # type: ignore[attr-defined]
            put(table, sample.name, sample.labels, sample.value)
    return table


def put(table: Table, name: str, labels: dict[str, str], value: float) -> None:
    shown = {label: text for label, text in labels.items() if text}
    for bound in {"le", "quantile"} & shown.keys():
        shown[bound] = repr(float(shown[bound]))
    key = name, frozenset(shown.items())
    assert key not in table, f"{key} is there twice"
    table[key] = value


def shared(table: Table, prefix: str) -> Table:
    """What every format has to show, and the collector does not change between two pages."""
    return {
        (name, labels): value
        for (name, labels), value in table.items()
        if name.startswith(prefix) and not math.isnan(value)
    }


@pytest.fixture(scope="module")
def promtool() -> str:
    from shutil import which

    path = which("promtool")
    if path is None:
        message = "'promtool' is not installed; as root, `make test` installs it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return path


def pages(collector: Collector, prefix: str) -> tuple[str, str, bytes] | None:
    """The page in its three formats; nothing when a value has changed meanwhile, as of a set."""

    def plain() -> str:
        return collector.get("/metrics", Accept="text/plain")

    before, opened = plain(), collector.get("/metrics", Accept=OPEN)
    request = urllib.request.Request(
        collector.url("/metrics"), headers={"Accept": protobuf_page.ACCEPT}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        encoded = answer.read()
        assert answer.headers["Content-Type"].startswith("application/vnd.google.protobuf;")
    after = plain()
    rests = [re.findall(f"^{prefix}.*", text, re.MULTILINE) for text in (before, after)]
    return (after, opened, encoded) if rests[0] == rests[1] else None


@given(apps=st.lists(APP, max_size=2), lines=LINES, groups=GROUPS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mix_of_sources_makes_a_page_that_is_refused(
    collector: Collector,
    promtool: str,
    apps: list[Series],
    lines: Series,
    groups: list[tuple[str, Series]],
) -> None:
    """A clash costs the family or the series that came later, never the page."""
    prefix = f"e{next(NUMBERS)}_"
    names = [f"s{index}" for index in range(len(apps))]
    try:
        send(collector, prefix, lines)
        for name, series in zip(names, apps, strict=True):
            write_app(collector.dir, name, prefix, series)
        for path, pushed in groups:
            push(collector, path, prefix, pushed)
        text, opened, encoded = eventually(
            lambda: pages(collector, prefix), lambda found: found is not None, "a page that rests"
        ) or ("", "", b"")
    finally:
        for name in names:
            os.unlink(f"{collector.dir}/{name}.v3.seg")
        for path, _ in groups:
            delete(collector, path)
    # This parser gives a counter of another name a `_total` that it does not have.
    bare = re.compile(r"^(# TYPE \S+(?<!_total)) counter$", re.MULTILINE)
    plain = shared(table_of(prometheus(bare.sub(r"\1 untyped", text))), prefix)
    strict = table_of(open_metrics(opened))
    times = {key for key in strict if key[0].endswith("_created") and key not in plain}
    assert plain == shared({k: v for k, v in strict.items() if k not in times}, prefix)
    message: Table = {}
    for (name, labels), value in protobuf_page.samples(encoded).items():
        put(message, name, dict(labels), value)
    assert plain == shared(message, prefix)
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # 3 is advice about names; these are what they are.
    assert checked.returncode in (0, 3), checked.stderr
    assert "error" not in checked.stderr, checked.stderr
