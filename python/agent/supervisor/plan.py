"""What the supervisor does next: a pure function of its state, an event and the time.

Purpose: all decisions about starting, restarting, reloading and stopping children, testable without
a process. `arbiter` feeds it events and executes the actions that it gives back.

```text
 starting --all ready--> running --TERM--> unready --unready_s--> draining --workers gone-->
 flushing --aggregator gone--> done
                            |                                        |
                            +-- HUP: check, send to all, commit or roll back
                            +-- USR2: a successor for one worker after the other
```

Rules:
* A dead child is replaced at once; one that keeps dying soon after its start waits longer each
time, up to
  `restart_delay_s_max`. It is never given up.
* A worker's ledger is settled after its death and before its replacement starts.
* A reload is all or nothing: when one child refuses, those that took it get the old settings back.
* Workers are renewed one after the other, and only while all children are ready. The successor is
  forked first, on the same listeners; when it is ready the old one *retires*: it applies what it
  has received, closes its connections and leaves. Until then it serves, whatever happens to the
  successor.
* The first TERM drains, the second leaves at once. Repeats within REPEAT_S of the first are the
  same request: GNU `timeout` signals its child and the group, and a shell passes on what was sent
  to everybody. A child that outstays the drain time is told to stop, then killed.
* An exit with 78 before the first readiness means that the settings cannot work: the supervisor
leaves with 78.

Not promised: that the time between a death and the replacement is bounded; the machine decides
that.
"""

from __future__ import annotations

import math
import signal
from typing import Literal

import msgspec
from msgspec.structs import replace

