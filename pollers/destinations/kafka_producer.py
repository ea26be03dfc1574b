"""aiokafka's producer as the Kafka destination uses it, and every place where we lean on its insides.

Seen in aiokafka 0.14, and relied on:

- An idempotent producer never gives up: while the brokers are away it goes on sending, and `stop` waits for it. So a
  delivery that failed, or was cancelled, ends the producer by `abandon`.
- After a message that the broker refused for good, the sequence numbers of its partition no longer fit: the producer
  is of no use any more.
- A topic that does not exist shows as `UnknownTopicOrPartitionError` after the request time-out.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from aiokafka.partitioner import DefaultPartitioner

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # beyond what any topic takes: the broker decides
_REQUEST_TIMEOUT_MS = 10_000
_STOP_S = 3.0


class RoundRobin(DefaultPartitioner):  # type: ignore[misc]  # aiokafka ships no types
    """Kafka's partition for messages with a key; the next one for messages without."""

    def __init__(self) -> None:
        self._turn = count()

    def __call__(self, key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
        """Choose a partition."""
        if key is None:
            partitions = sorted(available or every)
            return partitions[next(self._turn) % len(partitions)]
        partition: int = super().__call__(key, every, available)
        return partition


async def start(bootstrap_servers: Sequence[str], options: dict[str, Any]) -> AIOKafkaProducer:
    """Connect a producer whose messages are acknowledged by all replicas, once each. Raises `KafkaError`, OSError."""
    producer = AIOKafkaProducer(
        bootstrap_servers=list(bootstrap_servers),
        acks="all",
        enable_idempotence=True,
        max_request_size=MAX_MESSAGE_BYTES,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        partitioner=RoundRobin(),
        **options,
    )
    try:
        await producer.start()
    except BaseException:
        await abandon(producer)
        raise
    return producer


async def abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer without waiting for what it still has to send; whoever waits for that gets an error."""
    accumulator, sender = producer._message_accumulator, producer._sender  # noqa: SLF001 - see above
    if sender.sender_task is not None:
        # It stumbles over batches that are no more, and this callback then over the missing transaction.
        sender.sender_task.remove_done_callback(sender._fail_all)  # noqa: SLF001
    batches = [*accumulator._pending_batches, *(one for some in accumulator._batches.values() for one in some)]  # noqa: SLF001
    accumulator.fail_all(KafkaConnectionError("the producer was closed"))
    for batch in batches:
        if batch._drain_waiter.done() and not batch._drain_waiter.cancelled():  # noqa: SLF001
            batch._drain_waiter.exception()  # noqa: SLF001 - seen, or the event loop complains that nobody did
    try:
        async with asyncio.timeout(_STOP_S):
            await producer.client.close()  # ends the requests under way
            await producer.stop()
    except Exception as exc:  # noqa: BLE001 - whatever the sender stumbled over; it has ended
        log.debug("kafka.producer_abandoned", error=repr(exc))
    finally:
        await producer.client.close()
