"""Which bytes of a sparse file exist: a segment reserves a quarter of a GiB and has little of it.

Limits: where a file system cannot tell holes from data, everything is data.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator


def extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Start and end of each stretch of data."""
    at, size = 0, os.fstat(descriptor).st_size
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at
