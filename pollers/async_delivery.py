"""One event of an asynchronous invocation: invoke, decide, tell the destinations. Asks `async_schedule` what follows.

Nothing is written here. What is returned is settled in the queue by the pump, with the lease's token; until then the
event belongs to the queue, and a node that is killed leaves it to the next holder.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from invocation.front_answers import FUNCTION_ERROR
from model.async_event import Condition, Settled
from model.errors import RefusedError, UnavailableError
from model.function_config import MAX_EVENT_AGE_S
from pollers.async_schedule import (
    DESTINATION_AGE_S,
    Again,
    after,
    before,
    dead_letter_of,
    deferral_s,
    to_destinations,
    untold,
)
from pollers.tracing import NO_TRACING

if TYPE_CHECKING:
    from collections.abc import Callable

    from invocation.classify import Answer
    from model.async_event import NewEvent, QueuedEvent, Result, Standing
    from model.function_config import FunctionConfig
    from pollers.async_counters import AsyncCounters, AsyncMeters
    from pollers.tracing import EventTracing

log = structlog.get_logger(__name__)

_QUIET_S = 10.0  # between two warnings of the same kind
_UNKNOWN_AGAIN_S = 1.0  # what holds for the function cannot be read
_OK, _THROTTLED = 200, 429


class AttemptResult(StrEnum):
    """What an invocation came to: a label of metrics."""

    OK = "ok"
    ERROR = "error"  # of the function
    THROTTLED = "throttled"
    FAILED = "failed"  # the function was not reached, or could not be run


class Invoke(Protocol):
    """The front end, as synchronous callers use it."""

    async def __call__(self, event: NewEvent) -> Answer:
        """Invoke the function once, under the event's request id. Raises nothing but CancelledError."""


class FunctionConfigs(Protocol):
    """What holds for functions."""

    async def function_config(self, function: str) -> FunctionConfig:
        """Return it, with defaults for what nobody said. Raises `UnavailableError`."""


class Destinations(Protocol):
    """Where results go."""

    async def tell(self, destination: str, event: NewEvent, result: Result) -> None:
        """Hand a result to a destination. Raises `RefusedError` or `UnavailableError`."""

    async def bury(self, arn: str, event: NewEvent, result: Result) -> None:
        """Hand an event to a dead-letter queue or topic. Raises the same."""


class Came(NamedTuple):
    """What becomes of an event, and what the function made of being invoked; None: it was not."""

    settled: Settled
    attempt: AttemptResult | None = None
    took_s: float = 0.0


