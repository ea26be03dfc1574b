"""One poison key among many records, in fast-forwarded time: what the other keys feel of it."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import TYPE_CHECKING

import pytest

from model.mapping import Extensions
from model.outcome import Delivered, FunctionFailed
from pollers.retrying import RetryPolicy
from tests.support.fake_sqs import FakeQueue
from tests.support.pump_fakes import Raw
from tests.support.pump_rig import Rig
from tests.support.queue_rig import QueueRig, sqs_mapping

if TYPE_CHECKING:
    from model.invocation import Invocation
    from model.outcome import Outcome

pytestmark = pytest.mark.looptime

RECORDS = 10_000
KEYS = 100
RATE_HZ = 500
POISON = 3_042  # and so its key, 42


class Function:
    """Takes about 10 ms, and never digests the poison."""

    def __init__(self, *poison: int) -> None:
        self._poison = set(poison)
        self._random = Random(3)
        self.delivered_at: dict[int, float] = {}
        self.order: list[int] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch, or fail on it."""
        positions = json.loads(invocation.event)
        await asyncio.sleep(self._random.uniform(0.005, 0.015))
        if self._poison & set(positions):
            return FunctionFailed("indigestible")
        now = asyncio.get_running_loop().time()
        for position in positions:
            self.delivered_at.setdefault(position, now)
            self.order.append(position)
        return Delivered()


async def latencies(function: Function, *, lanes: int) -> tuple[list[float], Rig]:
    """Let records arrive at a steady rate; return how long those of all keys but the poison's took, in order."""
    raws: list[Raw] = []
    rig = Rig(
        raws=raws,
        batch_size=100,
        lanes=lanes,
        policy=RetryPolicy(park_after=1),
        extensions=Extensions(park_failing_keys=True),
    )
    rig.target = function  # type: ignore[assignment]  # a target too
    loop = asyncio.get_running_loop()
    arrived_at: dict[int, float] = {}
    async with rig.running():
        await rig.until(lambda: bool(rig.source.readers))
        for position in range(RECORDS):
            raws.append(Raw(position, b"%d" % (position % KEYS)))
            del raws[:-300]  # what was read long ago
            arrived_at[position] = loop.time()
            rig.source.readers[0].arrived.set()
            await asyncio.sleep(1 / RATE_HZ)
        await rig.until(lambda: rig.saved(RECORDS))
    others = (position for position in range(RECORDS) if position % KEYS != POISON % KEYS)
    return sorted(function.delivered_at[position] - arrived_at[position] for position in others), rig


def p99(values: list[float]) -> float:
    """Return the 99th percentile of sorted values."""
    return values[int(len(values) * 0.99)]


@pytest.mark.parametrize("lanes", [1, 4])
async def test_other_keys_hardly_feel_a_poison_key(lanes: int) -> None:
    """Their p99 latency stays within one and a half times of that without poison; nothing is lost, order holds."""
    healthy, _ = await latencies(Function(), lanes=lanes)
    function = Function(POISON)
    poisoned, rig = await latencies(function, lanes=lanes)
    assert p99(poisoned) <= 1.5 * p99(healthy)
    ledger = rig.saves.progress.ledger
    behind = [position for position in range(POISON, RECORDS) if position % KEYS == POISON % KEYS]
    assert (ledger.delivered, ledger.parked) == (RECORDS - len(behind), len(behind))
    assert ledger.balanced
    assert [one.position for one in rig.saves.lot.records] == behind
    for key in range(KEYS):
        mine = [position for position in function.order if position % KEYS == key]
        assert mine == sorted(mine)


class QueueFunction:
    """The same for messages, whose bodies are their numbers."""

    def __init__(self, *poison: int) -> None:
        self._poison = set(poison)
        self._random = Random(3)
        self.delivered_at: dict[int, float] = {}
        self.order: list[int] = []
        self.most_receives = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch, or fail on it."""
        messages = json.loads(invocation.event)["Records"]
        numbers = [int(message["body"]) for message in messages]
        receives = [int(message["attributes"]["ApproximateReceiveCount"]) for message in messages]
        self.most_receives = max(self.most_receives, *receives)
        await asyncio.sleep(self._random.uniform(0.005, 0.015))
        if self._poison & set(numbers):
            return FunctionFailed("indigestible")
        for number in numbers:
            self.delivered_at.setdefault(number, asyncio.get_running_loop().time())
            self.order.append(number)
        return Delivered()


async def queue_latencies(function: QueueFunction) -> tuple[list[float], list[int]]:
    """Let messages arrive in a FIFO queue; return how long those of all groups but one took, and what is left."""
    mapping = sqs_mapping(fifo=True, BatchSize=10, extensions={"park_failing_keys": True})
    rig = QueueRig(FakeQueue(fifo=True, max_receives=1), mapping)
    rig.function = function  # type: ignore[assignment]  # a target too
    loop = asyncio.get_running_loop()
    sent_at: dict[int, float] = {}
    others = [number for number in range(RECORDS) if number % KEYS != POISON % KEYS]
    async with rig.running(rig.pump()):
        for number in range(RECORDS):
            rig.queue.send(str(number), group=str(number % KEYS))
            sent_at[number] = loop.time()
            await asyncio.sleep(1 / RATE_HZ)
        async with asyncio.timeout(60):
            while not function.delivered_at.keys() >= set(others):  # noqa: ASYNC110 - in virtual time it costs nothing
                await asyncio.sleep(0.1)
        assert rig.queue.dead == []  # a drain gives back, which costs a receive
        left = sorted(map(int, rig.queue.bodies()))
    return sorted(function.delivered_at[number] - sent_at[number] for number in others), left


async def test_other_groups_of_a_queue_hardly_feel_a_poison_message() -> None:
    """The same for a FIFO queue with maxReceiveCount 1: nothing is dead-lettered, and groups stay in order."""
    healthy, _ = await queue_latencies(QueueFunction())
    function = QueueFunction(POISON)
    poisoned, left = await queue_latencies(function)
    assert p99(poisoned) <= 1.5 * p99(healthy)
    assert function.most_receives == 1
    assert left == list(range(POISON, RECORDS, KEYS))
    for key in range(KEYS):
        mine = [number for number in function.order if number % KEYS == key]
        assert mine == sorted(mine)
