"""The supervisor's loop: turns signals, deaths and lines from children into events, and acts as the
plan says.

Purpose: everything that touches processes. One thread, one selector, no decision: `plan` decides,
`Crew` knows what a child is and where settings come from.

Signals: the handlers do nothing; Python's wake-up descriptor records the number and ends the
select. How a child comes to its own is the business of whoever forks it, `Crew.fork`.

Control pipe: one socket pair per child, lines of text. To the child: `drain`, `yield`, `retire`,
`stop`, `state {json}`, `reload {json}`. From the child: `ready`, `reloaded`, `refused WHY`,
`drained`, `log {json}`. A child that sees the end of the pipe knows that the supervisor is dead.

Handover: a second pair is made with each child. The child has one end, to send what it holds when
it retires; the other is kept here for whoever is born in its place, and never read.

Limits: a line from a child has at most 64 KiB, what waits for a child at most 32 MiB; a child
beyond that is killed and replaced. Output is never waited for.

Not promised: fairness between children; a child that writes log records without end is read first
come, first served.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from agent.log import Log

from . import messages as m
from . import plan

LINE_BYTES_MAX = 64 * 1024
OUT_BYTES_MAX = 32 * 1024 * 1024
# The longest sleep; a clock that was set or a lost wake-up costs no more than this.
SLEEP_S_MAX = 5.0
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


Pair = tuple[socket.socket, socket.socket]


class Birth(NamedTuple):
    """A child to fork: its end of the control pipe, what it shall close first, and where
    connections go to a successor and come from a predecessor (-1: there was none)."""

    name: str
    control_fd: int
    handover_out_fd: int
    handover_in_fd: int
    close: list[int]


class Crew(Protocol):
    """What the arbiter does not know: what children do, where settings come from, who is told."""

    def fork(self, births: list[Birth]) -> list[int]:
        """Forks children, as close upon each other as it can: every page that the supervisor writes
        between two forks is one more copy. Their SIGTERM and SIGCHLD have the default handlers;
        SIGINT, SIGHUP and the signals for users are ignored. Returns pids, negative where a fork
        failed: -errno.
        """

    def settings(self, name: str, new: bool) -> bytes:
        """The JSON of a `reload`: the checked new settings, or those in force."""

    def check(self) -> str:
        """Reads the settings again and keeps them aside; says what is wrong, or nothing."""

    def commit(self) -> None:
        """The settings kept aside are in force."""

    def reject(self, why: str) -> None:
        """The settings kept aside are forgotten."""

    def settle(self, name: str) -> None:
        """Books what a dead worker left in its ledger."""

    def policy(self) -> plan.Policy:
        """The plan's part of the settings in force."""

    def announce(self, what: str) -> None:
        """Tells the world: ready, reloading, stopping."""

    def report(self, state: plan.State) -> bytes:
        """The JSON of a `state` line."""

    def tick(self, now_s: float, state: plan.State) -> float:
        """Work that comes with time; returns when it wants to be called again."""


