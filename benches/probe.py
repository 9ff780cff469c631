"""Asks a collector for /livez and /metrics, over a new connection each time, until it is stopped.

    python benches/probe.py URL FILE

One line of JSON an answer: when it was asked (CLOCK_MONOTONIC), what, how long it took, the status;
status 0 is no answer. A process of its own, so that nothing that is measured waits for it or holds
it up; ahead of all others where that is permitted, because a probe usually comes from a machine
that has cores of its own: what is measured is the collector's time.

A second thread sleeps 5 ms at a time and tells when it was woken more than 10 ms late (`"path":
"timer"`): what a machine that stands still, or the scheduler, adds to any answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
from typing import TextIO
from urllib.parse import urlsplit

PATHS = ("/livez", "/metrics")
INTERVAL_S = 0.1
TIMEOUT_S = 30.0
NAP_S = 0.005
LATE_S = 0.01
NICENESS = -20


def ask(host: str, path: str) -> tuple[float, int]:
    """Seconds and status."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except (OSError, http.client.HTTPException):
        status = 0
    finally:
        connection.close()
    return time.monotonic() - began, status


def watch_timer(out: TextIO) -> None:
    """Never returns."""
    while True:
        at = time.monotonic()
        time.sleep(NAP_S)
        late_s = time.monotonic() - at - NAP_S
        if late_s > LATE_S:
            out.write(json.dumps({"t": at, "path": "timer", "s": late_s, "status": 200}) + "\n")


def main(url: str, out: TextIO) -> None:
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    host = urlsplit(url).netloc
    threading.Thread(target=watch_timer, args=(out,), daemon=True).start()
    while not stopped:
        for path in PATHS:
            at = time.monotonic()
            seconds, status = ask(host, path)
            out.write(json.dumps({"t": at, "path": path, "s": seconds, "status": status}) + "\n")
        out.flush()
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    with open(sys.argv[2], "w") as file:
        main(sys.argv[1], file)
