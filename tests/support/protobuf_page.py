"""A page in protobuf as a table, read by the field numbers of `io.prometheus.client`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

ACCEPT = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
TYPES = ("counter", "gauge", "summary", "unknown", "histogram")


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, int, float or bytes) of each field of a message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
            yield key >> 3, value
        elif key & 7 == 1:
            yield key >> 3, struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            assert key & 7 == 2, f"wire type {key & 7}"
            length, at = varint(data, at)
            assert at + length <= len(data), "a field that is cut short"
            yield key >> 3, data[at : at + length]
            at += length


def all_of(message: bytes, number: int) -> list[Any]:
    return [value for field, value in fields(message) if field == number]


def one(message: bytes, number: int, default: Any = 0) -> Any:
    found = all_of(message, number)
    assert len(found) <= 1, f"field {number} is there {len(found)} times"
    return found[0] if found else default


def families(
    page: bytes,
) -> Iterator[tuple[str, str, list[tuple[frozenset[tuple[str, str]], bytes]]]]:
    """(name, type, [(labels, value message)]) of each family."""
    at = 0
    value_field = {"counter": 3, "gauge": 2, "summary": 4, "unknown": 5, "histogram": 7}
    while at < len(page):
        length, at = varint(page, at)
        family, at = page[at : at + length], at + length
        kind = TYPES[one(family, 3)]
        metrics = []
        for metric in all_of(family, 4):
            pairs = [(one(p, 1, b"").decode(), one(p, 2, b"").decode()) for p in all_of(metric, 1)]
            assert len(dict(pairs)) == len(pairs), f"a label is there twice: {pairs}"
            metrics.append((frozenset(pairs), one(metric, value_field[kind], b"")))
        yield one(family, 1, b"").decode(), kind, metrics


def samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Value by name and labels, as the text formats have them; bounds as `float` writes them."""
    table: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def put(name: str, labels: frozenset[tuple[str, str]], value: float) -> None:
        assert (name, labels) not in table, f"{name}{set(labels)} is there twice"
        table[name, labels] = value

    seen = set()
    for name, kind, metrics in families(page):
        assert name not in seen, f"{name} is there twice"
        seen.add(name)
        for labels, value in metrics:
            if kind not in ("histogram", "summary"):
                put(name, labels, one(value, 1, 0.0))
                continue
            put(f"{name}_count", labels, one(value, 1))
            put(f"{name}_sum", labels, one(value, 2, 0.0))
            for point in all_of(value, 3):
                if kind == "histogram":
                    bound = ("le", repr(one(point, 2, 0.0)))
                    put(f"{name}_bucket", labels | {bound}, one(point, 1))
                else:
                    put(name, labels | {("quantile", repr(one(point, 1, 0.0)))}, one(point, 2, 0.0))
    return table
