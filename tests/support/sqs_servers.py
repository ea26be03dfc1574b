"""Queues on a real SQS server, or in AWS, for tests: made, filled and looked at with AWS's own client."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from invocation.client import Targets
from model.mapping import SqsSource
from pollers.sources.sqs_api import SqsQueue
from tests.support.aws_servers import AwsServer, Lab, aws_client, fresh_name
from tests.support.targets import Secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


class RealQueue:
    """One queue on a server. Everything but `adapter` blocks."""

    def __init__(
        self,
        endpoint_url: str | None,
        *,
        fifo: bool = False,
        visibility_s: int = 30,
        dead: RealQueue | None = None,
        receives: int = 2,
    ) -> None:
        self.endpoint_url = endpoint_url
        self.fifo = fifo
        self.client = aws_client("sqs", endpoint_url)
        self.name = fresh_name("queue") + (".fifo" if fifo else "")
        attributes = {"VisibilityTimeout": str(visibility_s)}
        if fifo:
            attributes["FifoQueue"] = "true"
        if dead is not None:
            attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": receives})
        self.url: str = self.client.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]
        try:
            if endpoint_url is None:
                time.sleep(1)  # AWS: a new queue may be used a second later
            self.arn: str = self._attributes("QueueArn")["QueueArn"]
        except BaseException:
            self.delete()
            raise
        self.sent = 0

    def _attributes(self, *names: str) -> dict[str, str]:
        found: dict[str, str] = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return found

    def delete(self) -> None:
        """Delete the queue."""
        self.client.delete_queue(QueueUrl=self.url)

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
        self.send_each((f"g{group}", f"g{group}/{n}") for n in range(messages) for group in range(groups))

    def send_each(self, messages: Iterable[tuple[str | None, str]]) -> None:
        """Put (group, body) messages, ten at a time; bodies of a FIFO queue are unlike each other. No group: None."""
        entries = []
        for number, (group, body) in enumerate(messages):
            entry = {"Id": str(number), "MessageBody": body}
            if group is not None:
                entry |= {"MessageGroupId": group, "MessageDeduplicationId": body}
            entries.append(entry)
        for begin in range(0, len(entries), 10):
            answer = self.client.send_message_batch(QueueUrl=self.url, Entries=entries[begin : begin + 10])
            assert not answer.get("Failed"), answer

    def counts(self) -> tuple[int, int]:
        """Return how many messages are visible and how many are in flight."""
        visible, in_flight = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"
        found = self._attributes(visible, in_flight)
        return int(found[visible]), int(found[in_flight])

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return self.counts() == (0, 0)

    @asynccontextmanager
    async def adapter(self) -> AsyncIterator[SqsQueue]:
        """Return our own client of it."""
        region = AwsServer(self.endpoint_url).region
        async with Targets(Secrets(), region=region, aws_endpoint_url=self.endpoint_url) as targets:
            yield SqsQueue(self.source, targets.aws("sqs", version="1.0"))


Queues = Lab[RealQueue]
