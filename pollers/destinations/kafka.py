"""A topic of the source's own cluster as on-failure destination: one message per failed record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from model.errors import RefusedError, UnavailableError
from pollers.destinations import kafka_producer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiokafka import AIOKafkaProducer

    from pollers.failure_document import TopicMessage

SCHEME = "kafka://"

_Told_contra = TypeVar("_Told_contra", contravariant=True)

_TOO_LARGE = (MessageSizeTooLargeError, RecordTooLargeError)
_REFUSED = (
    *_TOO_LARGE,
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
)


class Messages(Protocol[_Told_contra]):
    """What becomes of what is delivered."""

    def messages(self, told: _Told_contra, /) -> Sequence[TopicMessage]:
        """Return the messages for the topic."""


class KafkaDestination(Generic[_Told_contra]):
    """Of failures a `pollers.ports.Destination`.

    `connect_options` resolves the cluster's security anew for every connection.
    All shards of a mapping share one producer. It ends with the first failure, and the next delivery makes another.
    """

    def __init__(
        self,
        destination: str,
        documents: Messages[_Told_contra],
        *,
        bootstrap_servers: Sequence[str],
        connect_options: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._topic = destination.removeprefix(SCHEME)
        self._documents = documents
        self._servers = tuple(bootstrap_servers)
        self._connect_options = connect_options
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    def __str__(self) -> str:
        return f"Kafka topic {self._topic}"

    async def deliver(self, failure: _Told_contra) -> None:
        """Send the messages and wait until all replicas have them all.

        A message that the topic does not take for its size goes without the record's content.
        """
        messages = self._documents.messages(failure)
        refused = await self._send([(message.key, message.value) for message in messages])
        if not any(isinstance(error, _TOO_LARGE) for error in refused.values()):
            _raise_first(refused, str(self))
            return
        # What came behind a refused message fails with it; one by one it shows which is too large.
        for at in refused:
            await self._send_one(messages[at])

    async def _send_one(self, message: TopicMessage) -> None:
        refused = await self._send([(message.key, message.value)])
        if isinstance(refused.get(0), _TOO_LARGE):
            refused = await self._send([(message.key, message.without_payload)])
        _raise_first(refused, str(self))

    async def _send(self, messages: Sequence[tuple[bytes | None, bytes]]) -> dict[int, BaseException]:
        """Send messages and wait for all; returns the errors of those that failed, by their place."""
        producer = await self._connected()
        sent: dict[int, asyncio.Future[Any]] = {}
        errors: dict[int, BaseException] = {}
        try:
            for at, (key, value) in enumerate(messages):
                try:
                    sent[at] = await producer.send(self._topic, value, key=key)
                except _TOO_LARGE as exc:
                    errors[at] = exc
            await asyncio.wait(sent.values()) if sent else None
        except BaseException as exc:
            for future in sent.values():
                future.cancel()
            await self._end(producer)
            if isinstance(exc, KafkaError):
                raise _translated(exc, str(self)) from exc
            raise
        errors |= {at: error for at, future in sent.items() if (error := _error_of(future)) is not None}
        if errors:
            await self._end(producer)
        return dict(sorted(errors.items()))

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                if not self._servers:
                    raise RefusedError(f"{self}: the cluster's bootstrap servers are not known")
                options = await self._connect_options()
                try:
                    self._producer = await kafka_producer.start(self._servers, options)
                except (KafkaError, OSError) as exc:
                    raise _translated(exc, f"{self} on {','.join(self._servers)}") from exc
            return self._producer

    async def _end(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
        await kafka_producer.abandon(producer)

    async def close(self) -> None:
        """End the producer, also one that is just being made: nobody else would."""
        async with self._connecting:
            if self._producer is not None:
                await self._end(self._producer)


def _error_of(future: asyncio.Future[Any]) -> BaseException | None:
    if future.cancelled():
        return UnavailableError("the producer was closed")
    error: BaseException | None = future.exception()
    return error


def _raise_first(errors: dict[int, BaseException], what: str) -> None:
    for error in errors.values():
        raise _translated(error, what) from error


def _translated(error: BaseException, what: str) -> UnavailableError | RefusedError:
    if isinstance(error, UnknownTopicOrPartitionError):
        return RefusedError(f"{what}: no such topic; create it")
    detail = f"{what}: {str(error) or type(error).__name__}"
    return RefusedError(detail) if isinstance(error, _REFUSED) else UnavailableError(detail)
