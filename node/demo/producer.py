"""Produces the demo's orders at a steady rate, and holds back while too much is undelivered.

The embedded broker keeps 5 MiB per partition and drops what is older, read or not: a backlog must stay well below.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from model.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.demo.orders import Orders

MOST_BEHIND = 8000  # records of all partitions; the broker keeps some 15,000 per partition
_TICK_S = 0.01
_LONGEST_JUMP_S = 0.5  # what a pause of the loop may cost in events that come all at once


class Producer:
    """Sends orders to a topic until told to stop."""

    def __init__(self, orders: Orders, topic: str, *, rate: int) -> None:
        self._orders = orders
        self._topic = topic
        self._rate = rate
        self._stopping = asyncio.Event()
        self.produced = 0

    def stop(self) -> None:
        """Produce no more."""
        self._stopping.set()

    async def run(self, bootstrap_servers: str, *, behind: Callable[[], int]) -> None:
        """Produce until stopped; all is with the broker then. Raises `UnavailableError`."""
        client = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=5)
        try:
            async with client:
                await self._produce(client, behind)
        except KafkaError as error:
            raise UnavailableError(f"the embedded Kafka broker: {error}") from error

    async def _produce(self, client: AIOKafkaProducer, behind: Callable[[], int]) -> None:
        loop = asyncio.get_running_loop()
        produced_to = loop.time()
        while not self._stopping.is_set():
            now = loop.time()
            produced_to = max(produced_to, now - _LONGEST_JUMP_S)
            due = int((now - produced_to) * self._rate)
            produced_to += due / self._rate
            if behind() < MOST_BEHIND:
                for _ in range(due):
                    changed_time = datetime.now(UTC).isoformat(timespec="milliseconds")
                    event = self._orders.event(changed_time)
                    await client.send(self._topic, key=event.key, value=event.value)
                    self.produced += 1
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._stopping.wait()
            except TimeoutError:
                continue
