"""The line of a key in a TOML text, for every construct that TOML has."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from agent.toml_lines import key_lines

TEXT = '''\
# comment with = and [brackets]
a = 1
b.c = "x = [1]"   # d = 2
"quoted key" = 'single'

[section]
long = """
fake = 1
\\""" still """
raw = \'\'\'
fake2 = 1\'\'\'
list = [
  1, # fake3 = 4
  [2, 3],
  { x = 1, y.z = "}" },
]
after = { p = 1, q = [1, 2] }

[[rule]]
match = "a"
[rule.labels]
job = "x"

[[rule]]
match = "b"
'''


def test_every_construct_has_its_line() -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == {
        "a": 2,
        "b": 3,
        "b.c": 3,
        "quoted key": 4,
        "section": 6,
        "section.long": 7,
        "section.raw": 10,
        "section.list": 12,
        "section.list[0]": 13,
        "section.list[1]": 14,
        "section.list[1][0]": 14,
        "section.list[1][1]": 14,
        "section.list[2]": 15,
        "section.list[2].x": 15,
        "section.list[2].y": 15,
        "section.list[2].y.z": 15,
        "section.after": 17,
        "section.after.p": 17,
        "section.after.q": 17,
        "section.after.q[0]": 17,
        "section.after.q[1]": 17,
        "rule[0]": 19,
        "rule[0].match": 20,
        "rule[0].labels": 21,
        "rule[0].labels.job": 22,
        "rule[1]": 24,
        "rule[1].match": 25,
    }


@given(st.text(alphabet="ab=[]{}\"'.,\n#\\ 1", max_size=60))
def test_any_text_ends(text: str) -> None:
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 2 for line in lines.values())
