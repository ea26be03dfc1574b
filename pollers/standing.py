"""Where one shard stands: its checkpoint, its account, what operators see, and how much of that is saved.

The pump tells what happens; the checkpointer takes the state away and brings back what the store said.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from model.errors import LeaseLostError
from model.ids import position_key
from model.progress import Ledger, ProgressUpdate, SaveResult, ShardState
from model.record import pick
from pollers.counters import ShardView
from pollers.deaths import inherited
from pollers.description import Description
from pollers.load import LoadMeter
from pollers.lot_loading import load_lot
from pollers.parking_lot import ParkingLot
from pollers.ports import Lag
from pollers.positions import Positions
from pollers.shard_saves import ShardSaves
from pollers.shard_state import StoredState
from pollers.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leasing.held import HeldLease
    from model.ids import Position, ShardKey
    from model.record import Places, Records
    from pollers.attempts import Attempts
    from pollers.checkpointer import Checkpointer
    from pollers.counters import CircuitProbe
    from pollers.description import Holder
    from pollers.ports import Chunk, ShardReader
    from pollers.windows import Windows

log = structlog.get_logger(__name__)

_AGAIN_S = 60.0  # how soon at the latest what is saved is saved again


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
        drained = lease.progress.report.state is ShardState.DRAINING
        self.known_failures = inherited(stored.attempts, drained=drained)  # counted before a restart
        self.stored_window = stored.window
        self.lot = ParkingLot(max_parked_bytes)
        self._stored_lot = stored.parked  # its revision, as long as it is not taken up
        self.windows: Windows | None = None  # of a mapping with tumbling windows
        self.holders: Sequence[Holder] = ()
        self.reader: ShardReader | None = None
        self._lease = lease
        self._checkpointer = checkpointer
        self.saves = ShardSaves(self, lease, checkpointer)
        self._imbalance = 0
        self._rewind = False
        self._strayed = False  # and said so
        self._again_at = 0.0
        self._before_parked: dict[int, Position | None] = {}  # the checkpoint before each record was parked, here
        self._without_lot: ProgressUpdate | None = None  # what was last saved, as it is to be without the parking lot
        self.log = log.bind(mapping=mapping, shard=lease.key.shard, token=lease.token)
        self.troubles = Troubles(self.log, self._describe_anew, last_result=lease.progress.report.last_result)
        self.load = LoadMeter(clock, lease.progress.report.load)
        self._description = Description(lease, self.troubles, circuit, self.load, clock=clock, warn=self._warn_of_loss)
        for first, attempts in self.known_failures.items():
            if attempts.deaths:
                self.troubles.suspected(first, attempts)

    # What happens

    def _describe_anew(self) -> None:
        self._description.outdated()
        self.saves.changed()

    def moved(self) -> None:
        """Take up the checkpoint that the finished records allow."""
        finished_to = self.positions.finished_to
        if finished_to is not None and self.reader is not None:
            self.position = self.reader.after(finished_to)
        self.saves.changed()

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
        self.load.records += len(raws)
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
        self.saves.changed()

    def parked(self, records: Records, attempts: Attempts | None = None) -> None:
        """Note records as parked: finished for the checkpoint, which is saved together with the lot."""
        self.lot.park(records, now=asyncio.get_running_loop().time(), since=time.time())
        self._before_parked.update(dict.fromkeys(records.positions, self.position))
        self.finished(records.positions)
        if attempts is not None:
            self.known_failures[records.positions[0]] = attempts
            queue = self.lot.queues[records.order_keys[0]]
            queue.failures, queue.error = attempts.failures, self.troubles.last_error

    def left_lot(self, records: Records) -> None:
        """Note that parked records were delivered or given up."""
        for position in records.positions:
            self.known_failures.pop(position, None)
            self._before_parked.pop(position, None)
        self.saves.changed()

    @property
    def parked_tries(self) -> int:
        """The last wish of operators for which all that was parked has been tried."""
        return self._description.parked_tries

    def tried_parked(self, number: int) -> None:
        """Note that all that was parked has been tried for an operator."""
        self._description.parked_tries = number
        self._describe_anew()

    async def take_up_lot(self, draining: asyncio.Event) -> None:
        """Load what the last holder parked, unless the node drains first. Raises `LeaseLostError`."""
        if not self._stored_lot:
            return
        stored = await load_lot(self._checkpointer, self.key, draining, self.log)
        if stored is None:
            return
        if self._stored_lot is not True and self._stored_lot != stored.revision:
            # A fail-over in between: the checkpoint this lease came with does not belong to this lot.
            raise LeaseLostError(self.key, "the store has another parking lot than it had")
        now = asyncio.get_running_loop().time()
        self.lot = ParkingLot(self.lot.max_bytes, stored, now=now, since=time.time())
        for queue in self.lot.queues.values():
            known = self.known_failures.get(queue.records[0].position)
            queue.failures = 0 if known is None else known.failures
        self._stored_lot = 0
        self.saves.changed()

    def succeeded(self) -> None:
        """Note that the function took records."""
        self.troubles.function_took()
        self.lot.function_answers()

    def refresh(self) -> None:
        """Have the report saved if it changed although the checkpoint did not move: lag, age.

        And everything after a while: a store that failed over may have lost the last save.
        """
        again = asyncio.get_running_loop().time() >= self._again_at
        if again or self._description.has_changed(self.lag(), self.holders, self.lot):
            self.saves.changed()

    # The checkpointer's side

    def to_save(self) -> ProgressUpdate | None:
        """Return the state for the store; None once nothing may be written any more, or before the lot is known.

        Without the lot the account would not balance, and the next holder would be told that nothing is parked.
        """
        if self.saves.over or self._stored_lot:
            return None
        self.saves.sent()
        failures = dict(self.known_failures)
        for holder in self.holders:
            failures.update(holder.failures())
        failures = {first: attempts for first, attempts in failures.items() if attempts.telling}
        # Position and window are of one moment: the state belongs to exactly the records before the checkpoint.
        window = None if self.windows is None else self.windows.stored()
        parked = self.lot.change()
        lot = parked.revision if parked is not None and len(self.lot) else 0
        return ProgressUpdate(
            key=self.key,
            token=self._lease.token,
            node=self._lease.node,
            position=self.position,
            ledger=self._account(),
            report=self._description.to_save(self.lag(), self.holders, self.lot),
            state=StoredState(failures, self.positions.ahead(), window, parked=lot).encode(),
            rewind=self._rewind,
            origin=self._lease.progress.origin,
            parked=parked,
        )

    def saved(self, update: ProgressUpdate, result: SaveResult) -> None:
        """Learn what became of the last save."""
        if result is SaveResult.SAVED:
            self._again_at = asyncio.get_running_loop().time() + _AGAIN_S
            if update.parked is not None:
                self.lot.saved(update.parked)
            lowest = self.lot.lowest
            before = None if lowest is None else self._before_parked.get(lowest)
            self._without_lot = None if before is None else _without_lot(update, before)
            if self.reader is not None and update.position is not None:
                # The mirror outlives the store, the parking lot does not: it stays before the first parked record,
                # which may lie beyond the checkpoint.
                limits = [] if lowest is None else [self.reader.after(lowest - 1)]
                self.reader.checkpointed(min([update.position, *limits], key=position_key))
        elif result is SaveResult.INCOMPLETE:
            self.log.warning("parked.saved_again", why="the store has lost parked records", records=len(self.lot))
            self.lot.lost()
            self.saves.changed()
        self.saves.answered(result)

    def close(self) -> None:
        """Save nothing more."""
        self.saves.close(instead=self._without_lot)

    def _warn_of_loss(self, **facts: float | None) -> None:
        self.log.warning("retention.loss_near", **facts)

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

    def lag(self) -> Lag:
        """Return how far behind the source the reader is, and what of it the source still has."""
        return Lag(None) if self.reader is None else self.reader.lag()

    def view(self) -> ShardView:
        """Return the shard as it is now, for scrapes and `status`."""
        report = self._description.report(self.lag(), self.holders, self.lot)
        return ShardView(report, self._account())


def _without_lot(update: ProgressUpdate, position: Position) -> ProgressUpdate:
    """Return what to tell a store that has lost the parking lot: a checkpoint before all that was parked."""
    ledger = update.ledger.plus(Ledger())
    ledger.polled -= ledger.parked
    ledger.parked = 0
    return replace(update, position=position, ledger=ledger, state=b"", parked=None)
