"""Put the lanes of one shard together: batcher, exchange, delivery, handing over; and what empties its parking lot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pollers.batcher import Batcher
from pollers.caution import Caution
from pollers.delivery import Delivery
from pollers.exchange import PlainExchange
from pollers.handing_over import HandingOver
from pollers.lane import Lane
from pollers.retrying import unknown_lag
from pollers.unparking import Unparking
from pollers.windowed import WindowedBatcher, WindowedExchange
from pollers.windows import over_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasing.held import HeldLease
    from pollers.delivery import Exchange, Finishing
    from pollers.lane import Batches, LaneOwner
    from pollers.ports import ShardReader
    from pollers.pump_parts import PumpParts
    from pollers.standing import Standing
    from pollers.unparking import UnparkingOwner
    from pollers.windows import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneMaker:
    """Makes the lanes of one pump."""

    parts: PumpParts
    lease: HeldLease
    standing: Standing
    draining: asyncio.Event
    windows: Windows | None
    settled_at: Callable[[], float]  # since when the source answers without trouble, event-loop time

    def lane(self, owner: LaneOwner, reader: ShardReader) -> Lane:
        """Return a lane for records of this reader."""
        envelope, partial = self.parts.envelope, self.parts.policy.partial_responses
        if self.windows is None:
            plain = PlainExchange(envelope, partial_responses=partial)
            return self._lane_of(owner, self._batcher(plain.overhead()), plain)
        windowed = WindowedExchange(
            envelope,
            self.windows,
            self.parts.mapping.source,
            self.lease.key.shard,
            partial_responses=partial,
        )

        def over(end_s: int) -> float:
            return self._window_over_at(end_s, reader)

        batcher = WindowedBatcher(self._batcher(windowed.reserve), self.windows, windowed, over_at=over)
        return self._lane_of(owner, batcher, windowed)

    def unparking(self, owner: UnparkingOwner) -> Unparking:
        """Return what tries the parked records of this shard again."""
        policy = self.parts.policy
        exchange = PlainExchange(self.parts.envelope, partial_responses=policy.partial_responses)
        parked = replace(self, parts=replace(self.parts, policy=policy.of_parked()))
        return Unparking(
            owner,
            self.standing.lot,
            # What is parked is safe, whatever its source still has.
            lambda unparking: replace(parked._delivery(unparking, exchange), lag=unknown_lag),  # noqa: SLF001 - of the same class
            batch_size=self.parts.mapping.batch_size,
            gives_up=self.parts.gives_up,
            tried=self.standing.tried_parked,
        )

    def _lane_of(self, owner: LaneOwner, batches: Batches, exchange: Exchange) -> Lane:
        return Lane(owner, batches, lambda lane: self._delivery(lane, exchange))

    def _batcher(self, overhead: int) -> Batcher:
        mapping = self.parts.mapping
        return Batcher(
            batch_size=mapping.batch_size,
            window_s=mapping.batching_window_s,
            overhead=overhead,
            now=self.settled_at(),
        )

    def _delivery(self, finishing: Finishing, exchange: Exchange) -> Delivery:
        parts = self.parts
        return Delivery(
            mapping=parts.mapping.name,
            lease=self.lease,
            target=parts.target,
            gate=parts.gate,
            exchange=exchange,
            policy=parts.policy,
            counters=parts.counters,
            finishing=finishing,
            random=parts.random,
            draining=self.draining,
            caution=Caution(note=self.standing.saves.noted, quarantine=parts.quarantine, draining=self.draining),
            lag=self.standing.lag,
            handing_over=self._handing_over(),
            now_ms=lambda: parts.now_s() * 1000,
            tracing=parts.tracing,
        )

    def _handing_over(self) -> HandingOver | None:
        parts = self.parts
        if parts.destination is None:
            return None
        return HandingOver(
            destination=parts.destination,
            required=parts.mapping.extensions.destination_required,
            lease=self.lease,
            counters=parts.counters,
            watch=self.standing.troubles,
            random=parts.random,
            draining=self.draining,
        )

    def _window_over_at(self, end_s: int, reader: ShardReader) -> float:
        """Return when a tumbling window that ends at `end_s` is over although nothing follows."""
        lag = reader.lag()
        behind_s = 0.0 if lag.seconds is None and lag.records == 0 else lag.seconds
        if reader.buffered():
            behind_s = None  # what was read ahead comes first
        now = asyncio.get_running_loop().time()
        return over_at(end_s, now=now, now_s=self.parts.now_s(), behind_s=behind_s, settled_at=self.settled_at())
