"""Collect records into batches: closed by count, by age or by the size of the event (spec section 2)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from model.record import MAX_EVENT_BYTES, Batch, order_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from model.record import Record


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
        self._records: deque[Record] = deque()
        self._bytes = 0  # of the fragments held, each with its comma

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"<Batcher {len(self._records)}/{self._batch_size} records, {self._bytes} bytes>"

    @property
    def held_bytes(self) -> int:
        """Bytes of the records waiting."""
        return self._bytes

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the first waiting record, epoch milliseconds."""
        return self._records[0].arrival_ms if self._records else None

    def add(self, records: Sequence[Record]) -> None:
        """Take records, in order, behind those already waiting."""
        self._records.extend(records)
        self._bytes += sum([len(record.fragment) for record in records]) + len(records)

    def due_at(self) -> float | None:
        """When the waiting records must go, however few they are; None when nothing waits.

        A time in the past when the batch is full or heavy already.
        """
        if not self._records:
            return None
        if len(self._records) >= self._batch_size or self._overhead + self._bytes >= self._max_bytes:
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
        records = self._records
        if not records:
            raise IndexError("no record waits")
        most = self._batch_size if at_most is None else min(at_most, self._batch_size)
        if self._overhead + self._bytes <= self._max_bytes:  # nearly always: only the count limits
            count = min(len(records), most)
            taken = [records.popleft() for _ in range(count)]
            size = self._overhead + sum([len(record.fragment) for record in taken]) + count
        else:
            taken, size = self._as_many_as_fit(most)
        self._bytes -= size - self._overhead
        return Batch(taken, size)

    def _as_many_as_fit(self, most: int) -> tuple[list[Record], int]:
        """Remove records until the next one would make the event too large, but at least one."""
        size = self._overhead
        taken: list[Record] = []
        records = self._records
        while records and len(taken) < most:
            grown = size + len(records[0].fragment) + 1
            if grown > self._max_bytes and taken:
                break
            taken.append(records.popleft())
            size = grown
        return taken, size

    def withdraw(self, key: Hashable) -> list[Record]:
        """Take all waiting records of a key out, in order."""
        taken = [record for record in self._records if order_key(record) == key]
        if taken:
            self._records = deque(record for record in self._records if order_key(record) != key)
            self._bytes -= sum([len(record.fragment) for record in taken]) + len(taken)
        return taken

    def invoked(self, now: float) -> None:
        """Begin the next window: an invocation has ended."""
        self._window_began_at = now
