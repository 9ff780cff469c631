"""From a file, the environment and flags to one checked `Config`, with every mistake reported at
once.

Purpose: precedence flag > AGENT_METRICS_* > file > default, decided setting by setting, with the
source of each value kept for `config show`. Each problem names the setting, the place (file and
line, variable or flag) and, where a name is unknown, the nearest known one.

Pure: the file's text, the environment and the flags are arguments; nothing is read here.

Environment: `limits.line_bytes_max` is AGENT_METRICS_LIMITS_LINE_BYTES_MAX. The addresses have
short twins, as the flags have (`SHORT`). An unknown AGENT_METRICS_* variable is a warning, not an
error: Kubernetes sets such variables for a service of that name. `mapping` can only be set in the
file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

import msgspec
from msgspec.structs import replace

from .config import Config, MappingRule, Setting, settings
from .config_check import check, check_rule
from .config_doc import Section
from .toml_lines import key_lines

PREFIX = "AGENT_METRICS_"

# Names shorter than the rule gives, the same for the variable and for the flag of `serve`.
SHORT = {
    "HTTP": "http.address",
    "STATSD": "statsd.address",
    "STATSD_SOCKET": "statsd.socket",
}
# Variables that belong to other parts of the product, and those Kubernetes sets for a service
# `agent-metrics`.
FOREIGN = re.compile(r"^AGENT_METRICS_(APP|CONFIG|READY_FD|SERVICE_.*|PORT(_.*)?)$")
# A config file beyond this is a mistake (a log file given as config, for example).
FILE_BYTES_MAX = 4 * 1024 * 1024


class Problem(msgspec.Struct, frozen=True):
    """One mistake: which setting, what is wrong, and where it was written."""

    path: str
    message: str
    where: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class ConfigError(Exception):
    """The settings cannot be used; `problems` has every reason, in the order of the sources.

    `config` is what is left without them, for a further check; never to be used.
    """

    def __init__(self, problems: Iterable[Problem], config: Config | None = None) -> None:
        self.problems = tuple(problems)
        self.config = config or Config()
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Loaded(msgspec.Struct, frozen=True):
    """A checked configuration and where each value came from (path -> "default", "agent.toml:3",
    ...).
    """

    config: Config
    sources: dict[str, str]
    warnings: tuple[str, ...]


def load(
    text: str | None = None,
    filename: str = "",
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, Any]] | None = None,
) -> Loaded:
    """The configuration from all sources. `flags` maps a path to (flag name, value). Raises
    ConfigError.
    """
    reader = _Reader()
    reader.file(text or "", filename)
    warnings = reader.environment(environ or {})
    for path, (flag, value) in (flags or {}).items():
        reader.flag(path, value, flag)
    config = reader.build()
    if not reader.problems:
        reader.problems += [
            Problem(path, message, reader.where(path)) for path, message in check(config)
        ]
    if reader.problems:
        raise ConfigError(reader.problems, config)
    return Loaded(config, reader.sources, tuple(warnings))


def variable(path: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + path.replace(".", "_").upper()


def _nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _nearest_path(path: str, known: Iterable[str]) -> str:
    """Like `_nearest` for dotted paths: also finds a setting that was written into the wrong
    section.
    """
    leaf = path.rpartition(".")[2]
    known = list(known)
    moved = [other for other in known if other.rpartition(".")[2] == leaf]
    if moved:
        return f" (did you mean {moved[0]!r}?)"
    hint = _nearest(path, known)
    if hint:
        return hint
    near = difflib.get_close_matches(leaf, [k.rpartition(".")[2] for k in known], n=1, cutoff=0.75)
    same = [other for other in known if near and other.rpartition(".")[2] == near[0]]
    return f" (did you mean {same[0]!r}?)" if same else ""


def _explain(error: msgspec.ValidationError, value: Any) -> str:
    """The reason without msgspec's own path, which we print in front, and with the value."""
    reason = str(error).partition(" - at `")[0].replace("`", "")
    reason = reason[:1].lower() + reason[1:]
    shown = repr(value)
    return reason if "got" in reason or len(shown) > 60 else f"{reason}, got {shown}"


