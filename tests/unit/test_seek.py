"""Moving a mapping in a fleet in fast-forwarded time: a stream with splits, one node or two, and `node.seek`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from math import floor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from model.errors import ConflictError, NotFoundError, RefusedError
from model.ids import ShardId, ShardKey
from model.mapping import MappingRecord, MappingState
from model.mapping_rules import canonical_document
from model.outcome import Delivered
from model.progress import ShardState
from model.seek import Move, SeekWish
from model.shard import BEGINNING
from node.seek import SeekAnswer, SeekRequest, Seeks
from statemgr.memory_store import MemoryStore
from tests.support.engine_node import EngineNode, Outside
from tests.support.kinesis_fleet import MAPPING
from tests.support.numbered import entries
from tests.support.simulated_kinesis import ARN, SimulatedStream, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from model.invocation import Invocation
    from model.outcome import Outcome

pytestmark = pytest.mark.looptime(noop_cycles=0)

CALM = Trouble(throttled=0, failed=0, unanswered=0, expired=0, slow=0, listed_late_s=0)
KEYS = [f"k{n}" for n in range(8)]


class World:
    """A stream, a store, nodes, and a function that remembers what it got, and finds out about disorder."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.store = MemoryStore(loop.time)
        self.stream = SimulatedStream(Random(3), shards=1, retention_s=1e9, trouble=CALM)
        self.taken: list[tuple[str, int]] = []
        self.seconds = 0.0
        self.largest = 0  # batch
        self.at_work: set[str] = set()  # shards
        self.nodes: list[EngineNode] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch; no shard has two at once."""
        shard = str(invocation.shard)
        assert shard not in self.at_work
        self.at_work.add(shard)
        self.largest = max(self.largest, len(list(entries(invocation.event))))
        await asyncio.sleep(self.seconds)
        self.at_work.discard(shard)
        self.taken += [(entry.topic, entry.offset) for entry in entries(invocation.event)]
        return Delivered()

    def write(self, rounds: int) -> None:
        """Write records of every key."""
        for _ in range(rounds):
            for key in KEYS:
                self.stream.put(key)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let time pass until something holds."""
        async with asyncio.timeout(300):
            while not holds():  # noqa: ASYNC110 - the loop's time is free
                await asyncio.sleep(0.5)

    async def until_taken(self, count: int) -> None:
        """Wait until so many were taken, and then some, for records that should not come."""
        await self.until(lambda: len(self.taken) >= count)
        await asyncio.sleep(30)
        assert len(self.taken) == count

    async def seek(self, to: str, *, patience_s: float = 60.0, **more: Any) -> SeekAnswer:
        """Ask the first node."""
        engine = self.nodes[0].engine
        seeks = Seeks(engine.runtimes, self.store, patience_s=patience_s, now_s=self.stream.now_s)
        return await seeks.seek("clicks", SeekRequest(to, **more), by="test")

    async def change(self, state: MappingState, **more: Any) -> None:
        """Change the mapping's document."""
        _, (record,) = await self.store.mappings()
        await self.store.put_mapping(replace(record, document=document(**more), state=state))

    def in_order(self) -> bool:
        """Whether every key's records came in order since `taken` was cleared."""
        numbers: dict[str, int] = {}
        for key, number in self.taken:
            if number != numbers.get(key, number - 1) + 1:
                return False
            numbers[key] = number
        return True

    async def ledger(self) -> tuple[int, int]:
        """Return what was polled and delivered, over all shards; the account must balance."""
        progress = (await self.store.load_mapping(MAPPING)).values()
        assert all(one.ledger.balanced for one in progress)
        return sum(one.ledger.polled for one in progress), sum(one.ledger.delivered for one in progress)


def document(*, enabled: bool = True, **more: Any) -> bytes:
    """Return the mapping's document."""
    return canonical_document(
        {
            "UUID": MAPPING,
            "Name": "clicks",
            "EventSourceArn": ARN,
            "FunctionName": "f",
            "StartingPosition": "TRIM_HORIZON",
            "Enabled": enabled,
            "BatchSize": 10,
            **more,
        }
    )


@asynccontextmanager
async def world(nodes: int = 1, **more: Any) -> AsyncIterator[World]:
    """Run nodes on a stream of one shard."""
    made = World()
    state = MappingState.CREATING
    await made.store.put_mapping(MappingRecord(MAPPING, "clicks", document(**more), 0, state))
    async with asyncio.TaskGroup() as tasks:
        for number in range(nodes):
            node = EngineNode(made.store, Outside(made, lambda _service: made.stream), name=f"n{number}", seed=number)
            made.nodes.append(node)
            node.start(tasks)
        await asyncio.sleep(5)
        try:
            yield made
        finally:
            for node in made.nodes:
                await node.drain()


