"""Retry budgets, age, bisect and partial progress."""

from __future__ import annotations

from math import ceil, inf, log2
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.outcome import Delivered, FunctionFailed, NotReached, PartlyFailed, Throttled
from model.record import MAX_EVENT_BYTES, NO_RECORDS, Batch, Records
from pollers.attempts import Attempts
from pollers.ports import Lag
from pollers.retrying import Condition, Discard, Invoke, Retrying, RetryPolicy
from tests.support.pump_fakes import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.outcome import Outcome

FAILED = FunctionFailed("Boom")


def start(policy: RetryPolicy, count: int = 4, known: dict[int, Attempts] | None = None) -> Retrying:
    """Begin with `count` records that arrived at 1000 ms, 2000 ms and so on; with none it is a final call."""
    records = Records.of([record(n, arrival_ms=(n + 1) * 1000) for n in range(count)])
    batch = Batch(records, 100 + records.size)
    return Retrying(policy, batch, overhead=100, random=Random(1), known_failures=known)


def play(
    retrying: Retrying, answer: Callable[[list[int]], Outcome], now_ms: float = 0
) -> tuple[list[list[int]], list[int], list[tuple[Condition, list[int]]]]:
    """Run to the end; returns calls, finished positions and discards, in order."""
    calls: list[list[int]] = []
    finished: list[int] = []
    discards: list[tuple[Condition, list[int]]] = []
    for _ in range(10_000):
        step = retrying.next(now_ms)
        if step is None:
            return calls, finished, discards
        if isinstance(step, Discard):
            discards.append((step.condition, [r.position for r in step.records]))
            continue
        positions = [r.position for r in step.work.batch.records]
        calls.append(positions)
        verdict = retrying.learn(answer(positions))
        finished += [r.position for r in verdict.finished]
    raise AssertionError("no end")


def test_a_call_without_records_is_retried_and_given_up_like_a_batch() -> None:
    """Its failures are counted under a position that no record has, before and after a restart; no age applies."""
    policy = RetryPolicy(maximum_retry_attempts=3, maximum_record_age_s=60, bisect=True)
    retrying = start(policy, count=0)
    for _ in range(2):
        assert isinstance(retrying.next(1e12), Invoke)
        retrying.learn(FAILED)
    assert retrying.failures() == {-1: Attempts(last=-1, failures=2, invocations=2)}
    calls, finished, discards = play(start(policy, count=0, known=retrying.failures()), lambda _: FAILED, now_ms=1e12)
    assert calls == [[], []]
    assert finished == []
    assert discards == [(Condition.RETRY_ATTEMPTS_EXHAUSTED, [])]


def test_an_inserted_call_comes_before_what_is_left() -> None:
    """With a budget of its own; the rest keeps its count."""
    retrying = start(RetryPolicy(), count=2)
    retrying.next(0)
    retrying.learn(FAILED)
    retrying.insert(Batch(NO_RECORDS, 50))
    assert {first: attempts.failures for first, attempts in retrying.failures().items()} == {-1: 0, 0: 1}
    calls, finished, _ = play(retrying, lambda _: Delivered())
    assert calls == [[], [0, 1]]
    assert finished == [0, 1]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_n_retries_make_n_plus_one_invocations(retries: int) -> None:
    """MaximumRetryAttempts counts retries, and then the whole batch is given up."""
    calls, finished, discards = play(start(RetryPolicy(maximum_retry_attempts=retries)), lambda _: FAILED)
    assert len(calls) == retries + 1
    assert finished == []
    assert discards == [(Condition.RETRY_ATTEMPTS_EXHAUSTED, [0, 1, 2, 3])]


def test_throttles_and_unreached_functions_consume_nothing() -> None:
    """However many 429s and refusals, the retry budget is whole afterwards."""
    outcomes: list[Outcome] = [*[Throttled("busy")] * 50, *[NotReached("refused")] * 50, FAILED, Delivered()]
    calls, finished, discards = play(start(RetryPolicy(maximum_retry_attempts=1)), lambda _: outcomes.pop(0))
    assert len(calls) == 102
    assert finished == [0, 1, 2, 3]
    assert discards == []


