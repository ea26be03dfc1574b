"""What records had been through before a restart, given out batch by batch where batches are cut anew. Pure.

A run of records that failed together is stored by its first position. The next holder's batches begin and end
elsewhere: a smaller batch size, or other records at hand, cut a run in two. What is left of it keeps its count, or a
hand-over would give it all of its attempts again.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pollers.attempts import Attempts


def take_runs(known: dict[int, Attempts], positions: Sequence[int]) -> dict[int, Attempts]:
    """Take what the records of the next batch have been through out of `known`, by positions in the batch.

    Only for a single sequence of records, whose batches come in order: among lanes, a run says only of its first record
    for sure that it belongs to it. What is left of a run stays in `known` from behind the batch on.
    """
    taken: dict[int, Attempts] = {}
    if not known or not positions:
        return taken
    first, last = positions[0], positions[-1]
    for start, run in sorted(known.items()):
        if start > last:
            break
        del known[start]
        if run.last < first:
            continue  # finished before
        if run.last > last:
            known[last + 1] = run
        place = bisect_left(positions, start)
        if place < len(positions) and positions[place] <= run.last:
            taken[positions[place]] = run
    return taken
