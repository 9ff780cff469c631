"""The collectors under comparison: each started on free loopback ports, with the same duties.

Duties: listen for StatsD on UDP (and TCP where it can), aggregate at its own default interval or
one second, forward nowhere. vmagent has no StatsD, so it is compared at HTTP: Influx lines in, and
a sink that answers 204 for its remote write.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from build import floor_tool

START_DEADLINE_S = 30.0

NETDATA_CONFIG = """
[global]
    run as user = {user}
[directories]
    config = {folder}
    cache = {folder}
    lib = {folder}
    log = {folder}
    home = {folder}
    registry = {folder}
[db]
    mode = ram
    retention = 600
[logs]
    debug = none
    error = none
    access = none
[plugins]
    timex = no
    checks = no
    idlejitter = no
    tc = no
    diskspace = no
    proc = no
    cgroups = no
    netdata monitoring = no
    enable running new plugins = no
[ml]
    enabled = no
[health]
    enabled = no
[cloud]
    enabled = no
[statsd]
    enabled = yes
    bind to = udp:127.0.0.1:{statsd} tcp:127.0.0.1:{statsd}
[web]
    bind to = 127.0.0.1:{http}
"""

COLLECTD_CONFIG = """
BaseDir "{folder}"
PIDFile "{folder}/pid"
PluginDir "/usr/lib/collectd"
TypesDB "/usr/share/collectd/types.db"
Interval 1
LoadPlugin statsd
<Plugin statsd>
  Host "127.0.0.1"
  Port "{statsd}"
  TimerPercentile 50.0
  TimerPercentile 95.0
  TimerPercentile 99.0
</Plugin>
"""

NGINX_CONFIG = """
worker_processes {cores};
pid {folder}/pid;
error_log {folder}/log;
daemon off;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{http} reuseport;
        location /livez {{ default_type text/plain; return 200 "ok\\n"; }}
    }}
}}
"""


@dataclass
class Target:
    """A running collector."""

    name: str
    pid: int
    statsd: int = 0
    http: int = 0


def free_port() -> int:
    """Free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port


def wait_until(listening, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while not listening():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} did not start: {log.read_text(errors='replace')}")
        time.sleep(0.05)


def udp_listens(port: int) -> bool:
    wanted = f":{port:04X} "
    return any(wanted in Path(table).read_text() for table in ("/proc/net/udp", "/proc/net/udp6"))


def tcp_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(command: list[str], folder: str, listening, **options) -> Iterator[int]:
    log = Path(folder, "log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
        )
    try:
        wait_until(listening, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def agent(folder: str, *arguments: str) -> Iterator[Target]:
    statsd, http_port = free_port(), free_port()
    ready, ready_end = os.pipe()
    command = [sys.executable, "-m", "agent", "serve", f"--statsd=127.0.0.1:{statsd}"]
    command += [f"--http=127.0.0.1:{http_port}", f"--dir={folder}/segments"]
    command += [f"--ready-fd={ready_end}", *arguments]

    def listening() -> bool:
        return bool(select.select([ready], [], [], 0)[0])

    with running(command, folder, listening, pass_fds=[ready_end]) as pid:
        os.close(ready_end)
        yield Target("agent", pid, statsd, http_port)
    os.close(ready)


@contextlib.contextmanager
def netdata(folder: str) -> Iterator[Target]:
    statsd, http_port = free_port(), free_port()
    config = Path(folder, "netdata.conf")
    user = os.environ.get("USER", "root")
    config.write_text(
        NETDATA_CONFIG.format(folder=folder, user=user, statsd=statsd, http=http_port)
    )
    command = ["netdata", "-D", "-c", str(config)]
    with running(command, folder, lambda: udp_listens(statsd)) as pid:
        yield Target("netdata", pid, statsd, http_port)


@contextlib.contextmanager
def collectd(folder: str) -> Iterator[Target]:
    statsd = free_port()
    config = Path(folder, "collectd.conf")
    config.write_text(COLLECTD_CONFIG.format(folder=folder, statsd=statsd))
    command = ["collectd", "-f", "-C", str(config)]
    with running(command, folder, lambda: udp_listens(statsd)) as pid:
        yield Target("collectd", pid, statsd)


class Sink(http.server.BaseHTTPRequestHandler):
    """Reads a request and answers 204."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent: it is not what is measured."""


@contextlib.contextmanager
def vmagent(folder: str) -> Iterator[Target]:
    port = free_port()
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    command = ["vmagent", f"-httpListenAddr=127.0.0.1:{port}"]
    command += [f"-remoteWrite.url=http://127.0.0.1:{sink.server_port}/"]
    command += [f"-remoteWrite.tmpDataPath={folder}"]
    try:
        with running(command, folder, lambda: tcp_listens(port)) as pid:
            yield Target("vmagent", pid, http=port)
    finally:
        sink.shutdown()
        sink.server_close()


@contextlib.contextmanager
def nginx(folder: str) -> Iterator[Target]:
    port = free_port()
    config = Path(folder, "nginx.conf")
    config.write_text(NGINX_CONFIG.format(folder=folder, http=port, cores=os.cpu_count()))
    command = ["nginx", "-c", str(config), "-e", f"{folder}/log"]
    with running(command, folder, lambda: tcp_listens(port)) as pid:
        yield Target("nginx", pid, http=port)


@contextlib.contextmanager
def floor(folder: str, name: str = "recvmmsg", nap_us: int = 0) -> Iterator[Target]:
    """The bare `recvmmsg` loop of floor/udp.c."""
    statsd = free_port()
    command = [floor_tool("udp"), "recv", str(statsd), str(nap_us)]
    with running(command, folder, lambda: udp_listens(statsd)) as pid:
        yield Target(name, pid, statsd)


TARGETS = {
    "agent": agent,
    "recvmmsg": floor,
    "recvmmsg, nap 1 ms": lambda folder: floor(folder, "recvmmsg, nap 1 ms", 1000),
    "netdata": netdata,
    "collectd": collectd,
    "vmagent": vmagent,
    "nginx": nginx,
}


def installed(name: str) -> bool:
    return name == "agent" or name.startswith("recvmmsg") or shutil.which(name) is not None


@contextlib.contextmanager
def start(name: str) -> Iterator[Target]:
    with (
        tempfile.TemporaryDirectory(prefix="agent-bench-") as folder,
        TARGETS[name](folder) as target,
    ):
        yield target
