"""Collect records into batches: closed by count, by age or by the size of the event (spec section 2)."""

from __future__ import annotations

from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING

from model.record import MAX_EVENT_BYTES, Batch, Records

if TYPE_CHECKING:
    from collections.abc import Hashable


class Batcher:
    """Collect records until the batch is full, heavy or old.

    Does no I/O and owns no clock: `now` is event-loop time. The window is counted from the end of the previous
    invocation, the first one from the first poll (spec section 2): after a quiet spell a record goes at once.
    """

    def __init__(
        self, *, batch_size: int, window_s: float, overhead: int, now: float, max_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self._batch_size = batch_size
        self._window_s = window_s
        self._overhead = overhead
        self._max_bytes = max_bytes
        self._window_began_at = now
        self._parts: deque[Records] = deque()
        self._count = 0  # of the records held
        self._bytes = 0  # in an event

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Batcher {self._count}/{self._batch_size} records, {self._bytes} bytes>"

    @property
    def held_bytes(self) -> int:
        """Bytes of the records waiting."""
        return self._bytes

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the first waiting record, epoch milliseconds."""
        return self._parts[0].arrivals_ms[0] if self._parts else None

    @property
    def missing(self) -> int:
        """Records until the last batch that waits is full: who adds them apart from those that follow saves a cut."""
        return self._batch_size - self._count % self._batch_size

    def add(self, records: Records) -> None:
        """Take records, in order, behind those already waiting. Never none."""
        self._parts.append(records)
        self._count += len(records)
        self._bytes += records.size

    def due_at(self) -> float | None:
        """When the waiting records must go, however few they are; None when nothing waits.

        A time in the past when the batch is full or heavy already.
        """
        if not self._count:
            return None
        if self._count >= self._batch_size or self._overhead + self._bytes >= self._max_bytes:
            return self._window_began_at
        return self._window_began_at + self._window_s

    def ready(self, now: float) -> bool:
        """Whether a batch should be taken now."""
        due_at = self.due_at()
        return due_at is not None and due_at <= now

    def take(self, at_most: int | None = None) -> Batch:
        """Close the batch at the head: as many records as fit, at least one, and not more than asked for.

        A single record that no event can hold comes alone, with `size` telling; it must not be invoked with.
        Raises IndexError when nothing waits.
        """
        parts, most = self._parts, self._batch_size if at_most is None else min(at_most, self._batch_size)
        if not parts:
            raise IndexError("no record waits")
        taken: list[Records] = []
        count, size = 0, self._overhead
        while parts and count < most:
            part = parts[0]
            fit = min(len(part), most - count)
            if size + part.size > self._max_bytes:
                fit = min(fit, _fitting(part, self._max_bytes - size)) or int(not taken)
            if fit == len(part):
                parts.popleft()
            elif fit:
                part, parts[0] = part[:fit], part[fit:]
                most = count + fit  # here the batch ends, whatever the reason
            else:
                break
            taken.append(part)
            count += len(part)
            size += part.size
        self._count -= count
        self._bytes -= size - self._overhead
        return Batch(Records.joined(taken), size)

    def withdraw(self, key: Hashable) -> Records:
        """Take all waiting records of a key out, in order."""
        taken: list[Records] = []
        left: deque[Records] = deque()
        for part in self._parts:
            mine = [one == key for one in part.order_keys]
            others = part
            if any(mine):
                taken.append(part.pick(mine))
                others = part.pick([not it for it in mine])
            if others:
                left.append(others)
        self._parts = left
        withdrawn = Records.joined(taken)
        self._count -= len(withdrawn)
        self._bytes -= withdrawn.size
        return withdrawn

    def invoked(self, now: float) -> None:
        """Begin the next window: an invocation has ended."""
        self._window_began_at = now


def _fitting(records: Records, room: int) -> int:
    """Count the records at the head that together have no more bytes than there is room for."""
    ends = accumulate(len(fragment) + 1 for fragment in records.fragments)
    return sum(1 for end in ends if end <= room)
