"""A pump on a consumer's shard with aggregates: checkpoints, deaths in their middle, strays, partial responses."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from model.ids import MappingId, ShardId, ShardKey
from model.mapping import KinesisSource as KinesisStream
from model.outcome import Delivered
from pollers.checkpointer import Checkpointer
from pollers.counters import Counters
from pollers.filtering import compile_filter
from pollers.pump import Pump
from pollers.pump_parts import PumpParts
from pollers.retrying import RetryPolicy
from pollers.shard_state import StoredState
from pollers.sources.kinesis import KinesisSource
from pollers.sources.kinesis_envelope import KinesisEnvelope, KinesisRecordView
from tests.support.kinesis_streams import kinesis_mapping
from tests.support.kpl_encoding import User, encode
from tests.support.pump_fakes import FakeLease, open_gate
from tests.support.saves import Saves
from tests.support.simulated_fan_out import CONSUMER, SimulatedFanOut
from tests.support.simulated_kinesis import ARN, SimulatedStream, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from model.invocation import Invocation
    from model.outcome import Outcome

pytestmark = pytest.mark.looptime(noop_cycles=0)

SHARD = ShardId("shardId-000000000000")
CALM = Trouble(throttled=0, failed=0, unanswered=0, expired=0, slow=0, listed_late_s=0)
STRAY = 2**127  # a hash key of the other shard
WANTED = '{"data": {"keep": [true]}}'


def user(number: int, *, stray: bool = False, keep: bool = True, key: str = "k") -> User:
    """Make a numbered record for an aggregate."""
    return User(key, STRAY if stray else 0, json.dumps({"n": number, "keep": keep}).encode())


class Function:
    """Remembers the numbers of each batch it took; answers as told."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.answer: Callable[[list[dict[str, str]], int], bytes] = lambda _records, _call: b""
        self.calls = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch."""
        await asyncio.sleep(0.05)
        shown = [record["kinesis"] for record in json.loads(invocation.event)["Records"]]
        self.batches.append([json.loads(b64decode(one["data"]))["n"] for one in shown])
        self.calls += 1
        return Delivered(self.answer(shown, self.calls))

    @property
    def numbers(self) -> list[int]:
        """Everything it took, in order."""
        return [number for batch in self.batches for number in batch]


class Rig:
    """One pump with a stream, a function and what was saved."""

    def __init__(self, *, batch_size: int = 3, lanes: int = 1, filtered: bool = False, partial: bool = False) -> None:
        stream = SimulatedStream(Random(1), shards=2, trouble=CALM)
        self.shard = stream.all[SHARD]
        self.stream = stream
        self.kinesis = SimulatedFanOut(stream, Random(2), broken=0)
        self.mapping = kinesis_mapping(ARN, consumer=CONSUMER, batch_size=batch_size)
        self.function = Function()
        self.saves = Saves()
        self.counters = Counters()
        self.lease = FakeLease(key=ShardKey(MappingId(self.mapping.id), SHARD))
        self._lanes = lanes
        self._filter = compile_filter([WANTED], KinesisRecordView()) if filtered else None
        self._policy = RetryPolicy(partial_responses=partial)

    def write(self, *contents: User | list[User]) -> None:
        """Write records, and lists of them as aggregates."""
        for content in contents:
            self.stream._append(self.shard, "k", encode(content) if isinstance(content, list) else content.data)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the pump under what was saved; end it as a killed process would."""
        assert isinstance(self.mapping.source, KinesisStream)
        self.lease.progress = self.saves.progress
        checkpointer = Checkpointer(self.saves)
        parts = PumpParts(
            mapping=self.mapping,
            source=KinesisSource(self.mapping, self.kinesis),
            envelope=KinesisEnvelope(self.mapping.source),
            filter=self._filter,
            target=self.function,
            gate=open_gate(self.counters),
            policy=self._policy,
            counters=self.counters,
            checkpointer=checkpointer,
            random=Random(5),
            lanes=self._lanes,
        )
        async with asyncio.TaskGroup() as tasks:
            saving = tasks.create_task(checkpointer.run())
            pumping = tasks.create_task(Pump(parts, self.lease).run())  # type: ignore[arg-type]  # a fake lease
            try:
                yield
            finally:
                pumping.cancel()
                saving.cancel()

    async def until(self, true: Callable[[], bool], limit_s: float = 600) -> None:
        """Let virtual time pass until something holds."""
        async with asyncio.timeout(limit_s):
            while not true():  # noqa: ASYNC110 - in virtual time looking again costs nothing
                await asyncio.sleep(0.01)

    @property
    def checkpoint(self) -> int | None:
        """The place of the record that the checkpoint names; None without one."""
        position = self.saves.progress.position
        return None if position is None else self.shard.numbers.index(int(position))


