"""A collector for a case: started on free ports, sent to, killed in parts, and read.

Purpose: `Serving` is one `python -m agent serve` after the other in one folder; pages are read from
it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import subprocess

from .ground import PATIENCE_S, Ground, NotHeldError
from .processes import children, is_alive, send

TIMEOUT_S = 60.0
# In the folder of the case, which is its working directory: a socket has 107 bytes for its path.
SOCKET = "/proc/self/cwd/sock"


class Serving:
    """The collector that runs now."""

    def __init__(self, ground: Ground, *, folder: str | None = None, workers: int = 2) -> None:
        self.ground = ground
        self.folder = folder or ground.segments
        self.workers = workers
        self.http: tuple[str, int] = ("", 0)
        self.statsd: tuple[str, int] = ("", 0)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        ready, ready_end = os.pipe()
        try:
            process = self.ground.start(
                *("-m", "agent", "serve", f"--workers={self.workers}", "--http=127.0.0.1:0"),
                *("--statsd=127.0.0.1:0", f"--statsd-socket={SOCKET}"),
                *(f"--dir={self.folder}", f"--ready-fd={ready_end}"),
                # Killed processes come back at once, as often as they are killed.
                env={"AGENT_METRICS_SUPERVISOR_RESTART_DELAY_S_MAX": "0.1"},
                log="collector.log",
                pass_fds=[ready_end],
            )
        finally:
            os.close(ready_end)
        try:
            readable, _, _ = select.select([ready], [], [], PATIENCE_S)
            line = os.read(ready, 4096) if readable else b""
        finally:
            os.close(ready)
        if not line:
            raise NotHeldError(f"the collector does not start: {self.ground.log('collector.log')}")
        told = json.loads(line)
        self.http = _address(told["http"])
        self.statsd = _address(told["statsd"])
        return process

    def parts(self) -> dict[str, int]:
        """Its children that live, by name."""
        found = {}
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
                if name.startswith("agent-") and is_alive(pid):
                    found[name] = pid
        return found

    def kill(self, name: str) -> bool:
        """Kills one part; `supervisor` is the collector as a whole, which is started again."""
        if name != "supervisor":
            pid = self.parts().get(name)
            return pid is not None and send(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process = self._start()
        return True

    def get(self, path: str) -> bytes | None:
        """The body of a whole answer; None when there was none."""
        connection = http.client.HTTPConnection(*self.http, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if answer.status == 200 else None

    def page(self) -> bytes:
        """A page; asks again while the front end is away."""
        body: bytes = self.ground.until(lambda: self.get("/metrics"), "the collector has a page")
        return body

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.ground.fail("the collector does not leave after SIGTERM")
            return
        if code:
            self.ground.fail(f"the collector left with {code}: {self.ground.log('collector.log')}")


def _address(told: str) -> tuple[str, int]:
    host, _, port = told.rpartition(":")
    return host.strip("[]"), int(port)
