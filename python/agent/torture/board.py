"""The board: what each process has been told is counted, kept outside of what is tested.

Purpose: a file of 8-byte words that all processes of a case map. A process takes one row, which is
its own for its life, and stores a new word after each update has returned. A word outlives a
SIGKILL, so what was acknowledged is known whenever its process ends.

Limits: ROWS lives in one case. The lock of `claim` belongs to the process and is dropped by the
kernel with it; a killed claimant leaves its row unused.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

ROWS = 65_536
ROW_WORDS = 16
WORD = 8
HEAD_WORDS = 16
# Words of the head.
STOP, NEXT, STRANGE = range(3)
# Words of a row: who, until when it is at work (monotonic ns), and one for each tally.
PID, BUSY_UNTIL, FIRST_TALLY = range(3)
TALLIES = ROW_WORDS - FIRST_TALLY


class Board:
    """The mapped words; every process opens it by its path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = WORD * (HEAD_WORDS + ROWS * ROW_WORDS)
        if os.fstat(self._descriptor).st_size < size:
            os.ftruncate(self._descriptor, size)
        self._map = mmap.mmap(self._descriptor, size)
        self.words = memoryview(self._map).cast("Q")

    def claim(self) -> Row:
        """A row that nobody else has or had."""
        # Opened anew: a lock through an inherited descriptor would be that of the parent, too.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            index = self.words[NEXT]
            if index >= ROWS:
                raise OverflowError(f"{self.path}: all {ROWS} rows of the board are taken")
            self.words[NEXT] = index + 1
        finally:
            os.close(descriptor)
        row = Row(self.words, index)
        row.words[row.at + PID] = os.getpid()
        return row

    def rows(self) -> list[Row]:
        return [Row(self.words, index) for index in range(self.words[NEXT])]

    def totals(self, count: int) -> list[int]:
        """The sum over all rows of the first `count` tallies."""
        rows, start = self.words[NEXT], HEAD_WORDS * WORD
        # A copy first: converting word by word would be slower, and read them further apart.
        data = bytes(self._map[start : start + rows * ROW_WORDS * WORD])
        sums = [0] * count
        for row in struct.iter_unpack(f"={ROW_WORDS}Q", data):
            for number in range(count):
                sums[number] += row[FIRST_TALLY + number]
        return sums

    @property
    def is_stopped(self) -> bool:
        return bool(self.words[STOP])

    def stop(self) -> None:
        """Asks all processes to end after the update that they are in."""
        self.words[STOP] = 1

    @property
    def strange(self) -> int:
        """Processes that ended without being killed or asked."""
        return self.words[STRANGE]

    def note_strange(self) -> None:
        self.words[STRANGE] += 1


class Row:
    """The words of one process."""

    __slots__ = ("at", "index", "words")

    def __init__(self, words: memoryview, index: int) -> None:
        self.words = words
        self.index = index
        self.at = HEAD_WORDS + index * ROW_WORDS

    @property
    def pid(self) -> int:
        return int(self.words[self.at + PID])

    @property
    def busy_until_ns(self) -> int:
        return int(self.words[self.at + BUSY_UNTIL])

    @busy_until_ns.setter
    def busy_until_ns(self, value: int) -> None:
        self.words[self.at + BUSY_UNTIL] = value

    def add(self, tally: int, amount: int = 1) -> None:
        """Only the owner of the row calls it."""
        self.words[self.at + FIRST_TALLY + tally] += amount

    def tally(self, number: int) -> int:
        return int(self.words[self.at + FIRST_TALLY + number])

    def tallied(self) -> int:
        """All tallies together: moves while the process works."""
        return sum(self.tally(number) for number in range(TALLIES))
