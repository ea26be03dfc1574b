"""A standard SQS queue as on-failure destination: one message for each batch, or part of one, that was given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pollers.destinations.aws_clients import Arn

if TYPE_CHECKING:
    from pollers.destinations.aws_clients import AwsClients
    from pollers.failure_document import Failure, FailureDocuments

MAX_BYTES = 1024 * 1024


class SqsDestination:
    """`pollers.ports.Destination`. With `payload` the event goes along where the message still fits (ours)."""

    def __init__(self, arn: str, documents: FailureDocuments, clients: AwsClients, *, payload: bool = False) -> None:
        self._queue = Arn.parse(arn)
        self._documents = documents
        self._clients = clients
        self._payload_max_bytes = MAX_BYTES if payload else 0

    def __str__(self) -> str:
        return f"SQS queue {self._queue.name}"

    async def deliver(self, failure: Failure) -> None:
        """Send the message."""
        queue = self._queue
        # Put together, because asking for the URL would need one more permission than AWS's pollers do.
        endpoint = await self._clients.endpoint("sqs", region=queue.region)
        body = self._documents.message(failure, payload_max_bytes=self._payload_max_bytes)
        await self._clients.call(
            "sqs",
            "send_message",
            str(self),
            region=queue.region,
            QueueUrl=f"{endpoint}/{queue.account}/{queue.name}",
            MessageBody=body.decode(),
        )

    async def close(self) -> None:
        """Nothing of its own to close."""
