"""Event streams as Kinesis sends them: messages with lengths and checksums, written by hand from the format's rules.

A message is: total length, length of the headers, checksum of these two, headers, payload, checksum of all before it.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_STRING = 7  # the only type of header value that Kinesis uses


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Encode one message."""
    packed = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    checked = prelude + struct.pack("!I", crc32(prelude)) + packed + payload
    return checked + struct.pack("!I", crc32(checked))


def initial_response() -> bytes:
    """Encode what AWS sends first."""
    headers = {":message-type": "event", ":event-type": "initial-response", ":content-type": "application/json"}
    return message(headers, b"{}")


def shard_event(
    rows: Iterable[Mapping[str, Any]] = (),
    *,
    go_on: str | None = None,
    behind_ms: int = 0,
    children: Iterable[str] = (),
) -> bytes:
    """Encode a SubscribeToShardEvent; with children it is the last of its shard, and has no continuation."""
    document = {
        "Records": list(rows),
        "ContinuationSequenceNumber": go_on,
        "MillisBehindLatest": behind_ms,
        "ChildShards": [
            {"ShardId": child, "ParentShards": [], "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"}}
            for child in children
        ]
        or None,
    }
    headers = {":message-type": "event", ":event-type": "SubscribeToShardEvent", ":content-type": "application/json"}
    return message(headers, json.dumps(document).encode())


def exception(code: str, text: str = "by order") -> bytes:
    """Encode an error that the service has a model of."""
    headers = {":message-type": "exception", ":exception-type": code, ":content-type": "application/json"}
    return message(headers, json.dumps({"message": text}).encode())


def error(code: str, text: str = "by order") -> bytes:
    """Encode an error that it has none of."""
    return message({":message-type": "error", ":error-code": code, ":error-message": text}, b"")
