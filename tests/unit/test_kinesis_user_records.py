"""Aggregates among other records: what comes out, at which positions, and what counts as a stray."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pollers.ports import Chunk
from pollers.sources.kinesis_api import KinesisRecord
from pollers.sources.kinesis_user_records import PLACE_BITS, UserRecords, checkpoint
from pollers.sources.kpl import EVERYTHING, MAGIC, HashKeyRange, hash_key
from tests.support.kinesis_streams import datas
from tests.support.kpl_encoding import User, bytes_field, encode, seal

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS = ("a", "b", "c", "d")
HALF = HashKeyRange(0, 2**127 - 1)


def raw(number: int, data: bytes, key: str = "outer") -> KinesisRecord:
    """Make a record as Kinesis gives it."""
    quoted = msgspec.Raw(b'"%b"' % b64encode(data))
    return KinesisRecord(str(number), quoted, key, 1e9 + number, "KMS")


def chunk_of(contents: Sequence[bytes | list[User]], first: int = 1) -> Chunk:
    """Make a chunk; a list becomes an aggregate."""
    raws: list[Any] = [
        raw(number, encode(content) if isinstance(content, list) else content)
        for number, content in enumerate(contents, first)
    ]
    return Chunk(raws, [int(one.SequenceNumber) for one in raws], 100 * len(raws))


users = st.builds(User, st.sampled_from(KEYS), st.none(), st.binary(max_size=5))
contents = st.lists(st.binary(max_size=9) | st.lists(users, min_size=1, max_size=6), max_size=8)


@settings(deadline=None)
@given(contents, st.integers(1, 7), st.sampled_from([EVERYTHING, HALF]))
def test_what_users_wrote_comes_out_in_order_at_rising_positions(
    content: list[bytes | list[User]], most: int, shard: HashKeyRange
) -> None:
    """In helpings of any size: keys and data of each, the rest shared with the aggregate; strays are marked."""
    wanted: list[tuple[int, str, bytes]] = []
    for number, one in enumerate(content, 1):
        wanted += (
            [(number, user.partition_key, user.data) for user in one]
            if isinstance(one, list)
            else [(number, "outer", one)]
        )
    records = UserRecords()
    records.add(chunk_of(content))
    if any(isinstance(one, list) for one in content):
        assert records.has_aggregates
    elif records.has_aggregates:  # what only begins like an aggregate is looked at too
        assert any(isinstance(one, bytes) and one.startswith(MAGIC[:3]) for one in content)
    positions: list[int] = []
    taken = Chunk([], positions, 0, [], set())
    while len(records):
        helping = records.take(most, shard)
        assert 0 < len(helping.raws) <= most
        assert len(helping.raws) == len(helping.positions)
        taken.raws += helping.raws
        positions += helping.positions
        taken.runs = [*taken.runs, *helping.runs]
        taken.strays |= helping.strays
    assert records.size == 0
    found = list(zip([int(one.SequenceNumber) for one in taken.raws], taken.raws, strict=True))
    assert [(number, one.PartitionKey, data) for (number, one), data in zip(found, datas(taken.raws), strict=True)] == (
        wanted
    )
    assert all(one.EncryptionType == "KMS" for one in taken.raws)
    assert all(one.ApproximateArrivalTimestamp == 1e9 + number for number, one in found)
    assert positions == sorted(set(positions))
    assert [checkpoint(position) for position in taken.positions] == [str(number) for number, _, _ in wanted]
    bounds = [
        (number << PLACE_BITS, (number << PLACE_BITS) + len(one) - 1)
        for number, one in enumerate(content, 1)
        if isinstance(one, list) and len(one) > 1
    ]
    assert list(taken.runs) == bounds
    strays = {
        position
        for position, one in zip(taken.positions, taken.raws, strict=True)
        if one.PartitionKey in KEYS and not shard.first <= hash_key(one.PartitionKey) <= shard.last
    }
    assert taken.strays == strays


def test_an_explicit_hash_key_decides_before_the_partition_key() -> None:
    """As it did for the producer."""
    inside, outside = User("a", 5, b"in"), User("a", 2**127 + 5, b"out")
    records = UserRecords()
    records.add(chunk_of([[inside, outside]]))
    taken = records.take(9, HALF)
    assert taken.strays == {(1 << PLACE_BITS) + 1}


def test_a_record_that_only_looks_like_an_aggregate_is_left_as_it_is() -> None:
    """Damaged, or by chance beginning alike."""
    damaged = encode([User("a", None, b"x")])[:-1] + b"!"
    records = UserRecords()
    records.add(chunk_of([damaged]))
    assert records.has_aggregates
    taken = records.take(9, EVERYTHING)
    assert datas(taken.raws) == [damaged]
    assert (list(taken.positions), list(taken.runs)) == ([1 << PLACE_BITS], [])


def test_an_aggregate_of_nothing_holds_nothing_up() -> None:
    """It is passed over, and what follows comes."""
    records = UserRecords()
    nothing = seal(bytes_field(1, b"k"))
    records.add(chunk_of([nothing, b"x"]))
    assert datas(records.take(9, EVERYTHING).raws) == [b"x"]
    records.add(chunk_of([nothing]))
    assert records.take(9, EVERYTHING).raws == []
    assert len(records) == 0


def test_the_oldest_is_the_first_that_was_not_taken() -> None:
    """For the age of what waits, inside an aggregate too."""
    records = UserRecords()
    records.add(chunk_of([b"x", [User("a", None, b"1"), User("a", None, b"2")], b"y"]))
    ages = []
    while len(records):
        ages.append(records.oldest_s - 1e9)
        records.take(1, EVERYTHING)
    assert ages == [1, 2, 2, 3]
