"""Which line of a TOML text sets which key, so that an error can say `agent.toml:12`.

Purpose: tomllib gives values without positions. This reads the same text once more and notes the
line of every key; it never interprets a value.

Paths look like `limits.line_bytes_max` and `mapping[0].labels.job`. Works on text that tomllib
accepts; on other text it stops where it no longer understands and returns what it has.
"""

from __future__ import annotations

import contextlib

_SPACE = " \t\r"
_BARE_END = ",]}\n#"


def key_lines(text: str) -> dict[str, int]:
    """The line (from 1) of every key and table header, by path."""
    scan = _Scan(text)
    # The text may end inside a construct: then it is not valid TOML, and tomllib says so better.
    with contextlib.suppress(IndexError):
        scan.document()
    return scan.lines


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text + "\n"
        self.at = 0
        self.lines: dict[str, int] = {}
        self.tables: dict[str, int] = {}  # How often [[path]] was seen.

    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def note(self, path: str) -> None:
        self.lines.setdefault(path, self.line())

    def blank(self, newlines: bool) -> None:
        """Skips spaces and comments, and line ends where they mean nothing."""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "#":
                self.at = self.text.index("\n", self.at)
            elif char in _SPACE or (newlines and char == "\n"):
                self.at += 1
            else:
                return

    def document(self) -> None:
        prefix = ""
        while True:
            self.blank(newlines=True)
            if self.at >= len(self.text):
                return
            if self.text[self.at] == "[":
                prefix = self.header()
            else:
                self.pair(prefix)
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end + 1

    def header(self) -> str:
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        # A header below [[mapping]] belongs to the newest element of it.
        path = ""
        parts = self.key()
        for index, part in enumerate(parts):
            path = f"{path}.{part}" if path else part
            if many and index == len(parts) - 1:
                self.tables[path] = self.tables.get(path, -1) + 1
            if path in self.tables:
                path = f"{path}[{self.tables[path]}]"
            self.note(path)
        return path

    def key(self) -> list[str]:
        """A dotted key; stops before the character after it."""
        parts = []
        while True:
            self.blank(newlines=False)
            char = self.text[self.at]
            if char in "\"'":
                start = self.at
                self.string()
                parts.append(self.text[start + 1 : self.at - 1])
            else:
                start = self.at
                while self.text[self.at].isalnum() or self.text[self.at] in "_-":
                    self.at += 1
                parts.append(self.text[start : self.at])
            self.blank(newlines=False)
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def pair(self, prefix: str) -> None:
        path = prefix
        line_at = self.at
        for part in self.key():
            path = f"{path}.{part}" if path else part
            here, self.at = self.at, line_at
            self.note(path)
            self.at = here
        self.at += 1  # The equals sign.
        self.value(path)

    def value(self, path: str) -> None:
        self.blank(newlines=False)
        char = self.text[self.at]
        if char in "\"'":
            self.string()
        elif char == "[":
            self.sequence(path)
        elif char == "{":
            self.inline_table(path)
        else:
            while self.text[self.at] not in _BARE_END:
                self.at += 1

    def sequence(self, path: str) -> None:
        self.at += 1
        index = 0
        while True:
            self.blank(newlines=True)
            if self.text[self.at] == "]":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                index += 1
                continue
            self.note(f"{path}[{index}]")
            before = self.at
            self.value(f"{path}[{index}]")
            if self.at == before:
                raise IndexError  # Not a value: give up rather than turn round and round.

    def inline_table(self, path: str) -> None:
        self.at += 1
        while True:
            self.blank(newlines=True)
            if self.text[self.at] == "}":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            before = self.at
            self.pair(path)
            if self.at == before:
                raise IndexError

    def string(self) -> None:
        """Skips a string of any of the four kinds."""
        quote = self.text[self.at]
        long = quote * 3
        if self.text.startswith(long, self.at):
            self.at += 3
            while not self.text.startswith(long, self.at):
                self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
                self.text[self.at]  # Raises at the end of the text.
            self.at += 3
            while (
                self.text[self.at] == quote
            ):  # Up to two quotes may stand before the closing three.
                self.at += 1
            return
        self.at += 1
        while self.text[self.at] != quote:
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 1
