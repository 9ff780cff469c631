"""The collector as a crew: what its children are, where settings come from, who is told.

Purpose: puts the parts together. In this order: limits of the process, folder, lock, sockets,
segment, ledger of the last run, children. What cannot be had ends the start with one sentence and a
code of sysexits.

| code | when |
|---|---|
| 69 | an address, a socket path or the folder is taken; the segment cannot be made |
| 78 | the settings are wrong, or the folder is not ours |
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import orjson

from agent import __version__, app
from agent.app import other_layout
from agent.config import Config, worker_count
from agent.config_check import restart_needed
from agent.config_source import ConfigError, Loaded
from agent.log import Log
from agent.schema import schema_json

from . import cgroup, child_config, plan, worker
from .arbiter import Arbiter, Birth
from .claim import ClaimError, claim
from .desk import Doors
from .host import Host
from .listeners import ListenError, Listeners, open_listeners
from .notify import Notifier
from .segment import open_with
from .telemetry import Telemetry

EXIT_UNAVAILABLE = 69
EXIT_CONFIG = 78
# File descriptors asked for; the hard limit decides.
FILES_MAX = 1 << 20
# What the kernel may take to close the sockets of a collector that was killed.
SOCKETS_CLOSE_S = 2.0


class StartError(Exception):
    """The collector cannot start; `code` is for the shell."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def serve(loaded: Loaded, reload: Callable[[], Loaded], log: Log, ready_fd: int | None) -> int:
    """Runs the collector until it is told to leave; the result is the exit code."""
    notifier = Notifier(ready_fd, os.environ.pop("NOTIFY_SOCKET", ""))
    try:
        collector = Collector(loaded, reload, log, notifier)
    except StartError as error:
        log.error(str(error))
        notifier.close()
        return error.code
    try:
        site, has_desk = collector.site, collector.listeners.http is not None
        state = plan.begin(site.workers, collector.policy(), desk=has_desk)
        return Arbiter(state, collector, log).run()
    finally:
        collector.listeners.close()
        collector.doors.close()
        collector.claim.release()
        notifier.close()


