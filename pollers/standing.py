"""Where one shard stands: its checkpoint, its account, what operators see, and how much of that is saved.

The pump tells what happens; the checkpointer takes the state away and brings back what the store said.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from model.errors import LeaseLostError, StoreUnavailableError
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from model.progress import Ledger, ProgressUpdate, SaveResult, ShardReport, ShardState
from model.record import pick
from pollers.circuit import held_up
from pollers.counters import ShardView
from pollers.handing_over import drained_within
from pollers.parking_lot import ParkingLot
from pollers.ports import Lag
from pollers.positions import Positions
from pollers.retention import RetentionForecast
from pollers.retrying import FIRST_DELAY_S, MAX_DELAY_S
from pollers.shard_state import StoredState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leasing.held import HeldLease
    from model.ids import Position, ShardKey
    from model.record import Places, Records
    from pollers.checkpointer import Checkpointer
    from pollers.counters import CircuitProbe
    from pollers.ports import Chunk, ShardReader
    from pollers.retrying import Attempts
    from pollers.windows import Windows

log = structlog.get_logger(__name__)

_WARN_S = 3600.0  # before records are lost to the source's retention


class Holder(Protocol):
    """What holds unfinished records: a lane."""

    @property
    def held(self) -> int:
        """How many."""

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the oldest, epoch milliseconds."""

    def failures(self) -> dict[int, Attempts]:
        """Return what the records in delivery have been through, by the first position of each run of them."""


