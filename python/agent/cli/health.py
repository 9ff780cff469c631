"""`health`: asks a collector whether it is ready, for container probes.

Purpose: exit 0 when `/readyz` (or `/livez` with `--live`) answers 200, else 1 with the reason. Uses
sockets only: no click, no HTTP library, no settings machinery, so that a probe costs little more
than the start of Python.

The address is `--http`, else `http.address` of `--config`, else AGENT_METRICS_HTTP, else the same
in the file named by AGENT_METRICS_CONFIG, else the default.

Limits: the whole question takes at most `--timeout` seconds (2); the answer is read up to 64 KiB.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from .exits import EXIT_USAGE

HELP = """\
Usage: agent-metrics health [OPTIONS]

  Ask a running collector whether it is ready. Exits 0 for yes, 1 for no.

Options:
  --http HOST:PORT   Address of the collector.  [env: AGENT_METRICS_HTTP; default: 127.0.0.1:9464]
  --config FILE      Take the address from this file.  [env: AGENT_METRICS_CONFIG]
  --live             Ask for liveness (/livez) instead of readiness (/readyz).
  --timeout SECONDS  Give up after this time.  [default: 2]
  --help             Show this message and exit.
"""
DEFAULT = "127.0.0.1:9464"
ANSWER_BYTES_MAX = 64 * 1024


class UsageError(Exception):
    """The command line cannot be understood."""


def run(arguments: list[str]) -> int:
    """The exit code."""
    try:
        options = _parse(arguments)
        if "help" in options:
            sys.stdout.write(HELP)
            return 0
        host, port = _address(options)
        timeout_s = _seconds(options.get("timeout", "2"))
    except UsageError as error:
        sys.stderr.write(f"Error: {error}\nTry 'agent-metrics health --help'.\n")
        return EXIT_USAGE
    path = "/livez" if "live" in options else "/readyz"
    shown = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    try:
        status, body = ask(host, port, path, timeout_s)
    except OSError as error:
        sys.stderr.write(f"{shown}: {error.strerror or error}\n")
        return 1
    text = body.decode(errors="replace").strip()
    if status != 200:
        sys.stderr.write(f"{shown}: {status or 'no HTTP answer'}: {text}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


def ask(host: str, port: int, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of one GET; status 0 when the answer is not HTTP."""
    deadline_s = time.monotonic() + timeout_s
    answer = b""
    with socket.create_connection((host, port), timeout_s) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        while len(answer) < ANSWER_BYTES_MAX:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no answer after {timeout_s:g} s")
            connection.settimeout(left_s)
            data = connection.recv(65_536)
            if not data:
                break
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not head.startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        return 0, answer[:200]
    return int(words[1]), body


def _parse(arguments: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    waiting = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if waiting:
            options[waiting], waiting = argument, ""
        elif argument in ("--help", "--live"):
            options[argument[2:]] = ""
        elif name in ("--http", "--config", "--timeout"):
            if equals:
                options[name[2:]] = value
            else:
                waiting = name[2:]
        else:
            raise UsageError(f"No such option: {argument}")
    if waiting:
        raise UsageError(f"Option '--{waiting}' requires an argument.")
    return options


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise UsageError(f"--timeout: {text!r} is not a number of seconds")
    return seconds


def _address(options: dict[str, str]) -> tuple[str, int]:
    text, source = _chosen(options)
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{source}: {text!r} is not HOST:PORT")
    host = host.removeprefix("[").removesuffix("]")
    # "Everywhere" is an address to listen on, not to connect to.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104


def _chosen(options: dict[str, str]) -> tuple[str, str]:
    """The address and where it was given; the order of the sources is that of `serve`."""
    if "http" in options:
        return options["http"], "--http"
    for name in ("AGENT_METRICS_HTTP", "AGENT_METRICS_HTTP_ADDRESS"):
        if os.environ.get(name):
            return os.environ[name], name
    path = options.get("config") or os.environ.get("AGENT_METRICS_CONFIG")
    if path:
        import tomllib

        try:
            with open(path, "rb") as file:
                section = tomllib.load(file).get("http", {})
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: not valid TOML: {error}") from None
        if isinstance(section, dict) and isinstance(section.get("address"), str):
            return section["address"], path
    return DEFAULT, "default"
