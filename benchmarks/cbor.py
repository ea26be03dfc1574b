"""As much of CBOR (RFC 8949) as AWS's Java clients speak with Kinesis: definite and indefinite lengths, no half floats.

AWS writes a time as tag 1 before the milliseconds since the epoch, which RFC 8949 would take for seconds.
"""

from __future__ import annotations

import struct
from typing import Any

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_INDEFINITE = 31
_BREAK = 0xFF
_CONSTANTS: dict[int, Any] = {20: False, 21: True, 22: None}
_FLOATS = {26: ">f", 27: ">d"}


class Moment(int):
    """A time, in milliseconds since the epoch."""

    __slots__ = ()


def head(major: int, number: int) -> bytes:
    """Return the bytes that begin an item: its kind, and its value, length or tag."""
    if number < 24:
        return bytes([major << 5 | number])
    for more, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | more]) + number.to_bytes(size, "big")
    raise ValueError(f"{number} does not fit into 64 bits")


def array_head(length: int) -> bytes:
    """Return what comes before the items of an array."""
    return head(_ARRAY, length)


def map_head(length: int) -> bytes:
    """Return what comes before the keys and values of a map."""
    return head(_MAP, length)


def encode(value: Any) -> bytes:
    """Encode what JSON has, bytes, and moments. Raises `TypeError`."""
    if isinstance(value, list):
        return array_head(len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        return map_head(len(value)) + b"".join(encode(part) for pair in value.items() for part in pair)
    if isinstance(value, str):
        text = value.encode()
        return head(_TEXT, len(text)) + text
    if isinstance(value, bytes):
        return head(_BYTES, len(value)) + value
    return _encode_number(value)


def _encode_number(value: Any) -> bytes:
    match value:
        case bool() | None:
            return head(_SIMPLE, next(code for code, one in _CONSTANTS.items() if one is value))
        case Moment():
            return head(_TAG, 1) + head(_UNSIGNED, value)
        case int():
            return head(_UNSIGNED, value) if value >= 0 else head(_NEGATIVE, -1 - value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
    raise TypeError(f"no way to encode {type(value).__name__}")


def decode(data: bytes) -> Any:
    """Decode one item, without its tags. Raises `ValueError` when there is more or less."""
    try:
        value, at = _item(data, 0)
    except (IndexError, KeyError, struct.error) as exc:
        raise ValueError("not CBOR as AWS writes it") from exc
    if at != len(data):
        raise ValueError("more than one item")
    return value


def _item(data: bytes, at: int) -> tuple[Any, int]:
    major, more = data[at] >> 5, data[at] & 31
    if major == _SIMPLE:
        return _simple(data, at + 1, more)
    number, at = _number(data, at + 1, more)
    if major in {_BYTES, _TEXT}:
        return _string(data, at, number, text=major == _TEXT)
    if major == _ARRAY:
        return _items(data, at, number)
    if major == _MAP:
        parts, at = _items(data, at, None if number is None else 2 * number)
        return dict(zip(parts[::2], parts[1::2], strict=True)), at
    if major == _TAG:
        return _item(data, at)
    return (number if major == _UNSIGNED or number is None else -1 - number), at


def _simple(data: bytes, at: int, more: int) -> tuple[Any, int]:
    if more not in _FLOATS:
        return _CONSTANTS[more], at
    return struct.unpack_from(_FLOATS[more], data, at)[0], at + struct.calcsize(_FLOATS[more])


def _number(data: bytes, at: int, more: int) -> tuple[int | None, int]:
    """Return an item's value, length or tag, None for a length that its end tells, and where the item goes on."""
    if more == _INDEFINITE:
        return None, at
    if more < 24:
        return more, at
    end = at + (1 << (more - 24))
    return int.from_bytes(_part(data, at, end), "big"), end


def _string(data: bytes, at: int, length: int | None, *, text: bool) -> tuple[bytes | str, int]:
    if length is None:
        parts, at = _items(data, at, None)
        return ("" if text else b"").join(parts), at
    part = _part(data, at, at + length)
    return part.decode() if text else part, at + length


def _part(data: bytes, at: int, end: int) -> bytes:
    if end > len(data):
        raise IndexError
    return data[at:end]


def _items(data: bytes, at: int, count: int | None) -> tuple[list[Any], int]:
    found: list[Any] = []
    while count is None or len(found) < count:
        if count is None and data[at] == _BREAK:
            return found, at + 1
        one, at = _item(data, at)
        found.append(one)
    return found, at
