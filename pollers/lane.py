"""One ordered sequence of records inside a shard: batch, deliver, next batch.

A shard has one lane, or ParallelizationFactor lanes among which records are spread by key. A failing lane stalls
only itself.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

from model.record import Records
from pollers.blocking import Stuck

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from model.outcome import Outcome
    from model.record import Batch
    from pollers.attempts import Attempts
    from pollers.delivery import Delivery
    from pollers.handing_over import Fate
    from pollers.retrying import Discard, Retrying


def lane_numbers(keys: Iterable[Any], lanes: int) -> list[int]:
    """Choose lanes by what records stay in order with: a key, or a record's own position where it has none.

    Alike on every node: what is stored of a run of records is found again by the run's first record, in the same lane.
    """
    return [(key if type(key) is int else crc32(key if type(key) is bytes else key.encode())) % lanes for key in keys]


class LaneOwner(Protocol):
    """The pump, as its lanes see it."""

    async def room_to_run_ahead(self) -> None:
        """Wait until a further batch may start although earlier ones are not saved yet."""

    def batch_taken(self) -> None:
        """Note that a batch left the waiting records: there is room to read."""

    def delivered(self, records: Records) -> None:
        """Note records as taken by the function; none of them: a window's final call."""

    def given_up(self, discard: Discard, fate: Fate) -> None:
        """Count records as given up."""

    def setback(self, outcome: Outcome, delay_s: float) -> None:
        """Note an attempt that failed."""

    def has_room_to_park(self) -> bool:
        """Tell whether a key may be parked now."""

    def parked(self, records: Records, attempts: Attempts) -> float:
        """Take what there is of a key that fails; returns the pause before anything else is tried.

        `attempts` tells what the first of the records have been through.
        """

    def batch_finished(self) -> None:
        """Note that all records of a batch are finished."""

    def known_failures(self, batch: Batch) -> dict[int, Attempts]:
        """Return function errors counted before a restart, by first position; `batch` is delivered next."""


class Batches(Protocol):
    """Collects records and says which go to the function next, and when (event-loop time): `pollers.batcher`."""

    def __len__(self) -> int:
        """Count the records that wait."""

    @property
    def held_bytes(self) -> int:
        """Bytes of those."""

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the first of them."""

    @property
    def missing(self) -> int:
        """Records until the last batch that waits is full, as far as that can be told."""

    def add(self, records: Records) -> None:
        """Take records behind those waiting. Never none."""

    def due_at(self) -> float | None:
        """When the next batch must go; None when nothing is left to do."""

    def take(self) -> Batch:
        """Close the next batch."""

    def withdraw(self, key: Hashable) -> Records:
        """Take all waiting records of a key out, in order."""

    def invoked(self, now: float) -> None:
        """Learn that an invocation has ended."""


class Lane:
    """Batches and deliveries of one sequence. `pollers.delivery.Finishing` of its own delivery."""

    def __init__(self, owner: LaneOwner, batcher: Batches, make_delivery: Callable[[Lane], Delivery]) -> None:
        self._owner = owner
        self._batcher = batcher
        self._delivery = make_delivery(self)
        self._changed = asyncio.Event()
        self._closing = False
        self._stopping = False
        self._in_delivery = 0
        self._oldest_ms = 0
        self._retrying: Retrying | None = None
        self._retry_at: float | None = None  # epoch seconds

    @property
    def held(self) -> int:
        """Records in this lane that are not finished."""
        return len(self._batcher) + self._in_delivery

    @property
    def held_bytes(self) -> int:
        """Bytes of the records that wait for their batch."""
        return self._batcher.held_bytes

    @property
    def waiting(self) -> int:
        """Records that wait for their batch."""
        return len(self._batcher)

    @property
    def missing(self) -> int:
        """Records until the last batch that waits is full."""
        return self._batcher.missing

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the oldest unfinished record, epoch milliseconds; None when the lane is empty."""
        return self._oldest_ms if self._in_delivery else self._batcher.oldest_ms

    def failures(self) -> dict[int, Attempts]:
        """Return what the records in delivery have been through."""
        return {} if self._retrying is None else self._retrying.failures()

    def stuck(self) -> Stuck | None:
        """Return what holds up this lane."""
        work = None if self._retrying is None else self._retrying.stuck()
        return None if work is None else Stuck(work, self._retry_at)

    def add(self, records: Records) -> None:
        """Take records behind those waiting. Never none."""
        self._batcher.add(records)
        self._changed.set()

    def close(self) -> None:
        """Deliver what waits, then end: no more will come."""
        self._closing = True
        self._changed.set()

    def stop(self) -> None:
        """End after the invocation under way; what waits stays unfinished."""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Deliver batches until closed or stopped. Raises `LeaseLostError`."""
        loop = asyncio.get_running_loop()
        while await self._batch_due(loop):
            await self._owner.room_to_run_ahead()
            if self._stopping:
                return
            batch = self._batcher.take()
            self._in_delivery = len(batch.records)
            self._oldest_ms = batch.records.arrivals_ms[0] if batch.records else 0
            self._owner.batch_taken()
            left = await self._delivery.deliver(batch, self._owner.known_failures(batch))
            self._batcher.invoked(loop.time())
            if left is not None:
                return  # draining: the count of what is left stays in `held`
            self._owner.batch_finished()

    async def _batch_due(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Wait for a batch that should go now; False when there will be none."""
        while not self._stopping:
            due_at = self._batcher.due_at()
            if due_at is not None and (due_at <= loop.time() or self._closing):
                return True
            if self._closing:
                return False
            self._changed.clear()
            if due_at is None:
                await self._changed.wait()
                continue
            try:
                async with asyncio.timeout_at(due_at):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return False

    def began(self, retrying: Retrying) -> None:
        """Note whose failures count now."""
        self._retrying, self._retry_at = retrying, None

    def delivered(self, records: Records) -> None:
        """Pass on what was delivered."""
        self._in_delivery -= len(records)
        self._owner.delivered(records)

    def given_up(self, discard: Discard, fate: Fate) -> None:
        """Pass on what is given up."""
        self._in_delivery -= len(discard.records)
        self._owner.given_up(discard, fate)

    def setback(self, outcome: Outcome, delay_s: float) -> None:
        """Pass on a failed attempt."""
        self._retry_at = time.time() + delay_s
        self._owner.setback(outcome, delay_s)

    def park(self, key: Hashable, retrying: Retrying) -> float | None:
        """Move everything this lane has of a key to the parking lot. See `pollers.delivery.Finishing`."""
        if not self._owner.has_room_to_park():
            return None
        known = retrying.failures()
        records = retrying.withdraw(key)
        self._in_delivery -= len(records)
        parked = Records.joined([records, self._batcher.withdraw(key)])
        return self._owner.parked(parked, known[records.positions[0]])