async def test_the_checkpoint_is_the_aggregate_s_sequence_number_once_all_of_it_is_finished() -> None:
    """Until then it is that of the record before, and what is finished of the aggregate is stored beside it."""
    rig = Rig(batch_size=2)
    rig.write(user(0), [user(number) for number in range(1, 6)], user(6))
    async with rig.running():
        await rig.until(lambda: rig.function.numbers == [0, 1, 2, 3])
        await rig.until(lambda: rig.saves.progress.ledger.delivered == 4)
        assert rig.checkpoint == 0
        ((first, last),) = StoredState.decode(rig.saves.progress.state).ahead
        assert last - first == 2
        await rig.until(lambda: rig.checkpoint == 2)
    assert rig.saves.progress.state == b""
    assert rig.saves.progress.ledger.balanced


def content() -> list[User | list[User]]:
    """Make records of which some are strays and some are to be filtered out, in aggregates and not."""
    return [
        [user(0), user(1, stray=True), user(2, keep=False), user(3)],
        user(4),
        user(5, keep=False),
        [user(6, stray=True), user(7), user(8), user(9), user(10, keep=False), user(11, stray=True)],
        [user(12, stray=True)],
        [user(13)],
        user(14),
        [user(15, key="a"), user(16, key="b"), user(17, key="a"), user(18, keep=False), user(19, key="b")],
    ]


KEPT = [0, 3, 4, 7, 8, 9, 13, 14, 15, 16, 17, 19]
ACCOUNT = (20, len(KEPT), 4, 4)  # polled, delivered, filtered, dropped


def account(rig: Rig) -> tuple[int, int, int, int]:
    """Return what the stored ledger says."""
    ledger = rig.saves.progress.ledger
    assert ledger.balanced
    assert ledger.in_flight == 0
    return ledger.polled, ledger.delivered, ledger.filtered, ledger.dropped


async def test_strays_are_dropped_before_the_filter_and_nobody_gets_them() -> None:
    """Counted in the ledger and the metric, told once in the log, and passed by the checkpoint."""
    rig = Rig(filtered=True)
    rig.write(*content())
    with capture_logs() as logged:
        async with rig.running():
            await rig.until(lambda: rig.checkpoint == 7)
    assert rig.function.numbers == KEPT
    assert account(rig) == ACCOUNT
    assert (rig.counters.polled, rig.counters.dropped, rig.counters.filtered_out) == (20, 4, 4)
    assert [entry["event"] for entry in logged if entry["log_level"] == "warning"] == ["records.strayed"]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
async def test_a_death_after_any_call_delivers_the_rest_and_little_twice(batch_size: int, lanes: int) -> None:
    """In the middle of an aggregate too: nothing is lost, and only what was in flight or not saved comes again.

    The account of the successor is right to the record, whatever had been filtered out or dropped before.
    """
    for calls in range(1, len(KEPT) + 1):
        rig = Rig(batch_size=batch_size, lanes=lanes, filtered=True)
        rig.write(*content())
        async with rig.running():
            await rig.until(lambda rig=rig, calls=calls: rig.function.calls >= calls or rig.checkpoint == 7)  # type: ignore[misc]
        before = list(rig.function.numbers)
        async with rig.running():
            await rig.until(lambda rig=rig: rig.checkpoint == 7)  # type: ignore[misc]
        assert sorted(set(rig.function.numbers)) == KEPT
        repeated = len(rig.function.numbers) - len(KEPT)
        assert repeated <= 2 * batch_size * lanes
        if lanes == 1:
            assert before == KEPT[: len(before)]
            assert rig.function.numbers[len(before) :] == KEPT[len(before) - repeated :]
        assert account(rig) == ACCOUNT
        assert rig.saves.progress.state == b""


async def test_a_partial_response_names_an_aggregate_by_its_sequence_number() -> None:
    """The records of an aggregate share it: from the first of them in the batch on, everything comes again."""
    rig = Rig(batch_size=5, partial=True)
    rig.write(user(0), [user(1), user(2), user(3)], user(4))
    packed = str(rig.shard.numbers[1])

    def answer(records: list[dict[str, str]], call: int) -> bytes:
        assert [record["sequenceNumber"] for record in records].count(packed) == 3
        failed = [{"itemIdentifier": packed}] if call < 3 else []
        return json.dumps({"batchItemFailures": failed}).encode()

    rig.function.answer = answer
    async with rig.running():
        await rig.until(lambda: rig.checkpoint == 2)
    assert rig.function.batches == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert rig.saves.progress.ledger.delivered == 5
