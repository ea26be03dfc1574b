"""Aggregates as the Kinesis Producer Library makes them, encoded by hand from its protobuf message."""

from __future__ import annotations

from hashlib import md5
from typing import NamedTuple

from pollers.sources.kpl import MAGIC


class User(NamedTuple):
    """A record as a producer gives it."""

    partition_key: str
    explicit_hash_key: int | None
    data: bytes
    tags: tuple[tuple[str, str | None], ...] = ()


def varint(number: int) -> bytes:
    """Encode a number."""
    encoded = b""
    while number >= 0x80:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def number_field(field: int, number: int) -> bytes:
    """Encode a varint field."""
    return varint(field << 3) + varint(number)


def bytes_field(field: int, value: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def seal(message: bytes) -> bytes:
    """Put the magic number before a message and its MD5 behind it."""
    return MAGIC + message + md5(message, usedforsecurity=False).digest()


def encode(users: list[User], *, strange: bytes = b"") -> bytes:
    """Aggregate records as the library does, with tables of the distinct keys. `strange` is put into each message."""
    keys = list(dict.fromkeys(user.partition_key for user in users))
    hash_keys = list(dict.fromkeys(user.explicit_hash_key for user in users if user.explicit_hash_key is not None))
    message = strange
    message += b"".join(bytes_field(1, key.encode()) for key in keys)
    message += b"".join(bytes_field(2, str(key).encode()) for key in hash_keys)
    for user in users:
        record = number_field(1, keys.index(user.partition_key))
        if user.explicit_hash_key is not None:
            record += number_field(2, hash_keys.index(user.explicit_hash_key))
        record += bytes_field(3, user.data) + strange
        for name, value in user.tags:
            record += bytes_field(
                4, bytes_field(1, name.encode()) + (b"" if value is None else bytes_field(2, value.encode()))
            )
        message += bytes_field(3, record)
    return seal(message)