def test_failures_of_before_a_restart_count() -> None:
    """A batch that begins where a failing one began goes on counting."""
    calls, _, discards = play(
        start(RetryPolicy(maximum_retry_attempts=3), known={0: Attempts(3, 3, 3)}), lambda _: FAILED
    )
    assert len(calls) == 1
    assert discards[0][0] is Condition.RETRY_ATTEMPTS_EXHAUSTED


def test_records_never_invoked_with_do_not_inherit_the_attempts_of_others() -> None:
    """After a restart the batch is cut where the failing records end: the others get their own invocations."""
    policy = RetryPolicy(maximum_retry_attempts=1)
    known = {1: Attempts(2, 2, 2), 4: Attempts(4, 1, 1)}
    calls, finished, discards = play(start(policy, 6, known), lambda p: FAILED if 4 in p else Delivered())
    assert discards == [(Condition.RETRY_ATTEMPTS_EXHAUSTED, [1, 2]), (Condition.RETRY_ATTEMPTS_EXHAUSTED, [4])]
    assert calls == [[0], [3], [4], [5]]
    assert finished == [0, 3, 5]


def test_a_smaller_batch_after_a_restart_keeps_the_attempts_of_its_records() -> None:
    """Attempts apply to whatever part of the failing run the next batch holds."""
    known = {0: Attempts(9, 2, 2)}
    calls, _, discards = play(start(RetryPolicy(maximum_retry_attempts=1), 3, known), lambda _: Delivered())
    assert calls == []
    assert discards == [(Condition.RETRY_ATTEMPTS_EXHAUSTED, [0, 1, 2])]


def test_records_being_given_up_still_count_until_they_are() -> None:
    """Between a discard and the next step a restart must find the attempts, and the function's last answer."""
    retrying = start(RetryPolicy(maximum_retry_attempts=0))
    retrying.next(0)
    retrying.learn(FunctionFailed("Boom", function_error=None, status=201, executed_version="7"))
    assert isinstance(retrying.next(0), Discard)
    assert retrying.failures() == {0: Attempts(3, 1, 1, 201, "7", None)}
    resumed = start(RetryPolicy(maximum_retry_attempts=0), known=retrying.failures()).next(0)
    assert isinstance(resumed, Discard)
    assert resumed.work.last == FunctionFailed("before a restart", None, 201, "7")
    assert resumed.work.invocations == 1
    assert retrying.next(0) is None
    assert retrying.failures() == {}


def test_failures_are_told_for_the_stored_state() -> None:
    """The count is kept by the first position, and gone once the batch is."""
    retrying = start(RetryPolicy())
    retrying.next(0)
    retrying.learn(FAILED)
    assert retrying.failures() == {0: Attempts(last=3, failures=1, invocations=1)}
    retrying.next(0)
    retrying.learn(Delivered())
    assert retrying.failures() == {}


def test_only_the_expired_leading_records_go() -> None:
    """Younger records of the batch are still delivered, and age is checked before the first invocation too."""
    calls, finished, discards = play(start(RetryPolicy(maximum_record_age_s=60)), lambda _: Delivered(), now_ms=62_500)
    assert discards == [(Condition.RECORD_AGE_EXCEEDED, [0, 1])]
    assert calls == [[2, 3]]
    assert finished == [2, 3]


def test_records_that_age_while_the_function_throttles_go_too() -> None:
    """Throttles consume no attempt, but time passes: with each look the expired leading records are given up."""
    retrying = start(RetryPolicy(maximum_retry_attempts=0, maximum_record_age_s=60))
    discards = []
    for now_ms in (61_000, 62_500, 63_500):
        step = retrying.next(now_ms)
        while isinstance(step, Discard):
            discards.append((step.condition, [record.position for record in step.records]))
            step = retrying.next(now_ms)
        assert isinstance(step, Invoke)
        retrying.learn(Throttled("busy"))
    assert discards == [(Condition.RECORD_AGE_EXCEEDED, [0, 1]), (Condition.RECORD_AGE_EXCEEDED, [2])]
    assert isinstance(retrying.next(64_500), Discard)
    assert retrying.next(64_500) is None


