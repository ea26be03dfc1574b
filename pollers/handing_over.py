"""Hand records that were given up to the on-failure destination, until it has them.

While it cannot be reached, or refuses, they stay unfinished: the checkpoint holds, and polling pauses behind them. A
node that drains, or loses the lease, leaves them to the next holder, who goes straight to the destination again,
because the attempts are stored (`pollers.retrying.Attempts`). With `destination_required: false` one failed delivery
drops the records, as AWS does (spec section 4.4).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from model.errors import RefusedError, UnavailableError
from pollers.failure_document import Failure
from pollers.retrying import FIRST_DELAY_S, MAX_DELAY_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from model.ids import ShardKey
    from pollers.counters import Counters
    from pollers.ports import Destination
    from pollers.retrying import Discard

ATTEMPT_S = 30.0


class Fate(StrEnum):
    """What became of records that were given up; the values are columns of the ledger."""

    DESTINATION = "destination"
    DROPPED = "dropped"


class Trusted(Protocol):
    """The lease under which records are handed over."""

    @property
    def key(self) -> ShardKey:
        """The shard."""

    def check(self) -> None:
        """Raise `LeaseLostError` unless the lease can be trusted now."""


class DestinationWatch(Protocol):
    """Whoever shows operators how the destination does."""

    def destination_failed(self, error: str, *, refused: bool, retry_in_s: float | None) -> None:
        """Learn that a delivery failed. `retry_in_s` None: the records are dropped."""

    def destination_answers(self) -> None:
        """Learn that a delivery succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandingOver:
    """How one shard hands records over."""

    destination: Destination
    required: bool
    lease: Trusted
    counters: Counters
    watch: DestinationWatch
    random: Random
    draining: asyncio.Event
    now_ms: Callable[[], float] = lambda: time.time() * 1000

    async def hand_over(self, discard: Discard) -> Fate | None:
        """Return what became of the records; None when the node drains and they are still ours.

        Raises `LeaseLostError` when the lease ends. Cancelled, the destination may have the records and gets them
        again from the next holder.
        """
        failure = Failure.of(self.lease.key, discard, at_ms=self.now_ms())
        ceiling_s = FIRST_DELAY_S
        while True:
            self.lease.check()
            error = await self._attempt(failure)
            if error is None:
                self.watch.destination_answers()
                return Fate.DESTINATION
            self.counters.on_failure_destination_delivery_errors += 1
            delay_s = self.random.uniform(0, ceiling_s) if self.required else None
            self.watch.destination_failed(str(error), refused=isinstance(error, RefusedError), retry_in_s=delay_s)
            if delay_s is None:
                return Fate.DROPPED
            if await drained_within(self.draining, delay_s):
                return None
            ceiling_s = min(MAX_DELAY_S, ceiling_s * 2)

    async def _attempt(self, failure: Failure) -> UnavailableError | RefusedError | None:
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await self.destination.deliver(failure)
        except (UnavailableError, RefusedError) as exc:
            return exc
        except TimeoutError:
            return UnavailableError(f"{self.destination} did not answer within {ATTEMPT_S:.0f} s")
        return None


async def drained_within(draining: asyncio.Event, delay_s: float) -> bool:
    """Wait; True at once when the node drains."""
    if draining.is_set():
        return True
    try:
        async with asyncio.timeout(delay_s):
            await draining.wait()
    except TimeoutError:
        return False
    return True
