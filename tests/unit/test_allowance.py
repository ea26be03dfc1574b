"""How much a function that throttles is given."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers.allowance import FIRST_SPACING_S, FULL_AFTER, LONGEST_SPACING_S, QUIET_S, Allowance


def test_without_throttles_there_is_no_limit() -> None:
    """Whatever is taken, any number may begin."""
    allowance = Allowance()
    for running in (1, 5, 500):
        allowance.began(0)
        allowance.took(running, 0.1)
    assert (allowance.room(500, 1), allowance.due_at(500), allowance.throttled_lately) == (inf, None, False)


def test_a_throttle_limits_to_what_the_function_holds() -> None:
    """Of 64 that began at once 59 are throttled: five stay with it, and five is the limit."""
    allowance = Allowance()
    for running in range(63, 4, -1):
        assert not allowance.throttled(running, 0.01)
    assert (allowance.limit, allowance.spacing_s, allowance.throttled_lately) == (5, 0, True)
    assert (allowance.room(5, 0.02), allowance.room(3, 0.02)) == (0, 2)


def test_more_is_felt_for_with_each_tenth_batch_taken_at_the_limit() -> None:
    """One too many goes once in ten batches, wherever the limit is; a function with room is soon given more."""
    for held in (1, 5, 40):
        allowance = Allowance()
        allowance.throttled(held, 0)
        throttles = 0
        for _ in range(1000):
            if allowance.room(held, 0.1) >= 1:
                allowance.throttled(held, 0.1)
                throttles += 1
            allowance.took(held, 1)
        assert 85 <= throttles <= 100
    rounds = 0
    while allowance.limit < 400:
        for _ in range(int(allowance.limit)):
            allowance.took(int(allowance.limit), 1)
        rounds += 1
    assert rounds <= 26


def test_a_limit_that_is_not_reached_teaches_nothing() -> None:
    """Two at a time taken of five that may be say nothing about a sixth."""
    allowance = Allowance()
    allowance.throttled(5, 0)
    for _ in range(1000):
        allowance.took(2, 1)
    assert allowance.limit == 5


def test_a_throttle_by_chance_costs_little() -> None:
    """One in twenty, whatever is with the function: the limit stays where the lanes are."""
    allowance = Allowance()
    for n in range(10_000):
        running = min(20, int(min(allowance.limit, 20)))
        if n % 20:
            allowance.took(running, 1)
        else:
            allowance.throttled(running - 1, 0)
    assert allowance.limit >= 19


def test_a_function_that_throttles_one_at_a_time_is_given_them_spaced_out() -> None:
    """Tried again ever later; the third throttle in a row is no chance, and spaces out what follows."""
    allowance = Allowance()
    allowance.began(1)
    for throttles, pause_s in ((1, FIRST_SPACING_S), (2, 2 * FIRST_SPACING_S), (3, 4 * FIRST_SPACING_S)):
        assert not allowance.throttled(0, 1)
        assert (allowance.limit, allowance.spacing_s) == (1, 0 if throttles < 3 else pause_s)
        assert (allowance.room(0, 1 + pause_s - 0.001), allowance.room(0, 1 + pause_s)) == (0, 1)
        assert (allowance.due_at(0), allowance.due_at(1)) == (1 + pause_s, 1 + QUIET_S)
    allowance.began(2)
    assert (allowance.room(0, 2.079), allowance.room(0, 2.081), allowance.room(1, 2.081)) == (0, 1, 0)


def test_the_space_between_batches_settles_where_most_are_taken() -> None:
    """A little shorter with each taken, a little longer with one throttled: six are taken for each that is not."""
    allowance = Allowance()
    for _ in range(5):
        allowance.throttled(0, 0)
    taken = throttled = 0
    for _ in range(1000):  # the function has room for one in each 100 ms
        if allowance.spacing_s >= 0.1:
            allowance.took(1, 0.01)
            taken += 1
        else:
            allowance.throttled(0, 0)
            throttled += 1
            assert allowance.spacing_s == pytest.approx(0.105, abs=0.01)
    assert 4 <= taken / throttled <= 8


def test_batches_that_take_longer_than_the_space_between_them_need_none() -> None:
    """One at a time is seldom enough then, and more than one may be tried again."""
    allowance = Allowance()
    for _ in range(4):
        allowance.throttled(0, 0)
    allowance.took(1, 0.01)
    assert allowance.spacing_s > 0.1
    allowance.took(1, 0.5)
    assert allowance.spacing_s == 0
    for _ in range(10):
        allowance.took(1, 0.5)
    assert allowance.room(1, 1) == 1


def test_when_it_takes_nothing_for_seconds_there_is_no_room_at_all() -> None:
    """Throttled in a row with nothing else with it; anything taken between begins the count anew."""
    allowance, now = Allowance(), 0.0
    for _ in range(3):
        for _ in range(FULL_AFTER - 1):
            assert not allowance.throttled(0, now)
            now = allowance.due_at(0) or 0.0
        allowance.took(1, 0.01)
    allowance, now = Allowance(), 0.0
    while not allowance.throttled(0, now):
        now = allowance.due_at(0) or 0.0
    assert 4 < now < 6
    assert allowance.spacing_s <= LONGEST_SPACING_S


def test_a_minute_without_throttles_lifts_the_limit_step_by_step() -> None:
    """What it was learned from is over: twice as many each second, then any number."""
    allowance = Allowance()
    allowance.throttled(4, 100)
    assert allowance.room(0, 100 + QUIET_S - 0.1) == 4
    assert [allowance.room(0, 100 + QUIET_S + second) for second in range(4)] == [8, 16, 32, 64]
    assert allowance.throttled_lately
    assert allowance.room(0, 100 + QUIET_S + 20) == inf
    assert (allowance.throttled_lately, allowance.due_at(0)) == (False, None)


def test_a_function_that_was_away_is_given_more_with_time() -> None:
    """One at first, twice as many with each step, whether it is quick or slow; a throttle ends that."""
    allowance = Allowance()
    allowance.ramp(10, 0.5)
    assert not allowance.throttled_lately
    for _ in range(100):
        allowance.took(1, 0.001)
    assert [allowance.room(0, 10 + 0.5 * step) for step in range(4)] == [1, 2, 4, 8]
    assert allowance.due_at(8) == 12
    allowance.throttled(6, 11.6)
    assert (allowance.room(0, 30), allowance.due_at(6)) == (6, 11.6 + QUIET_S)


@given(
    st.lists(st.tuples(st.sampled_from(["took", "throttled", "ramp", "wait"]), st.integers(0, 30), st.floats(0, 90)))
)
def test_whatever_happens_one_may_go_before_long(steps: list[tuple[str, int, float]]) -> None:
    """With nothing with the function there is room at once, or within the longest space between two."""
    allowance, now = Allowance(), 0.0
    for what, running, wait_s in steps:
        match what:
            case "took":
                allowance.began(now)
                allowance.took(running + 1, wait_s)
            case "throttled":
                allowance.began(now)
                allowance.throttled(running, now)
            case "ramp":
                allowance.ramp(now, 0.1 + wait_s / 90)
            case _:
                now += wait_s
        for held in range(40):  # whoever waits for room need not look again before there may be some
            due_at = allowance.due_at(held)
            assert allowance.room(held, now) >= 1 or due_at is None or due_at > now
        due_at = allowance.due_at(0)
        assert allowance.room(0, now) >= 1 or (due_at is not None and due_at <= now + LONGEST_SPACING_S)
        assert allowance.room(0, now + LONGEST_SPACING_S) >= 1
        assert allowance.limit >= 1
        assert 0 <= allowance.spacing_s <= LONGEST_SPACING_S