@pytest.mark.parametrize("lag", [Lag(9, retention_s=60), Lag(9, first=2), Lag(9, retention_s=59.5, first=1)])
def test_records_that_left_the_source_while_they_were_retried_go(lag: Lag) -> None:
    """Without limits of its own a mapping retries as long as the source has the records, by time or by position."""
    retrying = start(RetryPolicy())
    assert isinstance(retrying.next(62_500, lambda: lag), Invoke), "before the first invocation they are not doubted"
    retrying.learn(FAILED)
    step = retrying.next(62_500, lambda: lag)
    assert isinstance(step, Discard)
    assert (step.condition, [record.position for record in step.records]) == (Condition.RECORD_AGE_EXCEEDED, [0, 1])
    rest = retrying.next(62_500, lambda: lag)
    assert isinstance(rest, Invoke)
    assert [record.position for record in rest.work.batch.records] == [2, 3]


def test_what_the_source_still_has_is_retried_for_ever() -> None:
    """Nothing known, or nothing lost: nothing is given up."""
    retrying = start(RetryPolicy())
    for lag in (Lag(None), Lag(9, retention_s=61.6), Lag(9, first=0)):
        assert isinstance(retrying.next(62_500, lambda lag=lag: lag), Invoke)  # type: ignore[misc]  # bound at once
        retrying.learn(FAILED)


def test_an_oversized_record_is_never_invoked_with() -> None:
    """A record no event can hold is given up at once."""
    big = record(0, size=MAX_EVENT_BYTES)
    retrying = Retrying(RetryPolicy(), Batch(Records.of([big]), MAX_EVENT_BYTES + 101), overhead=100, random=Random(1))
    calls, _, discards = play(retrying, lambda _: Delivered())
    assert calls == []
    assert discards == [(Condition.MAXIMUM_PAYLOAD_SIZE_EXCEEDED, [0])]


@given(st.integers(1, 600), st.data(), st.integers(0, 3))
def test_bisect_isolates_one_poison_record(count: int, data: st.DataObject, retries: int) -> None:
    """Failing invocations stay within 2·log2(N)+1+retries, order is kept, and only the poison is given up."""
    poison = data.draw(st.integers(0, count - 1))
    policy = RetryPolicy(maximum_retry_attempts=retries, bisect=True)
    calls, finished, discards = play(start(policy, count), lambda p: FAILED if poison in p else Delivered())
    failing = [call for call in calls if poison in call]
    assert len(failing) <= 2 * ceil(log2(count)) + 1 + retries
    assert discards == [(Condition.RETRY_ATTEMPTS_EXHAUSTED, [poison])]
    assert finished == [n for n in range(count) if n != poison]


def test_a_partial_response_of_a_stream_fails_everything_from_the_lowest_on() -> None:
    """Kinesis: before the lowest reported record is done, it and all after it is retried."""
    answers: list[Outcome] = [PartlyFailed(frozenset({3, 1})), Delivered()]
    calls, finished, _ = play(start(RetryPolicy(partial_responses=True)), lambda _: answers.pop(0))
    assert calls == [[0, 1, 2, 3], [1, 2, 3]]
    assert finished == [0, 1, 2, 3]


def test_a_partial_response_out_of_order_retries_only_the_reported_records() -> None:
    """Kafka: the others are finished although they lie beyond."""
    answers: list[Outcome] = [PartlyFailed(frozenset({1, 2})), Delivered()]
    policy = RetryPolicy(partial_responses=True, in_order=False)
    calls, finished, _ = play(start(policy), lambda _: answers.pop(0))
    assert calls == [[0, 1, 2, 3], [1, 2]]
    assert finished == [0, 3, 1, 2]


