"""Token buckets: `node.token_buckets`."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.token_buckets import TokenBuckets

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_a_burst_and_then_the_rate() -> None:
    """Ten at once, the next one when a token is there again, and a pause is a full bucket and no more."""
    buckets = TokenBuckets(2.0, 10)
    assert [buckets.take("a", 100.0) for _ in range(10)] == [0.0] * 10
    assert buckets.take("a", 100.0) == pytest.approx(0.5)
    assert buckets.take("a", 100.4) == pytest.approx(0.1)
    assert buckets.take("a", 100.5) == 0.0
    assert buckets.take("a", 100.5) > 0.0
    assert [buckets.take("a", 9000.0) for _ in range(11)].count(0.0) == 10


def test_callers_do_not_meet() -> None:
    """One who asks too often is no trouble to the next."""
    buckets = TokenBuckets(1.0, 1)
    assert buckets.take("a", 5.0) == 0.0
    assert buckets.take("a", 5.0) == pytest.approx(1.0)
    assert buckets.take("b", 5.0) == 0.0


def test_looking_takes_nothing_and_spending_never_owes() -> None:
    """What is spent beyond the bucket is not paid back later."""
    buckets = TokenBuckets(1.0, 2)
    assert [buckets.wait_s("a", 1.0) for _ in range(5)] == [0.0] * 5
    for _ in range(50):
        buckets.spend("a", 1.0)
    assert buckets.wait_s("a", 1.0) == pytest.approx(1.0)
    assert buckets.wait_s("a", 2.0) == 0.0


def test_callers_that_are_quiet_again_are_forgotten() -> None:
    """A full bucket is as good as none."""
    buckets = TokenBuckets(1.0, 5)
    for number in range(100):
        buckets.take(number, 10.0)
    assert len(buckets) == 100
    buckets.take("later", 12.0)
    assert len(buckets) == 1


def test_a_flood_of_addresses_shares_one_bucket_and_pushes_nobody_out() -> None:
    """Memory is bounded, and who was there before keeps what he has used, and what he has left."""
    buckets = TokenBuckets(1.0, 3, most=10)
    for number in range(10):
        for _ in range(3 if number else 2):
            assert buckets.take(number, 1.0) == 0.0
    assert [buckets.take(f"new {number}", 1.0) for number in range(500)].count(0.0) == 3
    assert len(buckets) == 10
    assert buckets.take(0, 1.0) == 0.0
    assert buckets.take(0, 1.0) > 0.0
    assert buckets.take("one more", 10.0) == 0.0
    assert len(buckets) == 1


@pytest.mark.parametrize(
    ("rate", "burst", "most"), [(0, 1, 1), (-1, 1, 1), (1, 0.5, 1), (1, 1, 0), (float("nan"), 1, 1)]
)
def test_a_bucket_that_never_holds_a_token_is_a_mistake(rate: float, burst: float, most: int) -> None:
    """It would refuse everybody for ever."""
    with pytest.raises(ValueError, match="nobody"):
        TokenBuckets(rate, burst, most=most)


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5)), max_size=80),
)
def test_nobody_gets_more_than_burst_and_rate_allow(
    rate: float, burst: int, steps: Sequence[tuple[float, int]]
) -> None:
    """In any stretch of time; and whoever waits as long as he is told gets in, unless others share his bucket."""
    buckets = TokenBuckets(rate, burst)
    now, taken = 1000.0, list[tuple[float, int]]()
    for pause_s, caller in steps:
        now += pause_s
        wait_s = buckets.take(caller, now)
        assert 0 <= wait_s < inf
        if wait_s:
            assert wait_s <= 1 / rate + 1e-6
            assert buckets.wait_s(caller, now + wait_s) == 0.0
        else:
            taken.append((now, caller))
    for begin, caller in taken:
        mine = [at for at, who in taken if who == caller and at >= begin]
        for count, at in enumerate(mine, start=1):
            assert count <= burst + (at - begin) * rate + 1e-3
