"""Aggregates of the Kinesis Producer Library: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import base64
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers.sources.kpl import (
    BASE64_START,
    EVERYTHING,
    MAGIC,
    HashKeyRange,
    SubRecord,
    deaggregate,
    hash_key,
    is_stray,
)
from tests.support.kpl_encoding import User, bytes_field, encode, number_field, seal, varint

KEY_SPACE = 1 << 128


def expected(users: list[User]) -> list[SubRecord]:
    """Return what must come out."""
    return [
        SubRecord(user.partition_key, None if user.explicit_hash_key is None else str(user.explicit_hash_key),
                  user.data, number)
        for number, user in enumerate(users)
    ]  # fmt: skip


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
user_records = st.builds(
    User,
    texts,
    st.none() | st.integers(0, KEY_SPACE - 1),
    st.binary(max_size=200),
    st.lists(st.tuples(texts, st.none() | texts), max_size=2).map(tuple),
)
strange_fields = st.lists(
    st.builds(number_field, st.integers(5, 2**29 - 1), st.integers(0, 2**64 - 1))
    | st.builds(bytes_field, st.integers(5, 2**29 - 1), st.binary(max_size=9))
    | st.builds(lambda field: varint(field << 3 | 5) + b"four", st.integers(1, 99))
    | st.builds(lambda field: varint(field << 3 | 1) + b"eight---", st.integers(1, 99)),
    max_size=2,
).map(b"".join)


@given(st.lists(user_records, min_size=1, max_size=12), strange_fields)
def test_what_was_aggregated_comes_out(users: list[User], strange: bytes) -> None:
    """Keys, data and order survive, tags and fields of a later version do no harm."""
    assert deaggregate(encode(users, strange=strange)) == expected(users)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_no_aggregate(data: bytes) -> None:
    """Without magic number and digest a record is passed on untouched."""
    assert deaggregate(data) is None
    assert deaggregate(MAGIC + data) is None


@given(st.binary(max_size=100))
def test_any_message_is_read_or_refused(message: bytes) -> None:
    """A sealed message of arbitrary bytes never raises, and what is read out of it was in it."""
    for record in deaggregate(seal(message)) or []:
        assert record.data in message
        assert record.partition_key.encode() in message
        assert 0 <= record.hash_key < KEY_SPACE


@given(st.lists(user_records, min_size=1, max_size=4), st.data())
def test_a_changed_byte_makes_it_no_aggregate(users: list[User], data: st.DataObject) -> None:
    """A digest that does not fit means untouched."""
    sealed = bytearray(encode(users))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    assert deaggregate(bytes(sealed)) is None


@given(st.lists(user_records, min_size=1, max_size=4), st.data())
def test_a_shortened_message_is_refused_or_lacks_whole_fields(users: list[User], data: st.DataObject) -> None:
    """A message cut between fields is a shorter aggregate; cut inside one it is none."""
    message = encode(users)[len(MAGIC) : -16]
    cut = deaggregate(seal(message[: data.draw(st.integers(1, len(message)))]))
    assert cut is None or cut == expected(users)[: len(cut)]


KEY = bytes_field(1, b"k")


@pytest.mark.parametrize(
    "message",
    [
        KEY + bytes_field(3, number_field(1, 1) + bytes_field(3, b"x")),
        KEY + bytes_field(3, number_field(1, 0) + number_field(2, 0) + bytes_field(3, b"x")),
        KEY + bytes_field(3, number_field(1, 2**64 - 1) + bytes_field(3, b"x")),
        KEY + bytes_field(3, bytes_field(3, b"x")),
        KEY + bytes_field(3, number_field(1, 0)),
        KEY + bytes_field(3, number_field(1, 0) + bytes_field(3, b"x") + bytes_field(4, b"")),
        KEY + bytes_field(2, b"12x"),
        KEY + bytes_field(2, b"-1"),
        KEY + bytes_field(2, b""),
        KEY + bytes_field(2, str(KEY_SPACE).encode()),
        KEY + bytes_field(2, b"9" * 5000),
        KEY + bytes_field(2, b"0" * 40 + b"9" * 5000),
        bytes_field(1, b"\xff"),
        varint(1 << 3 | 3),
        varint(1 << 3 | 7),
        b"\x02\x00",
        b"\x80" * 11,
        varint(1 << 3 | 2) + varint(9) + b"short",
    ],
    ids=[
        "no such key", "no such hash key", "negative index", "no key", "no data", "tag without key",
        "hash key no number", "hash key negative", "hash key empty", "hash key too large", "hash key endless",
        "hash key padded", "key no text", "group", "no wire type", "no field number", "endless number",
        "longer than the message",
    ],
)  # fmt: skip
def test_a_malformed_message_is_no_aggregate(message: bytes) -> None:
    """Sealed, but not what the format says: passed on untouched."""
    assert deaggregate(seal(message)) is None


def test_an_aggregate_of_nothing_holds_nothing() -> None:
    """A key table without records is an aggregate of no records; a seal around nothing is none."""
    assert deaggregate(seal(KEY)) == []
    assert deaggregate(seal(b"")) is None


def test_a_known_aggregate() -> None:
    """The bytes of the format, written out."""
    message = bytes.fromhex("0a016b1a0708001a03616263")
    assert deaggregate(seal(message)) == [SubRecord("k", None, b"abc", 0)]


@given(st.lists(user_records, max_size=12), st.integers(0, KEY_SPACE - 1), st.integers(0, KEY_SPACE - 1))
def test_a_record_outside_the_range_of_its_shard_is_a_stray(users: list[User], one: int, other: int) -> None:
    """Explicit hash key, else MD5 of the partition key: inside the inclusive range or not."""
    shard = HashKeyRange(min(one, other), max(one, other))
    places = [
        int.from_bytes(md5(user.partition_key.encode(), usedforsecurity=False).digest())
        if user.explicit_hash_key is None
        else user.explicit_hash_key
        for user in users
    ]
    assert [is_stray(record, shard) for record in expected(users)] == [
        not shard.first <= place <= shard.last for place in places
    ]


def test_the_ends_of_the_range_belong_to_the_shard() -> None:
    """Inclusive at both ends; the whole key space keeps everything."""
    record = SubRecord("key", None, b"", 0)
    place = hash_key("key")
    assert place == 0x3C6E0B8A9C15224A8228B9A98CA1531D
    assert not is_stray(record, HashKeyRange(place, place))
    assert is_stray(record, HashKeyRange(place + 1, KEY_SPACE - 1))
    assert is_stray(record, HashKeyRange(0, place - 1))
    assert not is_stray(record, EVERYTHING)


@given(st.lists(user_records, min_size=1, max_size=3))
def test_the_base64_of_every_aggregate_begins_alike(users: list[User]) -> None:
    """Records can be told apart without decoding them."""
    assert base64.b64encode(encode(users)).startswith(BASE64_START)
