"""The supervisor's decisions: a short history of events, and the actions that it leads to."""

from __future__ import annotations

import math
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.supervisor import plan
from agent.supervisor.messages import (
    Action,
    Announce,
    Checked,
    CheckSettings,
    CommitSettings,
    Event,
    Exit,
    Exited,
    Hangup,
    Kill,
    Log,
    Ready,
    Refused,
    RejectSettings,
    Reloaded,
    Rename,
    Renew,
    Send,
    SendSettings,
    Settle,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    Terminate,
    Tick,
)

TERM = Terminate(signal.SIGTERM)


def test_the_desk_is_a_child_like_a_worker_where_there_is_http() -> None:
    policy = plan.Policy()
    names = [child.name for child in plan.begin(2, policy, desk=True).children]
    assert names == ["aggregator", "worker-0", "worker-1", "desk"]
    assert [plan.place(name) for name in (*names, "worker-1:77", "desk:78")] == [
        *("aggregator", "0", "1", "desk"),
        *("1", "desk"),
    ]
    assert "desk" not in [child.name for child in plan.begin(2, policy).children]


class Tree:
    """A supervisor without processes: feeds events, keeps time, gives numbers to children."""

    def __init__(self, workers: int = 2, **policy: float) -> None:
        self.state = plan.begin(workers, plan.Policy(**policy))
        self.now_s = 1000.0
        self.pids = iter(range(100, 100_000))

    def tell(self, event: Event, after_s: float = 0.0) -> list[Action]:
        """The actions that are not log records."""
        self.now_s += after_s
        self.state, actions = plan.decide(self.state, event, self.now_s)
        self.logs = [action for action in actions if isinstance(action, Log)]
        return [action for action in actions if not isinstance(action, Log)]

    def spawn(self, name: str) -> list[Action]:
        return self.tell(Spawned(name, next(self.pids)))

    def run(self) -> Tree:
        """Everybody is started and ready."""
        for action in self.tell(Start()):
            assert isinstance(action, Spawn)
            self.spawn(action.name)
            self.tell(Ready(action.name))
        assert self.state.phase == "running"
        return self

    def pid(self, name: str) -> int:
        return next(child.pid for child in self.state.children if child.name == name)


def test_all_children_start_at_once_and_readiness_comes_with_the_last() -> None:
    tree = Tree(workers=2)
    assert tree.tell(Start()) == [Spawn("aggregator"), Spawn("worker-0"), Spawn("worker-1")]
    for name in ("aggregator", "worker-0", "worker-1"):
        assert tree.spawn(name) == []
    assert tree.tell(Ready("worker-1")) == []
    assert tree.tell(Ready("aggregator")) == []
    assert tree.tell(Ready("worker-0")) == [Announce("ready")]


def test_a_dead_worker_is_settled_and_then_replaced_at_once() -> None:
    tree = Tree().run()
    assert tree.tell(Exited("worker-1", -signal.SIGKILL), after_s=60) == [
        Settle("worker-1"),
        Spawn("worker-1"),
    ]
    assert "SIGKILL" in tree.logs[0].message


def test_a_dead_aggregator_has_no_ledger_to_settle() -> None:
    assert Tree().run().tell(Exited("aggregator", 1)) == [Spawn("aggregator")]


def test_a_child_that_keeps_dying_waits_longer_each_time_but_is_never_given_up() -> None:
    tree = Tree(restart_delay_s_max=3.0).run()
    pauses = []
    for _ in range(12):
        actions = tree.tell(Exited("worker-0", -signal.SIGSEGV))
        died_s = tree.now_s
        while Spawn("worker-0") not in actions:
            due_s = plan.next_due_s(tree.state)
            assert due_s > tree.now_s, "a tick must be asked for"
            actions = tree.tell(Tick(), after_s=due_s - tree.now_s)
        pauses.append(round(tree.now_s - died_s, 3))
        tree.spawn("worker-0")
    assert pauses == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3, 3, 3, 3, 3, 3]


def test_a_worker_that_lived_is_replaced_at_once_again() -> None:
    tree = Tree().run()
    tree.tell(Exited("worker-0", 1))
    tree.spawn("worker-0")
    tree.tell(Exited("worker-0", 1))
    tree.tell(Tick(), after_s=1)
    tree.spawn("worker-0")
    tree.tell(Ready("worker-0"))
    assert Spawn("worker-0") in tree.tell(Exited("worker-0", 1), after_s=plan.STABLE_S)


def test_a_spawn_is_asked_for_once() -> None:
    tree = Tree().run()
    assert Spawn("worker-0") in tree.tell(Exited("worker-0", 1))
    assert tree.tell(Tick(), after_s=100) == []


