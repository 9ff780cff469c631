"""Results: written, read back, and refused with a reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.lab import machine
from agent.lab.account import Account
from agent.lab.plan import Plan as LoadPlan
from agent.lab.result import Facts, build
from agent.report import model
from results import result_data


def test_what_is_written_is_read_back() -> None:
    """Nothing is lost on the way through a file."""
    result = model.from_data(result_data())
    assert model.read(model.write(result)) == result


def test_a_later_version_may_add_fields() -> None:
    """What is not known here is ignored, at every depth."""
    data = result_data()
    data["weather"] = "fine"
    data["totals"]["sung"] = 3
    data["timeline"][0]["mood"] = None
    assert model.read(msgspec.json.encode(data)) == model.from_data(result_data())


def unread(written: Any, read: Any, path: str = "$") -> list[str]:
    """Places of what is in the document and not in the result."""
    if isinstance(written, dict):
        found = [f"{path}.{name}" for name in written if name not in read]
        for name in written.keys() & read.keys():
            found += unread(written[name], read[name], f"{path}.{name}")
        return found
    if isinstance(written, list):
        return [place for pair in zip(written, read, strict=True) for place in unread(*pair, path)]
    return []


def test_every_field_that_a_run_writes_is_read() -> None:
    """What the load laboratory measures and what a report shows have the same names."""
    account = Account()
    account.server_cpu(0, 0.5)
    plan = LoadPlan(connections=10, target="127.0.0.1:8125")
    facts = Facts(plan=plan, executors=1, machine=machine.describe(), started="now")
    document = build(facts, account, [{"name": "open", "t0": 0.0, "t1": 1.0}])
    assert document["timeline"]
    assert unread(document, msgspec.to_builtins(model.from_data(document))) == []


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "an object with `schema` is expected"),
        (b'{"kind": "connections"}', "an object with `schema` is expected"),
        (b'{"schema": 7}', "a result of schema 7; this version reads 1"),
        (b'{"schema": 1}', "not a result: Object missing required field `kind`"),
        (b"[" * 100_000, "not JSON|nested too deeply"),
    ],
)
def test_what_is_no_result_is_refused_with_a_reason(document: bytes, sentence: str) -> None:
    """A sentence, never a trace."""
    with pytest.raises(model.ReportError, match=sentence):
        model.read(document)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("plan", "connections"), -1, r"\$\.plan\.connections"),
        (("verdict", "outcome"), "great", r"\$\.verdict\.outcome"),
        (("timeline", 0, "p99_s"), "fast", r"\$\.timeline\[0\]\.p99_s"),
        (("latency", "message", "buckets"), [[1]], r"\$\.latency\[\.\.\.\]\.buckets"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    path: tuple[str | int, ...], value: object, where: str
) -> None:
    """The path into the document stands in the message."""
    data: Any = result_data()
    inner = data
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    for read in (model.from_data, lambda data: model.read(msgspec.json.encode(data))):
        with pytest.raises(model.ReportError, match=where):
            read(data)