def test_progress_gives_the_remainder_a_fresh_budget() -> None:
    """With BatchSize 3 and 3 retries a record failing in third place is delivered 1 + 4 times (spec section 4.3)."""
    policy = RetryPolicy(maximum_retry_attempts=3, partial_responses=True)
    calls, finished, discards = play(start(policy, 3), lambda _: PartlyFailed(frozenset({2})))
    assert calls == [[0, 1, 2]] + [[2]] * 4
    assert finished == [0, 1]
    assert discards == [(Condition.RETRY_ATTEMPTS_EXHAUSTED, [2])]


def test_no_progress_consumes_an_attempt() -> None:
    """A response that reports the first record again and again is given up like a failure."""
    policy = RetryPolicy(maximum_retry_attempts=2, partial_responses=True)
    calls, _, discards = play(start(policy, 3), lambda _: PartlyFailed(frozenset({0})))
    assert len(calls) == 3
    assert discards[0][1] == [0, 1, 2]


def test_with_bisect_a_partial_response_cuts_where_it_says() -> None:
    """Not in the middle; what remains has a fresh budget, and whatever else fails it bisects it in the middle."""
    policy = RetryPolicy(maximum_retry_attempts=0, partial_responses=True, bisect=True)
    answers: list[Outcome] = [PartlyFailed(frozenset({1})), FAILED, Delivered(), FAILED, Delivered(), Delivered()]
    calls, finished, discards = play(start(policy, 8), lambda _: answers.pop(0))
    assert calls == [list(range(8)), list(range(1, 8)), [1, 2, 3], [4, 5, 6, 7], [4, 5], [6, 7]]
    assert (finished, discards) == (list(range(8)), [])


def test_with_bisect_an_unreadable_response_bisects_in_the_middle() -> None:
    """It fails the whole batch and names nobody."""
    policy = RetryPolicy(maximum_retry_attempts=0, partial_responses=True, bisect=True)
    answers: list[Outcome] = [FunctionFailed("names no record", function_error=None), Delivered(), Delivered()]
    calls, _, _ = play(start(policy), lambda _: answers.pop(0))
    assert calls == [[0, 1, 2, 3], [0, 1], [2, 3]]


@given(st.integers(1, 600), st.data(), st.integers(0, 3))
def test_with_bisect_partial_responses_isolate_one_poison_record(count: int, data: st.DataObject, retries: int) -> None:
    """The record that a response names again and again is given up alone, within the bound of plain bisecting."""
    poison = data.draw(st.integers(0, count - 1))
    policy = RetryPolicy(maximum_retry_attempts=retries, bisect=True, partial_responses=True)
    calls, finished, discards = play(
        start(policy, count), lambda p: PartlyFailed(frozenset({poison})) if poison in p else Delivered()
    )
    failing = [call for call in calls if poison in call]
    assert len(failing) <= 2 * ceil(log2(count)) + 1 + retries
    assert discards == [(Condition.RETRY_ATTEMPTS_EXHAUSTED, [poison])]
    assert finished == [n for n in range(count) if n != poison]


@given(st.integers(1, 60), st.sets(st.integers(0, 59)), st.integers(0, 2), st.booleans())
def test_any_set_of_poison_records_is_given_up_alone_and_in_order(
    count: int,
    poison: set[int],
    retries: int,
    partial: bool,  # noqa: FBT001 - drawn
) -> None:
    """Whatever fails, calls hold neighbours in order, and exactly the poison records are given up, one by one."""
    policy = RetryPolicy(maximum_retry_attempts=retries, bisect=True, partial_responses=partial)
    poison &= set(range(count))

    def answer(positions: list[int]) -> Outcome:
        bad = poison & set(positions)
        return (PartlyFailed(frozenset(bad)) if partial else FAILED) if bad else Delivered()

    calls, finished, discards = play(start(policy, count), answer)
    assert all(call == list(range(call[0], call[-1] + 1)) for call in calls)
    assert [positions for _, positions in discards] == [[one] for one in sorted(poison)]
    assert finished == [n for n in range(count) if n not in poison]


