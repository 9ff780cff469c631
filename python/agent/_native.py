"""The one door to `agent._core`: checks that it fits this package, warns of a debug build."""

from __future__ import annotations

from agent.errors import AgentWarning

__version__ = "0.1.0"
LAYOUT_VERSION = 3

try:
    from agent import _core
except ImportError as error:  # pragma: no cover - needs a broken installation
    raise ImportError(
        f"the compiled part of agent-metrics cannot be loaded ({error}); install it again for"
        " this Python, or run `make build` in a source tree"
    ) from error

if __version__ != _core.VERSION or LAYOUT_VERSION != _core.LAYOUT_VERSION:  # pragma: no cover
    raise ImportError(
        f"agent-metrics {__version__} (segment layout {LAYOUT_VERSION}) found a compiled part of"
        f" version {_core.VERSION} (layout {_core.LAYOUT_VERSION}); install the package again"
    )

if _core.BUILD_PROFILE != "release":
    import warnings

    warnings.warn(
        "agent._core is a debug build, several times slower (`make build` makes a release build)",
        AgentWarning,
        stacklevel=2,
    )

Block = _core.Block
Counter = _core.Counter
Gauge = _core.Gauge
Histogram = _core.Histogram
Metric = _core.Metric
Registry = _core.Registry
Summary = _core.Summary
check_worker_config = _core.check_worker_config
configure = _core.configure
configured = _core.configured
default_registry = _core.default_registry
fork_children = _core.fork_children
inspect = _core.inspect
open_segment = _core.open_segment
render_segment = _core.render_segment
run_load_executor = _core.run_load_executor
settle_worker = _core.settle_worker
torture_steps = _core.torture_steps
