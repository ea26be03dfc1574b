"""Identifiers and positions."""

from hypothesis import given
from hypothesis import strategies as st

from model.ids import MappingId, Position, ShardId, ShardKey, position_key


@given(st.integers(0, 10**127), st.integers(0, 10**127))
def test_positions_compare_as_integers(a: int, b: int) -> None:
    """Positions order by value, whatever their number of digits."""
    assert (a < b) == (position_key(Position(str(a))) < position_key(Position(str(b))))


def test_shard_key_survives_its_text_form() -> None:
    """A shard key reads back from what it printed, also when the shard's name holds a slash."""
    key = ShardKey(MappingId("0b1c"), ShardId("a/b"))
    assert ShardKey.parse(str(key)) == key
