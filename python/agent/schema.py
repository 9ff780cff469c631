"""The JSON of `POST /v1/push` and of its answer, described by msgspec structs and published at
`/v1/schema`.

Purpose: a description for senders, editors and validators. The collector itself decodes in Rust; a
test sends what is described here and checks that both agree.

A body is one sample, an array of samples, or NDJSON (one sample a line). Each sample is accepted or
refused by itself.

Not promised: that a sample which fits this schema is accepted; limits and conflicts with existing
metrics come on top.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

VALUE = (
    "Members of a set are text that is not empty, or whole numbers; all other values are finite "
    "numbers, and those of a counter are not negative."
)
Unit = Literal[
    "seconds",
    "s",
    "milliseconds",
    "ms",
    "microseconds",
    "us",
    "nanoseconds",
    "ns",
    "bytes",
    "ratio",
    "percent",
    "celsius",
    "meters",
    "volts",
    "amperes",
    "joules",
    "grams",
]


class Sample(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One measurement, or several values of one series."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            description="Metric name. Characters outside [a-zA-Z0-9_:] become _.",
            examples=["orders"],
        ),
    ]
    type: Annotated[
        Literal["counter", "gauge", "histogram", "distribution", "timer", "set"],
        Meta(description="What to do with the values. A timer is in milliseconds without a unit."),
    ]
    value: Annotated[
        float | int | str | msgspec.UnsetType,
        Meta(description=f"One value. Give either value or values. {VALUE}"),
    ] = msgspec.UNSET
    values: (
        Annotated[
            list[float | int | str], Meta(min_length=1, description=f"Several values. {VALUE}")
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    labels: Annotated[
        dict[str, str | float | bool] | None,
        Meta(description="Labels of the series.", examples=[{"shop": "eu"}]),
    ] = None
    unit: Annotated[
        Unit | None, Meta(description="Unit of the values; they are kept in the base unit.")
    ] = None
    help: Annotated[str | None, Meta(description="HELP text of the metric.")] = None
    rate: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Sample rate: each value stands for 1/rate of them."),
    ] = None


class Refusal(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One sample that was not accepted."""

    index: Annotated[int, Meta(ge=0, description="Position in the body, from 0.")]
    line: (
        Annotated[int, Meta(ge=1, description="Line of an NDJSON body, from 1.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    reason: Annotated[str, Meta(description="Reason as in agent_source_samples_rejected_total.")]
    detail: Annotated[str, Meta(description="One sentence for a person.")]


class Report(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The answer: accepted + rejected is the number of samples in the body."""

    accepted: Annotated[int, Meta(ge=0)]
    rejected: Annotated[int, Meta(ge=0)]
    errors: Annotated[list[Refusal], Meta(description="The first rejected samples.")]


def schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of the body; the answer is under `$defs/Report`."""
    _, components = msgspec.json.schema_components([Sample, Report], ref_template="#/$defs/{name}")
    # Either one or the other: more than a struct can say.
    components["Sample"]["oneOf"] = [{"required": ["value"]}, {"required": ["values"]}]
    one = {"$ref": "#/$defs/Sample"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Agent push",
        "description": "Body of POST /v1/push: a sample, an array of samples, or one a line.",
        "anyOf": [one, {"type": "array", "items": one}],
        "$defs": components,
    }


def schema_json() -> str:
    """`schema` as text."""
    return msgspec.json.encode(schema()).decode()
