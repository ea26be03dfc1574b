"""The parking lot of a shard: records of keys that the function fails on, kept in order, out of the others' way. Pure.

A parked record is finished for the checkpoint: the lot is saved in the same fenced step. It stays *parked* in the
ledger until the function takes it, or its mapping's rules give it up. As long as a key is parked, everything that comes
for it queues behind, so the order of the key holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from model.progress import MAX_PARKED_SHOWN, ParkedChange, ParkedKey, ParkedRecords
from model.record import order_key
from pollers.retrying import FIRST_DELAY_S, MAX_DELAY_S

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from model.record import Record
    from pollers.retrying import Retrying

_RECORD_BYTES = 100  # what a parked record takes besides its fragment, in the store as in memory
_AT_ONCE = 8  # keys that are parked one after the other without a pause, although the function took nothing meanwhile
_SHOWN_KEY = 64
_SHOWN_ERROR = 200


@dataclass(slots=True)
class ParkedQueue:
    """The parked records of one key, in order."""

    key: Hashable
    since: float  # epoch seconds
    due_at: float  # event-loop time of the next try
    records: deque[Record] = field(default_factory=deque)
    size: int = 0
    course: Retrying | None = None  # of the records that are tried now; None before the first try
    failures: int = 0  # function errors of the first record
    error: str | None = None  # the last one


class ParkingLot:
    """What is parked, when it is tried again, and what of that the store does not know yet."""

    def __init__(
        self, max_bytes: int, stored: ParkedRecords | None = None, *, now: float = 0.0, since: float = 0.0
    ) -> None:
        self.queues: dict[Hashable, ParkedQueue] = {}
        self.size = 0
        self.max_bytes = max_bytes
        self._count = 0
        self._in_a_row = 0
        self._put: dict[int, Record] = {}
        self._drop: set[int] = set()
        self._whole = False
        self._revision = self._stored = 0
        if stored is not None:
            self._revision = self._stored = stored.revision
            self.park(stored.records, now=now, since=since)
            self.lost()  # the first save puts all of it, so that the node can publish it again by itself
            self._in_a_row = 0

    def __len__(self) -> int:
        """Count the parked records."""
        return self._count

    def __iter__(self) -> Iterator[Record]:
        """Go through them, key by key."""
        for queue in self.queues.values():
            yield from queue.records

    def __repr__(self) -> str:
        return f"<ParkingLot {self._count} records of {len(self.queues)} keys, {self.size} bytes>"

    @property
    def full(self) -> bool:
        """Whether it holds as much as it may. The last records may have taken it a little over."""
        return self._count > 0 and self.size >= self.max_bytes

    @property
    def lowest(self) -> int | None:
        """Lowest position parked."""
        return min((queue.records[0].position for queue in self.queues.values()), default=None)

    # Coming and going

    def park(self, records: Sequence[Record], *, now: float, since: float) -> None:
        """Take records behind those of their keys. A key that is new is tried after the first delay."""
        for record in records:
            key = order_key(record)
            queue = self.queues.get(key)
            if queue is None:
                queue = self.queues[key] = ParkedQueue(key, since, now + FIRST_DELAY_S)
                self._in_a_row += 1
            queue.records.append(record)
            size = _size(record)
            queue.size += size
            self.size += size
            self._put[record.position] = record
            self._drop.discard(record.position)
        self._count += len(records)

    def leave(self, queue: ParkedQueue, count: int) -> None:
        """Let the first `count` records of a key go; without any left the key is parked no more."""
        for _ in range(count):
            record = queue.records.popleft()
            size = _size(record)
            queue.size -= size
            self.size -= size
            self._put.pop(record.position, None)
            self._drop.add(record.position)
        self._count -= count
        if not queue.records:
            del self.queues[queue.key]

    def clear(self) -> None:
        """Forget everything: the shard's log began anew."""
        for queue in list(self.queues.values()):
            self.leave(queue, len(queue.records))

    # Trying again

    def next_due(self) -> ParkedQueue | None:
        """Return the key to be tried next; its `due_at` may lie ahead."""
        return min(self.queues.values(), key=lambda queue: queue.due_at, default=None)

    def stuck(self) -> ParkedQueue | None:
        """Return the key to give something up when the lot is full: the heaviest whose first record has failed."""
        failing = (queue for queue in self.queues.values() if queue.failures)
        return max(failing, key=lambda queue: queue.size, default=None)

    def function_answers(self) -> None:
        """Learn that the function took records of the shard: what fails fails by itself."""
        self._in_a_row = 0

    def pause_s(self) -> float:
        """Return how long to wait before anything else is tried, now that one more key was parked.

        Where one key after the other fails and nothing succeeds, it is the function that fails: parking everything
        would only move the backlog. So parking slows down, and speeds up with the first record that is taken.
        """
        extra = self._in_a_row - _AT_ONCE
        return 0.0 if extra <= 0 else min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(extra - 1, 10))

    # What the store knows

    @property
    def revision(self) -> int:
        """Revision that the next save leaves in the store; 0 when nothing was ever parked."""
        return self._revision

    def change(self) -> ParkedChange | None:
        """Return what the next save has to do; None: nothing. Call it at the moment of sending.

        While anything is parked that is never nothing: a checkpoint that lies beyond parked records must not be saved
        in a store that has lost them.
        """
        if not (self._put or self._drop or self._whole):
            return ParkedChange(self._stored, self._stored) if self._count else None
        self._revision += 1
        if self._whole:
            return ParkedChange(None, self._revision, tuple(self))
        return ParkedChange(self._stored, self._revision, tuple(self._put.values()), tuple(self._drop))

    def saved(self, change: ParkedChange) -> None:
        """Learn that the store has a change; what came since is still to be saved."""
        self._stored = change.revision
        self._whole = False
        for record in change.put:
            self._put.pop(record.position, None)
        if change.base is None:
            self._drop &= {record.position for record in change.put}
        self._drop.difference_update(change.drop)

    def lost(self) -> None:
        """Have the next save put everything: the store has another lot than the last change made."""
        self._whole = True

    # For operators

    def shown(self) -> tuple[ParkedKey, ...]:
        """Describe the keys parked longest."""
        return tuple(_shown(queue) for queue in islice(self.queues.values(), MAX_PARKED_SHOWN))


def head(records: Iterable[Record], *, batch_size: int, overhead: int, max_bytes: int) -> tuple[list[Record], int]:
    """Return the first records that make a batch, at least one, and the size of their event."""
    size = overhead
    taken: list[Record] = []
    for record in islice(records, batch_size):
        grown = size + len(record.fragment) + 1
        if grown > max_bytes and taken:
            break
        taken.append(record)
        size = grown
    return taken, size


def printable(key: bytes | str) -> str:
    """Return a key as people can read it on a terminal, shortened."""
    text = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_SHOWN_KEY])


def _size(record: Record) -> int:
    return len(record.fragment) + _RECORD_BYTES


def _shown(queue: ParkedQueue) -> ParkedKey:
    first = queue.records[0]
    name = f"(no key, at {first.position})" if first.key is None else printable(first.key)
    error = None if queue.error is None else queue.error[:_SHOWN_ERROR]
    return ParkedKey(name, len(queue.records), queue.size, round(queue.since, 3), queue.failures, error)