class Collector:
    """The crew of the arbiter."""

    def __init__(
        self, loaded: Loaded, reload: Callable[[], Loaded], log: Log, notifier: Notifier
    ) -> None:
        config = loaded.config
        self.config = self.candidate = config
        self.reload = reload
        self.log = log
        self.notifier = notifier
        self.started_unix_s = time.time()
        self.announced = False
        self.reload_error = ""
        self.host: Host | None = None
        self.host_due_s = 0.0
        for warning in loaded.warnings:
            log.warning(warning)
        files_max = _raise_file_limit()
        workers = worker_count(config, _cores(), files_max)
        folder = _folder(config)
        if others := other_layout.told(other_layout.find(folder)):
            log.warning(others, dir=folder)
        segment = worker.segment_path(folder)
        try:
            self.claim = claim(folder, log, lambda: worker.writers(segment))
        except ClaimError as error:
            raise StartError(EXIT_UNAVAILABLE, str(error)) from None
        except OSError as error:
            raise StartError(EXIT_UNAVAILABLE, f"dir: {folder}: {error.strerror}") from None
        try:
            patience_s = SOCKETS_CLOSE_S if self.claim.was_killed else 0.0
            self.listeners: Listeners = open_listeners(config, workers, patience_s)
        except ListenError as error:
            self.claim.release()
            raise StartError(EXIT_UNAVAILABLE, str(error)) from None
        self.site = child_config.Site(
            segment=segment,
            apps_dir=folder,
            workers=workers,
            schema_json=schema_json(),
            version=__version__,
        )
        try:
            self.registry, self.telemetry = open_with(
                self.site.segment, config.series, log, self._publish
            )
        except (worker.SegmentError, OSError) as error:
            self.listeners.close()
            self.claim.release()
            raise StartError(EXIT_UNAVAILABLE, f"dir: {self.site.segment}: {error}") from None
        self.doors = Doors(workers if self.listeners.http else 0)
        # A collector that was killed as a whole leaves ledgers that nobody has settled.
        for name in plan.places(workers, desk=True):
            self.settle(name)

    def _publish(self, registry: worker.Registry) -> Telemetry:
        # psutil is imported now, so that the children share its pages.
        if self.config.supervisor.host_interval_s:
            self.host = Host(registry)
        return Telemetry(registry, self.site.version, self.site.workers)

    # -- children ------------------------------------------------------------------------------

    def fork(self, births: list[Birth]) -> list[int]:
        return worker.fork_children([self._child(birth) for birth in births])

    def _child(self, birth: Birth) -> worker.Child:
        close = [*birth.close, *self.notifier.descriptors()]
        shared = [*(sock.fileno() for sock in self.listeners.sockets), *self.doors.fds()]
        if birth.name == plan.AGGREGATOR:
            given = child_config.aggregator_config(self.config, self.site, birth.control_fd)
            # It holds nothing that could be handed over.
            close += [fd for fd in (birth.handover_out_fd, birth.handover_in_fd) if fd >= 0]
            return ("aggregator", birth.name, given, close + shared)
        place = plan.place(birth.name)
        sockets = self._sockets(birth, place)
        own = {listener.fd for listener in sockets.listeners}
        own |= {sockets.desk_in_fd, *sockets.desk_out_fds}
        given = child_config.worker_config(self.config, self.site, place, sockets)
        return ("worker", birth.name, given, close + [fd for fd in shared if fd not in own])

    def _sockets(self, birth: Birth, place: str) -> child_config.Sockets:
        ends = (birth.control_fd, birth.handover_out_fd, birth.handover_in_fd)
        own = self.listeners.of(place)
        if place == plan.DESK:
            return child_config.Sockets(*ends, own, desk_out_fds=self.doors.out_fds())
        return child_config.Sockets(*ends, own, desk_in_fd=self.doors.in_fd(int(place)))

    def settings(self, name: str, new: bool) -> bytes:
        config = self.candidate if new else self.config
        # The child keeps its pipe and its sockets; -1 says that none is given.
        if name == plan.AGGREGATOR:
            return child_config.aggregator_config(config, self.site, -1)
        sockets = child_config.Sockets()
        return child_config.worker_config(config, self.site, plan.place(name), sockets)

    def settle(self, name: str) -> None:
        if name == plan.AGGREGATOR:
            return
        try:
            lost = worker.settle(self.site.segment, plan.place(name))
        except worker.SegmentError as error:
            self.log.error("cannot settle the ledger", child=name, why=str(error))
            return
        if lost:
            self.telemetry.settled_samples(name, lost)
            self.log.warning("samples received and not applied", child=name, samples=lost)

    # -- settings ------------------------------------------------------------------------------

    def policy(self) -> plan.Policy:
        given = self.config.supervisor
        return plan.Policy(
            drain_timeout_s=given.drain_timeout_s,
            unready_s=given.unready_s,
            start_timeout_s=given.start_timeout_s,
            restart_delay_s_max=given.restart_delay_s_max,
        )

    def check(self) -> str:
        try:
            loaded = self.reload()
        except ConfigError as error:
            return "; ".join(str(problem) for problem in error.problems)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        changed = restart_needed(self.config, loaded.config)
        if changed:
            return f"a restart is needed to change {', '.join(changed)}"
        for warning in loaded.warnings:
            self.log.warning(warning)
        self.candidate = loaded.config
        return ""

    def commit(self) -> None:
        self.config = self.candidate
        self.reload_error = ""
        self.log.set(self.config.logging.format, self.config.logging.level)
        self.log.info("new settings are in force")
        self.telemetry.reloaded(success=True)

    def reject(self, why: str) -> None:
        self.candidate = self.config
        self.reload_error = why
        self.log.error("new settings refused, the old ones stay in force", why=why)
        self.telemetry.reloaded(success=False)

    # -- the world -----------------------------------------------------------------------------

    def announce(self, what: str) -> None:
        if what == "reloading":
            self.notifier.reloading()
        elif what == "stopping":
            self.notifier.stopping()
            self.doors.close_out()
        else:
            self._announce_ready()

    def _announce_ready(self) -> None:
        facts = {**self.listeners.addresses, "workers": self.site.workers, "pid": os.getpid()}
        if not self.announced:
            self.announced = True
            wanted = self.config.statsd.receive_buffer_bytes
            granted = self.listeners.receive_buffer_bytes
            if self.config.statsd.address and granted < wanted:
                self.log.warning(
                    "the kernel cut the receive buffer; raise net.core.rmem_max",
                    wanted_bytes=wanted,
                    granted_bytes=granted,
                )
            if self.log.form == "text":
                for line in banner(facts, self.site.apps_dir):
                    self.log.info(line)
            else:
                example = example_command(self.listeners.addresses)
                self.log.info("ready", **facts, dir=self.site.apps_dir, example=example)
        self.notifier.ready(facts)

    def report(self, state: plan.State) -> bytes:
        running = state.phase == "running"
        return orjson.dumps(
            {
                "ready": running,
                "phase": state.phase,
                "why": [] if running else [f"the collector is {state.phase}"],
                "workers": self.site.workers,
                "pid": os.getpid(),
                "version": self.site.version,
                "started_unix_s": self.started_unix_s,
                "addresses": self.listeners.addresses,
                "children": [
                    {"name": c.name, "phase": c.phase, "pid": c.pid, "exits": c.exits}
                    for c in state.children
                ],
                "retiring": [{"name": x.place, "pid": x.pid} for x in state.leavers],
                "reload_error": self.reload_error,
            }
        )

    def tick(self, now_s: float, state: plan.State) -> float:
        self.telemetry.state(state, self.log.dropped)
        interval_s = self.config.supervisor.host_interval_s
        if not interval_s:
            return now_s + 1.0
        if now_s >= self.host_due_s:
            self.host_due_s = now_s + interval_s
            if self.host is None:
                self.host = Host(self.registry)
            pids = {c.name: c.pid for c in state.children if c.phase in ("starting", "ready")}
            self.host.sample(pids)
        return min(self.host_due_s, now_s + 1.0)