from .messages import (
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

AGGREGATOR = "aggregator"
DESK = "desk"

# A child that was ready for this long did not die of its start.
STABLE_S = 2.0
# The first pause of a child that keeps dying; doubled each time.
RESTART_DELAY_S = 0.1
# How long all children together may take to answer a reload.
RELOAD_TIMEOUT_S = 10.0
# From "stop" to SIGKILL for a child that outstays the drain time.
STOP_GRACE_S = 2.0
# Signals to stop this soon after the first are the same one, sent along several ways.
REPEAT_S = 0.25
# A retiring worker cuts its connections itself after 3 s (`agent_net::engine::RETIRE_MS`).
RETIRE_TIMEOUT_S = 5.0
# Workers that may be retiring at the same time.
RETIRING_MAX = 8
EXIT_CONFIG = 78

Phase = Literal["starting", "running", "unready", "draining", "flushing", "done"]
ChildPhase = Literal["waiting", "starting", "ready", "gone"]


class Policy(msgspec.Struct, frozen=True):
    """The settings that the plan depends on."""

    drain_timeout_s: float = 25.0
    unready_s: float = 0.0
    start_timeout_s: float = 30.0
    restart_delay_s_max: float = 10.0


class Child(msgspec.Struct, frozen=True):
    """One place for a process: a worker by its number, the desk, or the aggregator."""

    name: str
    phase: ChildPhase = "waiting"
    pid: int = 0
    since_s: float = 0.0  # When this phase began; for "waiting": when to start.
    failures: int = 0  # Deaths in a row soon after the start.
    exits: int = 0  # All times it was not there and should have been.
    generation: int = 0  # Of the settings it runs with.
    killed: bool = False  # We sent SIGKILL.


class Leaver(msgspec.Struct, frozen=True):
    """A worker whose place has a successor."""

    name: str  # That of its place and its pid.
    place: str
    pid: int
    since_s: float
    phase: Literal["serving", "retiring", "stopping"] = "serving"  # Stopping: told to leave now.


class Reload(msgspec.Struct, frozen=True):
    """New settings are on their way to the children."""

    generation: int
    pending: frozenset[str]
    since_s: float


class State(msgspec.Struct, frozen=True):
    """Everything the plan knows."""

    policy: Policy
    children: tuple[Child, ...]
    phase: Phase = "starting"
    generation: int = 0  # Of the settings that are in force.
    generations: int = 0  # Generations given out so far; a rolled-back number is not used again.
    reload: Reload | None = None
    reload_again: bool = False  # Another HUP came while one was in progress.
    leavers: tuple[Leaver, ...] = ()
    to_renew: tuple[str, ...] = ()  # Workers whose turn is still to come.
    renewing: bool = False
    renew_since_s: float = 0.0
    renewed: int = 0  # Successors that became ready, since the start.
    terminated_s: float = -math.inf  # When the first signal to stop came.
    deadline_s: float = math.inf  # End of "unready", or of the drain time.
    stopping: bool = False  # "stop" was sent to those that outstayed the drain time.
    forced: bool = False  # A child had to be killed while draining.


def begin(workers: int, policy: Policy, *, desk: bool = False) -> State:
    """The state before anything was started."""
    names = [AGGREGATOR, *places(workers, desk=desk)]
    return State(policy, tuple(Child(name) for name in names))


def places(workers: int, *, desk: bool) -> list[str]:
    """The children that serve: workers and, where there is HTTP, the desk."""
    names = [worker_name(index) for index in range(workers)]
    return [*names, DESK] if desk else names


def worker_name(index: int) -> str:
    return f"worker-{index}"


def place(name: str) -> str:
    """`aggregator`, `desk`, or the number of a worker; also of one that has a successor."""
    return name.removeprefix("worker-").partition(":")[0]


def restart_delay_s(failures: int, delay_s_max: float) -> float:
    """The pause before the next start: none after the first death, then doubling."""
    if failures <= 1:
        return 0.0
    # The exponent is bounded so that the float cannot overflow after a year of failures.
    return min(delay_s_max, RESTART_DELAY_S * 2.0 ** min(failures - 2, 60))


def decide(state: State, event: Event, now_s: float) -> tuple[State, list[Action]]:
    """The next state, and what to do now, in this order."""
    plan = _Plan(state, now_s)
    match event:
        case Start() | Tick():
            pass
        case Spawned(name, pid):
            plan.spawned(name, pid)
        case SpawnFailed(name):
            plan.failed(name, "could not be forked")
        case Ready(name):
            plan.ready(name)
        case Exited(name, code):
            plan.exited(name, code)
        case Hangup():
            plan.hangup()
        case Renew():
            plan.renew()
        case Checked(why):
            plan.checked(why)
        case Reloaded(name):
            plan.reloaded(name)
        case Refused(name, why):
            plan.roll_back(f"{name}: {why}")
        case Terminate(number):
            plan.terminate(number)
    plan.time()
    return plan.state, plan.actions


def next_due_s(state: State) -> float:
    """When a `Tick` is needed; infinity when only an event can change anything."""
    due = [state.deadline_s]
    if state.phase in ("starting", "running"):
        due += [child.since_s for child in state.children if child.phase == "waiting"]
    due += [
        child.since_s + state.policy.start_timeout_s
        for child in state.children
        if child.phase == "starting" and not child.killed
    ]
    due += [_due_s(leaver) for leaver in state.leavers]
    if state.reload:
        due.append(state.reload.since_s + RELOAD_TIMEOUT_S)
    return min(due)


class _Plan:
    """One decision: the state as it changes, and the actions so far."""

    def __init__(self, state: State, now_s: float) -> None:
        self.state = state
        self.now_s = now_s
        self.actions: list[Action] = []

    # -- children ------------------------------------------------------------------------------

    def child(self, name: str) -> Child:
        return next(child for child in self.state.children if child.name == name)

    def alive(self) -> list[Child | Leaver]:
        """Every process that there is."""
        here = [c for c in self.state.children if c.phase in ("starting", "ready")]
        return [*here, *self.state.leavers]

    def update(self, name: str, **changes: object) -> None:
        children = tuple(
            replace(child, **changes) if child.name == name else child
            for child in self.state.children
        )
        self.state = replace(self.state, children=children)

    def log(
        self, level: Literal["info", "warning", "error"], message: str, **fields: str | float
    ) -> None:
        self.actions.append(Log(level, message, fields))

    def spawned(self, name: str, pid: int) -> None:
        self.update(
            name,
            phase="starting",
            pid=pid,
            since_s=self.now_s,
            generation=self.state.generation,
            killed=False,
        )
        if self.state.phase not in ("starting", "running"):
            self.actions.append(Send(name, "drain"))

    def ready(self, name: str) -> None:
        child = self.child(name)
        if child.phase != "starting":
            return
        self.update(name, phase="ready", since_s=self.now_s)
        reload = self.state.reload
        if reload:
            pending = reload.pending | {name}
            self.state = replace(self.state, reload=replace(reload, pending=pending))
            self.actions.append(SendSettings(name, new=True))
        elif child.generation != self.state.generation:
            # It was forked before the settings changed and became ready after.
            self.update(name, generation=self.state.generation)
            self.actions.append(SendSettings(name, new=False))
        was_renewed = self.retire(name)
        if self.state.phase == "starting":
            if all(child.phase == "ready" for child in self.state.children):
                self.state = replace(self.state, phase="running")
                self.actions.append(Announce("ready"))
        elif self.state.phase == "running" and not was_renewed:
            self.log("info", f"{name} is ready again", pid=child.pid)

    def exited(self, name: str, code: int) -> None:
        if any(leaver.name == name for leaver in self.state.leavers):
            self.left(name, code)
            return
        child = self.child(name)
        self.state = replace(
            self.state, to_renew=tuple(other for other in self.state.to_renew if other != name)
        )
        # Two processes write one ledger while a worker is renewed: the last of them settles it.
        if name != AGGREGATOR and not self.leavers_of(name):
            self.actions.append(Settle(name))
        if self.state.phase == "starting" and code == EXIT_CONFIG:
            self.log("error", f"{name} cannot use the settings", pid=child.pid)
            self.leave(EXIT_CONFIG)
            return
        if self.state.phase in ("starting", "running"):
            how = f"died of {_signal_name(-code)}" if code < 0 else f"left with {code}"
            self.failed(name, how)
        else:
            self.update(name, phase="gone", since_s=self.now_s)
            if code:
                self.log("warning", f"{name} left with {code} while stopping", pid=child.pid)
        self.forget(name)

    def failed(self, name: str, how: str) -> None:
        """A child is not there and should be: plans its next start."""
        child = self.child(name)
        stable = child.phase == "ready" and self.now_s - child.since_s >= STABLE_S
        failures = 1 if stable else child.failures + 1
        delay_s = restart_delay_s(failures, self.state.policy.restart_delay_s_max)
        self.update(
            name,
            phase="waiting",
            since_s=self.now_s + delay_s,
            failures=failures,
            exits=child.exits + 1,
        )
        when = f"again in {delay_s:g} s" if delay_s else "starting it again"
        self.log("warning", f"{name} {how}; {when}", pid=child.pid, failures=failures)

    # -- renewal -------------------------------------------------------------------------------

    def leavers_of(self, place: str) -> list[Leaver]:
        return [leaver for leaver in self.state.leavers if leaver.place == place]

    def change_leaver(self, changed: Leaver) -> None:
        leavers = tuple(changed if x.name == changed.name else x for x in self.state.leavers)
        self.state = replace(self.state, leavers=leavers)

    def renew(self) -> None:
        if self.state.phase != "running":
            self.log("warning", f"SIGUSR2 ignored while {self.state.phase}")
        elif self.state.renewing:
            self.log("warning", "SIGUSR2 ignored: workers are being replaced already")
        else:
            names = [child.name for child in self.state.children if child.name != AGGREGATOR]
            workers = sum(name != DESK for name in names)
            self.log("info", "replacing workers and desk, one after the other", workers=workers)
            self.state = replace(
                self.state, to_renew=tuple(names), renewing=True, renew_since_s=self.now_s
            )

    def renew_next(self) -> None:
        """The next worker gets a successor, when nothing else is going on."""
        state = self.state
        all_ready = all(child.phase == "ready" for child in state.children)
        if not (state.renewing and all_ready) or state.reload:
            return
        if not state.to_renew:
            if not state.leavers:
                took_s = round(self.now_s - state.renew_since_s, 3)
                self.state = replace(state, renewing=False)
                self.log("info", "all workers are replaced", seconds=took_s)
            return
        if len(state.leavers) >= RETIRING_MAX:
            return
        name, *rest = state.to_renew
        old = self.child(name)
        leaver = Leaver(f"{name}:{old.pid}", name, old.pid, self.now_s)
        self.state = replace(state, to_renew=tuple(rest), leavers=(*state.leavers, leaver))
        self.update(name, phase="waiting", since_s=math.inf, pid=0, failures=0)
        self.actions += [Send(name, "yield"), Rename(name, leaver.name), Spawn(name)]

    def retire(self, place: str) -> bool:
        """A child of this name is ready; whether it is a successor."""
        serving = [leaver for leaver in self.leavers_of(place) if leaver.phase == "serving"]
        for leaver in serving:
            self.change_leaver(replace(leaver, phase="retiring", since_s=self.now_s))
            self.actions.append(Send(leaver.name, "retire"))
            self.state = replace(self.state, renewed=self.state.renewed + 1)
        return bool(serving)

    def left(self, name: str, code: int) -> None:
        """A worker that has a successor is gone."""
        (gone,) = (leaver for leaver in self.state.leavers if leaver.name == name)
        rest = tuple(leaver for leaver in self.state.leavers if leaver.name != name)
        self.state = replace(self.state, leavers=rest)
        is_last = self.child(gone.place).phase not in ("starting", "ready")
        if is_last and not self.leavers_of(gone.place):
            self.actions.append(Settle(gone.place))
        if code or (gone.phase == "serving" and self.state.phase == "running"):
            how = f"died of {_signal_name(-code)}" if code < 0 else f"left with {code}"
            self.log("warning", f"{gone.place} {how} while it was replaced", pid=gone.pid)

    def hurry_leavers(self) -> None:
        for leaver in self.state.leavers:
            if self.now_s < _due_s(leaver):
                continue
            if leaver.phase == "retiring":
                self.change_leaver(replace(leaver, phase="stopping", since_s=self.now_s))
                self.actions.append(Send(leaver.name, "stop"))
            else:
                self.change_leaver(replace(leaver, since_s=math.inf))
                self.log("error", f"{leaver.place} was killed: it did not retire", pid=leaver.pid)
                self.actions.append(Kill(leaver.name, leaver.pid, signal.SIGKILL))

    # -- reload --------------------------------------------------------------------------------

    def hangup(self) -> None:
        if self.state.phase != "running":
            self.log("warning", f"SIGHUP ignored while {self.state.phase}")
        elif self.state.reload:
            self.state = replace(self.state, reload_again=True)
        else:
            self.actions.append(CheckSettings())

    def checked(self, why: str) -> None:
        if self.state.phase != "running":
            return
        if why:
            self.actions.append(RejectSettings(why))
            return
        names = [child.name for child in self.state.children if child.phase == "ready"]
        generation = self.state.generations + 1
        reload = Reload(generation, frozenset(names), self.now_s)
        self.state = replace(self.state, reload=reload, generations=generation)
        self.actions.append(Announce("reloading"))
        self.actions += [SendSettings(name, new=True) for name in names]
        self.commit_if_complete()

    def reloaded(self, name: str) -> None:
        reload = self.state.reload
        if reload and name in reload.pending:
            self.update(name, generation=reload.generation)
            self.forget(name)

    def forget(self, name: str) -> None:
        """The child has answered the reload, or cannot answer any more."""
        reload = self.state.reload
        if reload:
            pending = reload.pending - {name}
            self.state = replace(self.state, reload=replace(reload, pending=pending))
            self.commit_if_complete()

    def commit_if_complete(self) -> None:
        reload = self.state.reload
        if reload and not reload.pending:
            self.state = replace(self.state, generation=reload.generation, reload=None)
            self.actions += [CommitSettings(), Announce("ready")]
            self.check_again()

    def roll_back(self, why: str) -> None:
        reload = self.state.reload
        if reload is None:
            return
        self.state = replace(self.state, reload=None)
        for child in self.state.children:
            # Those that have not answered yet may still take the new settings, so they get the old
            # ones too.
            if child.name in reload.pending or child.generation == reload.generation:
                self.update(child.name, generation=self.state.generation)
                self.actions.append(SendSettings(child.name, new=False))
        self.actions += [RejectSettings(why), Announce("ready")]
        self.check_again()

    def check_again(self) -> None:
        if self.state.reload_again:
            self.state = replace(self.state, reload_again=False)
            self.actions.append(CheckSettings())

    # -- the end -------------------------------------------------------------------------------

    def terminate(self, number: int) -> None:
        if self.state.phase not in ("starting", "running"):
            if self.now_s >= self.state.terminated_s + REPEAT_S:
                self.log("warning", f"{_signal_name(number)} again: leaving at once")
                self.leave(128 + number)
            return
        self.state = replace(self.state, terminated_s=self.now_s)
        self.log("info", f"{_signal_name(number)}: draining")
        if self.state.reload:
            self.state = replace(self.state, reload=None)
            self.actions.append(RejectSettings("stopping"))
        self.actions.append(Announce("stopping"))
        self.state = replace(self.state, to_renew=(), renewing=False)
        for child in self.state.children:
            if child.phase == "waiting":
                self.update(child.name, phase="gone")
        policy = self.state.policy
        if policy.unready_s > 0:
            deadline_s = self.now_s + policy.unready_s
            self.state = replace(self.state, phase="unready", deadline_s=deadline_s)
        else:
            self.drain()

    def drain(self) -> None:
        deadline_s = self.now_s + self.state.policy.drain_timeout_s
        self.state = replace(self.state, phase="draining", deadline_s=deadline_s)
        for child in self.alive():
            if child.name != AGGREGATOR:
                self.actions.append(Send(child.name, "drain"))

    def leave(self, code: int) -> None:
        for child in self.alive():
            self.actions.append(Kill(child.name, child.pid, signal.SIGKILL))
        self.state = replace(self.state, phase="done", deadline_s=math.inf)
        self.actions.append(Exit(code))

    # -- time ----------------------------------------------------------------------------------

    def time(self) -> None:
        """What is due now, whatever the event was."""
        if self.state.phase == "running":
            self.renew_next()
        if self.state.phase in ("starting", "running"):
            self.start_waiting()
        self.kill_slow_starters()
        self.hurry_leavers()
        reload = self.state.reload
        if reload and self.now_s >= reload.since_s + RELOAD_TIMEOUT_S:
            self.roll_back(f"{', '.join(sorted(reload.pending))}: no answer")
        if self.state.phase == "unready" and self.now_s >= self.state.deadline_s:
            self.drain()
        if self.state.phase in ("draining", "flushing"):
            self.advance_drain()

    def start_waiting(self) -> None:
        for child in self.state.children:
            if child.phase == "waiting" and self.now_s >= child.since_s:
                # Not due again until the arbiter says what became of it.
                self.update(child.name, since_s=math.inf)
                self.actions.append(Spawn(child.name))

    def kill_slow_starters(self) -> None:
        limit_s = self.state.policy.start_timeout_s
        for child in self.state.children:
            late = child.phase == "starting" and self.now_s >= child.since_s + limit_s
            if late and not child.killed:
                self.update(child.name, killed=True)
                self.log("error", f"{child.name} was not ready after {limit_s:g} s", pid=child.pid)
                self.actions.append(Kill(child.name, child.pid, signal.SIGKILL))

    def advance_drain(self) -> None:
        alive = self.alive()
        if not alive:
            self.state = replace(self.state, phase="done", deadline_s=math.inf)
            self.actions.append(Exit(1 if self.state.forced else 0))
            return
        if self.state.phase == "draining" and all(child.name == AGGREGATOR for child in alive):
            # The aggregator goes last: it takes what the workers left in the rings.
            deadline_s = self.now_s + max(STOP_GRACE_S, self.state.policy.drain_timeout_s / 5)
            self.state = replace(
                self.state, phase="flushing", deadline_s=deadline_s, stopping=False
            )
            self.actions.append(Send(AGGREGATOR, "drain"))
        if self.now_s < self.state.deadline_s:
            return
        late = [c for c in alive if self.state.phase == "flushing" or c.name != AGGREGATOR]
        if not self.state.stopping:
            self.state = replace(self.state, stopping=True, deadline_s=self.now_s + STOP_GRACE_S)
            self.log("warning", "the time to drain is over", children=_names(late))
            self.actions += [Send(child.name, "stop") for child in late]
            return
        self.state = replace(self.state, forced=True, deadline_s=math.inf)
        self.log("error", "killed while draining", children=_names(late))
        self.actions += [Kill(child.name, child.pid, signal.SIGKILL) for child in late]


def _due_s(leaver: Leaver) -> float:
    """When it must be hurried; one that still serves may take as long as its successor does."""
    limits = {"serving": math.inf, "retiring": RETIRE_TIMEOUT_S, "stopping": STOP_GRACE_S}
    return leaver.since_s + limits[leaver.phase]


def _names(children: list[Child | Leaver]) -> str:
    return ", ".join(child.name for child in children)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
