"""Where results of asynchronous invocations go: SQS, SNS, S3, another function, a Kafka topic; and dead letters."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Protocol

from model.async_event import MAX_EVENT_BYTES
from model.errors import RefusedError
from pollers.async_documents import dead_letter_attributes, document, object_key
from pollers.destinations import sns, sqs
from pollers.destinations.aws_clients import Arn
from pollers.destinations.kafka import SCHEME as KAFKA_SCHEME
from pollers.destinations.s3 import put_object
from pollers.failure_document import TopicMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.async_event import NewEvent, Result
    from pollers.destinations.aws_clients import AwsClients

_REQUESTS = uuid.UUID("6f2a7a0e-9a0b-5d6b-8a39-3c1f5f0c9a11")  # namespace of request ids


class HandOn(Protocol):
    """Invokes another function asynchronously."""

    async def __call__(self, function: str, event: bytes, *, request_id: str, trace: str) -> None:
        """Accept an event for a function. Raises `RefusedError` when there is no such one, `UnavailableError`."""


class Topic(Protocol):
    """A Kafka topic."""

    async def deliver(self, message: TopicMessage, /) -> None:
        """Send a message. Raises `RefusedError` or `UnavailableError`."""

    async def close(self) -> None:
        """End what is open."""


class OneMessage:
    """`pollers.destinations.kafka.Messages`, of what is a message already."""

    def messages(self, told: TopicMessage, /) -> Sequence[TopicMessage]:
        """Return it."""
        return [told]


class ResultDestinations:
    """`pollers.async_delivery.Destinations`. `function_arn` names functions of the configuration.

    `topic` returns a Kafka topic for results of a function; it is kept until `close`, or until `configuration` returns
    another object, by which the function's cluster may be another one.
    """

    def __init__(
        self,
        clients: AwsClients,
        function_arn: Callable[[str], str],
        *,
        hand_on: HandOn,
        topic: Callable[[str, str], Topic],
        configuration: Callable[[], object],
    ) -> None:
        self._clients = clients
        self._function_arn = function_arn
        self._hand_on = hand_on
        self._make_topic = topic
        self._configuration = configuration
        self._configured = configuration()
        self._topics: dict[tuple[str, str], Topic] = {}
        self._outdated: list[Topic] = []  # to be closed

    async def tell(self, destination: str, event: NewEvent, result: Result) -> None:
        """See `Destinations.tell`. A result that a destination gets twice has the same request id."""
        function_arn = self._function_arn(event.asked)
        if destination.startswith(KAFKA_SCHEME):
            whole, least = document(event, result, function_arn), document(event, result, function_arn, max_bytes=0)
            message = TopicMessage(event.request_id.encode(), whole, least)
            topic = await self._topic(destination, event.line)
            await topic.deliver(message)
            return
        match _service(destination):
            case "sqs":
                queue = Arn.parse(destination)
                body = document(event, result, function_arn, max_bytes=sqs.MAX_BYTES)
                await sqs.send_message(self._clients, queue, f"SQS queue {queue.name}", body)
            case "sns":
                body = document(event, result, function_arn, max_bytes=sns.MAX_BYTES)
                await sns.publish(self._clients, destination, f"SNS topic {Arn.parse(destination).name}", body)
            case "s3":
                bucket = Arn.parse(destination)
                key = object_key(result, event.line)
                whole = document(event, result, function_arn)
                await put_object(self._clients, bucket, f"S3 bucket {bucket.name}", key, whole)
            case "lambda":
                request_id = str(uuid.uuid5(_REQUESTS, f"{destination} {event.request_id}"))
                body = document(event, result, function_arn, max_bytes=MAX_EVENT_BYTES)
                await self._hand_on(destination, body, request_id=request_id, trace=event.trace)
            case _:
                raise RefusedError(f"{destination} is no destination of asynchronous invocations")

    async def bury(self, arn: str, event: NewEvent, result: Result) -> None:
        """See `Destinations.bury`."""
        attributes = dead_letter_attributes(event, result)
        place = Arn.parse(arn) if arn.count(":") >= _ARN_COLONS else None
        if place is not None and place.service == "sqs":
            what = f"dead-letter queue {place.name}"
            await sqs.send_message(self._clients, place, what, event.payload, attributes)
        elif place is not None and place.service == "sns":
            await sns.publish(self._clients, arn, f"dead-letter topic {place.name}", event.payload, attributes)
        else:
            raise RefusedError(f"{arn} is no dead-letter queue or topic")

    async def close(self) -> None:
        """End what is open for topics. Whoever tells one later opens it again."""
        self._retire()
        await self._close_outdated()

    def _retire(self) -> None:
        self._outdated += self._topics.values()
        self._topics.clear()

    async def _close_outdated(self) -> None:
        # One by one: whoever is cancelled here leaves the others to the next one.
        while self._outdated:
            await self._outdated.pop().close()

    async def _topic(self, destination: str, function: str) -> Topic:
        now = self._configuration()
        if now is not self._configured:
            self._configured = now
            self._retire()
        await self._close_outdated()  # what is under way there fails, and is sent again
        topic = self._topics.get((destination, function))
        if topic is None:
            topic = self._topics[destination, function] = self._make_topic(destination, function)
        return topic


_ARN_COLONS = 5


def _service(destination: str) -> str:
    return Arn.parse(destination).service if destination.count(":") >= _ARN_COLONS else ""
