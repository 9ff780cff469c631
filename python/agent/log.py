"""Log records of the collector: lines of text on a terminal, JSON objects otherwise, to standard
error.

Purpose: one writer for the whole process tree. Workers send their records over the control pipe and
the supervisor writes them, so lines never mix.

One record is one `write`, so a reader sees whole lines. A record that cannot be written (a full
pipe, a closed terminal) is dropped and counted in `dropped`: logging never blocks or stops the
collector.

Text from outside is escaped: no value can start a new line or send control codes to a terminal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

Level = Literal["debug", "info", "warning", "error"]

LEVELS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# A longer record is cut: a pipe takes 4096 bytes in one piece, a journal line 48 KiB.
RECORD_BYTES_MAX = 16 * 1024


class Log:
    """Writes records of at least `level` to `fd`."""

    def __init__(
        self,
        fd: int = 2,
        form: Literal["auto", "text", "json"] = "auto",
        level: Level = "info",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.fd = fd
        self.now = now
        self.dropped = 0
        self.set(form, level)

    def set(self, form: Literal["auto", "text", "json"], level: Level) -> None:
        """Changes form and level, for a reload."""
        self.form = form if form != "auto" else ("text" if os.isatty(self.fd) else "json")
        self.least = LEVELS[level]

    def debug(self, message: str, **fields: Any) -> None:
        self.write("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self.write("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self.write("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self.write("error", message, fields)

    def write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        if LEVELS.get(level, 40) < self.least:
            return
        make = text_line if self.form == "text" else json_line
        line = make(self.now(), level, message, fields)
        try:
            os.write(self.fd, line)
        except OSError:
            self.dropped += 1

    def relay(self, source: str, record: bytes) -> None:
        """Writes a record that a child sent as JSON: `level`, `message` and any other fields."""
        try:
            fields = json.loads(record)
            level, message = str(fields.pop("level")), str(fields.pop("message"))
        except (ValueError, KeyError, TypeError, AttributeError):
            level, message = "error", "unreadable record"
            fields = {"record": record[:200].decode(errors="replace")}
        fields.pop("ts", None)
        self.write(level, message, {"source": source, **fields})


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def text_line(now: datetime, level: str, message: str, fields: dict[str, Any]) -> bytes:
    """`2026-11-21T10:00:00.000Z warning worker-1 died pid=12`."""
    words = [_stamp(now), f"{level:<7}", _plain(message)]
    words += [f"{_plain(name)}={_value(value)}" for name, value in fields.items()]
    return " ".join(words).encode()[: RECORD_BYTES_MAX - 1] + b"\n"


def json_line(now: datetime, level: str, message: str, fields: dict[str, Any]) -> bytes:
    """One JSON object; the fields stand beside `ts`, `level` and `message`."""
    record = {"ts": _stamp(now), "level": level, "message": message, **fields}
    line = json.dumps(record, default=str, separators=(",", ":")).encode(errors="replace")
    if len(line) >= RECORD_BYTES_MAX:
        kept = {"ts": record["ts"], "level": level, "message": message[:1000], "cut": len(line)}
        line = json.dumps(kept, separators=(",", ":")).encode()
    return line + b"\n"


def _plain(text: str) -> str:
    """The text with everything escaped that is not printable."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _value(value: Any) -> str:
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return json.dumps(text)
