"""One leased shard at work: read, filter, batch, deliver, checkpoint. Only this module knows the order.

The guarantee: at least once, in order per lane. After a crash at most the batch in flight and the one finished
before it are delivered again per lane, because a further batch starts only when the one before last is saved.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from model.errors import LeaseLostError, SourceRefusedError, SourceRestartedError, SourceUnavailableError
from model.progress import ShardState
from model.record import NO_POSITION
from pollers.handing_over import Fate
from pollers.intake import Intake
from pollers.known_runs import take_runs
from pollers.lane_making import LaneMaker
from pollers.standing import Standing
from pollers.windows import Windows

if TYPE_CHECKING:
    from leasing.held import HeldLease
    from model.ids import ShardKey
    from model.outcome import Outcome
    from model.record import Batch, Records
    from pollers.attempts import Attempts
    from pollers.counters import ShardView
    from pollers.lane import Lane
    from pollers.ports import ShardReader
    from pollers.pump_parts import PumpParts
    from pollers.retrying import Discard
    from pollers.unparking import Unparking

_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 5.0  # a source that is back is noticed within this time
_REFUSED_DELAY_S = 30.0
_MAX_WAITING_BYTES = 6 * 1024 * 1024  # one event's worth read ahead of the batches in delivery
_RUN_AHEAD = 1  # batches per lane that may be finished and not saved when a further one starts


class Pump:
    """Works on one shard under one lease, from `run` until it is drained, ended or cancelled."""

    def __init__(self, parts: PumpParts, lease: HeldLease) -> None:
        self._parts = parts
        self._lease = lease
        self.key: ShardKey = lease.key
        self._standing = Standing(
            lease,
            parts.checkpointer,
            mapping=parts.mapping.name,
            circuit=parts.gate.report,
            max_parked_bytes=parts.mapping.extensions.parked_max_bytes,
            clock=asyncio.get_running_loop().time,
        )
        self._windows: Windows | None = None
        if parts.mapping.tumbling_window_s:
            self._windows = Windows(parts.mapping.tumbling_window_s, self._standing.stored_window)
            self._standing.windows = self._windows
        self._settled_at = 0.0  # the source answers without trouble since
        self._lanes: list[Lane] = []
        self._unparking: Unparking | None = None
        self._parked_tries = lease.progress.report.parked_tries
        self._room = asyncio.Event()  # a lane took a batch
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()  # drained, or read to the end of a closed shard
        self._restart: SourceRestartedError | None = None

    def __repr__(self) -> str:
        return f"<Pump {self.key} {self._standing.troubles.state} at {self._standing.position}>"

    def drain(self) -> None:
        """Read no more; `run` returns after the invocations under way and the last checkpoint."""
        self._draining.set()
        self._ended.set()
        if self._unparking is not None:
            self._unparking.stop()
        self._parts.gate.drained()

    def try_parked(self, number: int) -> None:
        """Have all that is parked tried at once, unless that was done for this wish of an operator."""
        self._parked_tries = number
        if self._unparking is not None and number != self._standing.parked_tries:
            self._unparking.try_all(number)

    def refresh(self) -> None:
        """Have the report brought up to date."""
        self._standing.refresh()

    def view(self) -> ShardView:
        """Return the shard as it is now, or was left."""
        return self._standing.view()

    async def run(self) -> bool:
        """Pump until drained, or until the source has closed the shard or begun it anew. Raises `LeaseLostError`.

        Tells whether the shard was read to its end, so that there is nothing left to do under this lease. Everything
        may be cancelled or killed at any point: what is not saved as finished is delivered again.
        """
        with self._parts.counters.probed(self.key, self.view):
            reader = None
            try:
                await self._standing.take_up_lot(self._draining)
                reader = self._standing.reader = await self._open()
                if reader is not None:
                    await self._note_start(reader)
                    await self._pump(reader)
                    await self._standing.saves.all_saved()
                return self._standing.troubles.state is ShardState.DRAINED
            finally:
                self._standing.close()
                if reader is not None:
                    await reader.close()

    async def _open(self) -> ShardReader | None:
        delay_s = _FIRST_DELAY_S
        while not self._draining.is_set():
            try:
                return await self._parts.source.reader(
                    self.key.shard, self._standing.position, self._lease.progress.origin
                )
            except (SourceUnavailableError, SourceRefusedError) as exc:
                delay_s = await self._source_trouble(exc, delay_s)
        return None

    async def _note_start(self, reader: ShardReader) -> None:
        """Make a resolved LATEST or AT_TIMESTAMP durable before anything is delivered."""
        self._standing.troubles.source_answers()
        if self._standing.position is None and reader.start is not None:
            self._standing.position = reader.start
            self._standing.log.info("shard.started", position=reader.start)
            await self._standing.saves.noted()

    async def _pump(self, reader: ShardReader) -> None:
        self._settled_at = asyncio.get_running_loop().time()
        maker = LaneMaker(
            parts=self._parts,
            lease=self._lease,
            standing=self._standing,
            draining=self._draining,
            windows=self._windows,
            settled_at=lambda: self._settled_at,
        )
        self._lanes = [maker.lane(self, reader) for _ in range(self._parts.lanes)]
        self._unparking = maker.unparking(self)
        self.try_parked(self._parked_tries)
        self._standing.holders = [*self._lanes, self._unparking]
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._standing.saves.watch_refusal(), name=f"watch {self.key}")
                lanes = [tasks.create_task(lane.run(), name=f"lane {self.key}") for lane in self._lanes]
                unparking = tasks.create_task(self._unparking.run(), name=f"unpark {self.key}")
                reading = tasks.create_task(self._read(reader), name=f"read {self.key}")
                await self._ended.wait()
                if self._draining.is_set():
                    self._standing.troubles.state = ShardState.DRAINING
                    self._standing.saves.changed()  # being cut off from now on is no death
                    self._unparking.stop()
                    reading.cancel()
                for lane in self._lanes:
                    lane.stop() if self._draining.is_set() else lane.close()
                await asyncio.wait(lanes)
                self._unparking.close()  # what came last may have been parked
                await asyncio.wait([unparking])
                watching.cancel()
        except ExceptionGroup as failures:
            # Several tasks may notice a lost lease at once; it is lost only once. (Raising inside `except*` would do,
            # but whether that comes out bare or in a group depends on the patch release of Python.)
            lost, others = failures.split(LeaseLostError)
            if lost is None or others is not None:
                raise
            raise lost.exceptions[0] from None
        if not self._draining.is_set():
            self._standing.troubles.state = ShardState.DRAINED
        if self._restart is not None:
            self._standing.log.warning("shard.rewound", why=str(self._restart), position=self._restart.position)
            self._standing.rewind(self._restart.position)
        self._standing.saves.changed()

    # Reading

    async def _read(self, reader: ShardReader) -> None:
        delay_s = _FIRST_DELAY_S
        intake = Intake(self._parts, self._standing, self.key.shard, self._lanes)
        while not self._draining.is_set():  # a source in trouble may answer without ever suspending
            await self._room_to_read()
            try:
                chunk = await reader.read(intake.wanted)
            except (SourceUnavailableError, SourceRefusedError) as exc:
                delay_s = await self._source_trouble(exc, delay_s)
                continue
            except SourceRestartedError as exc:
                self._restart = exc
                self.drain()
                return
            if chunk is None:
                self._ended.set()
                return
            delay_s = _FIRST_DELAY_S
            self._standing.troubles.source_answers()
            if chunk.raws:
                intake.take(chunk)

    async def _room_to_read(self) -> None:
        while self._is_full():
            self._room.clear()
            await self._room.wait()

    def _is_full(self) -> bool:
        """Tell whether every lane has its next batch waiting, an event's worth of bytes waits, or the lot is full.

        A lane that fails holds up the others only once the bytes are used up.
        """
        return (
            min([lane.waiting for lane in self._lanes]) >= self._parts.mapping.batch_size
            or sum([lane.held_bytes for lane in self._lanes]) >= _MAX_WAITING_BYTES
            or self._standing.lot.full
        )

    async def _source_trouble(self, exc: SourceUnavailableError | SourceRefusedError, delay_s: float) -> float:
        """Report it and wait, unless draining; returns the next delay."""
        refused = isinstance(exc, SourceRefusedError)
        delay_s = _REFUSED_DELAY_S if refused else delay_s
        if self._standing.troubles.source_trouble(
            str(exc), result=exc.result if isinstance(exc, SourceRefusedError) else None
        ):
            event = "source.refused" if refused else "source.unavailable"
            self._standing.log.warning(event, error=str(exc), retry_in_s=delay_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s * self._parts.random.uniform(0.5, 1)):
                await self._draining.wait()
        self._settled_at = asyncio.get_running_loop().time()
        return min(_MAX_DELAY_S, delay_s * 2)

    # What lanes report: `pollers.lane.LaneOwner`

    async def room_to_run_ahead(self) -> None:
        """Wait until no more than one finished batch per lane is unsaved."""
        await self._standing.saves.saved_up_to(_RUN_AHEAD * len(self._lanes))

    def batch_taken(self) -> None:
        """Let the reader go on, unless there is no room yet."""
        if not self._is_full():
            self._room.set()

    def batch_finished(self) -> None:
        """Count a finished batch."""
        self._standing.saves.batch_finished()

    def delivered(self, records: Records) -> None:
        """Count records as delivered and let the checkpoint move; with it goes the state of their tumbling window."""
        if self._windows is not None:
            if records:
                self._windows.accept(records)
            else:
                self._window_closed()
        self._standing.ledger.delivered += len(records)
        self._standing.succeeded()
        self._finish(records)

    def given_up(self, discard: Discard, fate: Fate) -> None:
        """Count records that the mapping's own rules gave up, and let the checkpoint move."""
        if not discard.records:
            log = self._standing.log
            log.warning("window.dropped", condition=discard.condition, invocations=discard.work.invocations)
            self._window_closed()
            self._standing.saves.changed()
            return
        self._count_given_up(discard, fate)
        self._finish(discard.records)

    def _count_given_up(self, discard: Discard, fate: Fate) -> None:
        if fate is Fate.DESTINATION:
            self._parts.counters.on_failure_destination_delivered += len(discard.records)
            self._standing.ledger.destination += len(discard.records)
        else:
            self._parts.counters.dropped += len(discard.records)
            self._standing.ledger.dropped += len(discard.records)
        self._standing.log.warning(
            "records.handed_over" if fate is Fate.DESTINATION else "records.dropped",
            condition=discard.condition,
            records=len(discard.records),
            first=discard.records[0].shown,
            last=discard.records[-1].shown,
            invocations=discard.work.invocations,
        )

    def has_room_to_park(self) -> bool:
        """Tell whether a key may be parked: there is room, or the first record parked may be given up for it."""
        return self._parts.gives_up or not self._standing.lot.full

    def parked(self, records: Records, attempts: Attempts) -> float:
        """Count a key's records as parked, and let the checkpoint move."""
        standing = self._standing
        standing.parked(records, attempts)
        pause_s = standing.lot.pause_s() * self._parts.random.uniform(0.5, 1)
        standing.log.warning(
            "key.parked", first=records[0].shown, records=len(records), failures=attempts.failures, pause_s=pause_s
        )
        if self._unparking is not None:
            self._unparking.added()
        return pause_s

    def unparked(self, records: Records) -> None:
        """Count parked records as delivered."""
        self._standing.ledger.delivered += len(records)
        self._left_lot(records)

    def given_up_parked(self, discard: Discard, fate: Fate) -> None:
        """Count parked records that were given up."""
        self._count_given_up(discard, fate)
        self._left_lot(discard.records)

    def setback_parked(self) -> None:
        """Have the counts of parked records saved."""
        self._standing.saves.changed()

    def _left_lot(self, records: Records) -> None:
        if records.order_keys[0] not in self._standing.lot.queues:
            self._standing.log.info("key.unparked", last=records[-1].shown, parked=len(self._standing.lot))
        self._standing.left_lot(records)
        self._room.set()

    def setback(self, outcome: Outcome, delay_s: float) -> None:
        """Report a failed attempt."""
        self._standing.troubles.setback(outcome, delay_s)

    def known_failures(self, batch: Batch | None = None) -> dict[int, Attempts]:
        """Return what records had been through before a restart; those of a batch, which is next in its lane."""
        known = self._standing.known_failures
        if batch is None or not batch.records or len(self._lanes) > 1 or self._parts.policy.park_after is not None:
            return known
        return take_runs(known, batch.records.positions)

    def _window_closed(self) -> None:
        """Drop a window's state, and the count of its final call's failures: the call is done, or given up."""
        if self._windows is not None:
            self._windows.close()
        self._standing.known_failures.pop(NO_POSITION, None)

    def _finish(self, records: Records) -> None:
        self._standing.finished(records.positions)
