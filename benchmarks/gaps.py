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


def partitions_since(arrivals: Iterable[Arrival], since_us: int) -> int:
    """Return how many partitions have delivered since a moment."""
    return len({place.rpartition("/")[0] for at_us, place in _seen(arrivals) if at_us >= since_us})


def distinct(arrivals: Iterable[Arrival]) -> int:
    """Return how many different records came."""
    return len({place for _, place in _seen(arrivals)})
