"""Settings: defaults, precedence, and every mistake reported at once with its place."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest

from agent import config, config_check, config_sample, config_source
from agent.config import Config, settings, value_at
from agent.config_source import ConfigError, load


def problems(text: str = "", environ: dict[str, str] | None = None, **flags: object) -> list[str]:
    given = {path.replace("__", "."): (f"--{path}", v) for path, v in flags.items()}
    with pytest.raises(ConfigError) as caught:
        load(text, "agent.toml", environ, given)
    return [str(problem) for problem in caught.value.problems]


def test_no_source_gives_the_defaults() -> None:
    loaded = load()
    assert loaded.config == Config()
    assert set(loaded.sources.values()) == {"default"}


def test_the_defaults_contradict_nothing() -> None:
    assert list(config_check.check(Config())) == []


def test_every_setting_is_documented_and_its_default_is_within_its_bounds() -> None:
    for setting in [*settings(), *settings(config.MappingRule)]:
        assert setting.effect.endswith("."), setting.path
        assert setting.who.endswith((".", ")")), setting.path
        if setting.default is not msgspec.NODEFAULT:
            assert msgspec.convert(setting.default, setting.type) == setting.default, setting.path
        if setting.default == 0 and not isinstance(setting.default, bool):
            assert "0" in setting.edge, f"{setting.path}: what does 0 mean?"


@pytest.mark.parametrize("active", [False, True])
def test_the_sample_file_parses_to_the_defaults(active: bool) -> None:
    text = config_sample.sample()
    if active:
        text = text.partition("#[[mapping]]")[0]
        text = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
        assert text.count("\n#") < config_sample.sample().count("\n#")
    loaded = load(text, "agent.toml")
    assert loaded.config == Config()
    if active:
        from_file = {path for path, source in loaded.sources.items() if source != "default"}
        assert from_file == {setting.path for setting in settings()} - {"mapping"}


def test_the_sample_mapping_rules_are_valid() -> None:
    rules = config_sample.RULE
    assert [rule.action for rule in load(rules, "agent.toml").config.mapping] == ["map", "drop"]


def test_the_sample_file_fits_the_page() -> None:
    assert max(map(len, config_sample.sample().splitlines())) <= 100


def test_flag_beats_variable_beats_file_beats_default() -> None:
    text = "workers = 1\n[logging]\nlevel = 'error'\n[http]\naddress = '127.0.0.1:1'"
    environ = {"AGENT_METRICS_WORKERS": "2", "AGENT_METRICS_HTTP": "127.0.0.1:2"}
    loaded = load(text, "agent.toml", environ, {"workers": ("--workers", 3)})
    assert loaded.config.workers == 3
    assert loaded.config.http.address == "127.0.0.1:2"
    assert loaded.config.logging.level == "error"
    assert loaded.config.statsd.address == "127.0.0.1:8125"
    assert loaded.sources["workers"] == "--workers"
    assert loaded.sources["http.address"] == "AGENT_METRICS_HTTP"
    assert loaded.sources["logging.level"] == "agent.toml:3"
    assert loaded.sources["statsd.address"] == "default"


def test_every_mistake_is_reported_at_once_with_its_place() -> None:
    text = """\
workerz = 3
[http]
adress = "x"
[limits]
line_bytes_max = 1
labels_max = "x"
series_max = 4
[[mapping]]
match = "a.*"
nmae = "b"
[[mapping]]
name = 4
"""
    assert problems(text, {"AGENT_METRICS_WORKERS": "many"}, http__address=5) == [
        "agent.toml:1: workerz: unknown setting (did you mean 'workers'?)",
        "agent.toml:3: http.adress: unknown setting (did you mean 'http.address'?)",
        "agent.toml:5: limits.line_bytes_max: expected int >= 64, got 1",
        "agent.toml:6: limits.labels_max: expected int, got str",
        "agent.toml:7: limits.series_max: unknown setting (did you mean 'series.series_max'?)",
        "agent.toml:10: mapping[0].nmae: unknown setting (did you mean 'name'?)",
        "agent.toml:12: mapping[1].name: expected str, got int",
        "agent.toml:11: mapping[1].match: is missing",
        "AGENT_METRICS_WORKERS: workers: expected a whole number, got 'many'",
        "--http__address: http.address: expected str, got int",
    ]


def test_a_misspelt_section_is_found() -> None:
    assert problems("[limit]\nlabels_max = 1") == [
        "agent.toml:1: limit: unknown setting (did you mean 'limits'?)"
    ]


def test_broken_toml_names_line_and_column() -> None:
    assert problems("workers = 1\nhttp = = 3\n") == [
        "agent.toml:2:8: not valid TOML: Invalid value"
    ]


def test_a_section_written_as_a_value_is_explained() -> None:
    assert problems("http = 9464") == ["agent.toml:1: http: is a section: write [http]"]


def test_mapping_written_as_a_table_is_explained() -> None:
    assert problems("[mapping]\nmatch = 'x'") == [
        "agent.toml:1: mapping: is a list of rules: write [[mapping]]"
    ]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("9464", "no port"),
        (":9464", "no host"),
        ("::1:9464", "brackets"),
        ("localhost:http", "number"),
        ("localhost:65536", "65535"),
        ("localhost:-1", "number"),
    ],
)
def test_a_bad_address_is_explained(address: str, word: str) -> None:
    (problem,) = problems("", {"AGENT_METRICS_HTTP": address})
    assert problem.startswith("AGENT_METRICS_HTTP: http.address: ")
    assert word in problem


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:80", "::1", 80),
        ("host.example:65535", "host.example", 65535),
    ],
)
def test_good_addresses(text: str, host: str, port: int) -> None:
    assert config_check.parse_address(text) == (host, port)


def test_contradictions_between_settings_are_found() -> None:
    text = """\