class Standing:
    """One shard's standing under one lease. `pollers.checkpointer.Saving`."""

    def __init__(
        self,
        lease: HeldLease,
        checkpointer: Checkpointer,
        *,
        mapping: str,
        max_parked_bytes: int = 0,
        circuit: CircuitProbe,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stored = StoredState.decode(lease.progress.state)
        self.key: ShardKey = lease.key
        self.ledger = lease.progress.ledger.resumed()
        self.positions = Positions(stored.ahead)
        self.position: Position | None = lease.progress.position
        self.state = ShardState.STARTING
        self.source_error: str | None = None
        self.known_failures = dict(stored.attempts)  # counted before a restart
        self.stored_window = stored.window
        self.lot = ParkingLot(max_parked_bytes)
        self._has_stored_lot = stored.parked
        self.windows: Windows | None = None  # of a mapping with tumbling windows
        self._destination_trouble: tuple[ShardState, str] | None = None
        self._circuit = circuit
        self.holders: Sequence[Holder] = ()
        self.reader: ShardReader | None = None
        self._lease = lease
        self._checkpointer = checkpointer
        self._last_result = lease.progress.report.last_result
        self._last_error: str | None = None
        self._imbalance = 0
        self._rewind = False
        self._reported: ShardReport | None = None
        self._clock = clock
        self._forecast = RetentionForecast()
        self._warned = False
        self._strayed = False  # and said so
        self._changes = 0  # counts what is worth saving
        self._changes_saved = 0
        self._batches = 0  # finished
        self._batches_saved = 0
        self._saving = (0, 0)  # changes and batches covered by the save under way
        self._refused: SaveResult | None = None
        self._news = asyncio.Event()  # a save came back
        self.log = log.bind(mapping=mapping, shard=lease.key.shard, token=lease.token)

    # What happens

    def changed(self) -> None:
        """Have the present state saved soon."""
        self._changes += 1
        self._checkpointer.mark(self)

    def moved(self) -> None:
        """Take up the checkpoint that the finished records allow."""
        finished_to = self.positions.finished_to
        if finished_to is not None and self.reader is not None:
            self.position = self.reader.after(finished_to)
        self.changed()

    def polled(self, chunk: Chunk) -> tuple[Sequence[object], Places, int]:
        """Account for what was read. Returns what is to be worked on, with its places, and the number of strays.

        What was finished before a restart counts already.
        """
        raws: Sequence[object] = chunk.raws
        places, unfinished = self.positions.open(chunk.positions, chunk.runs)
        if unfinished is not None:
            raws, places = pick(raws, unfinished), pick(places, unfinished)
            self.moved()
        self.ledger.polled += len(raws)
        if not chunk.strays:
            return raws, places, 0
        strays = [position in chunk.strays for position in places]
        if any(strays):
            self._drop(pick(places, strays))
            own = [not stray for stray in strays]
            raws, places = pick(raws, own), pick(places, own)
        return raws, places, strays.count(True)

    def _drop(self, strays: Places) -> None:
        if not self._strayed:
            self._strayed = True  # say it once: a producer goes on like this for a while
            self.log.warning("records.strayed", records=len(strays))
        self.positions.drop(strays)
        self.ledger.dropped += len(strays)
        self.moved()

    def finished(self, places: Places) -> None:
        """Note records as finished and let the checkpoint move."""
        self.positions.finish(places)
        if self.known_failures:
            for position in places:
                self.known_failures.pop(position, None)
        self.moved()

    def rewind(self, position: Position) -> None:
        """Take the checkpoint back: the shard's log began anew, and what was read of the former one is void."""
        self.position = position
        self.positions = Positions()
        self.known_failures = {}
        if self.windows is not None:
            self.windows.forget()
        self.ledger.polled -= sum([holder.held for holder in self.holders]) + len(self.lot)
        self.lot.clear()
        self.holders = ()
        self._rewind = True
        self.changed()

    def parked(self, records: Records, attempts: Attempts | None = None) -> None:
        """Note records as parked: finished for the checkpoint, which is saved together with the lot."""
        self.lot.park(records, now=asyncio.get_running_loop().time(), since=time.time())
        self.finished(records.positions)
        if attempts is not None:
            self.known_failures[records.positions[0]] = attempts
            queue = self.lot.queues[records.order_keys[0]]
            queue.failures, queue.error = attempts.failures, self._last_error

    def left_lot(self, records: Records) -> None:
        """Note that parked records were delivered or given up."""
        for position in records.positions:
            self.known_failures.pop(position, None)
        self.changed()

    async def take_up_lot(self, draining: asyncio.Event) -> None:
        """Load what the last holder parked, unless the node drains first."""
        delay_s = FIRST_DELAY_S
        while self._has_stored_lot and not draining.is_set():
            try:
                stored = await self._checkpointer.load_parked(self.key)
            except StoreUnavailableError as exc:
                self.log.warning("parked.not_loaded", error=str(exc), retry_in_s=delay_s)
                await drained_within(draining, delay_s)
                delay_s = min(MAX_DELAY_S, delay_s * 2)
                continue
            now = asyncio.get_running_loop().time()
            self.lot = ParkingLot(self.lot.max_bytes, stored, now=now, since=time.time())
            for queue in self.lot.queues.values():
                known = self.known_failures.get(queue.records[0].position)
                queue.failures = 0 if known is None else known.failures
            self._has_stored_lot = False
            self.changed()

    def batch_finished(self) -> None:
        """Count a finished batch."""
        self._batches += 1
        self.changed()

    def succeeded(self) -> None:
        """Note that the function took records."""
        self._last_result, self._last_error = "OK", None
        self.lot.function_answers()
        self.state = ShardState.READING

    def setback(self, outcome: Outcome, delay_s: float) -> None:
        """Note a failed attempt; its count is stored, so that it survives a restart."""
        match outcome:
            case FunctionFailed():
                result, error, state = "PROBLEM: Function call failed", outcome.error, ShardState.RETRYING
            case PartlyFailed():
                result, state = "PROBLEM: Function call failed", ShardState.RETRYING
                failed = len(outcome.failed)
                error = f"{failed} record{'s' if failed != 1 else ''} of a batch failed"
            case Throttled() | NotReached():
                result, error, state = f"PROBLEM: {outcome.error}", outcome.error, ShardState.WAITING
            case Delivered():
                return
        if error != self._last_error and not isinstance(outcome, Throttled):  # of throttles the gate tells, once
            self.log.warning("invoke.failed", error=error, retry_in_s=round(delay_s, 3))
        self._last_result, self._last_error, self.state = result, error, state
        self.changed()

    def destination_failed(self, error: str, *, refused: bool, retry_in_s: float | None) -> None:
        """Note that the on-failure destination cannot take records now; they wait, unless they may be dropped."""
        trouble = (ShardState.FAILED if refused else ShardState.WAITING, f"on-failure destination: {error}")
        if trouble != self._destination_trouble:
            say = self.log.error if refused else self.log.warning
            say("destination.failed", error=error, retry_in_s=retry_in_s and round(retry_in_s, 3))
        self._destination_trouble = None if retry_in_s is None else trouble
        self.changed()

    def destination_answers(self) -> None:
        """Note that the on-failure destination took records."""
        if self._destination_trouble is not None:
            self.log.info("destination.answers")
        self._destination_trouble = None

    def source_trouble(self, error: str, *, result: str | None) -> bool:
        """Note that the source does not answer, or refuses (`result` given). Tells whether that is new."""
        new = error != self.source_error
        self.source_error = error
        self.state = ShardState.WAITING if result is None else ShardState.FAILED
        if result is not None:
            self._last_result = result
        self.changed()
        return new

    def source_answers(self) -> None:
        """Note that the source gave records."""
        self.source_error = None
        if self.state in (ShardState.STARTING, ShardState.WAITING, ShardState.FAILED):
            self.state = ShardState.READING

    def refresh(self) -> None:
        """Have the report saved if it changed although the checkpoint did not move: lag, age."""
        if self._report() != self._reported:
            self.changed()

    # Waiting for saves

    async def saved_up_to(self, batches: int) -> None:
        """Wait until at most `batches` finished ones are not saved."""
        while self._batches - self._batches_saved > batches:
            self._news.clear()
            await self._news.wait()

    async def all_saved(self) -> None:
        """Wait until the store has everything as it is now. Raises `LeaseLostError`."""
        while self._changes_saved < self._changes:
            self._check_refused()
            self._lease.check()
            self._news.clear()
            await self._news.wait()

    async def watch_refusal(self) -> None:
        """Raise `LeaseLostError` as soon as the store refuses a save; return never."""
        while True:
            self._check_refused()
            self._news.clear()
            await self._news.wait()

    def _check_refused(self) -> None:
        if self._refused is not None:
            raise LeaseLostError(self.key, f"the store refused a checkpoint: {self._refused}")

    # The checkpointer's side

    def to_save(self) -> ProgressUpdate | None:
        """Return the state for the store; None once nothing may be written any more."""
        if self._refused is not None:
            return None
        self._saving = (self._changes, self._batches)
        self._reported = self._report()
        failures = dict(self.known_failures)
        for holder in self.holders:
            failures.update(holder.failures())
        failures = {first: attempts for first, attempts in failures.items() if attempts.failures}
        # Position and window are of one moment: the state belongs to exactly the records before the checkpoint.
        window = None if self.windows is None else self.windows.stored()
        parked = self.lot.change()
        return ProgressUpdate(
            key=self.key,
            token=self._lease.token,
            node=self._lease.node,
            position=self.position,
            ledger=self._account(),
            report=self._reported,
            state=StoredState(failures, self.positions.ahead(), window, parked=len(self.lot) > 0).encode(),
            rewind=self._rewind,
            origin=self._lease.progress.origin,
            parked=parked,
        )

    def saved(self, update: ProgressUpdate, result: SaveResult) -> None:
        """Learn what became of the last save."""
        if result is SaveResult.SAVED:
            self._changes_saved, self._batches_saved = self._saving
            if update.parked is not None:
                self.lot.saved(update.parked)
            if self.reader is not None and update.position is not None:
                # The mirror outlives the store, the parking lot does not: it stays before the first parked record.
                lowest = self.lot.lowest
                self.reader.checkpointed(update.position if lowest is None else self.reader.after(lowest - 1))
        elif result is SaveResult.INCOMPLETE:
            self.log.warning("parked.saved_again", why="the store has lost parked records", records=len(self.lot))
            self.lot.lost()
            self.changed()
        else:
            self._refused = result
        self._news.set()

    def close(self) -> None:
        """Save nothing more."""
        self._checkpointer.forget(self)

    # The account and the report

    def _account(self) -> Ledger:
        """Return the ledger for the store, after holding it against what the lanes really hold (invariant 1)."""
        held = sum([holder.held for holder in self.holders])
        ledger = self.ledger
        ledger.in_flight, ledger.parked = held, len(self.lot)
        if ledger.imbalance != self._imbalance:
            self._imbalance = ledger.imbalance
            self.log.error("ledger.imbalance", records=ledger.imbalance, in_flight=held)
        # Filtered out beyond the checkpoint: after a restart these are read and filtered again, and counted then.
        passed, strays = self.positions.passed_ahead, self.positions.strays_ahead
        return Ledger(
            polled=ledger.polled,
            delivered=ledger.delivered,
            filtered=ledger.filtered - passed,
            destination=ledger.destination,
            dropped=ledger.dropped - strays,
            parked=ledger.parked,
            in_flight=held + passed + strays,
        )

    def _report(self) -> ShardReport:
        lag = Lag(None) if self.reader is None else self.reader.lag()
        held = sum([holder.held for holder in self.holders])
        arrivals = [oldest_ms for holder in self.holders if (oldest_ms := holder.oldest_ms) is not None]
        ages_s = [time.time() - min(arrivals) / 1000] if arrivals else []
        if lag.seconds is not None:
            ages_s.append(lag.seconds)
        lag_s = round(max(0.0, *ages_s), 3) if ages_s else None
        circuit = self._circuit()
        state, held_up_by = held_up(self.state, circuit)
        state, trouble = self._destination_trouble or (state, None)
        if trouble is None and self.lot.full:
            state, trouble = ShardState.WAITING, "the parking lot is full"
        return ShardReport(
            state=self.state if self.state is ShardState.DRAINING else state,
            lag_records=None if lag.records is None else lag.records + held,
            lag_s=lag_s,
            last_result=self._last_result,
            last_error=trouble or self.source_error or self._last_error or held_up_by,
            loss_in_s=self._loss_in_s(lag_s, lag.retention_s),
            parked_keys=self.lot.shown(),
            remark=lag.remark,
            circuit=circuit,
        )

    def _loss_in_s(self, lag_s: float | None, retention_s: float | None) -> float | None:
        """Forecast when the source deletes what is not finished, and warn in good time, once."""
        loss_in_s = self._forecast.loss_in_s(self._clock(), lag_s, retention_s)
        near = loss_in_s is not None and loss_in_s < _WARN_S
        if near and not self._warned:
            self.log.warning("retention.loss_near", loss_in_s=loss_in_s, lag_s=lag_s, retention_s=retention_s)
        self._warned = near
        return loss_in_s

    def view(self) -> ShardView:
        """Return the shard as it is now, for scrapes and `status`."""
        return ShardView(self._report(), self._account())
