"""One partition of the asynchronous queue at work: take, deliver, settle. At least once, in no order (spec 6.3).

Events are taken as there is room for them, on this node and for their function, and delivered side by side. What
came of them is written in groups, one call of the store at a time, with the lease's token. While the store is away
nothing is forgotten: what is to be settled waits, counts as under way, and so bounds what is taken.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from model.errors import LeaseLostError, StoreUnavailableError
from pollers.async_delivery import AttemptResult
from pollers.async_lines import MOST_OF_A_LINE, Lines
from statemgr.event_queue import MAX_QUEUE_BYTES, EventKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from random import Random

    from leasing.held import HeldLease
    from model.async_event import QueuedEvent, Settled
    from pollers.async_delivery import Came
    from statemgr.event_queue import EventQueue, Taken

log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_BYTES_AT_ONCE = 4 * 1024 * 1024  # in one answer of the store
_LEAST_BYTES = 1024 * 1024  # the largest event
_RESUME_S = 30.0  # how often to look for events that were taken and that nobody has
_LOOK_S = 5.0  # how often to look though nobody says that there is something
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 5.0
_SOON_S = 0.001  # a timer may fire a little early


class Share:
    """What all partitions of a node may have under way together: events and their bytes."""

    def __init__(self, *, events: int = 1000, size: int = 128 * 1024 * 1024) -> None:
        self._events, self._size = events, size
        self._waiting: set[Callable[[], None]] = set()

    def reserve(self, events: int, size: int, when_free: Callable[[], None]) -> tuple[int, int]:
        """Take as much as there is; `when_free` is called once, later, when there was too little for any event."""
        events = min(events, self._events)
        if events <= 0 or self._size < _LEAST_BYTES:
            self._waiting.add(when_free)
            return 0, 0
        size = min(size, self._size)
        self._events -= events
        self._size -= size
        return events, size

    def give_back(self, events: int, size: int) -> None:
        """Return what is no longer needed. The last event may have been larger than the rest of what was reserved."""
        self._events += events
        self._size += size
        waiting, self._waiting = self._waiting, set()
        for when_free in waiting:
            when_free()


class Delivers(Protocol):
    """What is done with an event."""

    async def deliver(self, taken: QueuedEvent) -> Came:
        """Return what becomes of it."""


class AsyncPump:
    """Works under one lease from `run` until it is drained or cancelled."""

    def __init__(
        self,
        queue: EventQueue,
        lease: HeldLease,
        delivery: Delivers,
        share: Share,
        *,
        random: Random,
        max_bytes: Callable[[], int] = lambda: MAX_QUEUE_BYTES,
    ) -> None:
        self._queue = queue
        self._lease = lease
        self._delivery = delivery
        self._share = share
        self._random = random
        self._max_bytes = max_bytes  # of all that waits in the queue
        self._lines = Lines()
        self._look = asyncio.Event()
        self._draining = asyncio.Event()
        self._to_settle: list[tuple[Settled, int]] = []  # and the bytes that it took here
        self._held_size = 0  # bytes of what is under way
        self._held: set[EventKey] = set()
        self._resume_at = -inf
        self._settle = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._log = log.bind(shard=str(lease.key), token=lease.token)

    def __repr__(self) -> str:
        return f"<AsyncPump {self._lease.key} {self._lines.running} under way>"

    def drain(self) -> None:
        """Take nothing more; `run` returns when what is under way is settled."""
        self._draining.set()
        self._look.set()

    def look(self) -> None:
        """Look again: there may be events."""
        self._look.set()

    async def run(self) -> None:
        """Work until drained. Raises `LeaseLostError`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                settling = tasks.create_task(self._settling(), name=f"settle {self._lease.key}")
                while not self._draining.is_set():
                    self._look.clear()
                    await self._step(tasks)
                await self._quiet.wait()
                settling.cancel()
        except ExceptionGroup as failures:
            # As in `pollers.pump`: a lease is lost only once, whoever notices.
            lost, others = failures.split(LeaseLostError)
            if lost is None or others is not None:
                raise
            raise lost.exceptions[0] from None
        finally:
            self._share.give_back(self._lines.running, self._held_size)

    async def _step(self, tasks: asyncio.TaskGroup) -> None:
        """Take what there is room for, or wait until there may be something."""
        events, size = self._share.reserve(self._lines.room, _BYTES_AT_ONCE, self.look)
        if not events:
            await self._pause(None)
            return
        used = used_size = 0
        try:
            taken = await self._take(events, size)
            for one in taken.events:
                self._begin(one, tasks)
                used, used_size = used + 1, used_size + one.size
        finally:
            self._share.give_back(events - used, size - used_size)
        if not taken.events:
            await self._pause(taken.next_due_s)

    async def _take(self, events: int, size: int) -> Taken:
        """Take events. Before, now and then, and whenever an answer got lost, those make due that nobody has."""
        now, lease = asyncio.get_running_loop().time(), self._lease.lease

        async def take() -> Taken | None:
            if now >= self._resume_at:
                self._obey(await self._queue.resume(lease, self._held))
            self._resume_at = -inf  # until there is an answer
            return await self._queue.take(
                lease,
                limits=self._lines.limits(asyncio.get_running_loop().time()),
                each=MOST_OF_A_LINE,
                most=events,
                max_bytes=size,
                turn=self._random.randrange(1 << 16),
            )

        resume_at = now + _RESUME_S if now >= self._resume_at else self._resume_at
        taken = await self._patiently("take", take)
        self._resume_at = resume_at
        if taken is None:
            raise LeaseLostError(self._lease.key, "the store refused to give events")
        return taken

    def _begin(self, taken: QueuedEvent, tasks: asyncio.TaskGroup) -> None:
        self._lines.began(taken.event.line, asyncio.get_running_loop().time())
        self._held.add(EventKey(taken.event.line, taken.id))
        self._held_size += taken.size
        self._quiet.clear()
        tasks.create_task(self._deliver(taken), name=f"event {taken.event.request_id}")

    async def _deliver(self, taken: QueuedEvent) -> None:
        self._lease.check()
        came = await self._delivery.deliver(taken)
        line = taken.event.line
        match came.attempt:
            case AttemptResult.OK | AttemptResult.ERROR:
                self._lines.took(line, came.took_s)
            case AttemptResult.THROTTLED | AttemptResult.FAILED:
                self._lines.throttled(line, asyncio.get_running_loop().time())
            case None:
                self._lines.unused(line)
        self._to_settle.append((came.settled, taken.size))
        self._settle.set()

    async def _settling(self) -> None:
        """Write what came of events, all there is with each call."""
        while True:
            await self._settle.wait()
            self._settle.clear()
            ended, self._to_settle = self._to_settle, []
            settled = [one for one, _ in ended]
            self._obey(await self._patiently("settle", partial(self._write, settled)))
            for one in settled:
                self._held.discard(EventKey(one.line, one.id))
                self._lines.ended(one.line)
            size = sum(size for _, size in ended)
            self._held_size -= size
            self._share.give_back(len(ended), size)
            if not self._lines.running:
                self._quiet.set()
            self._look.set()

    async def _write(self, settled: Sequence[Settled]) -> bool:
        return await self._queue.settle(self._lease.lease, settled, max_bytes=self._max_bytes())

    async def _pause(self, next_due_s: float | None) -> None:
        now = asyncio.get_running_loop().time()
        room_at = self._lines.due_at(now)
        waits = (_LOOK_S, next_due_s, None if room_at is None else room_at - now)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait_s for wait_s in waits if wait_s is not None) + _SOON_S):
                await self._look.wait()

    async def _patiently(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Call the store until it answers, as long as the lease is good. Raises `LeaseLostError`."""
        delay_s, told = _FIRST_DELAY_S, False
        while True:
            self._lease.check()
            try:
                return await call()
            except StoreUnavailableError as exc:
                if not told:
                    self._log.warning("async.store_away", what=what, error=str(exc))
                    told = True
                await asyncio.sleep(delay_s * self._random.uniform(0.5, 1.0))
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def _obey(self, written: bool) -> None:  # noqa: FBT001 - the store's answer
        if not written:
            raise LeaseLostError(self._lease.key, "the store refused a write")
