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
        await self._clients.call(
            "s3",
            "put_object",
            str(self),
            region=self._bucket.region,
            Bucket=self._bucket.name,
            Key=self._documents.object_key(failure),
            Body=self._documents.object_body(failure),
            ContentType="application/json",
        )

    async def close(self) -> None:
        """Nothing of its own to close."""