def test_a_failed_fork_is_tried_again() -> None:
    tree = Tree(workers=1)
    tree.tell(Start())
    assert tree.tell(SpawnFailed("worker-0")) == [Spawn("worker-0")]
    assert tree.tell(SpawnFailed("worker-0")) == []
    assert tree.tell(Tick(), after_s=0.1) == [Spawn("worker-0")]


def test_a_child_that_does_not_become_ready_is_killed_once() -> None:
    tree = Tree(workers=1, start_timeout_s=5)
    tree.tell(Start())
    tree.spawn("worker-0")
    assert plan.next_due_s(tree.state) == tree.now_s + 5
    kill = Kill("worker-0", tree.pid("worker-0"), signal.SIGKILL)
    assert tree.tell(Tick(), after_s=5) == [kill]
    assert tree.tell(Tick(), after_s=1) == []
    assert tree.tell(Exited("worker-0", -9)) == [Settle("worker-0"), Spawn("worker-0")]


def test_settings_that_a_child_cannot_use_end_the_start_with_78() -> None:
    tree = Tree(workers=1)
    tree.tell(Start())
    tree.spawn("aggregator")
    tree.spawn("worker-0")
    aggregator = Kill("aggregator", tree.pid("aggregator"), signal.SIGKILL)
    actions = tree.tell(Exited("worker-0", 78))
    assert aggregator in actions
    assert actions[-1] == Exit(78)


# --- reload -----------------------------------------------------------------------------------


def test_a_good_reload_reaches_everybody_and_is_committed_with_the_last_answer() -> None:
    tree = Tree().run()
    assert tree.tell(Hangup()) == [CheckSettings()]
    names = ["aggregator", "worker-0", "worker-1"]
    sent = [SendSettings(name, new=True) for name in names]
    assert tree.tell(Checked()) == [Announce("reloading"), *sent]
    assert tree.tell(Reloaded("worker-1")) == []
    assert tree.tell(Reloaded("aggregator")) == []
    assert tree.tell(Reloaded("worker-0")) == [CommitSettings(), Announce("ready")]
    assert tree.state.generation == 1


def test_bad_settings_touch_no_child() -> None:
    tree = Tree().run()
    tree.tell(Hangup())
    assert tree.tell(Checked("agent.toml:1: x")) == [RejectSettings("agent.toml:1: x")]
    assert tree.state.phase == "running"


def test_one_refusal_gives_everybody_the_old_settings_back() -> None:
    tree = Tree().run()
    tree.tell(Hangup())
    tree.tell(Checked())
    tree.tell(Reloaded("worker-0"))
    tree.tell(Reloaded("aggregator"))
    assert tree.tell(Refused("worker-1", "bad rule")) == [
        SendSettings("aggregator", new=False),
        SendSettings("worker-0", new=False),
        SendSettings("worker-1", new=False),
        RejectSettings("worker-1: bad rule"),
        Announce("ready"),
    ]
    assert {child.generation for child in tree.state.children} == {0}
    # The answers to the old settings mean nothing any more.
    assert tree.tell(Reloaded("worker-0")) == []


def test_a_child_that_does_not_answer_rolls_the_reload_back() -> None:
    tree = Tree().run()
    tree.tell(Hangup())
    tree.tell(Checked())
    tree.tell(Reloaded("worker-0"))
    assert plan.next_due_s(tree.state) == tree.now_s + plan.RELOAD_TIMEOUT_S
    actions = tree.tell(Tick(), after_s=plan.RELOAD_TIMEOUT_S)
    assert RejectSettings("aggregator, worker-1: no answer") in actions


def test_a_child_that_dies_during_a_reload_does_not_hold_it_up() -> None:
    tree = Tree(workers=1).run()
    tree.tell(Hangup())
    tree.tell(Checked())
    tree.tell(Reloaded("aggregator"))
    assert CommitSettings() in tree.tell(Exited("worker-0", 1))


def test_a_child_forked_before_the_commit_gets_the_new_settings_when_it_is_ready() -> None:
    tree = Tree(workers=1).run()
    tree.tell(Hangup())
    tree.tell(Checked())
    tree.tell(Exited("worker-0", 1))
    tree.spawn("worker-0")
    assert CommitSettings() in tree.tell(Reloaded("aggregator"))
    assert tree.tell(Ready("worker-0")) == [SendSettings("worker-0", new=False)]


