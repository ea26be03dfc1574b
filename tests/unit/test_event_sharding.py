"""Which partitions a function's events go to."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from statemgr.event_queue import PARTITIONS, partitions_of


@given(st.text(), st.integers(2, 100))
def test_two_partitions_that_exist(function: str, partitions: int) -> None:
    """They differ, and are the same each time."""
    one, other = partitions_of(function, partitions=partitions)
    assert 0 <= one < partitions
    assert 0 <= other < partitions
    assert one != other
    assert partitions_of(function, partitions=partitions) == (one, other)


def test_they_stay_what_they_were() -> None:
    """Events of an earlier version, or another node, are where this one looks for room."""
    assert (partitions_of("orders"), partitions_of("mails"), PARTITIONS) == ((4, 27), (24, 10), 32)


def test_functions_are_spread() -> None:
    """No partition has much more than its share, and few functions share both of theirs."""
    pairs = [frozenset(partitions_of(f"function-{at}")) for at in range(200)]
    crowd = Counter(number for pair in pairs for number in pair)
    assert len(crowd) == PARTITIONS
    assert max(crowd.values()) < 3 * 400 / PARTITIONS
    same = sum(one == other for one, other in combinations(pairs, 2))
    assert same / len(list(combinations(pairs, 2))) < 0.004  # by chance 1 in 496
