"""When an asynchronous invocation is tried, and what comes of it (spec section 6.3). Pure.

A function's error is retried after one minute, then after two. Throttles and errors of the system, anything that is no
answer of the function, put the event off, from a second up to five minutes, and count as no retry. Whatever waits for
longer than the event may grow old is over then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from invocation.front_answers import EXECUTED_VERSION, FUNCTION_ERROR
from model.async_event import Condition, Response, Result, Standing

if TYPE_CHECKING:
    from invocation.classify import Answer
    from model.function_config import EventInvokeConfig, FunctionConfig

RETRY_S = 60.0
"""Before the first retry; before the second it is twice as long."""

FIRST_DEFERRAL_S, LONGEST_DEFERRAL_S = 1.0, 300.0

DESTINATION_AGE_S = 21_600.0
"""How long a destination is tried, from when there was a result; ours, since AWS does not say."""

KEPT_PAYLOAD_BYTES = 128 * 1024
"""The largest answer that is kept in the queue: while its destination is away, or until another attempt."""

_OK = 200
# The Invoke API's statuses for an event that it would take from nobody (spec section 6.2).
_NEVER = frozenset({400, 413, 415})


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after so many seconds."""

    after_s: float
    standing: Standing


@dataclass(frozen=True, slots=True)
class Over:
    """There is a result. `standing` is for keeping it until the destinations have it."""

    standing: Standing
    result: Result


def deferral_s(deferrals: int) -> float:
    """Return how long to wait after so many deferrals in a row, the first being 1."""
    return min(LONGEST_DEFERRAL_S, FIRST_DEFERRAL_S * 2.0 ** min(deferrals - 1, 16))


def before(standing: Standing, config: FunctionConfig, *, age_s: float, at_ms: int, new_id: str) -> Over | None:
    """Return why an event is not to be invoked any more; None: invoke it."""
    if config.reserved_concurrency == 0:
        return _over(standing, Condition.ZERO_RESERVED_CONCURRENCY, None, age_s=age_s, at_ms=at_ms, new_id=new_id)
    if age_s >= config.event_invoke.maximum_event_age_s:
        condition = Condition.EVENT_AGE_EXCEEDED
        return _over(standing, condition, standing.last, age_s=age_s, at_ms=at_ms, new_id=new_id)
    return None


def after(
    answer: Answer, standing: Standing, config: EventInvokeConfig, *, age_s: float, at_ms: int, new_id: str
) -> Again | Over:
    """Return what follows from an answer."""
    failed = FUNCTION_ERROR in answer.headers
    if not failed and answer.status != _OK and answer.status not in _NEVER:
        deferrals = standing.deferrals + 1
        return _again(deferral_s(deferrals), replace(standing, deferrals=deferrals), config, age_s)
    response = Response(
        status=answer.status,
        executed_version=answer.headers.get(EXECUTED_VERSION) or "$LATEST",
        function_error=answer.headers.get(FUNCTION_ERROR),
        payload=bytes(answer.body) or b"null",
    )
    tried = replace(standing, attempts=standing.attempts + 1, deferrals=0, last=_kept(response))
    if answer.status == _OK and not failed:
        return _over(tried, Condition.SUCCESS, response, age_s=age_s, at_ms=at_ms, new_id=new_id)
    if answer.status in _NEVER or tried.attempts > config.maximum_retry_attempts:
        return _over(tried, Condition.RETRIES_EXHAUSTED, response, age_s=age_s, at_ms=at_ms, new_id=new_id)
    return _again(RETRY_S * tried.attempts, tried, config, age_s)


def to_destinations(result: Result, config: FunctionConfig) -> tuple[str, ...]:
    """Return who is to be told: destinations, and of a failure the dead-letter queue, which `is_dead_letter` marks."""
    if result.condition is Condition.SUCCESS:
        return (config.event_invoke.on_success,) if config.event_invoke.on_success else ()
    failure = (config.event_invoke.on_failure,) if config.event_invoke.on_failure else ()
    return (*failure, f"{_DEAD_LETTER}{config.dead_letter}") if config.dead_letter else failure


_DEAD_LETTER = "dead-letter "  # so that an ARN that is both is told twice


def dead_letter_of(destination: str) -> str | None:
    """Return the ARN of a dead-letter queue or topic, None when it is another destination."""
    return destination.removeprefix(_DEAD_LETTER) if destination.startswith(_DEAD_LETTER) else None


def untold(standing: Standing, told: tuple[str, ...], *, age_s: float) -> Again | None:
    """Return when destinations are tried again that have not taken a result; None: not any more."""
    if age_s - standing.result_age_s >= DESTINATION_AGE_S:
        return None
    deferrals = standing.deferrals + 1
    kept = replace(standing, deferrals=deferrals, told=(*standing.told, *told))
    if kept.result is not None and kept.result.response is not None:
        kept = replace(kept, result=replace(kept.result, response=_kept(kept.result.response)))
    return Again(deferral_s(deferrals), kept)


def _again(after_s: float, standing: Standing, config: EventInvokeConfig, age_s: float) -> Again:
    return Again(max(0.0, min(after_s, config.maximum_event_age_s - age_s)), standing)


def _over(
    standing: Standing, condition: Condition, response: Response | None, *, age_s: float, at_ms: int, new_id: str
) -> Over:
    result = Result(condition, at_ms, standing.attempts, response, new_id)
    return Over(Standing(standing.attempts, result=result, result_age_s=age_s), result)


def _kept(response: Response) -> Response:
    """Return the response as it is kept in the queue."""
    if response.payload is not None and len(response.payload) > KEPT_PAYLOAD_BYTES:
        return replace(response, payload=None)
    return response
