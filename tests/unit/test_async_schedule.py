"""When asynchronous invocations are tried again, and when they are over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invocation.classify import Answer
from model.async_event import Condition, Response, Result, Standing
from model.function_config import EventInvokeConfig, FunctionConfig
from pollers.async_schedule import (
    DESTINATION_AGE_S,
    KEPT_PAYLOAD_BYTES,
    Again,
    Over,
    after,
    before,
    dead_letter_of,
    deferral_s,
    to_destinations,
    untold,
)

OK = Answer(200, {"X-Amz-Executed-Version": "7"}, b'"done"')
FAILED = Answer(200, {"X-Amz-Function-Error": "Unhandled"}, b'{"errorMessage":"no"}')
DEFAULT = EventInvokeConfig()


def next_step(answer: Answer, standing: Standing | None = None, *, age_s: float = 1, **config: int) -> Again | Over:
    """Return what follows from an answer."""
    settings = EventInvokeConfig(**config)  # type: ignore[arg-type]
    return after(answer, standing or Standing(), settings, age_s=age_s, at_ms=5, new_id="id")


def test_errors_of_the_function_are_retried_after_one_minute_then_two() -> None:
    """Then the retries are exhausted: three invocations in all, by default."""
    first = next_step(FAILED)
    assert isinstance(first, Again)
    assert (first.after_s, first.standing.attempts) == (60, 1)
    second = next_step(FAILED, first.standing, age_s=70)
    assert isinstance(second, Again)
    assert (second.after_s, second.standing.attempts) == (120, 2)
    third = next_step(FAILED, second.standing, age_s=200)
    assert isinstance(third, Over)
    assert (third.result.condition, third.result.invocations) == (Condition.RETRIES_EXHAUSTED, 3)
    assert third.result.response == Response(200, "$LATEST", "Unhandled", bytes(FAILED.body))


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_as_many_retries_as_configured(retries: int) -> None:
    """And one invocation more."""
    standing, invocations = Standing(), 0
    while True:
        invocations += 1
        follows = next_step(FAILED, standing, maximum_retry_attempts=retries)
        if isinstance(follows, Over):
            break
        standing = follows.standing
    assert invocations == follows.result.invocations == retries + 1


def test_a_success_ends_it() -> None:
    """With the answer for the destination."""
    over = next_step(OK, Standing(attempts=1))
    assert isinstance(over, Over)
    assert over.result == Result(Condition.SUCCESS, 5, 2, Response(200, "7", None, b'"done"'), "id")
    assert over.standing.result == over.result


@pytest.mark.parametrize("status", [403, 404, 409, 429, 500, 502, 503])
def test_throttles_and_system_errors_are_no_attempts(status: int) -> None:
    """They put the event off: one second, doubling up to five minutes, and a retry's time begins anew after them."""
    standing, waits = Standing(attempts=1), []
    for _ in range(11):
        follows = next_step(Answer(status, {}), standing)
        assert isinstance(follows, Again)
        waits.append(follows.after_s)
        standing = follows.standing
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert (standing.attempts, standing.deferrals) == (1, 11)
    failed = next_step(FAILED, standing)
    assert isinstance(failed, Again)
    assert (failed.after_s, failed.standing.deferrals) == (120, 0)


@pytest.mark.parametrize("status", [400, 413, 415])
def test_an_event_that_nobody_would_take_is_over_at_once(status: int) -> None:
    """The Invoke API's own refusals of an event do not change by waiting."""
    over = next_step(Answer(status, {}, b'{"message":"no"}'))
    assert isinstance(over, Over)
    assert over.result.condition is Condition.RETRIES_EXHAUSTED
    assert over.result.response == Response(status, "$LATEST", None, b'{"message":"no"}')


def test_nothing_waits_beyond_the_events_age() -> None:
    """What is due later than the event may grow old comes when it is too old, and is over then."""
    follows = next_step(FAILED, age_s=50, maximum_event_age_s=60)
    assert isinstance(follows, Again)
    assert follows.after_s == 10
    config = FunctionConfig(event_invoke=EventInvokeConfig(maximum_event_age_s=60))
    over = before(follows.standing, config, age_s=60, at_ms=9, new_id="id")
    assert over is not None
    assert (over.result.condition, over.result.invocations) == (Condition.EVENT_AGE_EXCEEDED, 1)
    assert over.result.response == Response(200, "$LATEST", "Unhandled", bytes(FAILED.body))
    assert before(follows.standing, config, age_s=59.9, at_ms=9, new_id="id") is None


def test_without_concurrency_nothing_is_tried() -> None:
    """A reserved concurrency of 0 ends an event before its first attempt; None and more do not."""
    over = before(Standing(), FunctionConfig(0), age_s=1, at_ms=9, new_id="id")
    assert over is not None
    assert over.result == Result(Condition.ZERO_RESERVED_CONCURRENCY, 9, 0, None, "id")
    for reserved in (None, 1):
        assert before(Standing(), FunctionConfig(reserved), age_s=1, at_ms=9, new_id="id") is None


@given(st.integers(1, 10_000))
def test_deferrals_are_bounded(deferrals: int) -> None:
    """Between a second and five minutes, however many there were."""
    assert 1 <= deferral_s(deferrals) <= 300


def test_who_is_told() -> None:
    """Of a success its destination; of a failure its destination and the dead-letter queue, be they the same."""
    config = FunctionConfig(event_invoke=EventInvokeConfig(on_success="S", on_failure="Q"), dead_letter="Q")
    success, failure = (Result(one, 0, 1, None, "") for one in (Condition.SUCCESS, Condition.EVENT_AGE_EXCEEDED))
    assert to_destinations(success, config) == ("S",)
    destination, dead_letter = to_destinations(failure, config)
    assert (destination, dead_letter_of(destination), dead_letter_of(dead_letter)) == ("Q", None, "Q")
    assert to_destinations(success, FunctionConfig()) == to_destinations(failure, FunctionConfig()) == ()


def test_a_destination_that_is_away_is_tried_for_hours() -> None:
    """As long again as an event may grow old; who has been told is not told again; a large answer is not kept."""
    large = Response(200, "1", None, b"x" * (KEPT_PAYLOAD_BYTES + 1))
    result = Result(Condition.SUCCESS, 0, 1, large, "id")
    follows = untold(Standing(1, 4, result=result, result_age_s=10, told=("a",)), ("b",), age_s=20)
    assert follows is not None
    assert (follows.after_s, follows.standing.told) == (16, ("a", "b"))
    assert follows.standing.result == Result(Condition.SUCCESS, 0, 1, Response(200, "1", None, None), "id")
    assert untold(follows.standing, (), age_s=10 + DESTINATION_AGE_S) is None


def test_a_large_error_is_not_kept_for_a_retry() -> None:
    """The queue keeps the event, not megabytes of what a function said about it."""
    follows = next_step(Answer(200, {"X-Amz-Function-Error": "Unhandled"}, b"x" * (KEPT_PAYLOAD_BYTES + 1)))
    assert isinstance(follows, Again)
    assert follows.standing.last == Response(200, "$LATEST", "Unhandled", None)
