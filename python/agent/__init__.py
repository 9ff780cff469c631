"""Metrics in shared memory for Python programs of many processes, and the collector that serves
them.

This is the distribution `agent-metrics`; it has nothing to do with AI agents. See `agent.metrics`
for how to use it, and `python -m agent --help` for the collector.
"""

from __future__ import annotations

from agent._native import __version__
from agent.errors import (
    AgentError,
    AgentWarning,
    AmountError,
    BufferTypeError,
    ConfigureError,
    ConflictError,
    FolderError,
    InvalidNameError,
    LabelError,
    SegmentError,
)
from agent.metrics import (
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    Metric,
    Registry,
    Summary,
    render,
)

__all__ = [
    "REGISTRY",
    "AgentError",
    "AgentWarning",
    "AmountError",
    "BufferTypeError",
    "ConfigureError",
    "ConflictError",
    "Counter",
    "FolderError",
    "Gauge",
    "Histogram",
    "InvalidNameError",
    "LabelError",
    "Metric",
    "Registry",
    "SegmentError",
    "Summary",
    "__version__",
    "configure",
    "render",
]


def configure(*, app: str | None = None, strict: bool | None = None) -> None:
    """Says what is otherwise found out, once, before anything is counted.

    `app`: the name of the app, before `AGENT_METRICS_APP` and before the project's (docs/APPS.md).
    All processes that say the same name share one segment. Raises InvalidNameError for an empty
    name and for `agent`, which is the collector's, and ConfigureError when the process belongs to
    another app already. Children of multiprocessing need not call it again.

    `strict`: an update raises SegmentError where it would go on in private memory, unseen by
    others: in tests, and where no numbers are better than a part of them.

    None leaves what was said before.
    """
    from agent.app.given import configure as check_and_keep

    check_and_keep(app, strict)


# What programs ask of other packages and modules that are called `agent`.
_STRANGERS = frozenset(
    {"Agent", "AgentExecutor", "Runner", "Tool", "agent", "gen", "root_agent", "run", "tools"}
)


def __getattr__(name: str) -> object:
    told = f"module 'agent' has no attribute {name!r}"
    if name in _STRANGERS:
        # Not an AttributeError: `from agent import NAME` would replace its text.
        raise ImportError(
            f"{told}: this is agent-metrics, a metrics library, no AI ({__file__}). If you meant"
            " another package or an agent.py of your own, Python found this one first",
            name="agent",
            path=__file__,
        )
    raise AttributeError(told)
