"""Which records of a shard are unfinished, and so how far the checkpoint may move. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of positions, rising, not touching."""


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
    """

    def __init__(self, ahead: Ranges = ()) -> None:
        self._unfinished: deque[int] = deque()
        self._runs: deque[_Run] = deque()  # that end beyond the finished records
        self._begun: tuple[int, int] | None = None  # the part of the first run that is finished
        self._done: set[int] = set()  # finished beyond the first unfinished one
        self._passed: set[int] = set()  # the same, but filtered out: cheap to judge again, so never stored
        self._strays: set[int] = set()  # the same, but records that the source itself drops
        self._finished_to: int | None = None
        self._read_to: int | None = None
        self._before = ahead  # finished before a restart and not read past since

    def __len__(self) -> int:
        """Count the records read and not finished, those finished out of turn included."""
        return len(self._unfinished)

    @property
    def finished_to(self) -> int | None:
        """Position of the last record below which nothing is unfinished; None before the first."""
        return self._finished_to

    @property
    def passed_ahead(self) -> int:
        """Records filtered out beyond the checkpoint that a restart reads and filters again."""
        return self._again(self._passed)

    @property
    def strays_ahead(self) -> int:
        """The same of those that the source drops."""
        return self._again(self._strays)

    def open(self, positions: Sequence[int], runs: Iterable[tuple[int, int]] = ()) -> list[bool] | None:
        """Note records as read: rising, and above all noted before. Never empty.

        `runs` are first and last positions of records that can only be read together: the checkpoint does not stop
        inside. The first is among `positions`, the last may follow later.

        Returns which records are unfinished, since some may have been finished before a restart; None: all of them.
        """
        for first, last in runs:
            at = bisect_left(positions, first)
            self._runs.append(_Run(first, last, positions[at - 1] if at else self._read_to))
        self._unfinished.extend(positions)
        self._read_to = positions[-1]
        if not self._before:
            return None
        starts = [first for first, _ in self._before]
        finished = []
        for position in positions:
            at = bisect_right(starts, position) - 1
            finished.append(at >= 0 and position <= self._before[at][1])
        self._before = tuple(known for known in self._before if known[1] > self._read_to)
        if not any(finished):
            return None
        self.finish([position for position, known in zip(positions, finished, strict=True) if known])
        return [not known for known in finished]

    def finish(self, positions: Iterable[int]) -> None:
        """Note records as finished: delivered, or given up by the mapping's own rules."""
        self._close(positions, self._done)

    def pass_over(self, positions: Iterable[int]) -> None:
        """Note records as filtered out."""
        self._close(positions, self._passed)

    def drop(self, positions: Iterable[int]) -> None:
        """Note records as dropped by their source, which would drop them again."""
        self._close(positions, self._strays)

    def _close(self, positions: Iterable[int], out_of_turn: set[int]) -> None:
        unfinished = self._unfinished
        reached = None
        for position in positions:
            if unfinished and unfinished[0] == position:
                reached = unfinished.popleft()
            else:
                out_of_turn.add(position)
        done, passed, strays = self._done, self._passed, self._strays
        while unfinished:
            head = unfinished[0]
            if head in done:
                done.discard(head)
            elif head in passed:
                passed.discard(head)
            elif head in strays:
                strays.discard(head)
            else:
                break
            reached = unfinished.popleft()
        if reached is not None:
            self._reach(reached)

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

    def _again(self, passed: set[int]) -> int:
        """Count those of `passed` that no range of `ahead` holds."""
        if not passed or not self._done:
            return len(passed)
        ranges = self._ranges()
        starts = [first for first, _ in ranges]
        again = 0
        for position in passed:
            at = bisect_right(starts, position) - 1
            again += at < 0 or position > ranges[at][1]
        return again

    def ahead(self) -> Ranges:
        """Return what is finished beyond the checkpoint, for the shard's stored state.

        Records filtered out or dropped between two finished ones belong to the range; on their own they do not count.
        """
        ranges = self._ranges()
        return merge(ranges, self._before) if ranges else self._before

    def _ranges(self) -> list[tuple[int, int]]:
        """Return the part that was read here."""
        ranges = [] if self._begun is None else [self._begun]
        if not self._done:
            return ranges
        passed = self._passed | self._strays if self._strays else self._passed
        first = last = None
        for position in self._unfinished:
            if position in self._done:
                first = position if first is None else first
                last = position
            elif position not in passed and first is not None and last is not None:
                ranges.append((first, last))
                first = last = None
        if first is not None and last is not None:
            ranges.append((first, last))
        return ranges


def merge(some: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of two sets of ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*some, *others]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)
