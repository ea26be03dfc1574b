"""One node on a stream in fast-forwarded time: how soon a record is delivered, and how often it is read."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from invocation.classify import Answer
from model.mapping import MappingRecord, MappingState
from model.mapping_rules import canonical_document
from model.outcome import Delivered, FunctionFailed
from statemgr.memory_store import MemoryStore
from tests.support.engine_node import EngineNode, Outside
from tests.support.kinesis_fleet import MAPPING
from tests.support.numbered import entries
from tests.support.simulated_kinesis import ARN, SimulatedStream, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from invocation.classify import Failure
    from model.invocation import Invocation
    from model.outcome import Outcome

pytestmark = pytest.mark.looptime(noop_cycles=0)

CALM = Trouble(throttled=0, failed=0, unanswered=0, expired=0, slow=0)


class Watched:
    """The stream as a node calls it: notes when it is read, and which records are handed out."""

    def __init__(self, stream: SimulatedStream) -> None:
        self.stream = stream
        self.read_at: list[float] = []
        self.given: Counter[str] = Counter()  # by sequence number

    async def call(self, region: str, operation: str, body: bytes, **limits: Any) -> Answer | Failure:
        """See `pollers.sources.kinesis_api.Caller`."""
        reads = operation.endswith(".GetRecords")
        if reads:
            self.read_at.append(asyncio.get_running_loop().time())
        answer = await self.stream.call(region, operation, body, **limits)
        if reads and isinstance(answer, Answer):
            self.given.update(row["SequenceNumber"] for row in json.loads(answer.body).get("Records", []))
        return answer


class Function:
    """Fails until a time, then takes everything; remembers when it got what."""

    def __init__(self, *, fails_until: float = 0.0) -> None:
        self._fails_until = fails_until
        self.failures = 0
        self.taken: list[tuple[str, int, float]] = []  # key, number, when

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch."""
        now = asyncio.get_running_loop().time()
        if now < self._fails_until:
            self.failures += 1
            return FunctionFailed("not yet")
        self.taken += [(entry.topic, entry.offset, now) for entry in entries(invocation.event)]
        return Delivered()


@asynccontextmanager
async def reading(function: Function, **more: Any) -> AsyncIterator[Watched]:
    """Have one node read a stream of one shard, from its beginning."""
    loop = asyncio.get_running_loop()
    store = MemoryStore(loop.time)
    watched = Watched(SimulatedStream(Random(3), shards=1, trouble=CALM))
    document = {
        "UUID": MAPPING,
        "Name": "clicks",
        "EventSourceArn": ARN,
        "FunctionName": "f",
        "StartingPosition": "TRIM_HORIZON",
        **more,
    }
    await store.put_mapping(MappingRecord(MAPPING, "clicks", canonical_document(document), 0, MappingState.CREATING))
    async with asyncio.TaskGroup() as tasks:
        node = EngineNode(store, Outside(function, lambda _service: watched), name="node", seed=5)
        node.start(tasks)
        try:
            yield watched
        finally:
            await node.drain()


async def test_while_records_keep_arriving_the_median_wait_is_well_under_a_second() -> None:
    """And the shard is never asked more than five times a second."""
    random = Random(4)
    function = Function()
    sent: dict[int, float] = {}
    async with reading(function) as watched:
        loop = asyncio.get_running_loop()
        while loop.time() < 600:
            await asyncio.sleep(random.expovariate(1 / 2.0))
            sent[watched.stream.written["k"]] = loop.time()
            watched.stream.put("k")
        await asyncio.sleep(5)
    waits = [now - sent[number] for _, number, now in function.taken]
    assert len(waits) == len(sent) > 200
    assert median(waits) < 0.25
    assert max(waits) < 1.5
    asked = watched.read_at
    assert min(later - earlier for earlier, later in zip(asked, asked[5:], strict=False)) >= 1.0


async def test_a_batch_that_fails_for_long_is_kept_and_read_once() -> None:
    """Twenty minutes of failures: iterators expire meanwhile, and reading goes on behind what is held."""
    function = Function(fails_until=1200)
    async with reading(function, BatchSize=10) as watched:
        for _ in range(300):
            watched.stream.put("k")
        async with asyncio.timeout(1500):
            while len(function.taken) < 300:  # noqa: ASYNC110 - the loop's time is free
                await asyncio.sleep(1)
    assert [number for _, number, _ in function.taken] == list(range(300))
    assert function.failures > 10
    assert watched.stream.calls["GetShardIterator"] == 2
    assert len(watched.given) == 300
    assert set(watched.given.values()) == {1}
