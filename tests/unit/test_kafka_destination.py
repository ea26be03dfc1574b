"""A Kafka topic as a destination: what becomes of a producer that nobody would end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pollers.destinations import kafka_producer
from pollers.destinations.kafka import KafkaDestination

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pollers.failure_document import TopicMessage


class Messages:
    """What is sent is a message already."""

    def messages(self, told: TopicMessage, /) -> Sequence[TopicMessage]:
        """Return it."""
        return [told]


async def test_a_producer_that_is_being_made_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for the connection that a delivery is making, and ends it."""
    connects, ended = asyncio.Event(), []
    producer = object()

    async def start(*_: Any) -> object:
        await connects.wait()
        return producer

    async def abandon(one: object) -> None:
        ended.append(one)

    async def no_options() -> dict[str, Any]:
        return {}

    monkeypatch.setattr(kafka_producer, "start", start)
    monkeypatch.setattr(kafka_producer, "abandon", abandon)
    destination = KafkaDestination(
        "kafka://failed", Messages(), bootstrap_servers=("127.0.0.1:9",), connect_options=no_options
    )
    async with asyncio.TaskGroup() as tasks:
        connecting = tasks.create_task(destination._connected())
        await asyncio.sleep(0)
        closing = tasks.create_task(destination.close())
        await asyncio.sleep(0)
        assert not closing.done()
        connects.set()
    assert connecting.result() is producer
    assert ended == [producer]
    assert destination._producer is None
