"""Which records of a shard are unfinished, and so how far the checkpoint may move. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of positions, rising, not touching."""


class Positions:
    """Follow every record of a shard from being read to being finished.

    The checkpoint is the highest position below which nothing is unfinished (invariant 3). What is finished beyond
    it, because lanes or partial failures let later records overtake, is told as compact ranges (`ahead`), so that a
    restart does not deliver it again.
    """

    def __init__(self, ahead: Ranges = ()) -> None:
        self._unfinished: deque[int] = deque()
        self._done: set[int] = set()  # finished beyond the first unfinished one
        self._passed: set[int] = set()  # the same, but filtered out: cheap to judge again, so never stored
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
        """Records filtered out beyond the checkpoint: after a restart they are read and filtered again."""
        return len(self._passed)

    def open(self, positions: Sequence[int]) -> list[bool] | None:
        """Note records as read: rising, and above all noted before. Never empty.

        Returns which of them are unfinished, since some may have been finished before a restart; None: all of them.
        """
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

    def _close(self, positions: Iterable[int], out_of_turn: set[int]) -> None:
        unfinished = self._unfinished
        for position in positions:
            if unfinished and unfinished[0] == position:
                self._finished_to = unfinished.popleft()
            else:
                out_of_turn.add(position)
        done, passed = self._done, self._passed
        while unfinished:
            head = unfinished[0]
            if head in done:
                done.discard(head)
            elif head in passed:
                passed.discard(head)
            else:
                break
            self._finished_to = unfinished.popleft()

    def ahead(self) -> Ranges:
        """Return what is finished beyond the checkpoint, for the shard's stored state.

        Records filtered out between two finished ones belong to the range; on their own they do not count.
        """
        if not self._done:
            return self._before
        ranges: list[tuple[int, int]] = []
        first = last = None
        for position in self._unfinished:
            if position in self._done:
                first = position if first is None else first
                last = position
            elif position not in self._passed and first is not None and last is not None:
                ranges.append((first, last))
                first = last = None
        if first is not None and last is not None:
            ranges.append((first, last))
        return merge(ranges, self._before)


def merge(some: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of two sets of ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*some, *others]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)
