"""What `/v1/schema` publishes is what `/v1/push` takes and answers."""

from __future__ import annotations

import json
import urllib.request

import msgspec
import pytest

from agent.schema import Report, schema
from collector import DEADLINE_S, Collector

GOOD = {"name": "pushed", "type": "counter", "value": 1}
BAD = {"name": "pushed", "type": "counter", "value": -1}


def push(collector: Collector, body: str, content_type: str) -> bytes:
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(collector.url("/v1/push"), body.encode(), headers)
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        assert answer.status == 207
        data: bytes = answer.read()
    return data


def test_the_schema_is_the_one_of_this_version(collector: Collector) -> None:
    assert json.loads(collector.get("/v1/schema")) == schema()


@pytest.mark.parametrize("form", ["json", "x-ndjson"])
def test_the_answer_is_what_the_schema_says(collector: Collector, form: str) -> None:
    """No field more and none less, so that a client made from the schema can read it."""
    samples = [GOOD, BAD, GOOD]
    body = json.dumps(samples) if form == "json" else "\n".join(map(json.dumps, samples))
    answer = push(collector, body, f"application/{form}")
    report = msgspec.json.decode(answer, type=Report)
    assert (report.accepted, report.rejected) == (2, 1)
    [error] = report.errors
    assert (error.index, error.reason) == (1, "value_negative")
    assert error.line == (2 if form == "x-ndjson" else msgspec.UNSET)
    assert set(json.loads(answer)) == set(schema()["$defs"]["Report"]["properties"])