@pytest.mark.parametrize("nodes", [1, 2])
async def test_back_to_the_beginning_reads_parents_before_children_again(nodes: int) -> None:
    """After splits everything comes once more, in order per key, on whichever nodes; the account balances."""
    async with world(nodes) as it:
        it.write(5)
        it.stream.split(it.stream.open_shards()[0])
        it.write(5)
        it.stream.split(it.stream.open_shards()[0])
        it.write(5)
        await it.until_taken(120)
        assert it.in_order()
        it.taken.clear()
        with capture_logs() as logs:
            answer = await it.seek("trim_horizon")
        assert answer.done
        assert [one.stays for one in answer.shards] == [False] * 5
        assert answer.skipped_records == 0
        (audit,) = [line for line in logs if line["event"] == "mapping.seek"]
        assert (audit["by"], audit["shards"], audit["to"]) == ("test", 5, "trim_horizon")
        assert [line["by"] for line in logs if line["event"] == "mapping.sought"] == ["test"]
        await it.until_taken(120)
        assert it.in_order()
        assert set(it.taken) == {(key, number) for key in KEYS for number in range(15)}
        assert await it.ledger() == (240, 240)


async def test_a_running_mapping_finishes_what_is_under_way_before_it_moves() -> None:
    """While batches take seconds and records keep coming, no shard ever has two invocations, and order holds after."""
    async with world(2, ParallelizationFactor=1) as it:
        it.seconds = 2.0
        it.write(20)
        await it.until(lambda: len(it.taken) >= 60)
        assert (await it.seek("trim_horizon")).done
        before = len(it.taken)
        await it.until(lambda: len(it.taken) >= before + 160)
        assert it.taken[before : before + 8] == [(key, 0) for key in KEYS]
        assert it.in_order() is False  # as a whole: it began again
        del it.taken[:before]
        assert it.in_order()
        assert len(it.taken) == 160


async def test_a_time_moves_back_to_the_first_record_since() -> None:
    """Records from before that time are not delivered again, those from it on are."""
    async with world() as it:
        it.write(2)
        await it.until_taken(16)
        it.write(1)
        since = it.stream.open_shards()[0].rows[16]["ApproximateArrivalTimestamp"]
        await it.until_taken(24)
        it.taken.clear()
        answer = await it.seek(f"{floor(since * 1000) / 1000:.3f}")
        assert (answer.done, answer.skipped_records) == (True, 0)
        await it.until_taken(8)
        assert set(it.taken) == {(key, 2) for key in KEYS}


async def test_a_shard_that_is_throttled_is_asked_again() -> None:
    """A reader with a backlog leaves hardly a call to others; the seek waits rather than fails."""
    async with world() as made:
        made.write(3)
        await made.until_taken(3 * len(KEYS))
        made.stream.trouble = replace(CALM, throttled=0.6)
        for to in ("1", "latest"):
            assert (await made.seek(to, force=True)).done
        made.stream.trouble = CALM


async def test_a_stopped_mapping_is_moved_and_goes_on_there_when_it_is_enabled() -> None:
    """Also one that was never read. Passing over records has to be meant, and a dry run moves nothing."""
    async with world(enabled=False) as it:
        it.write(2)
        await asyncio.sleep(10)
        with pytest.raises(ConflictError, match=r"unread records.*shardId-000000000000.*--force"):
            await it.seek("latest")
        dry = await it.seek("latest", dry_run=True)
        assert (dry.done, dry.skipped_records, dry.shards[0].skipped_records) == (False, None, None)
        assert dry.shards[0].skipped_s == pytest.approx(10, abs=2)
        assert (await it.seek("latest", force=True)).done
        await asyncio.sleep(1)
        it.write(1)
        await it.change(MappingState.ENABLING)
        await it.until_taken(8)
        assert set(it.taken) == {(key, 2) for key in KEYS}


async def test_a_place_where_a_shard_stands_already_moves_nothing() -> None:
    """Latest on a mapping that is up to date leaves shards, tokens and checkpoints alone."""
    async with world() as it:
        it.write(1)
        await it.until_taken(8)
        before = await it.store.load_mapping(MAPPING)
        answer = await it.seek("latest")
        assert (answer.done, [one.stays for one in answer.shards]) == (True, [True])
        await asyncio.sleep(5)
        after = await it.store.load_mapping(MAPPING)
        key = ShardKey(MAPPING, ShardId("shardId-000000000000"))
        assert (after[key].token, after[key].position) == (before[key].token, before[key].position)


