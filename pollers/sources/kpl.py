"""Take apart what the Kinesis Producer Library packed into one record (spec section 3.1). Pure.

An aggregate is a magic number, a protobuf message and the MD5 of the message. The message is small and fixed, so it is
read here without a protobuf library. Whatever is not a sound aggregate is no aggregate: the caller passes the record on
as it is, as Amazon's client library does. Who may take records apart (enhanced fan-out only), and the position of the
record that held them, are the source's business.
"""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\xf3\x89\x9a\xc2"
BASE64_START = b"84maw"
"""How the base64 of every aggregate begins; few other records begin so. Saves decoding those that do not."""

_DIGEST_BYTES = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are not accepted
_MAX_VARINT_BITS = 64
_UINT64 = (1 << 64) - 1
_MAX_FIELD = (1 << 29) - 1
_MAX_KEY_DIGITS = 39

# Field numbers: of the message, of a record in it, of a tag.
_PARTITION_KEYS, _HASH_KEYS, _RECORDS = 1, 2, 3
_PARTITION_KEY_INDEX, _HASH_KEY_INDEX, _DATA, _TAGS = 1, 2, 3, 4
_TAG_KEY = 1


class SubRecord(NamedTuple):
    """One user record of an aggregate."""

    partition_key: str
    explicit_hash_key: str | None  # decimal
    data: bytes
    sub_sequence_number: int  # place in the aggregate, from 0: the records of one aggregate share a sequence number

    @property
    def hash_key(self) -> int:
        """Where in the 128-bit key space of the stream it belongs."""
        return int(self.explicit_hash_key) if self.explicit_hash_key is not None else hash_key(self.partition_key)


class HashKeyRange(NamedTuple):
    """The part of the key space that a shard takes, inclusive."""

    first: int
    last: int


EVERYTHING = HashKeyRange(0, (1 << 128) - 1)
"""The whole key space."""


class _MalformedError(Exception):
    """The bytes are no aggregate."""


def hash_key(partition_key: str) -> int:
    """Return the place of a partition key in the key space: its MD5 as a number."""
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest())


def deaggregate(data: bytes) -> list[SubRecord] | None:
    """Return the records inside an aggregate; None when `data` is not one, or not a sound one."""
    if not data.startswith(MAGIC) or len(data) <= len(MAGIC) + _DIGEST_BYTES:
        return None
    message, digest = data[len(MAGIC) : -_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if md5(message, usedforsecurity=False).digest() != digest:
        return None
    try:
        return _read_aggregate(message)
    except (_MalformedError, UnicodeDecodeError):
        return None


def is_stray(record: SubRecord, shard: HashKeyRange) -> bool:
    """Tell whether a record's key does not belong to the shard: it was packed before the stream was resharded.

    Nobody is to have it, since another shard has its key's order. (Amazon's client library drops the whole aggregate
    then; the specification says the sub-records.)
    """
    return not shard.first <= record.hash_key <= shard.last


def _read_aggregate(message: bytes) -> list[SubRecord]:
    partition_keys: list[str] = []
    hash_keys: list[str] = []
    found: list[tuple[int, int | None, bytes]] = []
    for field, value in _fields(message):
        if not isinstance(value, bytes):
            continue
        if field == _RECORDS:
            found.append(_read_record(value))
        elif field == _PARTITION_KEYS:
            partition_keys.append(value.decode())
        elif field == _HASH_KEYS:
            hash_keys.append(_checked_hash_key(value.decode()))
    try:
        return [
            SubRecord(partition_keys[key], None if explicit is None else hash_keys[explicit], data, number)
            for number, (key, explicit, data) in enumerate(found)
        ]
    except IndexError:
        raise _MalformedError("a record names a key that is not in the table") from None


def _read_record(message: bytes) -> tuple[int, int | None, bytes]:
    key: int | None = None
    explicit: int | None = None
    data: bytes | None = None
    for field, value in _fields(message):  # of a field given twice the last one counts
        if isinstance(value, int):
            if field == _PARTITION_KEY_INDEX:
                key = value
            elif field == _HASH_KEY_INDEX:
                explicit = value
        elif field == _DATA:
            data = value
        elif field == _TAGS:
            _check_tag(value)
    if key is None or data is None:
        raise _MalformedError("a record without key or data")
    return key, explicit, data


def _check_tag(message: bytes) -> None:
    """Tags are part of the format and used by nobody; a broken one spoils the aggregate."""
    fields = [field for field, value in _fields(message) if isinstance(value, bytes)]
    if _TAG_KEY not in fields:
        raise _MalformedError("a tag without key")


def _checked_hash_key(text: str) -> str:
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_KEY_DIGITS or int(text) >> 128:
        raise _MalformedError("an explicit hash key that is no number of 128 bits")
    return text


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Read a message field by field. A fixed-size field comes as number 0: the format has none, so it is unknown."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if not 0 < field <= _MAX_FIELD:
            raise _MalformedError("no field number")
        if wire == _VARINT:
            number, at = _varint(message, at)
            yield field, number
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            field, size = 0, 4 if wire == _FIXED32 else 8
        else:
            raise _MalformedError("a group, or no wire type")
        if size > end - at:
            raise _MalformedError("a field longer than the message")
        yield field, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(message) and shift < _MAX_VARINT_BITS:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
            return number & _UINT64, at
        shift += 7
    raise _MalformedError("a number without end")
