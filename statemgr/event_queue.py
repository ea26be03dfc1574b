"""The queue of asynchronous invocations: its interface, and which of its partitions a function's events go to.

Events wait in the fleet's shared memory. A partition is worked on by the holder of its lease alone: each write on its
behalf carries the lease's token, and an older one is refused. What was taken and is not settled when the lease moves is
taken again by the next holder: at least once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from model.async_event import NewEvent, QueuedEvent, Settled
    from model.lease import Lease

PARTITIONS = 32
"""Of one fleet. 496 pairs of them, so that two functions seldom share both of theirs."""

MAX_QUEUE_BYTES = 256 * 1024 * 1024
"""Events that wait, unless the configuration says otherwise: the fleet's memory holds its leases too."""


def partitions_of(function: str, *, partitions: int = PARTITIONS) -> tuple[int, int]:
    """Return the two partitions of a function, for ever the same: shuffle sharding.

    A function with a backlog fills at most these, so others are disturbed only where they share both. The order is
    part of the answer's stability, not a preference.
    """
    digest = hashlib.sha256(function.encode()).digest()
    first = int.from_bytes(digest[:8]) % partitions
    step = 1 + int.from_bytes(digest[8:16]) % (partitions - 1)
    return first, (first + step) % partitions


class EventKey(NamedTuple):
    """An event of a partition."""

    line: str
    id: str


class QueueFullError(Exception):
    """As many bytes wait as may, or the store needs what room it has for the fleet. Nothing was accepted."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Events taken, and after how many seconds others come due; None: none are waiting for their time."""

    events: Sequence[QueuedEvent]
    next_due_s: float | None


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How much waits or is under way."""

    events: int
    size: int  # bytes
    oldest_age_s: float | None


class EventQueue(Protocol):
    """The queue. One conformance suite judges every implementation.

    All methods raise `StoreUnavailableError` when the store cannot be reached, times out or cannot write; then nothing
    may be assumed about whether the write happened. `take`, `settle` and `resume` return None or False when the lease's
    token is stale; then nothing was read or written.
    """

    async def append(self, event: NewEvent, partitions: Sequence[int], *, max_bytes: int = MAX_QUEUE_BYTES) -> int:
        """Keep an event in the one of two partitions that has fewer, and return which.

        The partition is wanted from then on: some node's pollers will hold it. Raises `QueueFullError` when events of
        `max_bytes` wait already, or the store has room for the fleet's own needs only.
        """

    async def take(
        self, lease: Lease, *, limits: Mapping[str, int], each: int, most: int, max_bytes: int, turn: int = 0
    ) -> Taken | None:
        """Take events that are due: from each line as many as its limit says, or `each`, and `most` in all.

        Ends when `max_bytes` are reached, and takes one event at least if there is one. `turn` says with which line to
        begin. Events that were taken are not due again until they are settled or another holder resumes.
        """

    async def settle(self, lease: Lease, settled: Sequence[Settled], *, max_bytes: int = MAX_QUEUE_BYTES) -> bool:
        """Have events that were taken done, or come again.

        When more than `max_bytes` would wait with it, or the store has room for the fleet's own needs only, a standing
        is kept without the function's answers.
        """

    async def resume(self, lease: Lease, held: Collection[EventKey] = ()) -> bool:
        """Make due what was taken and is not settled, but for what the holder knows that it has.

        The rest was taken by a holder before, or its answer never arrived.
        """

    async def depth(self) -> QueueDepth:
        """Return how much waits, in all partitions."""

    def wakes(self) -> AsyncIterator[Collection[int] | None]:
        """Yield the partitions in which there may be something to take where there was nothing; None: any of them.

        Coalesced, best effort. Yields None as soon as it listens. Ends only by cancellation or `aclose()`.
        """
