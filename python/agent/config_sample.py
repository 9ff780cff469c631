"""Settings as text: the commented sample file, and the table of effective values with their
sources.

Purpose: `config init` and `config show`. The sample is made from the documentation of the fields,
so it cannot promise what the collector does not accept; a test parses it back to the defaults.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

import msgspec

from .config import Config, MappingRule, Setting, settings, value_at
from .config_doc import Section
from .config_source import Loaded, variable

HEAD = """\
Settings of the Agent collector (`agent-metrics serve --config FILE`).
Precedence: flag, then AGENT_METRICS_* variable, then this file, then the default.
Each line below shows a default; remove the "#" in front of a key to change it.
Check with `agent-metrics check-config --config FILE`; apply with SIGHUP.
"""

RULE = """\
[[mapping]]
match = "shop.*.*.requests"
name = "shop_requests"
labels = { region = "$1", service = "$2" }

[[mapping]]
match = '^debug\\.'
match_type = "regex"
action = "drop"
"""


def toml_value(value: Any, path: str = "") -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and path.endswith("_mode"):
        return f"0o{value:o}"
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {toml_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(part) for part in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 96)]


def _about(setting: Setting) -> list[str]:
    lines = _comment(setting.effect)
    if setting.edge:
        lines += _comment(setting.edge)
    return lines + _comment(f"For: {setting.who}")


def sample() -> str:
    """The commented sample file."""
    lines = [f"# {line}" for line in HEAD.splitlines()]
    section = ""
    for setting in settings():
        name, _, leaf = setting.path.rpartition(".")
        if setting.path == "mapping":
            lines += ["", "", *_comment(setting.effect), *_comment(setting.edge)]
            lines += _comment("Keys of a rule:")
            for field in settings(MappingRule):
                lines += _comment(f"  {field.path}: {field.effect} {field.edge}".rstrip())
            lines += [f"#{line}" if line else "#" for line in RULE.splitlines()]
            continue
        if name != section:
            section = name
            about = " ".join((_section(name).__doc__ or "").split())
            lines += ["", "", *_comment(about), f"[{name}]"]
        lines += ["", *_about(setting), f"#{leaf} = {toml_value(setting.default, setting.path)}"]
    return "\n".join(lines) + "\n"


def _section(name: str) -> type[Section]:
    fields = {field.name: field.type for field in msgspec.structs.fields(Config)}
    kind: type[Section] = fields[name]
    return kind


def show(loaded: Loaded) -> list[dict[str, Any]]:
    """Every effective value with its source and its variable, in the order of declaration."""
    rows = []
    for setting in settings():
        value = value_at(loaded.config, setting.path)
        if setting.path == "mapping":
            value = [{f: getattr(rule, f) for f in rule.__struct_fields__} for rule in value]
        rows.append(
            {
                "path": setting.path,
                "value": value,
                "source": loaded.sources[setting.path],
                "variable": "" if setting.path == "mapping" else variable(setting.path),
            }
        )
    return rows


def show_text(loaded: Loaded) -> str:
    """`show` as an aligned table; values that are not defaults are marked with a star."""
    rows = [
        ("*" if row["source"] != "default" else " ", row["path"], _short(row), row["source"])
        for row in show(loaded)
    ]
    wide = [max(len(row[column]) for row in rows) for column in (1, 2)]
    return "".join(
        f"{mark} {path:<{wide[0]}}  {value:<{wide[1]}}  {source}".rstrip() + "\n"
        for mark, path, value, source in rows
    )


def _short(row: dict[str, Any]) -> str:
    if row["path"] == "mapping":
        return f"{len(row['value'])} rules"
    return toml_value(row["value"], row["path"])
