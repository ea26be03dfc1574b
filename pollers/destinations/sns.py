"""A standard SNS topic as on-failure destination: one message for each batch, or part of one, that was given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pollers.destinations.aws_clients import Arn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pollers.destinations.aws_clients import AwsClients
    from pollers.failure_document import Failure, FailureDocuments

MAX_BYTES = 256 * 1024


class SnsDestination:
    """`pollers.ports.Destination`. With `payload` the event goes along where it fits (ours)."""

    def __init__(self, arn: str, documents: FailureDocuments, clients: AwsClients, *, payload: bool = False) -> None:
        self._arn = arn
        self._documents = documents
        self._clients = clients
        self._payload = payload

    def __str__(self) -> str:
        return f"SNS topic {Arn.parse(self._arn).name}"

    async def deliver(self, failure: Failure) -> None:
        """Publish the message: with the event, if that is wanted and fits, or else without."""
        whole = self._documents.message_with_payload(failure, max_bytes=MAX_BYTES) if self._payload else None
        body = whole or self._documents.message(failure)
        await publish(self._clients, self._arn, str(self), body)

    async def close(self) -> None:
        """Nothing of its own to close."""


async def publish(
    clients: AwsClients, arn: str, what: str, body: bytes, attributes: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Publish a message to a standard topic. Raises as `AwsClients.call`."""
    more = {"MessageAttributes": attributes} if attributes else {}
    await clients.call(
        "sns", "publish", what, region=Arn.parse(arn).region, TopicArn=arn, Message=body.decode(), **more
    )