[limits]
line_bytes_max = 64
body_bytes_max = 33554432
[series]
series_max = 100
[http]
address = ""
[statsd]
address = ""
[[mapping]]
match = "a"
[[mapping]]
match = ""
action = "drop"
name = "x"
"""
    found = problems(text)
    assert [re.sub(r"^agent.toml:\d+: ", "", p).split(":")[0] for p in found] == [
        "http.address",
        "limits.name_bytes_max",
        "limits.body_bytes_max",
        "series.metric_series_max",
        "mapping[0].name",
        "mapping[1].match",
        "mapping[1].action",
    ]
    assert found[-1].startswith("agent.toml:14: ")


def test_an_unknown_variable_is_a_warning_with_a_suggestion() -> None:
    loaded = load(environ={"AGENT_METRICS_WORKER": "3", "OTHER": "x"})
    assert loaded.config == Config()
    assert loaded.warnings == (
        "AGENT_METRICS_WORKER: not a setting, ignored (did you mean 'AGENT_METRICS_WORKERS'?)",
    )


def test_variables_of_the_library_and_of_kubernetes_are_left_alone() -> None:
    environ = dict.fromkeys(
        (
            "AGENT_METRICS_APP",
            "AGENT_METRICS_CONFIG",
            "AGENT_METRICS_READY_FD",
            "AGENT_METRICS_SERVICE_HOST",
            "AGENT_METRICS_SERVICE_PORT_HTTP",
            "AGENT_METRICS_PORT",
            "AGENT_METRICS_PORT_9464_TCP_ADDR",
        ),
        "tcp://10.0.0.1:9464",
    )
    assert load(environ=environ) == load()


def test_no_setting_has_the_name_of_a_foreign_variable() -> None:
    for setting in settings():
        assert not config_source.FOREIGN.match(config_source.variable(setting.path))


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("AGENT_METRICS_WINDOWS_ENABLED", "off", "windows.enabled", False),
        ("AGENT_METRICS_WINDOWS_ENABLED", "TRUE", "windows.enabled", True),
        ("AGENT_METRICS_STATSD_SOCKET_MODE", "0o600", "statsd.socket_mode", 0o600),
        ("AGENT_METRICS_SUPERVISOR_DRAIN_TIMEOUT_S", "1.5", "supervisor.drain_timeout_s", 1.5),
        ("AGENT_METRICS_LOGGING_FORMAT", "json", "logging.format", "json"),
        ("AGENT_METRICS_DIR", "/x", "dir", "/x"),
        ("AGENT_METRICS_STATSD_SOCKET", "/s", "statsd.socket", "/s"),
        (
            "AGENT_METRICS_HISTOGRAMS_BUCKETS",
            "0.5, 1,inf",
            "histograms.buckets",
            (0.5, 1, math.inf),
        ),
    ],
)
def test_variables_are_read_by_the_type_of_the_setting(
    name: str, text: str, path: str, value: object
) -> None:
    assert value_at(load(environ={name: text}).config, path) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AGENT_METRICS_WINDOWS_ENABLED", "maybe"),
        ("AGENT_METRICS_SUPERVISOR_DRAIN_TIMEOUT_S", "soon"),
        ("AGENT_METRICS_LOGGING_FORMAT", "xml"),
        ("AGENT_METRICS_LIMITS_MEMORY_USED_RATIO_MAX", "nan"),
        ("AGENT_METRICS_WORKERS", "-1"),
        ("AGENT_METRICS_HISTOGRAMS_BUCKETS", "1;2"),
        ("AGENT_METRICS_WORKERS", ""),
    ],
)
def test_a_bad_variable_is_an_error_that_names_it(name: str, text: str) -> None:
    (problem,) = problems("", {name: text})
    assert problem.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[histograms]\nbuckets = [2, 1]", "agent.toml:2: histograms.buckets: bounds must ascend"),
        ("[histograms]\nbuckets = [inf]", "agent.toml:2: histograms.buckets: has no finite bound"),
        ("[histograms]\nbuckets = [nan]", "all bounds but a last inf must be finite"),
        (f"[histograms]\nbuckets = {list(range(513))}", "at most 512 are possible"),
        ("[histograms]\nbuckets = []", "agent.toml:2: histograms.buckets: is empty"),
        ("[[mapping]]\nmatch='a'\nname='a'\nbuckets = [1, 1]", "bounds must ascend"),
        ("[[mapping]]\nmatch='a'\nname='a'\nbuckets=[1]\nnative=true", "excludes buckets"),
    ],
)
def test_buckets_that_cannot_be_used_are_an_error(text: str, told: str) -> None:
    (problem,) = problems(text)
    assert told in problem


def test_a_setting_given_by_two_variables_is_an_error() -> None:
    both = {"AGENT_METRICS_HTTP": "127.0.0.1:1", "AGENT_METRICS_HTTP_ADDRESS": "127.0.0.1:2"}
    assert "set twice" in problems("", both)[0]


def test_every_setting_has_one_variable() -> None:
    names = [config_source.variable(setting.path) for setting in settings()]
    assert len(set(names)) == len(names)


def test_show_marks_what_is_not_a_default() -> None:
    text = config_sample.show_text(load(environ={"AGENT_METRICS_WORKERS": "3"}))
    marked = [line for line in text.splitlines() if line.startswith("*")]
    assert [line.split() for line in marked] == [["*", "workers", "3", "AGENT_METRICS_WORKERS"]]


def test_workers_follow_the_cores_unless_files_are_short() -> None:
    assert config.worker_count(Config(workers=7), cores=2, files_max=1024) == 7
    assert config.worker_count(Config(), cores=2, files_max=1024) == 2
    many = load("[limits]\nconnections_max = 1_000_000").config
    assert config.worker_count(many, cores=2, files_max=1_048_576) == 2
    assert config.worker_count(many, cores=2, files_max=110_128) == 10
    assert config.worker_count(many, cores=2, files_max=1024) == config.WORKERS_MAX


def test_the_most_connections_fit_however_the_kernel_deals_them_out_and_when_a_worker_dies() -> (
    None
):
    """Measured: 17,506 to 18,100 of 17,857 each."""
    many = load("[limits]\nconnections_max = 1_000_000").config
    workers = config.worker_count(many, cores=2, files_max=20_000)
    assert workers == 56
    share = 1_000_000 / workers
    assert share * 1.03 + share / (workers - 1) < 20_000 - config.WORKER_FILES_RESERVED


def test_a_reload_knows_what_needs_a_restart() -> None:
    new = load("workers = 3\n[limits]\nlabels_max = 3\n[http]\naddress = '127.0.0.1:1'").config
    assert config_check.restart_needed(Config(), new) == ("workers", "http.address")
    assert config_check.restart_needed(Config(), load("[limits]\nlabels_max = 3").config) == ()


def test_restart_only_settings_exist() -> None:
    assert set(config_check.RESTART_ONLY) <= {setting.path for setting in settings()}


def test_the_stream_socket_follows_the_datagram_socket() -> None:
    assert config.stream_socket_path(config.Statsd()) == ""
    assert config.stream_socket_path(config.Statsd(socket="/s")) == "/s.stream"
    assert config.stream_socket_path(config.Statsd(socket="/s", stream_socket="")) == ""
    assert config.stream_socket_path(config.Statsd(stream_socket="/t")) == "/t"


def test_a_socket_path_that_the_kernel_cannot_hold_is_an_error() -> None:
    assert "at most 100 bytes" in problems("", {"AGENT_METRICS_STATSD_SOCKET": "/" + "x" * 100})[0]


def test_the_sample_in_the_repository_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "deploy" / "agent.toml"
    assert path.read_text() == config_sample.sample(), "agent-metrics config init --force"
