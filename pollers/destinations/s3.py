"""An S3 bucket as on-failure destination: one object with the event for each batch, or part of one, given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pollers.destinations.aws_clients import Arn

if TYPE_CHECKING:
    from pollers.destinations.aws_clients import AwsClients
    from pollers.failure_document import Failure, FailureDocuments


class S3Destination:
    """`pollers.ports.Destination`. A repeated delivery of a failure replaces the object: its key is fixed."""

    def __init__(self, arn: str, documents: FailureDocuments, clients: AwsClients) -> None:
        self._bucket = Arn.parse(arn)
        self._documents = documents
        self._clients = clients

    def __str__(self) -> str:
        return f"S3 bucket {self._bucket.name}"

    async def deliver(self, failure: Failure) -> None:
        """Put the object."""
        key, body = self._documents.object_key(failure), self._documents.object_body(failure)
        await put_object(self._clients, self._bucket, str(self), key, body)

    async def close(self) -> None:
        """Nothing of its own to close."""


async def put_object(clients: AwsClients, bucket: Arn, what: str, key: str, body: bytes) -> None:
    """Put a JSON document into a bucket. Raises as `AwsClients.call`."""
    await clients.call(
        "s3",
        "put_object",
        what,
        region=bucket.region,
        Bucket=bucket.name,
        Key=key,
        Body=body,
        ContentType="application/json",
    )
