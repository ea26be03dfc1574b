"""What the fleet is told of a mapping's shards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.ids import ShardId
from statemgr.weighing import reweigh

SHARDS = st.dictionaries(st.sampled_from([ShardId(f"s{n}") for n in range(6)]), st.floats(1, 1e6), max_size=6)
A, B, C = ShardId("a"), ShardId("b"), ShardId("c")


def test_small_changes_are_not_told() -> None:
    """Weights stand while none is off by half."""
    assert reweigh({A: 100.0, B: 1.0}, {A: 140.0, B: 1.4}) == {A: 100.0, B: 1.0}


def test_one_that_is_off_brings_all_up_to_date() -> None:
    """So there is one change instead of several."""
    assert reweigh({A: 100.0, B: 1.0}, {A: 140.0, B: 2.0}) == {A: 140.0, B: 2.0}
    assert reweigh({A: 100.0, B: 1.0}, {A: 60.0, B: 1.2}) == {A: 60.0, B: 1.2}


def test_shards_come_and_go_without_touching_the_others() -> None:
    """A new shard has its own weight, one that is gone none."""
    assert reweigh({A: 100.0, B: 1.0}, {A: 120.0, C: 7.0}) == {A: 100.0, C: 7.0}


@given(SHARDS, SHARDS)
def test_told_weights_are_near_and_stay(published: dict[ShardId, float], measured: dict[ShardId, float]) -> None:
    """Whatever was told before, no weight is off by more than half, and the same measures change nothing again."""
    told = reweigh(published, measured)
    assert told.keys() == measured.keys()
    assert all(1 / 1.5 <= measured[shard] / weight <= 1.5 for shard, weight in told.items())
    assert reweigh(told, measured) == told
