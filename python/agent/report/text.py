"""A result on a terminal: the verdict last, where the eye is. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from .model import Result
from .quantity import duration
from .summary import OUTCOMES, PERCENTILES, Row, account, figures, headline, latencies, method

COLOURS = {"pass": "1;32", "fail": "1;31", "invalid": "1;33"}
DIM = "2"
LABEL = 30


def text(result: Result, *, colour: bool = False) -> str:
    """The whole summary, with a newline at its end."""
    result = _harmless(msgspec.structs.replace(result, timeline=[]))
    lines = [f"{result.kind}, {result.started}", ""]
    lines += _rows(method(result)[1:], colour)
    lines += ["", *_rows([Row(f.label, f.value, f.note) for f in figures(result)], colour)]
    lines += ["", *_rows(account(result), colour)]
    recorded = latencies(result)
    if recorded:
        heading = f"  {'latency':{LABEL}}" + "".join(f"{name:>10}" for name in PERCENTILES)
        lines += ["", _paint(heading, DIM, colour)]
    for name, _, told in recorded:
        cells = "".join(f"{duration(getattr(told, field)):>10}" for field in PERCENTILES)
        lines.append(f"  {name:{LABEL}}{cells}")
    if result.targets:
        lines.append("")
    for target in result.targets:
        mark = {True: "met", False: "missed", None: "not measured"}[target.met]
        lines.append(f"  {target.name:{LABEL}} {target.got} (wanted {target.wanted}): {mark}")
    verdict = result.verdict
    lines += ["", f"{_paint(OUTCOMES[verdict.outcome], COLOURS[verdict.outcome], colour)}:"]
    lines[-1] += f" {headline(result)}"
    lines += [f"  - {reason}" for reason in verdict.reasons]
    return "\n".join(lines) + "\n"


def _rows(rows: list[Row], colour: bool) -> list[str]:
    return [
        f"  {row.label:{LABEL}} {row.value}"
        + (f"  {_paint(f'({row.note})', DIM, colour)}" if row.note else "")
        + (_paint("  !", COLOURS["fail"], colour) if row.is_bad else "")
        for row in rows
    ]


def _paint(words: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if colour else words


def _harmless(result: Result) -> Result:
    """A file is not trusted: nothing in it may steer the terminal."""
    return msgspec.convert(_printable(msgspec.to_builtins(result)), Result)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "?" for c in value)
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list | tuple) else value
