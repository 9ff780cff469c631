"""The board: what each process has been told is counted, kept outside of what is tested.

Purpose: a file of 8-byte words that all processes of a case map. A process takes one row, which is
its own for its life, and stores a new word after each update has returned. A word outlives a
SIGKILL, so what was acknowledged is known whenever its process ends. The board also has the list of
dead processes whose account is settled: whoever lives removes their series, so that a page stays
short however many have died.

Limits: ROWS lives in one case. The lock of `claim` belongs to the process and is dropped by the
kernel with it; a killed claimant leaves its row unused.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

from .tallies import BEGIN, COUNTED

ROWS = 65_536
ROW_WORDS = 24
WORD = 8
HEAD_WORDS = 16
# Words of the head. SETTLED: how many are on the list of the dead; SWEPT: of how many the series
# are removed.
STOP, NEXT, STRANGE, SETTLED, SWEPT = range(5)
# Words of a row: who, until when it is at work (monotonic ns), whether it is about to end or was
# killed, whether it counts in private memory, how many of its updates found no memory, and one for
# each tally.
PID, BUSY_UNTIL, LEAVING, ASIDE, LOST, FIRST_TALLY = range(6)
TALLIES = ROW_WORDS - FIRST_TALLY
LIST_START = HEAD_WORDS + ROWS * ROW_WORDS

# What a row has acknowledged, by tally.
Tallied = tuple[int, ...]


class Board:
    """The mapped words; every process opens it by its path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = WORD * (LIST_START + ROWS)
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

    def rows(self, first: int = 0) -> list[Row]:
        """All that are claimed, from `first` on."""
        return [Row(self.words, index) for index in range(first, self.words[NEXT])]

    def snapshot(self) -> list[Tallied]:
        """All tallies of all rows. Each word is read once, after the call and before its return."""
        rows, start = self.words[NEXT], HEAD_WORDS * WORD
        # A copy first: converting word by word would be slower, and read them further apart.
        data = bytes(self._map[start : start + rows * ROW_WORDS * WORD])
        return [row[FIRST_TALLY:] for row in struct.iter_unpack(f"={ROW_WORDS}Q", data)]

    def total(self, tally: int) -> int:
        """Of all rows."""
        return sum(row[tally] for row in self.snapshot())

    @property
    def updates(self) -> int:
        """Updates acknowledged by all rows."""
        return updates(self.snapshot())

    def settle(self, index: int) -> None:
        """Puts a dead process on the list of those whose series may go. One process calls it."""
        count = self.words[SETTLED]
        self.words[LIST_START + count] = index
        self.words[SETTLED] = count + 1

    def to_sweep(self) -> tuple[int, int] | None:
        """A place on the list of the dead, and whose row it is; None when all are gone."""
        place = self.words[SWEPT]
        return (place, self.words[LIST_START + place]) if place < self.words[SETTLED] else None

    def swept(self, place: int) -> None:
        """Several may say so of one place, and late: then it is done again, which does nothing."""
        self.words[SWEPT] = place + 1

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


def updates(rows: list[Tallied]) -> int:
    """How many there are in a snapshot: of each operation once, however large its value is."""
    return sum(sum(row[BEGIN + 1 : COUNTED]) for row in rows)


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

    @property
    def is_leaving(self) -> bool:
        """Its process may have ended before the kernel says so."""
        return bool(self.words[self.at + LEAVING])

    def leave(self) -> None:
        """By the process, or by who is about to kill it."""
        self.words[self.at + LEAVING] = 1

    @property
    def is_aside(self) -> bool:
        return bool(self.words[self.at + ASIDE])

    @property
    def lost(self) -> int:
        return int(self.words[self.at + LOST])

    def note(self, is_aside: bool, lost: int) -> None:
        """What the process knows of itself."""
        self.words[self.at + ASIDE] = is_aside
        self.words[self.at + LOST] = lost

    def add(self, tally: int, amount: int = 1) -> None:
        """Only the owner of the row calls it."""
        self.words[self.at + FIRST_TALLY + tally] += amount

    def tally(self, number: int) -> int:
        return int(self.words[self.at + FIRST_TALLY + number])

    def tallied(self) -> int:
        """All tallies together: moves while the process works."""
        return sum(self.tally(number) for number in range(TALLIES))