class AsyncDelivery:
    """Delivers events, any number at once. `now` is epoch time, `clock` measures durations."""

    def __init__(
        self,
        invoke: Invoke,
        configs: FunctionConfigs,
        destinations: Destinations,
        meters: AsyncMeters,
        *,
        tracing: EventTracing = NO_TRACING,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._invoke = invoke
        self._configs = configs
        self._destinations = destinations
        self._meters = meters
        self._tracing = tracing
        self._now = now
        self._clock = clock
        self._quiet_until: dict[tuple[str, str], float] = {}

    async def deliver(self, taken: QueuedEvent) -> Came:
        """Do what is next for an event that was just taken. Raises nothing but CancelledError."""
        try:
            return await self._deliver(taken)
        except Exception:
            # Supervision point: one event must not keep its partition from the others.
            log.exception("async.event_failed", function=taken.event.line, request_id=taken.event.request_id)
            return Came(self._after_fault(taken))

    def _after_fault(self, taken: QueuedEvent) -> Settled:
        """Put an event off that this version cannot deal with; in the end give it up."""
        if taken.age_s >= MAX_EVENT_AGE_S + DESTINATION_AGE_S:
            self._meters.of(taken.event.line).dropped += 1
            return _settled(taken, None)
        deferrals = taken.standing.deferrals + 1
        return _settled(taken, Again(deferral_s(deferrals), replace(taken.standing, deferrals=deferrals)))

    async def _deliver(self, taken: QueuedEvent) -> Came:
        began_at = self._clock()
        event = taken.event
        try:
            config = await self._configs.function_config(event.line)
        except UnavailableError:
            return Came(_settled(taken, Again(_UNKNOWN_AGAIN_S, taken.standing)))
        if taken.standing.result is not None:
            return Came(await self._tell(taken, taken.standing, taken.standing.result, config, taken.age_s))
        counters = self._meters.of(event.line)
        over = before(taken.standing, config, age_s=taken.age_s, at_ms=self._now_ms(), new_id=_new_id())
        attempt, took_s = None, 0.0
        if over is None:
            counters.ages.observe(taken.age_s)
            with self._tracing.event_attempt(event, taken.standing.attempts + 1) as traced:
                answer = traced.answer = await self._invoke(traced.event)
            took_s, attempt = self._clock() - began_at, _attempt(answer)
            counters.invocations[attempt] += 1
            age_s = taken.age_s + took_s
            follows = after(
                answer, taken.standing, config.event_invoke, age_s=age_s, at_ms=self._now_ms(), new_id=_new_id()
            )
            if isinstance(follows, Again):
                return Came(_settled(taken, follows), attempt, took_s)
            over = follows
        counters.results[over.result.condition] += 1
        settled = await self._tell(taken, over.standing, over.result, config, over.standing.result_age_s)
        return Came(settled, attempt, took_s)

    async def _tell(
        self, taken: QueuedEvent, standing: Standing, result: Result, config: FunctionConfig, age_s: float
    ) -> Settled:
        """Tell those who are to be told and are not yet."""
        event, counters = taken.event, self._meters.of(taken.event.line)
        wanted = to_destinations(result, config)
        missing = [destination for destination in wanted if destination not in standing.told]
        told = [one for one in missing if await self._told(one, event, result, counters)]
        if len(told) == len(missing):
            if result.condition is not Condition.SUCCESS and not wanted:
                self._dropped(event, result, counters, "no destination is configured")
            return _settled(taken, None)
        follows = untold(standing, tuple(told), age_s=age_s)
        if follows is None:
            self._dropped(event, result, counters, "its destinations did not take it in time")
        return _settled(taken, follows)

    async def _told(self, destination: str, event: NewEvent, result: Result, counters: AsyncCounters) -> bool:
        dead_letter = dead_letter_of(destination)
        try:
            if dead_letter is not None:
                await self._destinations.bury(dead_letter, event, result)
            else:
                await self._destinations.tell(destination, event, result)
        except (RefusedError, UnavailableError) as exc:
            self._say("async.destination_failed", event, destination=destination, error=str(exc))
        except Exception:
            # Supervision point: the function is not to be invoked again for a fault that comes after it.
            log.exception("async.destination_failed", function=event.line, request_id=event.request_id)
        else:
            return True
        if dead_letter is not None:
            counters.dead_letter_errors += 1
        else:
            counters.destination_errors += 1
        return False

    def _dropped(self, event: NewEvent, result: Result, counters: AsyncCounters, why: str) -> None:
        counters.dropped += 1
        self._say("async.event_dropped", event, condition=str(result.condition), why=why)

    def _say(self, what: str, event: NewEvent, **facts: str) -> None:
        """Warn, of each kind and function now and then only: the metrics count."""
        now = self._clock()
        if now >= self._quiet_until.get((what, event.line), -inf):
            self._quiet_until[what, event.line] = now + _QUIET_S
            log.warning(what, function=event.line, request_id=event.request_id, **facts)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _settled(taken: QueuedEvent, follows: Again | None) -> Settled:
    line, size = taken.event.line, taken.event.size
    if follows is None:
        return Settled(line, taken.id, size)
    return Settled(line, taken.id, size, follows.after_s, follows.standing)


def _attempt(answer: Answer) -> AttemptResult:
    if FUNCTION_ERROR in answer.headers:
        return AttemptResult.ERROR
    if answer.status == _OK:
        return AttemptResult.OK
    return AttemptResult.THROTTLED if answer.status == _THROTTLED else AttemptResult.FAILED


def _new_id() -> str:
    return str(uuid.uuid4())
