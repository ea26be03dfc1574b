"""What a subscription to a shard says: events and errors out of an `application/vnd.amazon.eventstream`. Pure.

The framing, with its lengths, checksums and headers, is botocore's to decode; it is given one message at a time, so
that a large one is not copied with every piece of it that arrives. `kinesis_subscription` makes the subscription.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec

from invocation.classify import Answer
from pollers.sources.kinesis_api import KinesisRecord  # noqa: TC001 - msgspec reads the annotation at run time

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"

_PRELUDE_BYTES = 12  # lengths and their checksum
_LEAST_BYTES = 16
_STATUSES = {"exception": 400, "error": 500}  # what is modelled by the service, and what is not
_CODES = {"exception": ":exception-type", "error": ":error-code"}


class MalformedStreamError(Exception):
    """The bytes are no event stream, or not a sound one. Nothing after them can be read."""


class ShardEvent(msgspec.Struct):
    """A SubscribeToShardEvent. With `ChildShards` the shard is closed and was read to its end.

    AWS documents the continuation as always there; at the end of a shard it is not.
    """

    Records: list[KinesisRecord] = []
    ContinuationSequenceNumber: str | None = None
    MillisBehindLatest: int | None = None
    ChildShards: list[msgspec.Raw] | None = None


class ShardEvents:
    """The events of one subscription: bytes in, events out."""

    def __init__(self) -> None:
        from botocore.eventstream import EventStreamBuffer  # noqa: PLC0415 slow to import; signing has done it by now

        self._messages: Any = EventStreamBuffer()
        self._data = bytearray()  # not given to the parser yet
        self._wanted = 0  # bytes of the message that begins `_data`, less its prelude; 0: not known

    def __len__(self) -> int:
        """Count the bytes of events that were not taken."""
        return len(self._data) + (_PRELUDE_BYTES if self._wanted else 0)

    def add(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._data += data

    def take(self) -> ShardEvent | Answer | None:
        """Return the next event, or an error as the HTTP answer that would say the same; None: more bytes are needed.

        Raises `MalformedStreamError`.
        """
        while (message := self._next()) is not None:
            headers: Mapping[str, Any] = message.headers
            kind = headers.get(":message-type")
            if kind in _CODES:
                return _error(kind, headers, message.payload)
            if headers.get(":event-type") == "SubscribeToShardEvent":
                try:
                    return _read_event.decode(message.payload)
                except msgspec.DecodeError as exc:
                    raise MalformedStreamError("an event that cannot be read") from exc
            # Others say nothing: the first one is an empty `initial-response`.
        return None

    def _next(self) -> Any:
        """Return the next complete message, None if there is none yet."""
        try:
            if not self._wanted:
                if len(self._data) < _PRELUDE_BYTES:
                    return None
                total: int = struct.unpack_from("!I", self._data)[0]
                if total < _LEAST_BYTES:
                    raise MalformedStreamError("a message without a body")
                self._give(_PRELUDE_BYTES)
                next(self._messages, None)  # not complete, but its lengths are checked before room is made for it
                self._wanted = total - _PRELUDE_BYTES
            if len(self._data) < self._wanted:
                return None
            self._give(self._wanted)
            self._wanted = 0
            return next(self._messages)
        except _parser_errors() as exc:
            raise MalformedStreamError(f"no sound event stream: {exc}") from exc

    def _give(self, size: int) -> None:
        self._messages.add_data(bytes(memoryview(self._data)[:size]))
        del self._data[:size]


def _parser_errors() -> tuple[type[Exception], ...]:
    from botocore.eventstream import ParserError  # noqa: PLC0415 as above

    # The parser trusts what a header says of its own length and type.
    return (ParserError, struct.error, KeyError, UnicodeDecodeError, StopIteration)


def _error(kind: str, headers: Mapping[str, Any], payload: bytes) -> Answer:
    code = str(headers.get(_CODES[kind], ""))
    if kind == "error":
        payload = msgspec.json.encode({"message": str(headers.get(":error-message", ""))})
    return Answer(_STATUSES[kind], {"x-amzn-ErrorType": code}, payload)


_read_event = msgspec.json.Decoder(ShardEvent)