def banner(facts: dict[str, Any], folder: str) -> list[str]:
    """What a person wants to see first."""
    lines = [f"agent {__version__} is ready: {facts['workers']} workers, pid {facts['pid']}"]
    if "http" in facts:
        lines.append(f"  http      http://{facts['http']}/ (metrics at /metrics)")
    if "statsd" in facts:
        lines.append(f"  statsd    {facts['statsd']} (UDP and TCP)")
    lines += [
        f"  statsd    {facts[source]} ({kind})"
        for source, kind in (("statsd_unixgram", "datagrams"), ("statsd_unix", "stream"))
        if source in facts
    ]
    lines.append(f"  segments  {folder}")
    lines.append(f"  try       {example_command(facts)}")
    return lines


def example_command(addresses: dict[str, Any]) -> str:
    """One line for a shell that sends a metric."""
    if "http" in addresses:
        sample = '{"name":"hello","type":"counter","value":1}'
        return f"curl --json '{sample}' http://{reachable(addresses['http'])}/v1/push"
    if "statsd" in addresses:
        host, _, port = reachable(addresses["statsd"]).rpartition(":")
        return f"echo 'hello:1|c' > /dev/udp/{host.strip('[]')}/{port}"
    return f"echo 'hello:1|c' | socat - UNIX-SENDTO:{addresses.get('statsd_unixgram', '')}"


def reachable(address: str) -> str:
    """An address to connect to: "everywhere" means this host too."""
    host, _, port = address.rpartition(":")
    everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
    return f"{everywhere.get(host, host)}:{port}"


def _folder(config: Config) -> str:
    if config.dir:
        # Metrics of this process and of its children belong to the same place.
        os.environ["AGENT_METRICS_DIR"] = config.dir
    try:
        return app.folder()
    except OSError as error:
        raise StartError(EXIT_CONFIG, f"dir: {error}") from None


def _cores() -> int:
    """Cores this process may use: its affinity, cut by the quota of its cgroup."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup.read().cpu_limit_cores
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _raise_file_limit() -> int:
    """Raises the soft limit of open files as far as allowed; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return FILES_MAX if soft == resource.RLIM_INFINITY else soft
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
