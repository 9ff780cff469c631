"""Wall clocks that are wrong: a library in C between a program and the kernel, told by a file.

Purpose: programs that are started with `environment` see the wall clock moved by what the file
says, and see each new value at once. Nothing else on the machine does, and no byte of a segment is
touched. The library comes from a descriptor in memory, since the folder of a case may be on a file
system from which nothing may be executed, as /dev/shm in containers.

Limits: needs a C compiler. Timers and the monotonic clock stay as they are, as when somebody steps
the clock of a machine.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
import time

from .ground import CannotRunError, Ground

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved;

__attribute__((constructor)) static void open_file(void) {
    const char *path = getenv("TORTURE_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) moved = found;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (moved && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *moved;
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return result;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """A clock for programs of a case. Raises CannotRunError where there can be none."""

    def __init__(self, ground: Ground) -> None:
        self._library = _library(ground)
        path = ground.path("clock")
        with open(path, "wb") as file:
            file.write(bytes(8))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        # What `Ground.start` must be given.
        self.pass_fds = [self._library]
        self.environment = {"LD_PRELOAD": f"/proc/self/fd/{self._library}", "TORTURE_CLOCK": path}
        self.move(86_400)
        if abs(self._seen(ground) - time.time() - 86_400) > 3600:
            raise CannotRunError("a library that is loaded first does not move a clock here")
        self.move(0)

    def move(self, seconds: int) -> None:
        """From now on the clock is so far from that of the machine."""
        self._map[:] = struct.pack("=q", seconds)

    def _seen(self, ground: Ground) -> float:
        done = subprocess.run(
            [sys.executable, "-c", "import time; print(time.time())"],
            env=ground.environment() | self.environment,
            pass_fds=self.pass_fds,
            capture_output=True,
            check=False,
        )
        try:
            return float(done.stdout)
        except ValueError:
            return 0.0


def _library(ground: Ground) -> int:
    """A descriptor of the library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise CannotRunError("there is no C compiler (gcc or cc) here, for a clock that is wrong")
    source, library = ground.path("clock.c"), ground.path("clock.so")
    with open(source, "w") as file:
        file.write(SOURCE)
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise CannotRunError(f"{compiler} makes no library: {done.stderr.strip()[-200:]}")
    descriptor = os.memfd_create("clock.so")
    with open(library, "rb") as file:
        os.write(descriptor, file.read())
    return descriptor
