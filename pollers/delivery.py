"""Carry one batch to its function until every record of it is finished.

`pollers.retrying` decides; this loop invokes, waits and reports. It waits at the mapping's gate for its turn, and then
checks the lease, right before each invocation: a node that can no longer trust its lease calls nobody (invariant 5).
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from model.invocation import Invocation
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from pollers.caution import NoCaution
from pollers.handing_over import Fate, drained_within
from pollers.retrying import Discard, Invoke, Park, Retrying, unknown_lag
from pollers.tracing import NO_TRACING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from random import Random

    from model.ids import ShardKey
    from model.record import Batch, Records
    from pollers.attempts import Attempts, Work
    from pollers.caution import Caution
    from pollers.counters import Counters
    from pollers.gate import Gate
    from pollers.handing_over import HandingOver
    from pollers.ports import Lag, Target
    from pollers.retrying import RetryPolicy
    from pollers.tracing import Tracing

log = structlog.get_logger(__name__)


class Trusted(Protocol):
    """The lease a delivery works under."""

    @property
    def key(self) -> ShardKey:
        """The shard."""

    @property
    def token(self) -> int:
        """Its fencing token."""

    def check(self) -> None:
        """Raise `LeaseLostError` unless the lease can be trusted now."""


class Exchange(Protocol):
    """What an event holds besides its records, and what the function's answer means."""

    def overhead(self) -> int:
        """Bytes of an event beyond the sum of (fragment + 1) over its records."""

    def event(self, records: Records) -> bytes:
        """Assemble the complete event."""

    def name(self, batch: Batch) -> str:
        """Name a batch among those of its shard: the same for every attempt at the same records."""

    def read(self, answered: Delivered, batch: Batch) -> Outcome:
        """Return what an answer without a function error means. Changes nothing that lasts."""

    def owed(self) -> Batch | None:
        """Return a call that must be made before anything else, after records were delivered."""


class Finishing(Protocol):
    """Whoever keeps the account: the pump."""

    def began(self, retrying: Retrying) -> None:
        """Note the course of the batch that now begins."""

    def delivered(self, records: Records) -> None:
        """Note records as taken by the function; none of them: a window's final call."""

    def given_up(self, discard: Discard, fate: Fate) -> None:
        """Note records as given up: the on-failure destination has them, or they are dropped."""

    def setback(self, outcome: Outcome, delay_s: float) -> None:
        """Note an attempt that failed, for the shard's report and its stored retry counts."""

    def park(self, key: Hashable, retrying: Retrying) -> float | None:
        """Park a key with all that waits for it. Returns the pause before the next step; None when there is no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How batches of one shard are delivered. One instance a lane: it carries one batch at a time."""

    mapping: str
    lease: Trusted
    target: Target
    gate: Gate
    exchange: Exchange
    policy: RetryPolicy
    counters: Counters
    finishing: Finishing
    random: Random
    draining: asyncio.Event
    caution: Caution | NoCaution = NoCaution()  # noqa: RUF009 - it has no state
    lag: Callable[[], Lag] = unknown_lag
    handing_over: HandingOver | None = None  # None: there is no on-failure destination
    now_ms: Callable[[], float] = lambda: time.time() * 1000
    tracing: Tracing = NO_TRACING

    async def deliver(self, batch: Batch, known_failures: Mapping[int, Attempts] | None = None) -> Retrying | None:
        """Return None once all records are finished; what is left when the node drains.

        Raises `LeaseLostError` when the lease ends, with the rest undelivered. Cancelled during an invocation, the
        function may have run: the records count as unfinished.
        """
        retrying = self.begin(batch, known_failures)
        while (step := retrying.next(self.now_ms(), self.lag)) is not None:
            pause_s = await self.take(step, retrying)
            if pause_s is not None and await drained_within(self.draining, pause_s):
                return retrying  # what is left goes to the next holder
        return None

    def begin(self, batch: Batch, known_failures: Mapping[int, Attempts] | None = None) -> Retrying:
        """Return the course of a batch, before its first step."""
        retrying = Retrying(
            self.policy,
            batch,
            overhead=self.exchange.overhead(),
            random=self.random,
            known_failures=known_failures,
        )
        self.finishing.began(retrying)
        self.caution.begin()
        return retrying

    async def take(
        self, step: Invoke | Discard | Park, retrying: Retrying, *, within_s: float = math.inf
    ) -> float | None:
        """Take one step of a course. Waits no longer than `within_s` for its turn.

        Returns how long to wait before the next one, which a drain cuts off; None: go on at once.
        Raises `LeaseLostError`.
        """
        match step:
            case Discard():
                return None if await self.give_up(step) else math.inf
            case Park(key):
                pause_s = self.finishing.park(key, retrying)
                return retrying.not_parked().delay_s if pause_s is None else pause_s
            case Invoke(work):
                return await self._call(work, retrying, within_s)

    async def give_up(self, discard: Discard) -> bool:
        """Hand records over to the destination, or drop them. False: the node drains, and they are still ours."""
        if self.handing_over is None or not discard.records:  # of a window's final call nothing can be told
            fate: Fate | None = Fate.DROPPED
        else:
            fate = await self.handing_over.hand_over(discard)
        if fate is None:
            return False
        self.finishing.given_up(discard, fate)
        return True

    async def _call(self, work: Work, retrying: Retrying, within_s: float) -> float | None:
        loop = asyncio.get_running_loop()
        if await self.caution.drained_before(work):
            return math.inf
        wait_s = min(retrying.expires_in_s(self.now_ms(), self.lag), within_s)
        until = None if wait_s == math.inf else loop.time() + wait_s
        turn = await self.gate.enter(self.draining, not_before=work.not_before, until=until)
        if turn is None:
            return math.inf if self.draining.is_set() else 0.0  # records may be too old by now
        with turn:
            outcome = turn.outcome = await self.caution.invoke(work, self._invoke)
        if outcome is None:
            return math.inf  # draining
        verdict = retrying.learn(outcome)
        if verdict.finished or isinstance(outcome, Delivered):
            # Nothing is awaited since the answer: records and what came with the answer are accounted for at once.
            self.finishing.delivered(verdict.finished)
            owed = self.exchange.owed()
            if owed is not None:
                retrying.insert(owed)
        if isinstance(outcome, Delivered):
            return None
        self.finishing.setback(outcome, verdict.delay_s)
        if isinstance(outcome, Throttled | NotReached):
            work.not_before = loop.time() + verdict.delay_s
            return 0.0
        return verdict.delay_s

    async def _invoke(self, work: Work) -> Outcome:
        batch = work.batch
        event = self.exchange.event(batch.records)
        key = self.lease.key
        self.lease.check()
        loop = asyncio.get_running_loop()
        self.counters.invoked += len(batch.records)
        invocation = Invocation(
            event=event,
            mapping=self.mapping,
            shard=key,
            token=self.lease.token,
            batch_id=f"{key}:{self.exchange.name(batch)}",
            attempt=work.attempt,
        )
        with self.tracing.attempt(invocation, len(batch.records)) as attempt:
            began_at = loop.time()
            outcome = await self.target.invoke(attempt.invocation)
            self.counters.durations.observe(loop.time() - began_at)
            if isinstance(outcome, Delivered):
                outcome = self.exchange.read(outcome, batch)
            attempt.outcome = outcome
        match outcome:
            case PartlyFailed() | FunctionFailed():
                self.counters.failed_invoke += len(batch.records)
            case Throttled():
                self.counters.throttles += 1
            case Delivered() | NotReached():
                pass
        return outcome