def test_a_child_that_becomes_ready_during_a_reload_takes_part_in_it() -> None:
    tree = Tree(workers=1).run()
    tree.tell(Exited("worker-0", 1))
    tree.spawn("worker-0")
    tree.tell(Hangup())
    assert tree.tell(Checked()) == [
        Announce("reloading"),
        SendSettings("aggregator", new=True),
    ]
    assert tree.tell(Ready("worker-0")) == [SendSettings("worker-0", new=True)]
    assert tree.tell(Reloaded("aggregator")) == []
    assert CommitSettings() in tree.tell(Reloaded("worker-0"))


def test_hangups_during_a_reload_lead_to_one_more() -> None:
    tree = Tree(workers=1).run()
    tree.tell(Hangup())
    tree.tell(Checked())
    assert tree.tell(Hangup()) == []
    assert tree.tell(Hangup()) == []
    tree.tell(Reloaded("aggregator"))
    assert tree.tell(Reloaded("worker-0")) == [
        CommitSettings(),
        Announce("ready"),
        CheckSettings(),
    ]


def test_a_hangup_while_stopping_is_ignored() -> None:
    tree = Tree().run()
    tree.tell(TERM)
    assert tree.tell(Hangup()) == []
    assert tree.tell(Checked()) == []


# --- renewal ----------------------------------------------------------------------------------


def test_a_worker_retires_when_its_successor_is_ready_and_then_the_next_one_has_its_turn() -> None:
    tree = Tree(workers=2).run()
    first, second = (f"{name}:{tree.pid(name)}" for name in ("worker-0", "worker-1"))
    begin_0 = [Send("worker-0", "yield"), Rename("worker-0", first), Spawn("worker-0")]
    begin_1 = [Send("worker-1", "yield"), Rename("worker-1", second), Spawn("worker-1")]
    assert tree.tell(Renew()) == begin_0
    assert tree.spawn("worker-0") == []
    assert tree.tell(Ready("worker-0")) == [Send(first, "retire"), *begin_1]
    assert tree.spawn("worker-1") == []
    assert tree.tell(Ready("worker-1")) == [Send(second, "retire")]
    # Their successors write the same ledgers: nothing is settled.
    assert tree.tell(Exited(second, 0)) == []
    assert tree.state.renewing
    assert tree.tell(Exited(first, 0)) == []
    assert not tree.state.renewing
    assert tree.state.renewed == 2
    assert [child.exits for child in tree.state.children] == [0, 0, 0]


def test_an_old_worker_serves_until_its_successor_is_ready_however_often_that_dies() -> None:
    tree = Tree(workers=1).run()
    old = f"worker-0:{tree.pid('worker-0')}"
    tree.tell(Renew())
    tree.spawn("worker-0")
    assert tree.tell(Exited("worker-0", 1)) == [Spawn("worker-0")], "not settled, the old one lives"
    tree.spawn("worker-0")
    assert tree.tell(Tick(), after_s=20) == []
    assert tree.tell(Ready("worker-0")) == [Send(old, "retire")]


def test_the_last_process_of_a_place_settles_its_ledger() -> None:
    tree = Tree(workers=1, restart_delay_s_max=100).run()
    old = f"worker-0:{tree.pid('worker-0')}"
    tree.tell(Renew())
    for _ in range(5):
        tree.spawn("worker-0")
        assert Settle("worker-0") not in tree.tell(Exited("worker-0", 1))
        tree.tell(Tick(), after_s=plan.next_due_s(tree.state) - tree.now_s)
    tree.spawn("worker-0")
    tree.tell(Exited("worker-0", 1))
    assert tree.tell(Exited(old, -9)) == [Settle("worker-0")]


def test_a_worker_that_does_not_retire_is_stopped_and_then_killed() -> None:
    tree = Tree(workers=1).run()
    pid = tree.pid("worker-0")
    old = f"worker-0:{pid}"
    tree.tell(Renew())
    tree.spawn("worker-0")
    tree.tell(Ready("worker-0"))
    assert plan.next_due_s(tree.state) == tree.now_s + plan.RETIRE_TIMEOUT_S
    assert tree.tell(Tick(), after_s=plan.RETIRE_TIMEOUT_S) == [Send(old, "stop")]
    assert tree.tell(Tick(), after_s=plan.STOP_GRACE_S) == [Kill(old, pid, signal.SIGKILL)]
    assert tree.tell(Tick(), after_s=100) == []
    assert tree.tell(Exited(old, -9)) == []


