"""The published description of a push."""

from __future__ import annotations

import json

import msgspec
import pytest

from agent.schema import Sample, schema, schema_json

GOOD = [
    {"name": "a", "type": "counter", "value": 1},
    {"name": "a", "type": "set", "values": ["x", 3]},
    {"name": "a", "type": "timer", "values": [1.5], "unit": "ms", "rate": 0.5, "help": "h"},
    {"name": "a", "type": "gauge", "value": -1, "labels": {"a": "x", "b": 1, "c": True}},
    {"name": "a", "type": "gauge", "value": 1, "labels": None, "unit": None, "rate": None},
]
BAD = [
    {"type": "counter", "value": 1},
    {"name": "", "type": "counter", "value": 1},
    {"name": "a", "type": "meter", "value": 1},
    {"name": "a", "type": "counter", "value": 1, "vlaue": 1},
    {"name": "a", "type": "gauge", "value": 1, "rate": 0},
    {"name": "a", "type": "gauge", "value": 1, "unit": "furlongs"},
    {"name": "a", "type": "gauge", "values": []},
    {"name": "a", "type": "gauge", "value": 1, "labels": {"a": []}},
]


@pytest.mark.parametrize("sample", GOOD)
def test_good_samples_fit(sample: dict[str, object]) -> None:
    assert msgspec.convert(sample, Sample).name == "a"


@pytest.mark.parametrize("sample", BAD)
def test_bad_samples_do_not(sample: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(sample, Sample)


def test_every_reference_of_the_schema_exists() -> None:
    document = json.loads(schema_json())
    assert document == schema()
    text = schema_json()
    for name in document["$defs"]:
        assert f"#/$defs/{name}" in text or name == "Report"
    assert text.count('"$ref":"#/$defs/') >= 3
    assert set(document["$defs"]) == {"Sample", "Report", "Refusal"}
    assert document["$defs"]["Sample"]["additionalProperties"] is False