async def test_looking_keeps_no_change_from_the_workers() -> None:
    """A document that changes just before a seek is worked by after it."""
    async with world() as it:
        it.write(1)
        await it.until_taken(8)
        it.largest = 0
        await it.change(MappingState.UPDATING, BatchSize=3)
        await it.seek("latest", dry_run=True)
        await asyncio.sleep(10)
        it.write(2)
        await it.until_taken(24)
        assert it.largest <= 3


async def test_one_shard_by_its_position_takes_its_children_along() -> None:
    """A parent read again from the middle: what came of it is read again behind it, and others are not."""
    async with world() as it:
        it.write(3)
        parent = it.stream.open_shards()[0]
        it.stream.split(parent)
        it.write(2)
        await it.until_taken(40)
        it.taken.clear()
        answer = await it.seek(f"{parent.id}={parent.numbers[15]}")
        assert [(one.id, one.follows) for one in answer.shards] == [
            ("shardId-000000000000", False),
            ("shardId-000000000001", True),
            ("shardId-000000000002", True),
        ]
        await it.until_taken(8 + 16)
        assert it.in_order()
        assert {number for _, number in it.taken} == {2, 3, 4}


async def test_a_split_between_looking_and_moving_is_read_again_in_order_too() -> None:
    """A wish from before it names only the parent, whose children have begun by the time it is met."""
    async with world() as it:
        it.write(3)
        await it.until_taken(24)
        wish = SeekWish((Move("shardId-000000000000", None, BEGINNING, "0"),))
        it.stream.split(it.stream.open_shards()[0])
        it.write(2)
        await it.until_taken(40)
        it.taken.clear()
        await it.store.wish_seek(MAPPING, wish.encode())
        await it.until_taken(40)
        assert it.in_order()


async def test_a_child_whose_parent_is_not_read_yet_gets_no_position() -> None:
    """It would pass over the rest of its parent; so would a shard or a number that is not there be moved to."""
    async with world(enabled=False) as it:
        it.write(3)
        it.stream.split(it.stream.open_shards()[0])
        it.write(3)
        child = it.stream.open_shards()[0]
        with pytest.raises(RefusedError, match="comes after shardId-000000000000"):
            await it.seek(f"{child.id}={child.numbers[0]}", force=True)
        with pytest.raises(RefusedError, match="no shard other"):
            await it.seek("trim_horizon", shard="other")
        with pytest.raises(RefusedError, match="has no sequence number 7"):
            await it.seek("shardId-000000000000=7")
        with pytest.raises(RefusedError, match="lies ahead"):
            await it.seek("2999-01-01")
        with pytest.raises(NotFoundError):
            await Seeks(it.nodes[0].engine.runtimes, it.store).seek("nobody", SeekRequest("latest"), by="test")


async def test_a_wish_that_nobody_can_meet_yet_stands_and_a_second_one_takes_its_place() -> None:
    """With the function at work for long the answer comes before the move; the first client is told who came after."""
    async with world() as it:
        it.seconds = 20.0
        it.write(2)
        await it.until(lambda: len(it.taken) == 10 and bool(it.at_work))
        answer = await it.seek("trim_horizon", patience_s=2)
        assert not answer.done
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(_refused(it))
            await asyncio.sleep(1)
            assert (await it.seek("latest", force=True)).done
            assert "came after" in await first
        await it.until_taken(16)
        progress = await it.store.load_mapping(MAPPING)
        states = {one.report.state for key, one in progress.items() if key.shard != "tracker"}
        assert states == {ShardState.READING}


async def _refused(it: World) -> str:
    with pytest.raises(ConflictError) as refusal:
        await it.seek("trim_horizon")
    return str(refusal.value)


async def test_waiting_for_a_seek_reads_no_other_mapping() -> None:
    """However many there are: the one that moves is asked for by itself."""
    async with world() as it:
        it.write(2)
        await it.until_taken(16)
        asked: list[str] = []

        class Watched:
            """The store, which notes what is read of mappings."""

            def __getattr__(self, name: str) -> Any:
                if name in {"mappings", "mapping"}:
                    asked.append(name)
                return getattr(it.store, name)

        store: Any = Watched()
        seeks = Seeks(it.nodes[0].engine.runtimes, store, now_s=it.stream.now_s)
        assert (await seeks.seek("clicks", SeekRequest("trim_horizon"), by="test")).done
        assert asked.count("mappings") == 1
        assert asked.count("mapping") > 1
        await it.until_taken(32)