def test_only_so_many_workers_retire_at_a_time() -> None:
    tree = Tree(workers=20).run()
    actions = tree.tell(Renew())
    renewed = 0
    while any(isinstance(action, Spawn) for action in actions):
        name = f"worker-{renewed}"
        tree.spawn(name)
        actions = tree.tell(Ready(name))
        renewed += 1
    assert renewed == plan.RETIRING_MAX
    assert Spawn(f"worker-{renewed}") in tree.tell(Exited(tree.state.leavers[0].name, 0))


def test_a_reload_and_a_renewal_wait_for_each_other() -> None:
    tree = Tree(workers=1).run()
    tree.tell(Hangup())
    tree.tell(Checked())
    assert tree.tell(Renew()) == []
    tree.tell(Reloaded("aggregator"))
    actions = tree.tell(Reloaded("worker-0"))
    assert CommitSettings() in actions
    assert Spawn("worker-0") in actions
    tree.tell(Hangup())
    assert tree.tell(Checked()) == [Announce("reloading"), SendSettings("aggregator", new=True)]
    tree.spawn("worker-0")
    assert SendSettings("worker-0", new=True) in tree.tell(Ready("worker-0"))


def test_a_second_usr2_and_one_while_stopping_are_ignored() -> None:
    tree = Tree(workers=1).run()
    tree.tell(Renew())
    assert tree.tell(Renew()) == []
    tree.tell(TERM)
    assert tree.tell(Renew()) == []


def test_term_in_the_middle_of_a_renewal_drains_old_and_new() -> None:
    tree = Tree(workers=2).run()
    old = f"worker-0:{tree.pid('worker-0')}"
    tree.tell(Renew())
    tree.spawn("worker-0")
    assert tree.tell(TERM) == [
        Announce("stopping"),
        Send("worker-0", "drain"),
        Send("worker-1", "drain"),
        Send(old, "drain"),
    ]
    assert tree.tell(Exited("worker-0", 0)) == []
    assert tree.tell(Exited(old, 0)) == [Settle("worker-0")]
    assert tree.tell(Exited("worker-1", 0)) == [Settle("worker-1"), Send("aggregator", "drain")]
    assert tree.tell(Exited("aggregator", 0)) == [Exit(0)]


# --- the end ----------------------------------------------------------------------------------


def test_term_drains_workers_first_and_the_aggregator_last() -> None:
    tree = Tree(workers=2).run()
    assert tree.tell(TERM) == [
        Announce("stopping"),
        Send("worker-0", "drain"),
        Send("worker-1", "drain"),
    ]
    assert tree.tell(Exited("worker-0", 0)) == [Settle("worker-0")]
    assert tree.tell(Exited("worker-1", 0)) == [Settle("worker-1"), Send("aggregator", "drain")]
    assert tree.tell(Exited("aggregator", 0)) == [Exit(0)]
    assert plan.next_due_s(tree.state) == math.inf


def test_readyz_may_be_negative_for_a_while_before_the_listeners_close() -> None:
    tree = Tree(workers=1, unready_s=4).run()
    assert tree.tell(TERM) == [Announce("stopping")]
    assert plan.next_due_s(tree.state) == tree.now_s + 4
    assert tree.tell(Tick(), after_s=4) == [Send("worker-0", "drain")]


def test_a_child_that_outstays_the_drain_time_is_stopped_and_then_killed() -> None:
    tree = Tree(workers=2, drain_timeout_s=10).run()
    tree.tell(TERM)
    tree.tell(Exited("worker-0", 0))
    assert plan.next_due_s(tree.state) == tree.now_s + 10
    assert tree.tell(Tick(), after_s=10) == [Send("worker-1", "stop")]
    pid = tree.pid("worker-1")
    assert tree.tell(Tick(), after_s=plan.STOP_GRACE_S) == [Kill("worker-1", pid, signal.SIGKILL)]
    assert tree.tell(Exited("worker-1", -9)) == [Settle("worker-1"), Send("aggregator", "drain")]
    assert tree.tell(Exited("aggregator", 0)) == [Exit(1)], "something was cut: not 0"


def test_a_stopped_child_that_leaves_in_time_is_a_clean_end() -> None:
    tree = Tree(workers=1, drain_timeout_s=10).run()
    tree.tell(TERM)
    tree.tell(Tick(), after_s=10)
    tree.tell(Exited("worker-0", 0))
    assert tree.tell(Exited("aggregator", 0)) == [Exit(0)]


def test_the_second_signal_leaves_at_once() -> None:
    tree = Tree(workers=1).run()
    tree.tell(TERM)
    actions = tree.tell(Terminate(signal.SIGINT), after_s=plan.REPEAT_S)
    killed = {action.name for action in actions if isinstance(action, Kill)}
    assert killed == {"aggregator", "worker-0"}
    assert actions[-1] == Exit(128 + signal.SIGINT)


