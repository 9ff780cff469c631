"""Web applications that count in every request: for gunicorn and uvicorn. One `Work` a process.

The board's path comes in TORTURE_BOARD. A request works for REQUEST_NS, each update acknowledged on
the board as everywhere else; the answer only says that the request is over.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from agent.torture.board import Board
from agent.torture.work import Work

REQUEST_NS = 15_000_000
works: dict[int, Work] = {}


def serve_one(span_ns: int = REQUEST_NS) -> None:
    """The work of a request in this process, whose first one takes a row of the board."""
    pid = os.getpid()
    if pid not in works:
        works[pid] = Work(Board(os.environ["TORTURE_BOARD"]))
    works[pid].for_ns(span_ns)


def wsgi(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """For gunicorn."""
    serve_one()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """For uvicorn."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    serve_one()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok\n"})
