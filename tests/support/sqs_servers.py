"""Queues on a real SQS server for tests: made, filled and looked at with AWS's own client."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import botocore.session

from invocation.client import Targets
from model.mapping import SqsSource
from pollers.sources.sqs_api import SqsQueue
from tests.support.servers import unique_name
from tests.support.targets import Secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

ARN = "arn:aws:sqs:us-east-1:000000000000:"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


class RealQueue:
    """One queue on a server."""

    def __init__(
        self,
        endpoint_url: str,
        *,
        fifo: bool = False,
        visibility_s: int = 30,
        dead: RealQueue | None = None,
        receives: int = 2,
    ) -> None:
        self.endpoint_url = endpoint_url
        self.fifo = fifo
        self.client: Any = botocore.session.get_session().create_client(
            "sqs",
            region_name="us-east-1",
            endpoint_url=endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.name = unique_name("queue") + (".fifo" if fifo else "")
        attributes = {"VisibilityTimeout": str(visibility_s)}
        if fifo:
            attributes["FifoQueue"] = "true"
        if dead is not None:
            attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": receives})
        self.url: str = self.client.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]
        self.sent = 0

    @property
    def arn(self) -> str:
        """The queue's name for mappings."""
        return ARN + self.name

    @property
    def source(self) -> SqsSource:
        """The queue as a mapping's source."""
        return SqsSource(self.arn, self.fifo)

    def send(self, bodies: Iterable[str], *, group: str | None = None, **more: Any) -> None:
        """Put messages, ten at a time."""
        entries = []
        for body in bodies:
            entry: dict[str, Any] = {"Id": str(self.sent), "MessageBody": body, **more}
            if group is not None:
                entry["MessageGroupId"] = group
            if self.fifo:
                entry["MessageDeduplicationId"] = str(self.sent)
            self.sent += 1
            entries.append(entry)
        for begin in range(0, len(entries), 10):
            answer = self.client.send_message_batch(QueueUrl=self.url, Entries=entries[begin : begin + 10])
            assert not answer.get("Failed")

    def send_groups(self, groups: int, messages: int) -> None:
        """Put `GROUP/N` messages, all groups' first ones first."""
        pending: list[dict[str, Any]] = []
        for n in range(messages):
            for group in range(groups):
                body = f"g{group}/{n}"
                pending.append(
                    {
                        "Id": str(len(pending)),
                        "MessageBody": body,
                        "MessageGroupId": f"g{group}",
                        "MessageDeduplicationId": body,
                    }
                )
                if len(pending) == 10:
                    self.client.send_message_batch(QueueUrl=self.url, Entries=pending)
                    pending = []
        if pending:
            self.client.send_message_batch(QueueUrl=self.url, Entries=pending)

    def counts(self) -> tuple[int, int]:
        """Return how many messages are visible and how many are in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return self.counts() == (0, 0)

    @asynccontextmanager
    async def adapter(self) -> AsyncIterator[SqsQueue]:
        """Return our own client of it."""
        async with Targets(Secrets(), region="us-east-1", aws_endpoint_url=self.endpoint_url) as targets:
            yield SqsQueue(self.source, targets.aws("sqs", version="1.0"))
