"""A standard SQS queue as on-failure destination: one message for each batch, or part of one, that was given up."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from model.errors import RefusedError
from pollers.destinations.aws_clients import Arn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pollers.destinations.aws_clients import AwsClients
    from pollers.failure_document import Failure, FailureDocuments

MAX_BYTES = 1024 * 1024


class SqsDestination:
    """`pollers.ports.Destination`. With `payload` the event goes along where it fits (ours)."""

    def __init__(self, arn: str, documents: FailureDocuments, clients: AwsClients, *, payload: bool = False) -> None:
        self._queue = Arn.parse(arn)
        self._documents = documents
        self._clients = clients
        self._payload = payload

    def __str__(self) -> str:
        return f"SQS queue {self._queue.name}"

    async def deliver(self, failure: Failure) -> None:
        """Send the message: with the event, if that is wanted and accepted, or else without."""
        if self._payload:
            whole = self._documents.message_with_payload(failure, max_bytes=MAX_BYTES)
            if whole is not None:
                with suppress(RefusedError):  # a queue may have a limit of its own
                    await self._send(whole)
                    return
        await self._send(self._documents.message(failure))

    async def _send(self, body: bytes) -> None:
        await send_message(self._clients, self._queue, str(self), body)

    async def close(self) -> None:
        """Nothing of its own to close."""


async def send_message(
    clients: AwsClients, queue: Arn, what: str, body: bytes, attributes: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Send a message to a standard queue. Raises as `AwsClients.call`."""
    # Put together, because asking for the URL would need one more permission than AWS's pollers do.
    endpoint = await clients.endpoint("sqs", region=queue.region)
    url = f"{endpoint}/{queue.account}/{queue.name}"
    more = {"MessageAttributes": attributes} if attributes else {}
    await clients.call(
        "sqs", "send_message", what, region=queue.region, QueueUrl=url, MessageBody=body.decode(), **more
    )
