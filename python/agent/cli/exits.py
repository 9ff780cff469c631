"""Exit codes of the commands: those of sysexits.h where one fits.

Limits: what a run of `load` or `torture` found has codes of its own, below 64 and above 78. A
command that is stopped by SIGINT ends as a shell would say it.
"""

from __future__ import annotations

EXIT_FAIL = 1
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_NO_INPUT = 66
EXIT_UNAVAILABLE = 69
EXIT_CANNOT_CREATE = 73
EXIT_CONFIG = 78
EXIT_INVALID = 99
EXIT_INTERRUPTED = 130
