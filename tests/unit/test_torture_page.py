"""The check that every page of a torture goes through: what a scraper refuses is an error."""

from __future__ import annotations

import pytest

import agent
from agent.torture.page import Page, PageError

GOOD = b"""# HELP a_total A.
# TYPE a_total counter
a_total{x="1",y="a \\"b\\" \\\\ \\n"} 1
a_total{x="2",y=""} 2.5
# HELP h H.
# TYPE h histogram
h_bucket{le="1.0"} 1
h_bucket{le="+Inf"} 3
h_sum 7
h_count 3
# TYPE s summary
s{quantile="0.5"} NaN
s_sum -1
s_count 0
# TYPE g gauge
g -Inf
"""


def test_a_good_page_is_read() -> None:
    """Values by name and labels, and sums over series."""
    page = Page(GOOD)
    assert page.total("a_total") == 3.5
    assert page.value("a_total", x="2", y="") == 2.5
    assert page.value("a_total", x="2") is None
    assert page.total("h_count") == 3
    assert page.total("nothing") == 0
    assert page.types == {"a_total": "counter", "h": "histogram", "s": "summary", "g": "gauge"}


def test_only_a_line_feed_ends_a_line() -> None:
    """Label values may hold what else is a line's end to Python."""
    page = Page('a{x="1\x1c2\r\u20283"} 4\n'.encode())
    assert page.value("a", x="1\x1c2\r\u20283") == 4


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"g -Inf\n", b"g -Inf\ng 1\n", "the series is there twice"),
        (b'x="2"', b'x="2",x="3"', "a label is there twice"),
        (b'x="2"', b"x=2", "the labels cannot be read"),
        (b"} 2.5", b"} -2.5", "negative"),
        (b"} 2.5", b"} NaN", "not a number"),
        (b"} 2.5", b"} two", "'two' is no number"),
        (b"g -Inf", b"g", "this is no sample"),
        (b"# TYPE g gauge", b"# TYPE a_total gauge", "the family a_total is there twice"),
        (b"# TYPE g gauge", b"# TYPE g gouge", "'gouge' is no type"),
        (b"g -Inf\n", b"g 1\na_total 1\n", "samples of a_total do not stand together"),
        (b'le="1.0"} 1', b'le="1.0"} 4', "buckets do not ascend"),
        (b"h_count 3", b"h_count 4", "the last bucket is not the count"),
        (b'h_bucket{le="+Inf"} 3\n', b"", "the last bucket is not the count"),
        (b"h_count 3\n", b"", "not of the same series"),
        (b'h_bucket{le="1.0"} 1', b'h_bucket{x="1.0"} 1', "a bucket has no bound"),
        (b"g -Inf\n", b"g -Inf", "ends within a line"),
        (b"g -Inf", b"g \xff", "not UTF-8"),
    ],
)
def test_a_page_that_would_be_refused_is_an_error(old: bytes, new: bytes, reason: str) -> None:
    """Each with its own reason."""
    assert GOOD.count(old) == 1
    with pytest.raises(PageError, match=reason):
        Page(GOOD.replace(old, new))


def test_pages_of_the_product_pass() -> None:
    """All kinds of metrics, with labels that need escapes."""
    registry = agent.Registry()
    agent.Counter("c", 'C "quoted"\n.', ["x"], registry=registry).labels('a"b\\c\n').inc()
    agent.Histogram("h", "H.", registry=registry).observe(0.3)
    agent.Histogram("n", "N.", native=True, registry=registry).observe(0.3)
    agent.Summary("s", "S.", registry=registry).observe(-1)
    agent.Gauge("g", "G.", registry=registry).set(float("nan"))
    page = Page(bytes(registry.render()))
    assert page.value("c_total", x='a\\"b\\\\c\\n') == 1
    assert page.total("h_count") == page.total("n_count") == page.total("s_count") == 1
