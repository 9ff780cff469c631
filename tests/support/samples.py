"""A rendered page as a table of its samples, read by prometheus_client's parsers."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

Labels = frozenset[tuple[str, str]]


def samples(page: bytes) -> dict[tuple[str, Labels], float]:
    """Value by name and labels. A sample that is there twice is a bad page."""
    text = page.decode()
    parse = open_metrics if text.endswith("# EOF\n") else prometheus
    table: dict[tuple[str, Labels], float] = {}
    for family in parse(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in table, f"{key} is there twice"
            table[key] = sample.value
    return table
