"""Everything that this package raises, in one tree.

Misuse raises (a wrong label count, a negative increment). Trouble of the machine does not: a full
or forbidden folder ends in private memory and one warning, never in an exception inside the app,
unless `agent.configure(strict=True)` asks for one.
"""

from __future__ import annotations

__all__ = [
    "AgentError",
    "AgentWarning",
    "AmountError",
    "BufferTypeError",
    "ConfigureError",
    "ConflictError",
    "FolderError",
    "InvalidNameError",
    "LabelError",
    "SegmentError",
]


class AgentError(Exception):
    """Base of all."""


class InvalidNameError(AgentError, ValueError):
    """A metric, label or app name that the formats cannot carry, or a reserved one."""


class LabelError(AgentError, ValueError):
    """Label values that do not match the metric's label names."""


class AmountError(AgentError, ValueError):
    """A value that the metric cannot take.

    It is negative for a counter, NaN or infinite, an observation of 2^900 or more, or one that
    takes a counter past 2^63 - 1 or a gauge to infinity.
    """


class ConflictError(AgentError, ValueError):
    """A metric of the same name exists with another definition, or has a sample of that name.

    A definition is type, unit, buckets, quantiles, gauge mode and label names.
    """


class ConfigureError(AgentError, RuntimeError):
    """`configure()` came after the first update, or after another name was given."""


class BufferTypeError(AgentError, TypeError):
    """Values that are neither a buffer of f64, f32, i64 or i32 nor a list or tuple of numbers."""


class SegmentError(AgentError, RuntimeError):
    """A segment asked for by its path cannot be used; under `strict=True`, one without room."""


class FolderError(AgentError, OSError):
    """The folder of segments cannot be used. Updates never raise it: they go to private memory."""


class AgentWarning(RuntimeWarning):
    """Something works less well than it should: private memory, a debug build."""
