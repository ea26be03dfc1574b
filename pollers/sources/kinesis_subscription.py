"""Subscriptions of a stream consumer to shards: SubscribeToShard (spec section 3.1, enhanced fan-out). The adapter.

AWS documents SubscribeToShard for HTTP/2; its Python SDK, which has no HTTP/2, calls it over HTTP/1.1, and so does
this. Each subscription has a connection of its own that ends with it: what is still under way on a connection given up
must not be read by another subscription. When to subscribe, and from where, is `kinesis_fan_out`'s business.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from invocation.aws_json import aws_error
from invocation.classify import Answer, Failure
from model.errors import EsmdError, RefusedError, SourceRefusedError, SourceUnavailableError, UnavailableError
from model.shard import origin_ms
from pollers.sources.kinesis_api import VERSION, translated
from pollers.sources.kinesis_api import Caller as KinesisCaller
from pollers.sources.kinesis_events import CONTENT_TYPE, MalformedStreamError, ShardEvents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.ids import Position, ShardId, ShardOrigin
    from pollers.sources.kinesis_events import ShardEvent

SILENCE_S: Final = 15.0
"""A subscription that says nothing for so long is dead: Kinesis sends an event every five seconds, empty if need be."""

_SUBSCRIBE_S = 10.0
_ERROR_MAX_BYTES = 1024 * 1024
_OPERATION = "SubscribeToShard"
_UNKNOWN = frozenset(
    {
        "UnknownOperationException",
        "UnknownOperation",
        "UnsupportedOperationException",
        "UnsupportedOperation",
        "NotImplementedException",
        "NotImplemented",
        "InvalidAction",
    }
)
_NOT_IMPLEMENTED = 501
_GATEWAYS = frozenset({429, 502, 503, 504})  # said by what stands before the service too, and not for good


class InUseError(SourceUnavailableError):
    """Another subscription of the consumer to the shard is not five seconds old, or has taken this one's place."""


class StrangeAnswerError(SourceUnavailableError):
    """An answer that is not Kinesis's: without any of its error codes."""


class FanOutUnsupportedError(EsmdError):
    """The endpoint has no enhanced fan-out."""


class OpenAnswer(Protocol):
    """`invocation.transport.OpenAnswer`."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers."""

    async def read(self) -> bytes | Failure:
        """Wait for the next bytes; none at all when the answer is complete. Cancelled: the next call returns them."""

    def close(self) -> None:
        """End the connection."""


class Opener(Protocol):
    """`invocation.aws_json.AwsJson` of Kinesis, for a call whose answer is read as it comes."""

    async def open(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> OpenAnswer | Answer | Failure:
        """Make one call. Raises `RefusedError` and `UnavailableError` when it cannot be signed."""


class Caller(KinesisCaller, Opener, Protocol):
    """`invocation.aws_json.AwsJson` of Kinesis, for everything."""


class Subscriber:
    """Subscribes one consumer to shards of its stream."""

    def __init__(self, consumer_arn: str, caller: Opener) -> None:
        self._consumer_arn = consumer_arn
        self._region = consumer_arn.split(":")[3]
        self._what = f"Kinesis consumer {consumer_arn.partition('/')[2].partition(':')[0]}"
        self._caller = caller

    async def subscribe(self, shard: ShardId, after: Position | None, origin: ShardOrigin) -> Subscription:
        """Subscribe after a sequence number, or at an origin without one; not at the end, where nothing is to be read.

        Raises `FanOutUnsupportedError`, and as the calls of `KinesisApi`, with `InUseError` and `StrangeAnswerError`.
        """
        request = {"ConsumerARN": self._consumer_arn, "ShardId": shard, "StartingPosition": _start(after, origin)}
        try:
            came = await self._caller.open(
                self._region,
                f"{VERSION}.{_OPERATION}",
                msgspec.json.encode(request),
                timeout_s=_SUBSCRIBE_S,
                max_answer_bytes=_ERROR_MAX_BYTES,
            )
        except UnavailableError as exc:
            raise SourceUnavailableError(f"{self._what}: {exc}") from exc
        except RefusedError as exc:
            raise SourceRefusedError(f"{self._what}: {exc}") from exc
        what = f"{self._what}: {_OPERATION}"
        if isinstance(came, Failure):
            raise failed(what, came)
        if isinstance(came, Answer):
            raise judged(what, came)
        kind = came.headers.get("Content-Type", "")
        if kind.partition(";")[0].strip() != CONTENT_TYPE:
            came.close()
            raise FanOutUnsupportedError(f"{what}: an answer of type {kind or 'none'}")
        return Subscription(what, came)


class Subscription:
    """A subscription under way. `receive` reads from the connection, `take` from what was received."""

    def __init__(self, what: str, answer: OpenAnswer) -> None:
        self._what = what
        self._answer = answer
        self._events = ShardEvents()

    @property
    def received(self) -> int:
        """Bytes received that belong to events not taken yet."""
        return len(self._events)

    def take(self) -> ShardEvent | None:
        """Return the next event that is complete, None if more must be received. Raises as `KinesisApi`'s calls."""
        try:
            event = self._events.take()
        except MalformedStreamError as exc:
            raise SourceUnavailableError(f"{self._what}: {exc}") from exc
        if isinstance(event, Answer):
            raise judged(self._what, event)
        return event

    async def receive(self) -> bool:
        """Wait for more; False: Kinesis has ended the subscription. Cancelled: nothing is lost.

        Raises `SourceUnavailableError` when the connection broke or is silent.
        """
        try:
            async with asyncio.timeout(SILENCE_S):
                data = await self._answer.read()
        except TimeoutError:
            raise SourceUnavailableError(f"{self._what}: nothing came for {SILENCE_S:g} s") from None
        if isinstance(data, Failure):
            raise failed(self._what, data)
        if not data and len(self._events):
            raise SourceUnavailableError(f"{self._what}: ended in the middle of an event")
        self._events.add(data)
        return bool(data)

    def close(self) -> None:
        """End it. Safe twice."""
        self._answer.close()


def _start(after: Position | None, origin: ShardOrigin) -> dict[str, Any]:
    at_ms = origin_ms(origin)
    if after is not None:
        return {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
    if at_ms is not None:
        return {"Type": "AT_TIMESTAMP", "Timestamp": at_ms / 1000}
    return {"Type": "TRIM_HORIZON"}


def failed(what: str, failure: Failure) -> SourceUnavailableError:
    """Turn the lack of an answer into what the caller should do."""
    detail = f" ({failure.detail})" if failure.detail else ""
    return SourceUnavailableError(f"{what}: {failure.kind}{detail}")


def judged(what: str, answer: Answer) -> EsmdError:
    """Turn an error, whether it came as an answer or inside a subscription, into what the caller should do."""
    code = aws_error(answer).code
    if code in _UNKNOWN or answer.status == _NOT_IMPLEMENTED:
        return FanOutUnsupportedError(f"{what}: {code}")
    if code == "ResourceInUseException":
        return InUseError(str(translated(what, answer)))
    if code == f"HTTP {answer.status}" and answer.status not in _GATEWAYS:
        return StrangeAnswerError(f"{what}: {code}")
    return translated(what, answer)