def _from_text(text: str, setting: Setting) -> Any:
    """The value of an environment variable: the field's type says how to read it. ValueError
    explains.
    """
    kind = get_args(setting.type)[0]
    if kind is int:
        try:
            return int(text, 0)  # 0x and 0o are welcome.
        except ValueError:
            raise ValueError(f"expected a whole number, got {text!r}") from None
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"expected a number, got {text!r}") from None
    if kind is bool:
        words = {"1": True, "true": True, "yes": True, "on": True}
        words |= {"0": False, "false": False, "no": False, "off": False}
        try:
            return words[text.strip().lower()]
        except KeyError:
            raise ValueError(f"expected true or false, got {text!r}") from None
    if get_origin(kind) is tuple and get_args(kind)[0] is str:
        return [part.strip() for part in text.split(",") if part.strip()]
    if get_origin(kind) is tuple:
        try:
            return [float(part) for part in text.split(",") if part.strip()]
        except ValueError:
            raise ValueError(f"expected numbers with commas between, got {text!r}") from None
    return text


class _Reader:
    """Collects values, sources and problems; one per load."""

    def __init__(self) -> None:
        self.known = {setting.path: setting for setting in settings()}
        self.sections = {path.partition(".")[0] for path in self.known if "." in path}
        self.values: dict[str, Any] = {}
        self.sources = dict.fromkeys(self.known, "default")
        self.lines: dict[str, int] = {}
        self.filename = ""
        self.problems: list[Problem] = []

    # -- places -----------------------------------------------------------------------------------

    def where(self, path: str) -> str:
        """The place of a setting or of a part of `mapping`; for a default there is none to show."""
        if path.startswith("mapping"):
            return self.place(path)
        source = self.sources.get(path, "")
        return "" if source == "default" else source

    def place(self, path: str) -> str:
        """File and line of a path, or of the nearest thing around it that has one."""
        while path and path not in self.lines:
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
        return f"{self.filename}:{self.lines[path]}" if path else self.filename

    def problem(self, path: str, message: str, where: str) -> None:
        self.problems.append(Problem(path, message, where))

    # -- sources ----------------------------------------------------------------------------------

    def file(self, text: str, filename: str) -> None:
        self.filename = filename or "config"
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
            message = str(error)[: found.start()] if found else str(error)
            line = found[1] if found and found[1] else str(text.rstrip().count("\n") + 1)
            column = f":{found[2]}" if found and found[2] else ""
            where = f"{self.filename}:{line}{column}"
            self.problem("", f"not valid TOML: {message}", where)
            return
        self.lines = key_lines(text)
        for key, value in tree.items():
            if key == "mapping":
                self.mapping(value)
            elif key not in self.sections:
                self.leaf(key, value, self.place(key))
            elif not isinstance(value, dict):
                self.problem(key, f"is a section: write [{key}]", self.place(key))
            else:
                for name, inner in value.items():
                    path = f"{key}.{name}"
                    self.leaf(path, inner, self.place(path))

    def environment(self, environ: Mapping[str, str]) -> list[str]:
        names = {variable(path): path for path in self.known if path != "mapping"}
        warnings = []
        for path, value in sorted(SHORT.items()):
            name = PREFIX + path
            long = variable(value)
            if name != long and name in environ and long in environ:
                self.problem(value, f"is set twice: by {name} and by {long}", "environment")
            names[name] = value
        for name, text in sorted(environ.items()):
            if not name.startswith(PREFIX) or FOREIGN.match(name):
                continue
            known = names.get(name)
            if known is None:
                warnings.append(f"{name}: not a setting, ignored{_nearest(name, names)}")
                continue
            try:
                self.leaf(known, _from_text(text, self.known[known]), name)
            except ValueError as error:
                self.problem(known, str(error), name)
        return warnings

    def flag(self, path: str, value: Any, name: str) -> None:
        """A flag as text, or a value that somebody has read already."""
        try:
            if isinstance(value, str) and path in self.known:
                value = _from_text(value, self.known[path])
        except ValueError as error:
            self.problem(path, str(error), name)
        else:
            self.leaf(path, value, name)

    def leaf(self, path: str, value: Any, where: str) -> None:
        """One setting from one source; the later source wins."""
        setting = self.known.get(path)
        if setting is None:
            known = [*self.known, *sorted(self.sections)]
            self.problem(path, f"unknown setting{_nearest_path(path, known)}", where)
            return
        try:
            self.values[path] = msgspec.convert(value, setting.type)
        except msgspec.ValidationError as error:
            self.problem(path, _explain(error, value), where)
            return
        self.sources[path] = where

    def mapping(self, value: Any) -> None:
        """The array of rules: every field of every rule is checked on its own."""
        if not isinstance(value, list) or not all(isinstance(rule, dict) for rule in value):
            self.problem("mapping", "is a list of rules: write [[mapping]]", self.place("mapping"))
            return
        fields = {field.name: field for field in msgspec.structs.fields(MappingRule)}
        rules = []
        for index, raw in enumerate(value):
            good: dict[str, Any] = {}
            before = len(self.problems)
            for name, inner in raw.items():
                path = f"mapping[{index}].{name}"
                if name not in fields:
                    hint = _nearest(name, fields)
                    self.problem(path, f"unknown setting{hint}", self.place(path))
                    continue
                try:
                    good[name] = msgspec.convert(inner, fields[name].type)
                except msgspec.ValidationError as error:
                    self.problem(path, _explain(error, inner), self.place(path))
            path = f"mapping[{index}]"
            if "match" not in raw:
                self.problem(f"{path}.match", "is missing", self.place(path))
            if len(self.problems) == before:
                rules.append(MappingRule(**good))
            else:
                rules.append(self.rest_of_rule(raw, good, path))
        self.values["mapping"] = tuple(rules)
        self.sources["mapping"] = self.place("mapping[0]")

    def rest_of_rule(self, raw: dict[str, Any], good: dict[str, Any], path: str) -> MappingRule:
        """What is right in a rule with mistakes, so that the rest of it is checked too.

        A rule that nobody can misread stands in where the mistake decides what the rest means.
        """
        decisive = {"match", "match_type", "action"}
        if "match" not in raw or (decisive & raw.keys()) - good.keys():
            return MappingRule(match="unknown", action="drop")
        rule = MappingRule(**good)
        mistakes = [problem for problem in self.problems if problem.path.startswith(f"{path}.")]
        for where, message in check_rule(rule, path):
            # A misspelt field is not missing as well.
            field = f"did you mean '{where.rpartition('.')[2]}'"
            if not any(known.path == where or field in known.message for known in mistakes):
                self.problem(where, message, self.place(where))
        return rule if rule.name or rule.action == "drop" else replace(rule, name="unknown")

    # -- result -----------------------------------------------------------------------------------

    def build(self) -> Config:
        """The structs from the flat values; what was wrong keeps its default."""
        config: Config = _struct(Config, "", self.values)
        return config


def _struct(kind: type[Any], prefix: str, values: Mapping[str, Any]) -> Any:
    given = {}
    for field in msgspec.structs.fields(kind):
        path = f"{prefix}{field.name}"
        if isinstance(field.type, type) and issubclass(field.type, Section):
            given[field.name] = _struct(field.type, f"{path}.", values)
        elif path in values:
            given[field.name] = values[path]
    return kind(**given)


def type_name(setting: Setting) -> str:
    """What a value of the setting looks like, for help texts."""
    kind = get_args(setting.type)[0]
    if get_origin(kind) is tuple:
        return f"list of {get_args(kind)[0].__name__}"
    if get_origin(kind) is not None and not isinstance(kind, type):
        return " | ".join(repr(choice) for choice in get_args(kind))
    return str(getattr(kind, "__name__", kind))
