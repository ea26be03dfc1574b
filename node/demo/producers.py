"""Who produces to the demo's sources, how much, and which mappings have to finish it.

The demo makes the stream, its own queue, and each queue that an added mapping reads: a message goes to one reader only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.mapping import KafkaSource, KinesisSource, SqsSource
from node.demo.aws_feeds import ClickFeed, MailFeed
from node.demo.aws_producer import AwsProducer
from node.demo.clicks import Clicks
from node.demo.mails import Mails
from node.demo.orders import Orders
from node.demo.producer import Producer
from node.demo.snapshot import Due, Produced

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from config.settings import Settings
    from model.mapping import EventSourceMapping
    from node.demo.snapshot import Snapshot

TOPIC = "orders"
STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
STREAM_SHARDS = 2
QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:mails"
QUEUE_VISIBILITY_S = 2  # after so long the queue hands a failed message out again; the function's timeout in the file
ORDERS_PER_CLICK = 10
ORDERS_PER_MAIL = 50
ORDERS_PER_ADDED_MAIL = 500  # for each queue more: the embedded SQS is the slowest of the services


@dataclass(frozen=True, slots=True)
class Producers:
    """Who produces to the demo's sources."""

    orders: Producer
    clicks: AwsProducer
    mails: AwsProducer
    added: Mapping[str, AwsProducer] = field(default_factory=dict)  # by the ARNs of further queues

    @classmethod
    def made(cls, rate: int, seed: int, added: Mapping[str, int] | None = None) -> Producers:
        """Make them for so many orders a second; `added` are further queues and their visibility timeouts."""
        rates = rates_for(rate)
        return cls(
            Producer(Orders(seed), TOPIC, rate=rate),
            AwsProducer(ClickFeed(Clicks(seed), STREAM_ARN, shards=STREAM_SHARDS), rate=rates.clicks),
            AwsProducer(MailFeed(Mails(seed), QUEUE_ARN, visibility_s=QUEUE_VISIBILITY_S), rate=rates.mails),
            {
                arn: AwsProducer(
                    MailFeed(Mails(seed), arn, visibility_s=visibility_s), rate=max(1, rate // ORDERS_PER_ADDED_MAIL)
                )
                for arn, visibility_s in (added or {}).items()
            },
        )

    @property
    def produced(self) -> Produced:
        """How much so far, of what everybody gets."""
        return Produced(self.orders.produced, self.clicks.produced, self.mails.produced)

    async def create(self, aws_url: str) -> None:
        """Make the stream and the queues. Raises `UnavailableError`."""
        for producer in (self.clicks, self.mails, *self.added.values()):
            await producer.create(aws_url)

    def start(
        self,
        tasks: asyncio.TaskGroup,
        kafka: str,
        aws_url: str,
        *,
        readers: Readers,
        now: Callable[[], Snapshot],
    ) -> None:
        """Produce until `stop`, and hold back while the slowest reader is too far behind."""
        tasks.create_task(self.orders.run(kafka, behind=lambda: now().behind), name="produce orders")

        def clicks_behind() -> int:
            return max((now().unfinished((name,), self.clicks.produced) for name in readers.clicks), default=0)

        tasks.create_task(self.clicks.run(aws_url, behind=clicks_behind), name="produce clicks")
        for arn, names in readers.queues.items():
            producer = self._of_queue(arn)

            def mails_behind(producer: AwsProducer = producer, names: tuple[str, ...] = names) -> int:
                return now().unfinished(names, producer.produced)

            tasks.create_task(producer.run(aws_url, behind=mails_behind), name=f"produce to {arn}")

    def stop(self) -> None:
        """Produce no more."""
        self.orders.stop()
        for producer in (self.clicks, self.mails, *self.added.values()):
            producer.stop()

    def due(self, readers: Readers) -> list[Due]:
        """Return what the mappings have to finish."""
        return [
            *[Due((name,), self.orders.produced) for name in readers.orders],
            *[Due((name,), self.clicks.produced) for name in readers.clicks],
            *[Due(names, self._of_queue(arn).produced) for arn, names in readers.queues.items()],
            *[Due((name,), 0) for name in readers.others],
        ]

    def _of_queue(self, arn: str) -> AwsProducer:
        return self.mails if arn == QUEUE_ARN else self.added[arn]


@dataclass(frozen=True, slots=True)
class Readers:
    """The mappings' names by what they read."""

    orders: tuple[str, ...]
    clicks: tuple[str, ...]
    queues: Mapping[str, tuple[str, ...]]  # by ARN; mappings of one queue share its messages
    others: tuple[str, ...]  # nobody produces there: schedules, and sources that the demo does not have

    @classmethod
    def of(cls, mappings: Iterable[EventSourceMapping]) -> Readers:
        """Sort mappings by their sources."""
        orders, clicks, others = [], [], []
        queues: dict[str, tuple[str, ...]] = {}
        for mapping in mappings:
            match mapping.source:
                case KafkaSource(topic=topic) if topic == TOPIC:
                    orders.append(mapping.name)
                case KinesisSource(arn=arn) if arn == STREAM_ARN:
                    clicks.append(mapping.name)
                case SqsSource(arn=arn):
                    queues[arn] = (*queues.get(arn, ()), mapping.name)
                case _:
                    others.append(mapping.name)
        return cls(tuple(orders), tuple(clicks), queues, tuple(others))


def rates_for(rate: int) -> Produced:
    """Return how much is produced a second, by orders a second."""
    return Produced(rate, max(1, rate // ORDERS_PER_CLICK), max(1, rate // ORDERS_PER_MAIL))


def added_queues(settings: Settings) -> dict[str, int]:
    """Return the queues besides the demo's own, and their visibility timeouts: the longest of their functions'."""
    found: dict[str, int] = {}
    for mapping in settings.mappings:
        if isinstance(mapping.source, SqsSource) and mapping.source.arn != QUEUE_ARN:
            function = settings.target_for(mapping.function_name)
            limit_s = math.ceil(function.timeout_s) if function is not None else QUEUE_VISIBILITY_S
            found[mapping.source.arn] = max(found.get(mapping.source.arn, QUEUE_VISIBILITY_S), limit_s)
    return found
