"""A mapping on a stream consumer: subscriptions or, where there are none, polling; aggregates are taken apart."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from invocation.classify import Answer
from model.errors import SourceUnavailableError
from model.ids import Position, ShardId
from model.shard import BEGINNING
from pollers.sources.kinesis import KinesisSource
from pollers.sources.kinesis_user_records import PLACE_BITS
from tests.support.kinesis_streams import datas, kinesis_mapping
from tests.support.kpl_encoding import User, encode
from tests.support.simulated_fan_out import CONSUMER, SimulatedFanOut
from tests.support.simulated_kinesis import ARN, SimulatedStream, Trouble

if TYPE_CHECKING:
    from pollers.ports import Chunk, ShardReader

pytestmark = pytest.mark.looptime(noop_cycles=0)

FIRST = ShardId("shardId-000000000000")
CALM = Trouble(throttled=0, failed=0, unanswered=0, expired=0, slow=0, listed_late_s=0)
UNKNOWN = Answer(400, {}, b'{"__type": "UnknownOperationException"}')
LOW, HIGH = 0, 2**127  # hash keys of the lower and the upper of two shards


class Kinesis(SimulatedFanOut):
    """A calm stream of two shards whose fan-out can be taken away, with what was asked for counted."""

    def __init__(self, *, fan_out: bool = True) -> None:
        super().__init__(SimulatedStream(Random(1), shards=2, trouble=CALM), Random(2), broken=0)
        self.fan_out = fan_out
        self.listing: Exception | None = None

    async def open(self, *args: Any, **options: Any) -> Any:
        """Subscribe, if that can be done here."""
        return await super().open(*args, **options) if self.fan_out else UNKNOWN

    async def call(self, region: str, operation: str, *args: Any, **options: Any) -> Any:
        """Answer, but for a listing that fails."""
        if operation.endswith("ListShards") and self.listing is not None:
            raise self.listing
        return await super().call(region, operation, *args, **options)

    def write(self, *contents: bytes | list[User]) -> list[int]:
        """Write to the lower shard, whatever the keys; a list as an aggregate. Returns the sequence numbers."""
        shard = self.stream.all[FIRST]
        for content in contents:
            self.stream._append(shard, "outer", encode(content) if isinstance(content, list) else content)
        return shard.numbers[-len(contents) :]

    def source(self, **options: Any) -> KinesisSource:
        """Make the source of a mapping on the consumer."""
        return KinesisSource(kinesis_mapping(ARN, consumer=CONSUMER), self, **options)


def user(name: str, place: int = LOW) -> User:
    """Make a record for an aggregate."""
    return User(name, place, name.encode())


async def read(reader: ShardReader, count: int, most: int = 100) -> Chunk:
    """Read that many records; return them as one chunk."""
    chunk = await reader.read(most)
    assert chunk is not None
    while len(chunk.raws) < count:
        more = await reader.read(most)
        assert more is not None
        chunk.raws += more.raws
        chunk.positions = [*chunk.positions, *more.positions]
        chunk.runs = [*chunk.runs, *more.runs]
        chunk.strays |= more.strays
    return chunk


@pytest.mark.parametrize("fan_out", [True, False], ids=["fan-out", "polled"])
async def test_aggregates_are_taken_apart_and_strays_are_marked(*, fan_out: bool) -> None:
    """The same records at the same positions however they were read; checkpoints are sequence numbers."""
    kinesis = Kinesis(fan_out=fan_out)
    numbers = kinesis.write(b"plain", [user("a"), user("b", HIGH), user("c")], b"last")
    source = kinesis.source()
    reader = await source.reader(FIRST, None, BEGINNING)
    chunk = await read(reader, 5, most=2)
    assert datas(chunk.raws) == [b"plain", b"a", b"b", b"c", b"last"]
    plain, packed, last = (number << PLACE_BITS for number in numbers)
    assert list(chunk.positions) == [plain, packed, packed + 1, packed + 2, last]
    assert (list(chunk.runs), chunk.strays) == ([(packed, packed + 2)], {packed + 1})
    assert [reader.after(position) for position in chunk.positions] == [
        str(numbers[place]) for place in (0, 1, 1, 1, 2)
    ]
    assert kinesis.stream.calls["ListShards"] == 1
    await source.close()


async def test_the_shards_are_listed_only_for_aggregates() -> None:
    """Who does not use the producer library pays nothing for it."""
    kinesis = Kinesis()
    kinesis.write(b"one", b"two")
    source = kinesis.source()
    await read(await source.reader(FIRST, None, BEGINNING), 2)
    assert kinesis.stream.calls["ListShards"] == 0
    await source.close()


async def test_a_shard_opened_anew_may_have_another_key_range() -> None:
    """The stream was deleted and made anew under its name: what the shard takes is asked for again."""
    kinesis = Kinesis()
    source = kinesis.source()
    for middle, strays in ((HIGH, 1), (2 * HIGH, 0)):
        kinesis.stream.all[FIRST].high = middle - 1
        kinesis.write([user("a"), user("b", HIGH)])
        reader = await source.reader(FIRST, None, BEGINNING)
        chunk = await read(reader, 2)
        assert len(chunk.strays) == strays
        await reader.close()
    await source.close()


async def test_a_listing_that_fails_loses_no_record() -> None:
    """The pump calls again, and gets what was received before."""
    kinesis = Kinesis()
    kinesis.write([user("a"), user("b")])
    source = kinesis.source()
    reader = await source.reader(FIRST, None, BEGINNING)
    kinesis.listing = SourceUnavailableError("away")
    for _ in range(2):
        with pytest.raises(SourceUnavailableError):
            await reader.read(9)
    assert reader.buffered() == 1
    kinesis.listing = None
    assert datas((await read(reader, 2)).raws) == [b"a", b"b"]
    assert kinesis.stream.calls["SubscribeToShard"] == 1
    await source.close()


async def test_without_fan_out_the_stream_is_polled_with_one_warning_and_a_remark() -> None:
    """Every shard of the mapping, those opened later without another try."""
    kinesis = Kinesis(fan_out=False)
    source = kinesis.source()
    with capture_logs() as logged:
        for shard in kinesis.stream.all.values():
            kinesis.stream._append(shard, "k", b"x")
            reader = await source.reader(ShardId(shard.id), None, BEGINNING)
            assert datas((await read(reader, 1)).raws) == [b"x"]
            assert reader.lag().remark == (
                "polled: Kinesis consumer storm/consumer/fast: SubscribeToShard: UnknownOperationException"
            )
    warnings = [(entry["event"], entry["log_level"]) for entry in logged if entry["log_level"] != "debug"]
    assert warnings == [("kinesis.polled", "warning")]
    await source.close()


async def test_fan_out_that_is_taken_away_is_followed_by_polling_behind_the_last_record() -> None:
    """Nothing is repeated and nothing is missing between the two."""
    kinesis = Kinesis()
    kinesis.write(b"1", b"2", [user("3"), user("4")])
    source = kinesis.source()
    reader = await source.reader(FIRST, None, BEGINNING)
    found = datas((await read(reader, 1, most=1)).raws)
    kinesis.fan_out, kinesis.life_s = False, 0.0
    kinesis.write(b"5", b"6")
    found += datas((await read(reader, 5, most=2)).raws)
    assert found == [b"1", b"2", b"3", b"4", b"5", b"6"]
    await source.close()


async def test_the_end_of_a_shard_comes_through() -> None:
    """The children start when this one says None."""
    kinesis = Kinesis()
    kinesis.write([user("a"), user("b")])
    kinesis.stream.split(kinesis.stream.all[FIRST])
    source = kinesis.source()
    reader = await source.reader(FIRST, None, BEGINNING)
    assert datas((await read(reader, 2, most=1)).raws) == [b"a", b"b"]
    assert await reader.read(1) is None
    assert await reader.read(1) is None
    await source.close()


async def test_a_reader_goes_on_behind_its_checkpoint() -> None:
    """And reads an aggregate behind it as a whole."""
    kinesis = Kinesis()
    (first, _) = kinesis.write(b"1", [user("a"), user("b")])
    source = kinesis.source()
    reader = await source.reader(FIRST, Position(str(first)), BEGINNING)
    assert datas((await read(reader, 2)).raws) == [b"a", b"b"]
    await source.close()


async def test_lag_counts_what_waits_and_its_age() -> None:
    """An aggregate counts as one until it is taken apart."""
    kinesis = Kinesis()
    kinesis.write([user("a"), user("b")], b"c")
    source = kinesis.source()
    reader = await source.reader(FIRST, None, BEGINNING)
    assert (reader.lag().records, reader.lag().remark) == (None, None)
    await read(reader, 1, most=1)
    assert reader.buffered() == 2
    assert reader.lag().records == 2
    await read(reader, 2)
    assert (reader.lag().records, reader.lag().seconds) == (0, 0.0)
    await source.close()


async def test_readers_wait_while_the_source_holds_what_it_may() -> None:
    """One that is full keeps the others from receiving more, until it hands its records out."""
    kinesis = Kinesis()
    for shard in kinesis.stream.all.values():
        kinesis.stream._append(shard, "k", b"1")
        kinesis.stream._append(shard, "k", b"2")
    source = kinesis.source(prefetch_max_bytes=100)
    one, other = [await source.reader(ShardId(name), None, BEGINNING) for name in kinesis.stream.all]
    await read(one, 1, most=1)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(read(other, 2))
        await asyncio.sleep(10)
        assert not waiting.done()
        await read(one, 1, most=1)
    assert datas(waiting.result().raws) == [b"1", b"2"]
    assert source._held == 0
    await source.close()


async def test_closing_gives_back_what_was_held_and_the_place() -> None:
    """Another reader of the shard may follow on this node; within five seconds it waits its turn."""
    kinesis = Kinesis()
    kinesis.write(b"1", b"2", b"3")
    source = kinesis.source()
    reader = await source.reader(FIRST, None, BEGINNING)
    await read(reader, 1, most=1)
    await reader.close()
    await reader.close()
    assert source._held == 0
    again = await source.reader(FIRST, None, BEGINNING)
    began_at = asyncio.get_running_loop().time()
    assert datas((await read(again, 3)).raws) == [b"1", b"2", b"3"]
    assert 4 < asyncio.get_running_loop().time() - began_at < 7
    assert kinesis.stream.calls["SubscribeToShard in use"] > 0
    await source.close()