def test_one_request_to_stop_that_arrives_by_several_ways_is_one() -> None:
    """GNU `timeout` signals its child and the group, Ctrl-C under `make` comes from both."""
    tree = Tree(workers=1).run()
    assert Send("worker-0", "drain") in tree.tell(TERM)
    assert tree.tell(TERM) == []
    assert tree.tell(Terminate(signal.SIGINT), after_s=plan.REPEAT_S * 0.9) == []
    assert tree.tell(TERM, after_s=plan.REPEAT_S * 0.2)[-1] == Exit(128 + signal.SIGTERM)


def test_a_worker_that_dies_while_draining_is_not_replaced() -> None:
    tree = Tree(workers=2).run()
    tree.tell(TERM)
    assert tree.tell(Exited("worker-0", -9)) == [Settle("worker-0")]


def test_term_during_a_back_off_starts_nothing_any_more() -> None:
    tree = Tree(workers=1).run()
    tree.tell(Exited("worker-0", 1))
    tree.spawn("worker-0")
    tree.tell(Exited("worker-0", 1))
    assert tree.tell(TERM) == [Announce("stopping"), Send("aggregator", "drain")]
    assert tree.tell(Tick(), after_s=0.5) == []
    assert tree.tell(Exited("aggregator", 0)) == [Exit(0)]


def test_term_before_readiness_drains_too() -> None:
    tree = Tree(workers=1)
    tree.tell(Start())
    tree.spawn("aggregator")
    tree.spawn("worker-0")
    assert tree.tell(TERM) == [Announce("stopping"), Send("worker-0", "drain")]
    assert tree.tell(Ready("worker-0")) == []


@pytest.mark.parametrize("failures", [0, 1, 2, 3, 10, 10_000])
def test_the_delay_is_bounded(failures: int) -> None:
    assert 0 <= plan.restart_delay_s(failures, 5.0) <= 5.0


# --- any history ------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["ready", "die", "reloaded", "refused", "hup", "usr2", "good", "bad", "tick"]
        ),
        st.integers(0, 5),
        st.floats(0, 12),
    ),
    max_size=60,
)


def possible(tree: Tree, running: set[str], what: str, name: str) -> Event:
    """The event of a step, or a tick where it cannot happen now. A death leaves `running`."""
    if what == "die" and name in running:
        running.discard(name)
        return Exited(name, 1)
    if what == "ready" and name in running:
        return Ready(name)
    if what in ("good", "bad") and tree.state.reload is None:
        return Checked("" if what == "good" else "bad")
    if what == "reloaded":
        return Reloaded(name)
    if what == "refused":
        return Refused(name, "no")
    if what == "usr2":
        return Renew()
    return Hangup() if what == "hup" else Tick()


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, unready_s=st.sampled_from([0.0, 3.0]))
def test_any_history_keeps_one_process_per_child_and_can_be_ended(
    steps: list[tuple[str, int, float]], unready_s: float
) -> None:
    """Whatever happens: no child runs twice, and TERM always leads to an exit within the limits."""
    tree = Tree(workers=3, unready_s=unready_s)
    names = [child.name for child in tree.state.children]
    running: set[str] = set()

    def perform(actions: list[Action]) -> bool:
        for action in actions:
            if isinstance(action, Spawn):
                assert action.name not in running
                running.add(action.name)
                perform(tree.spawn(action.name))
            elif isinstance(action, Rename):
                running.remove(action.name)
                running.add(action.alias)
            elif isinstance(action, Kill):
                running.discard(action.name)
                if perform(tree.tell(Exited(action.name, -9))):
                    return True
            elif isinstance(action, Exit):
                return True
        return False

    perform(tree.tell(Start()))
    for what, index, after_s in steps:
        there = sorted({*names, *running})
        event = possible(tree, running, what, there[index % len(there)])
        assert not perform(tree.tell(event, after_s))
        places = len(running) + sum(c.phase == "waiting" for c in tree.state.children)
        assert places == len(names) + len(tree.state.leavers)

    began_s = tree.now_s
    ended = perform(tree.tell(TERM))
    while not ended:
        due_s = plan.next_due_s(tree.state)
        assert due_s < math.inf, "somebody must be waited for"
        ended = perform(tree.tell(Tick(), max(0.0, due_s - tree.now_s)))
    assert not running
    policy = tree.state.policy
    limit_s = unready_s + 1.2 * policy.drain_timeout_s + 2 * plan.STOP_GRACE_S
    assert tree.now_s - began_s <= limit_s + 1e-6
