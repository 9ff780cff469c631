"""A Celery app whose tasks count, with a folder as its broker. `python -m` it to send tasks.

The sender keeps up to QUEUED tasks waiting until the board says stop.
"""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

from agent.torture.board import Board
from agent.torture.served import serve_one

TASK_NS = 400_000_000
QUEUED = 12

# Not an import: Celery is nothing that this package depends on.
app: Any = importlib.import_module("celery").Celery("served", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue",
    "data_folder_out": "queue",
    "control_folder": "control",
}
app.conf.worker_hijack_root_logger = False
app.conf.broker_connection_retry_on_startup = True


@app.task(name="torture.work", ignore_result=True)  # type: ignore[untyped-decorator]
def work() -> None:
    """A task."""
    serve_one(TASK_NS)


def main() -> None:
    board = Board(os.environ["TORTURE_BOARD"])
    while not board.is_stopped:
        if len(os.listdir("queue")) < QUEUED:
            work.delay()
        else:
            time.sleep(0.01)


if __name__ == "__main__":
    main()
