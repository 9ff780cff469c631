"""The socket pairs through which the desk passes connections on to workers (`agent_net::desk`).

Purpose: one pair for each worker's place, made before the first child and kept until the end, so
that what waits in one when a worker dies is its successor's.

The desk's ends do not wait: a worker that is stuck must not hold up the desk. Both ends stay open
here as well. When the collector leaves, `close_out` is what lets workers see that no more can come.
"""

from __future__ import annotations

import socket


class Doors:
    """From the desk to the workers; empty where there is no desk."""

    def __init__(self, workers: int) -> None:
        pairs = [socket.socketpair(type=socket.SOCK_SEQPACKET) for _ in range(workers)]
        self.outs = [out for out, _ in pairs]
        self.ins = [in_ for _, in_ in pairs]
        for out in self.outs:
            out.setblocking(False)

    def out_fds(self) -> list[int]:
        """In the order of the workers."""
        return [out.fileno() for out in self.outs]

    def in_fd(self, worker: int) -> int:
        return self.ins[worker].fileno() if self.ins else -1

    def fds(self) -> list[int]:
        return [end.fileno() for end in (*self.outs, *self.ins)]

    def close_out(self) -> None:
        """From now on only a desk that still runs passes connections on."""
        for out in self.outs:
            out.close()
        self.outs.clear()

    def close(self) -> None:
        self.close_out()
        for in_ in self.ins:
            in_.close()
        self.ins.clear()
