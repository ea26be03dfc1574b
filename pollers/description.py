"""What operators are told of one shard: its report, put together from what its parts say of themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from model.progress import ShardReport, ShardState
from pollers.blocking import blocking, tenures
from pollers.retention import WarningForecast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leasing.held import HeldLease
    from pollers.attempts import Attempts
    from pollers.blocking import Stuck
    from pollers.counters import CircuitProbe
    from pollers.load import LoadMeter
    from pollers.parking_lot import ParkingLot
    from pollers.ports import Lag
    from pollers.retention import Warn
    from pollers.troubles import Troubles

_FRESH_S = 0.2  # a report may be so old while a shard is busy: making it costs as much as the rest of a checkpoint


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

    def stuck(self) -> Stuck | None:
        """Return what holds it up, if anything does."""


class Description:
    """One shard's reports under one lease. `clock` tells seconds of any kind."""

    def __init__(
        self,
        lease: HeldLease,
        troubles: Troubles,
        circuit: CircuitProbe,
        load: LoadMeter,
        *,
        clock: Callable[[], float],
        warn: Warn,
    ) -> None:
        before = lease.progress.report
        self.parked_tries = before.parked_tries
        self._troubles = troubles
        self._circuit = circuit
        self._load = load
        self._clock = clock
        self._forecast = WarningForecast(warn)
        self._blocking = before.blocking
        self._tenures = tenures(lease.progress, lease.lease, time.time())
        self._saved: ShardReport | None = None
        self._due_at = 0.0  # by the clock: when the next save needs a new report

    def outdated(self) -> None:
        """Have the next save tell what is true then."""
        self._due_at = 0.0

    def has_changed(self, lag: Lag, holders: Sequence[Holder], lot: ParkingLot) -> bool:
        """Tell whether the report is another than the one saved last."""
        return self.report(lag, holders, lot) != self._saved

    def to_save(self, lag: Lag, holders: Sequence[Holder], lot: ParkingLot) -> ShardReport:
        """Return a new report, or the last one while all goes well and another save is sure to follow soon."""
        now, last = self._clock(), self._saved
        busy = any(holder.held for holder in holders)
        if busy and last is not None and last.state is self._troubles.state and now < self._due_at:
            return last
        self._due_at = now + _FRESH_S
        self._saved = self.report(lag, holders, lot)
        return self._saved

    def report(self, lag: Lag, holders: Sequence[Holder], lot: ParkingLot) -> ShardReport:
        """Return the shard as it is now."""
        held = sum([holder.held for holder in holders])
        arrivals = [oldest_ms for holder in holders if (oldest_ms := holder.oldest_ms) is not None]
        ages_s = [time.time() - min(arrivals) / 1000] if arrivals else []
        if lag.seconds is not None:
            ages_s.append(lag.seconds)
        lag_s = round(max(0.0, *ages_s), 3) if ages_s else None
        circuit = self._circuit()
        trouble = self._troubles.worst(circuit, lot_full=lot.full)
        stuck = [one for holder in holders if (one := holder.stuck()) is not None]
        if trouble.retry_at is not None:
            stuck = [one._replace(retry_at=trouble.retry_at) for one in stuck]
        self._blocking = blocking(stuck, self._blocking, time.time())
        return ShardReport(
            state=ShardState.DRAINING if self._troubles.state is ShardState.DRAINING else trouble.state,
            lag_records=None if lag.records is None else lag.records + held,
            lag_s=lag_s,
            last_result=self._troubles.last_result,
            last_error=trouble.error,
            loss_in_s=self._forecast.loss_in_s(self._clock(), lag_s, lag.retention_s),
            parked_keys=lot.shown(),
            remark=lag.remark,
            circuit=circuit,
            error_time=None if trouble.error is None else self._troubles.seen_at,
            waits_for=trouble.waits_for,
            blocking=self._blocking,
            tenures=self._tenures,
            parked_tries=self.parked_tries,
            load=self._load.shown(),
            next_s=lag.next_s,
        )
