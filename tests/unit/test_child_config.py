"""What children are told at the fork and by a reload."""

from __future__ import annotations

import json

from agent.config_source import load
from agent.supervisor.child_config import Site, Sockets, aggregator_config, worker_config
from agent.supervisor.listeners import Listener

SITE = Site("/d/agent.v3.seg", "/d", workers=4, schema_json="{}", version="1")


def test_a_worker_gets_its_sockets_and_the_limits() -> None:
    config = load("[limits]\nconnections_max = 1000\nlabels_max = 3").config
    listener = Listener(5, "http", "127.0.0.1:1")
    told = json.loads(
        worker_config(config, SITE, "2", Sockets(9, 10, 11, [listener], desk_in_fd=12))
    )
    assert (told["worker"], told["workers"], told["control_fd"]) == (2, 4, 9)
    assert (told["handover_out_fd"], told["handover_in_fd"]) == (10, 11)
    assert (told["desk_out_fds"], told["desk_in_fd"]) == ([], 12)
    assert told["listeners"] == [{"fd": 5, "source": "http", "address": "127.0.0.1:1"}]
    assert told["limits"]["connections_max"] == 1000
    assert told["limits"]["labels_max"] == 3
    assert told["drain_timeout_s"] < config.supervisor.drain_timeout_s
    assert (told["segment"], told["apps_dir"]) == ("/d/agent.v3.seg", "/d")


def test_the_desk_gets_the_ways_to_all_workers() -> None:
    sockets = Sockets(9, 10, 11, desk_out_fds=[20, 21])
    told = json.loads(worker_config(load("").config, SITE, "desk", sockets))
    assert (told["worker"], told["workers"], told["desk_out_fds"]) == ("desk", 4, [20, 21])


def test_rules_carry_only_what_was_set() -> None:
    text = "[[mapping]]\nmatch = 'a.*'\nname = 'a_$1'\n[[mapping]]\nmatch = 'b'\naction = 'drop'"
    told = json.loads(worker_config(load(text).config, SITE, "0", Sockets(9)))
    assert told["mapping"] == [
        {"match": "a.*", "match_type": "glob", "action": "map", "name": "a_$1"},
        {"match": "b", "match_type": "glob", "action": "drop"},
    ]


def test_buckets_go_to_the_workers_without_the_implied_last_one() -> None:
    text = "[histograms]\nbuckets = [1, 2, inf]\n"
    text += "[[mapping]]\nmatch = 'a'\nname = 'a'\nbuckets = [3, inf]"
    told = json.loads(worker_config(load(text).config, SITE, "0", Sockets(9)))
    assert told["histograms"] == {"buckets": [1, 2], "native": False}
    assert told["mapping"][0]["buckets"] == [3]


def test_the_aggregator_gets_windows_and_series() -> None:
    config = load("[windows]\nenabled = false\nseries_max = 7\n[series]\nidle_expiry_s = 60").config
    told = json.loads(aggregator_config(config, SITE, 9))
    assert (told["windows"], told["windows_series_max"]) == (False, 7)
    assert told["series"]["idle_expiry_s"] == 60
    assert "listeners" not in told