class Channel:
    """The supervisor's end of one child's control pipe."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def lines(self) -> tuple[list[bytes], bool]:
        """The whole lines that have come, and whether the pipe is still open."""
        open_ = True
        try:
            while data := self.sock.recv(65_536):
                self.incoming += data
            open_ = False
        except BlockingIOError:
            pass
        except OSError:
            open_ = False
        *lines, rest = self.incoming.split(b"\n")
        self.incoming = rest if len(rest) <= LINE_BYTES_MAX else bytearray()
        return [bytes(line) for line in lines], open_

    def flush(self) -> None:
        """Sends what the pipe takes now."""
        try:
            while self.outgoing:
                sent = self.sock.send(self.outgoing)
                del self.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()  # The child is gone; its death is on its way as a signal.


class Arbiter:
    """Runs a crew of children until the plan says to leave."""

    def __init__(
        self,
        state: plan.State,
        crew: Crew,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = state
        self.crew = crew
        self.log = log
        self.clock = clock
        self.selector = selectors.EpollSelector()
        self.channels: dict[str, Channel] = {}
        self.pids: dict[int, str] = {}
        # By place: where the next child of that place hears from the present one.
        self.legacies: dict[str, socket.socket] = {}
        self.exit_code: int | None = None
        self.reported = b""
        self.crew_due_s = 0.0

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the exit; the result is the exit code of the process."""
        # What exists now is shared with every child: keep the collector's hands off those pages.
        gc.collect()
        gc.freeze()
        with self._signals() as wakeup:
            self.selector.register(wakeup, selectors.EVENT_READ, wakeup)
            self.tell(m.Start())
            while self.exit_code is None:
                self._turn(wakeup)
            self._reap(block=True)
        self.selector.close()
        return self.exit_code

    def _turn(self, wakeup: socket.socket) -> None:
        now_s = self.clock()
        due_s = min(plan.next_due_s(self.state), self.crew_due_s)
        timeout_s = min(SLEEP_S_MAX, max(0.0, due_s - now_s))
        for key, _ in self.selector.select(timeout_s):
            if key.data is wakeup:
                self._signalled(wakeup)
            elif isinstance(key.data, Channel) and key.data is self.channels.get(key.data.name):
                # Not that of a child that was reaped, and perhaps replaced, in this very turn.
                self._talk(key.data)
        if self.exit_code is None and self.clock() >= plan.next_due_s(self.state):
            self.tell(m.Tick())
        if self.exit_code is None and self.clock() >= self.crew_due_s:
            self.crew_due_s = self.crew.tick(self.clock(), self.state)

    def tell(self, event: m.Event) -> None:
        """One event, its actions, and the events that follow from those."""
        events = [event]
        while events:
            self.state, actions = plan.decide(self.state, events.pop(0), self.clock())
            # Children learn of a new phase before anybody outside does.
            self._broadcast()
            for action in actions:
                follows = self._act(action)
                if follows is not None:
                    events.append(follows)
            events += self._spawn(
                [action.name for action in actions if isinstance(action, m.Spawn)]
            )
            # An action may have changed what there is to say, such as why settings were refused.
            self._broadcast()

    def _act(self, action: m.Action) -> m.Event | None:
        match action:
            case m.Spawn():
                pass  # All of a decision are forked together, when the rest is done.
            case m.Rename(name, alias):
                self._rename(name, alias)
            case m.Settle(name):
                self.crew.settle(name)
            case m.Send(name, line):
                self._send(name, line.encode())
            case m.SendSettings(name, new):
                self._send(name, b"reload " + self.crew.settings(name, new))
            case m.Kill(_, pid, number):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            case m.CheckSettings():
                return m.Checked(self.crew.check())
            case m.CommitSettings() | m.RejectSettings():
                self._end_reload(action)
            case m.Announce(what):
                self.crew.announce(what)
            case m.Log(level, message, fields):
                self.log.write(level, message, fields)
            case m.Exit(code):
                self.exit_code = code
        return None

    def _end_reload(self, action: m.CommitSettings | m.RejectSettings) -> None:
        if isinstance(action, m.RejectSettings):
            self.crew.reject(action.why)
        else:
            self.crew.commit()
            self.state = replace(self.state, policy=self.crew.policy())

    # -- signals -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Handlers that record, for as long as the loop runs."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        before = {number: signal.getsignal(number) for number in SIGNALS}
        old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup_ends = (reader, writer)
        try:
            for number in SIGNALS:
                signal.signal(number, _record)
            yield reader
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                # The process is about to end: no signal that we know must cut that off.
                is_ours = number != signal.SIGCHLD
                signal.signal(number, signal.SIG_IGN if is_ours else handler)
            reader.close()
            writer.close()

    def _signalled(self, wakeup: socket.socket) -> None:
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            numbers = wakeup.recv(4096)
        # The request to stop first: children that the same signal reached must not be replaced.
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self.tell(m.Terminate(number))
            elif number == signal.SIGHUP:
                self.tell(m.Hangup())
            elif number == signal.SIGUSR2:
                self.tell(m.Renew())
            elif number == signal.SIGUSR1:
                self.log.info("SIGUSR1 ignored: logs go to standard error, there is none to reopen")
            if self.exit_code is not None:
                return
        # Whatever the signal was: looking for dead children costs one system call.
        self._reap(block=False)

    def _reap(self, block: bool) -> None:
        """Collects dead children; strangers too, because in a container we may be process 1."""
        while self.pids or not block:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self.pids.pop(pid, None)
            if name is None:
                continue
            self._hear(name)
            self._close(name)
            if self.exit_code is None:
                self.tell(m.Exited(name, os.waitstatus_to_exitcode(status)))
            else:
                self.crew.settle(name)

    # -- children ------------------------------------------------------------------------------

    def _spawn(self, names: list[str]) -> list[m.Event]:
        if not names:
            return []
        pairs = [socket.socketpair() for _ in names]
        # Each message whole, with the descriptors that belong to it.
        handovers = [socket.socketpair(type=socket.SOCK_SEQPACKET) for _ in names]
        shared = [end for pair in (*pairs, *handovers) for end in pair]
        shared += self._wakeup_ends
        shared += self.legacies.values()
        shared += [channel.sock for channel in self.channels.values()]
        numbers = [sock.fileno() for sock in shared] + [self.selector.fileno()]
        births = []
        for name, (_, theirs), (out, _) in zip(names, pairs, handovers, strict=True):
            legacy = self.legacies.get(name)
            own = (theirs.fileno(), out.fileno(), legacy.fileno() if legacy else -1)
            births.append(Birth(name, *own, [number for number in numbers if number not in own]))
        pids = self.crew.fork(births)
        events: list[m.Event] = []
        for name, pair, handover, pid in zip(names, pairs, handovers, pids, strict=True):
            events.append(self._forked(name, pid, pair, handover))
        return events

    def _forked(self, name: str, pid: int, pair: Pair, handover: Pair) -> m.Event:
        """Keeps our ends of what a child was given, or nothing when the fork has failed."""
        (ours, theirs), (out, legacy) = pair, handover
        theirs.close()
        out.close()
        if pid < 0:
            ours.close()
            legacy.close()
            self.log.error("cannot fork", child=name, why=os.strerror(-pid))
            return m.SpawnFailed(name)
        if before := self.legacies.pop(name, None):
            before.close()
        self.legacies[name] = legacy
        self._adopt(name, pid, ours)
        return m.Spawned(name, pid)

    def _adopt(self, name: str, pid: int, ours: socket.socket) -> None:
        """A child was forked: from now on it is listened to."""
        ours.setblocking(False)
        channel = Channel(name, ours)
        self.channels[name] = channel
        self.pids[pid] = name
        self.selector.register(ours, selectors.EVENT_READ, channel)
        self.log.debug("forked", child=name, pid=pid)
        self._send(name, b"state " + self.reported)

    def _talk(self, channel: Channel) -> None:
        channel.flush()
        self._watch(channel)
        if not self._hear(channel.name):
            # The pipe is closed but the child may still be there: its death comes as SIGCHLD.
            self.selector.unregister(channel.sock)
            del self.channels[channel.name]
            channel.sock.close()

    def _hear(self, name: str) -> bool:
        """Reads what the child has written; false when the pipe is closed."""
        channel = self.channels.get(name)
        if channel is None:
            return False
        lines, open_ = channel.lines()
        for line in lines:
            self._heard(name, line)
        return open_

    def _heard(self, name: str, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        if word == b"log":
            self.log.relay(name, rest)
        elif word == b"ready":
            self.tell(m.Ready(name))
        elif word == b"reloaded":
            self.tell(m.Reloaded(name))
        elif word == b"refused":
            self.tell(m.Refused(name, rest.decode(errors="replace")))
        elif word == b"drained":
            self.log.debug("drained", child=name)
        else:
            self.log.error("unknown line", child=name, line=line[:200].decode(errors="replace"))

    def _send(self, name: str, line: bytes) -> None:
        channel = self.channels.get(name)
        if channel is None:
            return
        if len(channel.outgoing) + len(line) > OUT_BYTES_MAX:
            self.log.error("does not read its control pipe", child=name)
            for pid, owner in self.pids.items():
                if owner == name:
                    os.kill(pid, signal.SIGKILL)
            return
        channel.outgoing += line + b"\n"
        channel.flush()
        self._watch(channel)

    def _watch(self, channel: Channel) -> None:
        """Asks for writability only while something waits to be written."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.outgoing else 0)
        if self.selector.get_key(channel.sock).events != wanted:
            self.selector.modify(channel.sock, wanted, channel)

    def _rename(self, name: str, alias: str) -> None:
        channel = self.channels.pop(name, None)
        if channel is not None:
            channel.name = alias
            self.channels[alias] = channel
        self.pids = {pid: alias if of == name else of for pid, of in self.pids.items()}

    def _close(self, name: str) -> None:
        channel = self.channels.pop(name, None)
        if channel is not None:
            self.selector.unregister(channel.sock)
            channel.sock.close()

    def _broadcast(self) -> None:
        """Sends the state to all children when it has changed."""
        report = self.crew.report(self.state)
        if report != self.reported:
            self.reported = report
            for name in list(self.channels):
                self._send(name, b"state " + report)


def _record(_number: int, _frame: object) -> None:
    """Python wants a handler; the wake-up descriptor has recorded the signal already."""
