"""Latencies in buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.demo.latency import Latencies

ms = st.one_of(st.integers(-5, 5).map(float), st.floats(-1, 1e6))


def counted(values: list[float]) -> Latencies:
    """Count each value once."""
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


@given(values=st.lists(ms, min_size=1, max_size=300), percent=st.floats(0, 100))
def test_percentiles_are_the_nearest_rank(values: list[float], percent: float) -> None:
    """A percentile is within 1 % of the true one of the nearest rank; below a millisecond it is 0."""
    true = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    told = counted(values).percentile(percent)
    assert told == (0 if true < 1 else pytest.approx(true, rel=0.0101))


def test_nothing_counted_has_no_percentile() -> None:
    """Without a latency there is no percentile, rather than 0."""
    assert Latencies().percentile(50) is None


@given(before=st.lists(ms, max_size=50), after=st.lists(ms, max_size=50))
def test_a_stretch_of_time_is_the_difference_of_two_states(before: list[float], after: list[float]) -> None:
    """What was counted since an earlier state is what was added, and a copy does not change with its origin."""
    latencies = counted(before)
    earlier = Latencies(latencies.counts)
    for value in after:
        latencies.add(value)
    assert latencies.since(earlier).counts == counted(after).counts
    assert earlier.total == len(before)
    assert latencies.total == len(before) + len(after)
