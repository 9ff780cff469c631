"""A page in the text format, read strictly: what a scraper would refuse is an error here. Pure.

Purpose: the check that every page of a torture goes through, without a library: each family once
and its samples together, each series once, finite counters that are not negative, buckets that
ascend and end at the count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: -?\d+)?\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|\Z)')
TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}
SUFFIXES = {
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
}

Labels = tuple[tuple[str, str], ...]


class PageError(ValueError):
    """The page would be refused; says where and why."""


class Page:
    """The samples of a page that was checked."""

    def __init__(self, data: bytes) -> None:
        self.types: dict[str, str] = {}
        self.samples: dict[str, dict[Labels, float]] = {}
        self._closed: set[str] = set()
        self._family = ""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise PageError(f"the page is not UTF-8: {error}") from None
        if text and not text.endswith("\n"):
            raise PageError("the page ends within a line")
        # Only the line feed ends a line; label values may hold all the others that Python knows.
        for number, line in enumerate(text.split("\n"), 1):
            try:
                self._line(line)
            except PageError as error:
                raise PageError(f"line {number}: {error}: {line[:120]!r}") from None
        for name, kind in self.types.items():
            if kind == "histogram":
                self._check_histogram(name)

    def total(self, name: str) -> float:
        """The sum over all series of a sample's name; 0 where there is none."""
        return sum(self.samples.get(name, {}).values())

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get(name, {}).get(tuple(sorted(labels.items())))

    def _line(self, line: str) -> None:
        if not line:
            return
        if line.startswith("#"):
            words = line.split(" ", 3)
            if words[1:2] == ["TYPE"]:
                self._begin(words[2], words[3])
            return
        found = SAMPLE.match(line)
        if not found:
            raise PageError("this is no sample")
        name, inside, told = found.groups()
        family = self._family_of(name)
        labels = tuple(sorted(_labels(inside or "")))
        if len({label for label, _ in labels}) != len(labels):
            raise PageError("a label is there twice")
        series = self.samples.setdefault(name, {})
        if labels in series:
            raise PageError("the series is there twice")
        value = _number(told)
        kind = self.types.get(family, "untyped")
        is_counted = kind == "counter" or (kind != "gauge" and name.endswith(("_count", "_bucket")))
        if is_counted and not 0 <= value < math.inf:
            raise PageError("a counter is negative, infinite or not a number")
        series[labels] = value

    def _begin(self, name: str, kind: str) -> None:
        if kind not in TYPES:
            raise PageError(f"{kind!r} is no type")
        if name in self.types:
            raise PageError(f"the family {name} is there twice")
        self._turn_to(name)
        self.types[name] = kind

    def _family_of(self, name: str) -> str:
        """The family that a sample belongs to, which must be the one that was begun last."""
        kind = self.types.get(self._family, "")
        if any(self._family + suffix == name for suffix in SUFFIXES.get(kind, ("",))):
            return self._family
        self._turn_to(name)
        return name

    def _turn_to(self, family: str) -> None:
        if family in self._closed:
            raise PageError(f"samples of {family} do not stand together")
        if self._family:
            self._closed.add(self._family)
        self._family = family

    def _check_histogram(self, name: str) -> None:
        by_series: dict[Labels, list[tuple[float, float]]] = {}
        for labels, value in self.samples.get(f"{name}_bucket", {}).items():
            bound = dict(labels).get("le")
            if bound is None:
                raise PageError(f"{name}: a bucket has no bound")
            rest = tuple(pair for pair in labels if pair[0] != "le")
            by_series.setdefault(rest, []).append((_number(bound), value))
        counts = self.samples.get(f"{name}_count", {})
        if by_series.keys() != counts.keys():
            raise PageError(f"{name}: buckets and counts are not of the same series")
        for rest, buckets in by_series.items():
            values = [value for _, value in sorted(buckets)]
            if values != sorted(values):
                raise PageError(f"{name}{dict(rest)}: buckets do not ascend: {values}")
            if max(bound for bound, _ in buckets) != math.inf or values[-1] != counts[rest]:
                raise PageError(f"{name}{dict(rest)}: the last bucket is not the count")


def _labels(inside: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(inside):
        found = LABEL.match(inside, at)
        if not found:
            raise PageError("the labels cannot be read")
        yield found[1], found[2]
        at = found.end()


def _number(told: str) -> float:
    try:
        return float(told)
    except ValueError:
        raise PageError(f"{told!r} is no number") from None
