"""The controller of a run of many connections.

Purpose: starts the executors, has them follow one clock, adds up what they report, and ends them
whatever happens. It decides phases; when a connection opens or a message goes is theirs to know.

    with Controller(plan) as controller:
        controller.open()
        controller.hold(60, message_interval_s=60)
        controller.close(with_reset=True)      # a storm: all at once
        controller.open(rate=0)
        controller.finish()
        controller.close()
    told = controller.result()

Start it before the process has threads: it forks. Every phase has a deadline. A phase that was not
done by then, an executor that died and an interrupt are in the verdict, not exceptions; after a
death the phases that follow do nothing.
"""

from __future__ import annotations

import os
import resource
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from . import machine, result
from .account import Account, lost
from .executor import Executor
from .plan import METRIC, Plan, check, executors_needed, shares
from .target import Collector, Page, Processes, TargetError

# From an order that names an instant to that instant.
NOTICE_NS = 50_000_000
READY_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0


class Snapshot(msgspec.Struct, frozen=True):
    """How a run stands."""

    phase: str
    elapsed_s: float
    open: int
    opening: int
    awaiting: int
    opened: int
    failed: int
    lost: int
    sent: int
    acked: int
    p99_s: float | None


class Controller:
    """One run. `watch` gets a snapshot each second."""

    def __init__(
        self,
        plan: Plan,
        *,
        watch: Callable[[Snapshot], None] | None = None,
        collector: Collector | None = None,
        collector_pid: int | None = None,
    ) -> None:
        check(plan)
        files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        cores = len(os.sched_getaffinity(0))
        count = executors_needed(plan, files_max, cores)
        self.plan = plan
        self.shares = shares(plan, count, int.from_bytes(os.urandom(4), "little"))
        self.watch = watch
        self.collector = collector
        pid = collector_pid or (collector.supervisor() if collector else None)
        self.processes = Processes(pid) if pid else None
        self.account = Account()
        self.phases: list[dict[str, Any]] = []
        self.facts = result.Facts(plan=plan, executors=count, machine=machine.describe())
        self.executors: list[Executor] = []
        self.events: dict[str, set[int]] = {}
        self.begin_ns = 0
        self._phase = "start"
        self._selector = selectors.DefaultSelector()
        self._next_ns = 0
        self._server_cpu_s: float | None = None
        self._before: Page | None = None

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.facts.started = datetime.now(UTC).isoformat(timespec="seconds")
        if self.collector:
            self._before = self.collector.page()
        try:
            for number, share in enumerate(self.shares):
                is_nice = self.plan.is_loopback
                executor = Executor(number, share, self.executors, is_nice=is_nice)
                self.executors.append(executor)
                self._selector.register(executor.report, selectors.EVENT_READ, executor)
            if not self._wait("ready", READY_TIMEOUT_S):
                self.facts.note_failure("not all executors were ready in time")
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._order("stop")
            self._wait("done", STOP_TIMEOUT_S)
            self._note_end()
        finally:
            self._end()

    def _begin(self) -> None:
        self.facts.kernel_before = machine.kernel_bytes()
        if self.processes:
            self._server_cpu_s = self.facts.server_cpu_before_s = self.processes.cpu_s()
            self.facts.server_private_before = self.processes.private_bytes()
        self.begin_ns = time.monotonic_ns() + NOTICE_NS
        self._next_ns = self.begin_ns + 1_000_000_000
        self._order(f"begin {self.begin_ns}")

    def _note_end(self) -> None:
        if self.processes:
            self.facts.server_cpu_after_s = self.processes.cpu_s()
        if self.collector and self._before:
            try:
                after = self.collector.page()
            except TargetError as error:
                self.facts.note_failure(str(error))
                return
            self.facts.counted = after.counted(METRIC, self.plan.run)
            self.facts.ledger = _difference(self._before.ledger(), after.ledger())

    def _end(self) -> None:
        for executor in self.executors:
            executor.close()
        self._selector.close()

    # --- phases -----------------------------------------------------------------------------

    def open(self, rate: float | None = None, name: str = "open") -> bool:
        """Opens every connection that is not open, at a rate (0: at once). True: all were tried."""
        wanted = self.plan.open_rate if rate is None else rate
        with self._phase_of(name):
            start_ns = time.monotonic_ns() + NOTICE_NS
            for executor in self.executors:
                # In proportion, so that all end together; one after another within a step.
                own = wanted * executor.connections / self.plan.connections
                shift_ns = int(1e9 * executor.number / wanted) if wanted else 0
                executor.order(f"open {own!r} {start_ns + shift_ns}")
            before = self.account.counts["opened"]
            is_done = self._wait("opened", self.plan.open_deadline_s)
            seconds = (time.monotonic_ns() - start_ns) / 1e9
            if not is_done:
                self.facts.note_failure(f"opening was not over after {seconds:.0f} s ({name})")
        if name == "open":
            self.facts.open_seconds = seconds
            self.facts.opened_first = self.account.counts["opened"] - before
            self._note_held()
        return is_done

    def _note_held(self) -> None:
        """What the connections cost, while they are there."""
        self.facts.open_cpu_s = self.account.client_cpu_s
        self.facts.kernel_held = machine.kernel_bytes()
        self.facts.open_held = self.account.now("open")
        if self.processes:
            self.facts.server_cpu_opened_s = self.processes.cpu_s()
            self.facts.server_private_held = self.processes.private_bytes()

    def message(self, interval_s: float) -> None:
        """A message each interval on every connection, from now on; 0: no more."""
        start_ns = time.monotonic_ns() + NOTICE_NS
        self._order(f"message {int(interval_s * 1e9)} {start_ns}")

    def hold(
        self, seconds: float, message_interval_s: float | None = None, name: str = "hold"
    ) -> None:
        """Lets time pass, with messages if an interval is given."""
        with self._phase_of(name):
            if message_interval_s is not None:
                self.message(message_interval_s)
            until_ns = time.monotonic_ns() + int(seconds * 1e9) + NOTICE_NS
            self._pump(until_ns, lambda: False)

    def finish(self) -> bool:
        """No new messages; waits for the answers that are missing. True: all came or failed."""
        with self._phase_of("finish"):
            self._order("finish")
            is_done = self._wait("quiet", 2 * self.plan.ack_timeout_s + 5)
            if not is_done:
                self.facts.note_failure("answers were still missing when the run ended")
        return is_done

    def close(self, *, with_reset: bool = False, name: str = "close") -> bool:
        """Closes all connections at once, politely or with a reset."""
        with self._phase_of(name):
            self._order("close reset" if with_reset else "close fin")
            is_done = self._wait("closed", CLOSE_TIMEOUT_S)
            if not is_done:
                self.facts.note_failure(f"closing was not over after {CLOSE_TIMEOUT_S:.0f} s")
        return is_done

    @contextmanager
    def _phase_of(self, name: str) -> Iterator[None]:
        self._phase = name
        phase = {"name": name, "t0": self.elapsed_s, "t1": self.elapsed_s}
        self.phases.append(phase)
        try:
            yield
        finally:
            phase["t1"] = self.elapsed_s

    # --- what is known ----------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """Seconds since the executors began."""
        return max(0.0, (time.monotonic_ns() - self.begin_ns) / 1e9) if self.begin_ns else 0.0

    def snapshot(self) -> Snapshot:
        """How the run stands, as of the last reports."""
        account = self.account
        latest = account.seconds.get(max(account.seconds, default=0))
        return Snapshot(
            phase=self._phase,
            elapsed_s=self.elapsed_s,
            open=account.now("open"),
            opening=account.now("opening"),
            awaiting=account.now("awaiting"),
            opened=account.counts["opened"],
            failed=account.failures.total(),
            lost=lost(account.counts),
            sent=account.counts["messages_sent"],
            acked=account.counts["messages_acked"],
            p99_s=latest.message.quantile_s(0.99) if latest else None,
        )

    def result(self) -> dict[str, Any]:
        """The result of the run, when it is over."""
        return result.build(self.facts, self.account, self.phases)

    # --- the loop ---------------------------------------------------------------------------

    def _order(self, line: str) -> None:
        for executor in self.executors:
            executor.order(line)

    def _wait(self, event: str, timeout_s: float) -> bool:
        """Until every executor has told the event. False at the deadline or after a death."""
        self.events[event] = set()
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        self._pump(until_ns, lambda: len(self.events[event]) == len(self.executors))
        return len(self.events[event]) == len(self.executors)

    def _pump(self, until_ns: int, is_over: Callable[[], bool]) -> None:
        while not is_over() and not self.facts.deaths:
            now_ns = time.monotonic_ns()
            if now_ns >= until_ns:
                return
            due_ns = min(until_ns, self._next_ns) if self.begin_ns else until_ns
            for key, _ in self._selector.select(max(0, due_ns - now_ns) / 1e9):
                self._hear(key.data)
            if self.begin_ns and time.monotonic_ns() >= self._next_ns:
                self._each_second()

    def _hear(self, executor: Executor) -> None:
        for line in executor.hear():
            if line.event:
                self.events.setdefault(line.event, set()).add(executor.number)
            else:
                self.account.add(executor.number, line)
        if executor.death or executor.is_done:
            self._selector.unregister(executor.report)
        if executor.death:
            self.facts.deaths.append(f"executor {executor.number} {executor.death}")

    def _each_second(self) -> None:
        second = (self._next_ns - self.begin_ns) // 1_000_000_000 - 1
        # A second that was missed goes into the one that follows it.
        self._next_ns = self.begin_ns + int(self.elapsed_s + 1) * 1_000_000_000
        if self.processes:
            cpu_s = self.processes.cpu_s()
            if cpu_s is not None and self._server_cpu_s is not None:
                self.account.server_cpu(second, round(cpu_s - self._server_cpu_s, 3))
            self._server_cpu_s = cpu_s
        if self.watch:
            self.watch(self.snapshot())


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What grew or shrank."""
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in grown.items() if value}


def run(controller: Controller, storm: str = "none") -> dict[str, Any]:
    """The usual run: open, hold, perhaps a storm, finish, close. An interrupt ends it early."""
    plan = controller.plan
    with controller:
        try:
            controller.open()
            controller.hold(plan.hold_s, plan.message_interval_s or None)
            if storm != "none":
                controller.finish()
                controller.close(with_reset=True, name="storm-vanish")
            if storm == "return":
                controller.open(rate=0, name="storm-return")
                controller.hold(min(plan.hold_s, 10), plan.message_interval_s or None)
            controller.finish()
        except KeyboardInterrupt:
            controller.facts.is_interrupted = True
        controller.close()
    return controller.result()
