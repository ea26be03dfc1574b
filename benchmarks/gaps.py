"""What a function saw of its fleet: how long a partition stood still, and what came twice. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.sink import Arrival


def _seen(arrivals: Iterable[Arrival]) -> Iterator[tuple[int, str]]:
    """Yield when each record came, epoch microseconds, and its place, `topic-partition/offset`, in order of time."""
    for one in sorted(arrivals, key=lambda arrival: arrival.at_us):
        for place, _ in one.records:
            yield one.at_us, place


class LastSeen:
    """When each partition delivered last, by what came so far."""

    def __init__(self) -> None:
        self._at_us: dict[str, int] = {}

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Take more arrivals, in any order."""
        for at_us, place in _seen(arrivals):
            partition = place.rpartition("/")[0]
            self._at_us[partition] = max(at_us, self._at_us.get(partition, at_us))

    def since(self, since_us: int) -> int:
        """Count the partitions that have delivered since a moment, epoch microseconds."""
        return sum(at_us >= since_us for at_us in self._at_us.values())


def longest_gap_s(arrivals: Iterable[Arrival], from_us: int, to_us: int) -> float:
    """Return the longest time that a partition stood still which had records before, and that ended in the span.

    What is still standing at the end counts as none: there was nothing left to deliver.
    """
    last: dict[str, int] = {}
    longest_us = 0
    for at_us, place in _seen(arrivals):
        partition = place.rpartition("/")[0]
        if from_us <= at_us < to_us:
            longest_us = max(longest_us, at_us - last.get(partition, at_us))
        last[partition] = at_us
    return longest_us / 1_000_000


def duplicates(arrivals: Iterable[Arrival], bounds: Sequence[int]) -> list[int]:
    """Return how many records came again in each span from one bound (epoch microseconds) to the next."""
    counts = [0] * (len(bounds) - 1)
    known: set[str] = set()
    for at_us, place in _seen(arrivals):
        if place in known:
            for number, (first, after) in enumerate(itertools.pairwise(bounds)):
                counts[number] += first <= at_us < after
        known.add(place)
    return counts


def distinct(arrivals: Iterable[Arrival]) -> int:
    """Return how many different records came."""
    return len({place for _, place in _seen(arrivals)})