def test_backoff_doubles_with_full_jitter_up_to_a_minute() -> None:
    """Delays stay under 0.5 s, 1 s, 2 s … 60 s, and reach into the upper half of that."""
    ceilings = [min(60, 0.5 * 2**n) for n in range(12)]
    seen = []
    for seed in range(200):
        batch = Batch(Records.of([record(0)]), 111)
        retrying = Retrying(RetryPolicy(), batch, overhead=100, random=Random(seed))
        delays = []
        for _ in ceilings:
            assert isinstance(retrying.next(0), Invoke)
            delays.append(retrying.learn(FAILED).delay_s)
        assert all(0 <= delay <= ceiling for delay, ceiling in zip(delays, ceilings, strict=True))
        seen.append(delays)
    assert all(max(column) > ceiling / 2 for column, ceiling in zip(zip(*seen, strict=True), ceilings, strict=True))


def pauses(*outcomes: Outcome, seed: int = 1) -> list[float]:
    """Return the delay after each of these outcomes of one batch."""
    retrying = Retrying(RetryPolicy(), Batch(Records.of([record(0)]), 111), overhead=100, random=Random(seed))
    delays = []
    for outcome in outcomes:
        assert isinstance(retrying.next(0), Invoke)
        delays.append(retrying.learn(outcome).delay_s)
    return delays


def test_a_throttled_batch_holds_itself_back_only_as_told() -> None:
    """When the function has room is the circuit's business; Retry-After is kept to."""
    assert pauses(*[Throttled("busy")] * 50) == [0] * 50
    assert 30 <= pauses(Throttled("busy", retry_after_s=30))[0] <= 30.5


def test_a_batch_that_was_not_reached_holds_itself_back_ever_longer() -> None:
    """What is wrong may be with it alone: 0.5 s doubling with full jitter to 60 s, anew after another answer."""
    ceilings = [min(60, 0.5 * 2**n) for n in range(12)]
    seen = [pauses(*[NotReached("refused")] * 12, Throttled("busy"), NotReached("refused"), seed=n) for n in range(100)]
    for column, ceiling in zip(zip(*seen, strict=True), [*ceilings, 0, 0.5], strict=True):
        assert ceiling / 2 <= max(column) <= ceiling
    assert 20 <= pauses(NotReached("refused", retry_after_s=20))[0] <= 20.5


def test_refusals_do_not_make_function_errors_wait_longer() -> None:
    """Nobody's backoff is used up while the function is not reached; the attempts go on being numbered."""
    refused: list[Outcome] = [*[NotReached("refused")] * 50, *[Throttled("busy")] * 50]
    for seed in range(20):
        assert pauses(*refused, FAILED, seed=seed)[-1] <= 0.5
    retrying = start(RetryPolicy())
    numbers = []
    for outcome in (Throttled("busy"), FAILED, NotReached("refused"), FAILED):
        step = retrying.next(0)
        assert isinstance(step, Invoke)
        numbers.append(step.work.attempt)
        retrying.learn(outcome)
    assert numbers == [1, 2, 3, 4]


def test_how_long_records_may_wait_for_their_turn() -> None:
    """Until the first of them is too old; without a limit, or records, for ever."""
    retrying = start(RetryPolicy(maximum_record_age_s=60))
    assert retrying.expires_in_s(31_000) == pytest.approx(30.001)
    assert isinstance(retrying.next(61_000), Invoke)
    assert isinstance(retrying.next(61_001), Discard)
    assert retrying.expires_in_s(61_001) == pytest.approx(1.0)
    assert start(RetryPolicy()).expires_in_s(1e12) == inf
    assert start(RetryPolicy(maximum_record_age_s=60), count=0).expires_in_s(1e12) == inf
