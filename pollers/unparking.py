"""Try parked records again, key by key with backoff, until the function takes them or their mapping gives them up.

One invocation at a time and shard, beside those of the lanes. Records of a key are tried in order, in batches of their
own. When the lot is full and records may be given up, the first record of the key that holds most goes: it is the one
that fails.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from model.outcome import FunctionFailed, NotReached, PartlyFailed, Throttled
from model.record import MAX_EVENT_BYTES, Batch, Records
from pollers.attempts import Work
from pollers.parking_lot import head
from pollers.retrying import FIRST_DELAY_S, Condition, Discard, Invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from model.outcome import Outcome
    from pollers.attempts import Attempts
    from pollers.delivery import Delivery
    from pollers.handing_over import Fate
    from pollers.parking_lot import ParkedQueue, ParkingLot
    from pollers.retrying import Retrying


class UnparkingOwner(Protocol):
    """The pump, as its parking lot sees it."""

    async def room_to_run_ahead(self) -> None:
        """Wait until a further batch may start although earlier ones are not saved yet."""

    def batch_finished(self) -> None:
        """Note that all records of a batch are finished."""

    def unparked(self, records: Records) -> None:
        """Count parked records as delivered."""

    def given_up_parked(self, discard: Discard, fate: Fate) -> None:
        """Count parked records as given up."""

    def setback_parked(self) -> None:
        """Have the counts of parked records saved: an attempt at some of them failed."""

    def known_failures(self) -> dict[int, Attempts]:
        """Return function errors counted before the records were parked, or before a restart, by first position."""


class Unparking:
    """Empties one shard's parking lot. `pollers.delivery.Finishing` of its own delivery, `pollers.standing.Holder`."""

    held = 0  # parked records have a column of their own in the ledger
    oldest_ms = None

    def __init__(
        self,
        owner: UnparkingOwner,
        lot: ParkingLot,
        make_delivery: Callable[[Unparking], Delivery],
        *,
        batch_size: int,
        gives_up: bool,
        tried: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self._owner = owner
        self._lot = lot
        self._delivery = make_delivery(self)
        self._batch_size = batch_size
        self._gives_up = gives_up
        self._changed = asyncio.Event()
        self._closing = False
        self._stopping = False
        self._queue: ParkedQueue | None = None  # the key whose step is under way
        self._tried = tried  # told once everything parked was tried for an operator
        self._asked: int | None = None  # the wish being carried out
        self._untried: set[Hashable] = set()

    def failures(self) -> dict[int, Attempts]:
        """Return what parked records have been through, by the first position of each run."""
        known: dict[int, Attempts] = {}
        for queue in self._lot.queues.values():
            if queue.course is not None:
                known.update(queue.course.failures())
        return known

    def stuck(self) -> None:
        """Hold up nothing: what is parked is out of the way."""

    def added(self) -> None:
        """Learn that something was parked."""
        self._changed.set()

    def try_all(self, number: int) -> None:
        """Try every key at once, whatever its backoff; `tried` gets the number when all of them had their turn."""
        if number == self._asked:
            return
        self._asked = number
        self._untried = set(self._lot.queues)
        now = asyncio.get_running_loop().time()
        for queue in self._lot.queues.values():
            queue.due_at = now
        if not self._untried:
            self._tried(number)
        self._changed.set()

    def close(self) -> None:
        """End once nothing is parked any more."""
        self._closing = True
        self._changed.set()

    def stop(self) -> None:
        """End after the step under way; what is parked stays so."""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Try again until stopped, or closed and empty. Raises `LeaseLostError`."""
        while not self._stopping:
            queue = self._lot.next_due()
            if queue is None and self._closing:
                return
            stuck = self._lot.stuck() if self._gives_up and self._lot.full else None
            if stuck is not None:
                await self._give_up_first(stuck)
            elif await self._is_time(queue) and queue is not None:
                await self._try(queue)

    async def _is_time(self, queue: ParkedQueue | None) -> bool:
        """Wait until a key is due; False when something else has changed before."""
        due_at = None if queue is None else queue.due_at
        if due_at is not None and due_at <= asyncio.get_running_loop().time():
            return True
        self._changed.clear()
        try:
            async with asyncio.timeout_at(due_at):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    async def _try(self, queue: ParkedQueue) -> None:
        """Take the next step with the first records of a key."""
        self._queue = queue
        if queue.course is None:
            await self._owner.room_to_run_ahead()
            overhead = self._delivery.exchange.overhead()
            records, size = head(
                queue.records, batch_size=self._batch_size, overhead=overhead, max_bytes=MAX_EVENT_BYTES
            )
            queue.course = self._delivery.begin(Batch(Records.of(records), size), self._owner.known_failures())
        step = queue.course.next(self._delivery.now_ms(), self._delivery.lag)
        if step is None:
            queue.course = None  # all of it went; if more waits, it is next
            self._owner.batch_finished()
            return
        # Nobody waits for a turn much beyond the time at which the first record of any key grows too old.
        within_s = min([self._expires_in_s(one) for one in self._lot.queues.values()])
        pause_s = await self._delivery.take(step, queue.course, within_s=max(FIRST_DELAY_S, within_s))
        if pause_s is not None and queue.records:
            now = asyncio.get_running_loop().time()
            # Others are tried while this one holds itself back, but not for longer than its first record may age.
            not_before = step.work.not_before if isinstance(step, Invoke) else 0.0
            queue.due_at = min(max(now + pause_s, not_before), now + max(0.0, self._expires_in_s(queue)))

    def _expires_in_s(self, queue: ParkedQueue) -> float:
        return self._delivery.policy.expires_in_s(queue.records[0].arrival_ms, self._delivery.now_ms())

    async def _give_up_first(self, queue: ParkedQueue) -> None:
        """Make room: hand the record on which a key is stuck to the destination, or drop it."""
        self._queue = queue
        record = queue.records[0]
        known = self._owner.known_failures() if queue.course is None else queue.course.failures()
        attempts = known.get(record.position)
        overhead = self._delivery.exchange.overhead()
        single = Records.of([record])
        batch = Batch(single, overhead + single.size)
        work = Work(batch) if attempts is None else attempts.resume(batch)
        if await self._delivery.give_up(Discard(single, Condition.RETRY_ATTEMPTS_EXHAUSTED, work)):
            queue.course = None  # it held the record that is gone
            queue.failures, queue.due_at = 0, asyncio.get_running_loop().time()  # the next one has its turn

    # What its delivery reports: `pollers.delivery.Finishing`

    def began(self, retrying: Retrying) -> None:
        """Nothing to note: the course is the key's."""

    def delivered(self, records: Records) -> None:
        """Let records go that the function took."""
        self._leave(len(records))
        self._lot.function_answers()
        self._owner.unparked(records)

    def given_up(self, discard: Discard, fate: Fate) -> None:
        """Let records go that were given up."""
        self._leave(len(discard.records))
        self._owner.given_up_parked(discard, fate)

    def setback(self, outcome: Outcome, delay_s: float) -> None:  # noqa: ARG002 - the key's own time says it
        """Remember why the key stays parked."""
        queue = self._queue
        if queue is None or queue.course is None or not queue.records:
            return
        known = queue.course.failures().get(queue.records[0].position)
        queue.failures = 0 if known is None else known.failures
        queue.error = _error(outcome)
        self._owner.setback_parked()
        self._had_its_turn(queue)

    def park(self, key: Hashable, retrying: Retrying) -> float | None:
        """Never happens: what is parked is not parked again."""
        raise RuntimeError(f"{key!r} is parked already: {retrying!r}")

    def _leave(self, count: int) -> None:
        queue = self._queue
        if queue is not None:
            self._lot.leave(queue, count)
            if not queue.records:
                self._had_its_turn(queue)

    def _had_its_turn(self, queue: ParkedQueue) -> None:
        if queue.key in self._untried:
            self._untried.remove(queue.key)
            if not self._untried and self._asked is not None:
                self._tried(self._asked)


def _error(outcome: Outcome) -> str | None:
    match outcome:
        case FunctionFailed() | Throttled() | NotReached():
            return outcome.error
        case PartlyFailed():
            return "reported as failed"
        case _:
            return None
