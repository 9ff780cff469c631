"""A real Prometheus that scrapes a collector, and its query API."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collector import DEADLINE_S, eventually, reserved_port

CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: agent
    honor_labels: true
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class Prometheus:
    """A running Prometheus and its query API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def api(self, path: str, **arguments: str) -> object:
        query = urllib.parse.urlencode(arguments)
        url = f"http://127.0.0.1:{self.port}{path}?{query}"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=10):
                return True
        except OSError:
            return False

    def query(self, expression: str) -> list[float]:
        result = self.api("/api/v1/query", query=expression)["result"]  # type: ignore[index]
        return [float(series["value"][1]) for series in result]

    def target(self) -> tuple[str, str]:
        """Health of the one target, and what its last scrape had to say."""
        [target] = self.api("/api/v1/targets")["activeTargets"]  # type: ignore[index]
        return target["health"], target["lastError"]

    def wait_for(self, expression: str, value: float) -> None:
        eventually(lambda: self.query(expression), lambda seen: seen == [value], expression)


@contextmanager
def prometheus(path: str, folder: Path, target_port: int, *options: str) -> Iterator[Prometheus]:
    folder.joinpath("prometheus.yml").write_text(CONFIG.format(port=target_port))
    with reserved_port() as port, folder.joinpath("prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                path,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(port)
        eventually(server.ready, bool, "Prometheus is ready")
        yield server
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
