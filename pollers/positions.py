"""Which records of a shard are unfinished, and so how far the checkpoint may move. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from model.record import Places

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of positions, rising, not touching."""

_PASSED: Final = 0  # filtered out: cheap to judge again, so never stored. This and the next are a filter's yes and no.
_UNFINISHED: Final = 1
_DONE: Final = 2
_STRAY: Final = 3  # dropped by the source itself, which would drop it again
_RANGE: Final = re.compile(rb"\x02(?:[\x00\x02\x03]*\x02)?")


class _Run(NamedTuple):
    """Records that a restart can only read together."""

    first: int
    last: int
    before: int | None  # the record before the first, if it was read here


class Positions:
    """Follow every record of a shard from being read to being finished.

    The checkpoint is the highest position below which nothing is unfinished (invariant 3), and from which a restart
    can go on. What is finished beyond it, because lanes or partial failures let later records overtake, or in the
    middle of a run, is told as compact ranges (`ahead`), so that a restart does not deliver it again.

    Records are numbered as they are read, and a byte of each says what became of it. So whole batches are marked and
    passed at once, and positions are looked at only where a checkpoint or a range ends.
    """

    def __init__(self, ahead: Ranges = ()) -> None:
        self._fates = bytearray()  # of the records from the first unfinished one on
        self._first = 0  # number of the first of them
        self._read: list[tuple[int, Sequence[int]]] = []  # their positions as they were read, with the first's number
        self._read_to: int | None = None
        self._runs: deque[_Run] = deque()  # that end beyond the finished records
        self._begun: tuple[int, int] | None = None  # the part of the first run that is finished
        self._finished_to: int | None = None
        self._before = ahead  # finished before a restart and not read past since

    def __len__(self) -> int:
        """Count the records read and not finished, those finished out of turn included."""
        return len(self._fates)

    @property
    def finished_to(self) -> int | None:
        """Position of the last record below which nothing is unfinished; None before the first."""
        return self._finished_to

    @property
    def passed_ahead(self) -> int:
        """Records filtered out beyond the checkpoint that a restart reads and filters again."""
        return self._again(_PASSED)

    @property
    def strays_ahead(self) -> int:
        """The same of those that the source drops."""
        return self._again(_STRAY)

    def open(self, positions: Sequence[int], runs: Iterable[tuple[int, int]] = ()) -> tuple[Places, list[bool] | None]:
        """Note records as read: rising, and above all noted before. Never none.

        `runs` are first and last positions of records that can only be read together: the checkpoint does not stop
        inside. The first is among `positions`, the last may follow later.

        Returns the records' places, and which of them are unfinished, since some may have been finished before a
        restart; None: all of them.
        """
        for first, last in runs:
            at = bisect_left(positions, first)
            self._runs.append(_Run(first, last, positions[at - 1] if at else self._read_to))
        number = self._first + len(self._fates)
        places = Places(positions, range(number, number + len(positions)))
        self._read.append((number, positions))
        self._read_to = positions[-1]
        self._fates += bytes([_UNFINISHED]) * len(positions)
        if not self._before:
            return places, None
        starts = [first for first, _ in self._before]
        unfinished = []
        for position in positions:
            at = bisect_right(starts, position) - 1
            unfinished.append(at < 0 or position > self._before[at][1])
        self._before = tuple(known for known in self._before if known[1] > self._read_to)
        if all(unfinished):
            return places, None
        self._mark(places, bytes([_UNFINISHED if new else _DONE for new in unfinished]))
        return places, unfinished

    def finish(self, places: Places) -> None:
        """Note records as finished: delivered, or given up by the mapping's own rules."""
        self._mark(places, bytes([_DONE]) * len(places))

    def pass_over(self, places: Places, keep: Sequence[bool]) -> None:
        """Note unfinished records as filtered out, but for those to keep."""
        self._mark(places, bytes(keep))

    def drop(self, places: Places) -> None:
        """Note records as dropped by their source, which would drop them again."""
        self._mark(places, bytes([_STRAY]) * len(places))

    def _mark(self, places: Places, fates: bytes) -> None:
        """Note what became of records, and take up the checkpoint that follows."""
        ours, first, numbers = self._fates, self._first, places.numbers
        if len(numbers) != len(fates) or (numbers and numbers[0] < first):
            raise ValueError("records that are not followed, or finished already")
        if isinstance(numbers, range):  # nearly always: as they were read
            ours[numbers.start - first : numbers.stop - first] = fates
        else:
            for number, fate in zip(numbers, fates, strict=True):
                ours[number - first] = fate
        unfinished = ours.find(_UNFINISHED)
        count = len(ours) if unfinished < 0 else unfinished
        if count:
            self._reach(self._position(count - 1))
            del ours[:count]
            self._first += count
            del self._read[: self._column(0)]

    def _reach(self, position: int) -> None:
        """Take up that everything up to a record is finished."""
        runs = self._runs
        while runs and runs[0].last <= position:
            runs.popleft()
        if runs and runs[0].first <= position:
            run = runs[0]
            self._begun = (run.first, position)
            self._finished_to = self._finished_to if run.before is None else run.before
        else:
            self._begun = None
            self._finished_to = position

    def _column(self, at: int) -> int:
        """Return which of the columns read holds the record that has this place among the fates."""
        return bisect_right(self._read, self._first + at, key=itemgetter(0)) - 1

    def _position(self, at: int) -> int:
        number, positions = self._read[self._column(at)]
        return positions[self._first + at - number]

    def _again(self, fate: int) -> int:
        """Count the records of one fate that no range of `ahead` holds."""
        count = self._fates.count(fate)
        return count and count - sum([found[0].count(fate) for found in _RANGE.finditer(self._fates)])

    def ahead(self) -> Ranges:
        """Return what is finished beyond the checkpoint, for the shard's stored state.

        Records filtered out or dropped between two finished ones belong to the range; on their own they do not count.
        """
        ranges = [] if self._begun is None else [self._begun]
        spans = [found.span() for found in _RANGE.finditer(self._fates)]
        ranges += [(self._position(start), self._position(end - 1)) for start, end in spans]
        return merge(ranges, self._before) if ranges else self._before


def merge(some: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of two sets of ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*some, *others]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)
