"""curl, as a person at a terminal uses it: scrape, push, the Pushgateway paths, the probes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from collector import DEADLINE_S, Collector, Samples

pytestmark = pytest.mark.peer


@pytest.fixture
def curl(program: Callable[[str], str], collector: Collector) -> Callable[..., str]:
    """Runs curl on a path of the collector and gives `STATUS\\nBODY`."""

    def run(path: str, *arguments: str, body: bytes | None = None) -> str:
        done = subprocess.run(
            [program("curl"), "-sS", "-o", "-", "-w", "%{stderr}%{http_code}"]
            + (["--data-binary", "@-"] if body is not None else [])
            + [*arguments, collector.url(path)],
            input=body,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        return done.stderr.decode() + "\n" + done.stdout.decode()

    return run


def test_a_scrape_can_be_compressed(curl: Callable[..., str], collector: Collector) -> None:
    """`curl --compressed` gets the same page as without, and asks for gzip to get it."""
    collector.send_tcp([b"shop.sold:3|c"])
    for arguments in ([], ["--compressed"]):
        status, text = curl("/metrics", *arguments).split("\n", 1)
        assert status == "200"
        assert Samples(text).one("shop_sold_total") == 3


def test_openmetrics_is_served_to_those_who_ask(
    curl: Callable[..., str], collector: Collector
) -> None:
    """`Accept: application/openmetrics-text` gets a page that ends in `# EOF`."""
    collector.send_tcp([b"shop.sold:3|c"])
    wanted = "Accept: application/openmetrics-text;version=1.0.0"
    status, text = curl("/metrics", "-H", wanted).split("\n", 1)
    assert status == "200"
    assert text.endswith("# EOF\n")
    assert "shop_sold_total 3" in text


def test_a_json_push_is_answered_with_what_was_done(
    curl: Callable[..., str], collector: Collector
) -> None:
    """Two good samples and a bad one: the answer has both numbers and the reason."""
    samples = [
        {"name": "pushed", "type": "counter", "value": 2, "labels": {"a": "b"}},
        {"name": "level", "type": "gauge", "value": 7.5},
        {"name": "broken", "type": "no such type", "value": 1},
    ]
    status, text = curl(
        "/v1/push",
        "-H",
        "Content-Type: application/json",
        body=json.dumps(samples).encode(),
    ).split("\n", 1)
    answer = json.loads(text)
    assert (status, answer["accepted"], answer["rejected"]) == ("207", 2, 1)
    [error] = answer["errors"]
    assert error["index"] == 2
    assert "no such type" in error["detail"]
    scraped = collector.scrape()
    assert scraped.one("pushed_total", a="b") == 2
    assert scraped.one("level") == 7.5


def test_the_pushgateway_paths_take_what_batch_jobs_send(
    curl: Callable[..., str], collector: Collector
) -> None:
    """PUT replaces a group and DELETE removes it, as scripts written for the Pushgateway expect."""
    group = "/metrics/job/backup/instance/db1"
    body = (
        b"# TYPE backup_bytes gauge\nbackup_bytes 123456\n# TYPE backup_age gauge\nbackup_age 2\n"
    )
    assert curl(group, "-X", "PUT", body=body).startswith("200\n")
    scraped = collector.scrape()
    assert scraped.one("backup_bytes", job="backup", instance="db1") == 123456
    body = b"# TYPE backup_bytes gauge\nbackup_bytes 9\n"
    assert curl(group, "-X", "PUT", body=body).startswith("200\n")
    scraped = collector.scrape()
    assert scraped.one("backup_bytes", job="backup", instance="db1") == 9
    assert "backup_age" not in scraped
    assert curl(group, "-X", "DELETE").startswith("202\n")
    assert "backup_bytes" not in collector.scrape()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/health", "/ready"])
def test_the_probes_say_yes(curl: Callable[..., str], path: str) -> None:
    """Every probe path of a healthy collector answers 200."""
    assert curl(path).startswith("200\n")


def test_the_status_page_is_complete_in_itself(curl: Callable[..., str]) -> None:
    """The page at `/` loads nothing from another host and says so in its policy."""
    status, page = curl("/", "-i").split("\n", 1)
    headers, html = page.replace("\r\n", "\n").split("\n\n", 1)
    assert status == "200"
    assert "content-security-policy: " in headers.lower()
    assert "http://" not in html
    assert "https://" not in html
