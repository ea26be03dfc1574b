"""A shard being read: the iterator, the pace, and what is held, over calls that a test answers."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from model.errors import SourceRefusedError, SourceUnavailableError
from model.ids import Position, ShardId
from model.shard import BEGINNING
from pollers.sources.kinesis import PREFETCH_MAX_BYTES, KinesisSource
from pollers.sources.kinesis_api import IteratorExpiredError, KinesisRecord, Page, ThrottledError
from pollers.sources.kinesis_reader import KinesisReader
from tests.support.kinesis_streams import kinesis_mapping
from tests.support.simulated_kinesis import ARN, SimulatedStream, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardOrigin

pytestmark = pytest.mark.looptime

SHARD = ShardId("shardId-000000000000")
BASE = 10**55
CALM = Trouble(throttled=0, failed=0, unanswered=0, expired=0, slow=0)


def gives(*numbers: int, then: str | None = "on", behind_ms: int = 0, size: int = 10) -> Page:
    """Make an answer of GetRecords."""
    data = msgspec.Raw(b'"' + b"A" * size + b'"')
    records = [KinesisRecord(str(BASE + n), data, "k", 1e9) for n in numbers]
    return Page(records, then, behind_ms, len(records) * (size + 2))


class FakeApi:
    """Answers by script, then with nothing; `iterators` remembers where each began."""

    def __init__(self, *script: Page | Exception) -> None:
        self.script: deque[Page | Exception] = deque(script)
        self.iterators: list[Position | None] = []
        self.asked_at: list[float] = []
        self.limits: list[int] = []
        self.asked = asyncio.Event()
        self.blocked: asyncio.Event | None = None

    async def iterator(self, _shard: ShardId, after: Position | None, _origin: ShardOrigin) -> str:
        """Note where it begins."""
        self.iterators.append(after)
        return "it"

    async def get_records(self, _iterator: str, *, limit: int) -> Page:
        """Answer."""
        self.asked_at.append(asyncio.get_running_loop().time())
        self.limits.append(limit)
        self.asked.set()
        if self.blocked is not None:
            await self.blocked.wait()
        said = self.script.popleft() if self.script else gives()
        if isinstance(said, Exception):
            raise said
        return said

    def now_s(self) -> float:
        """Ten seconds after every record."""
        return 1e9 + 10


class FakeOwner:
    """A source that has room."""

    retention_s = 86_400.0

    def __init__(self) -> None:
        self.held = 0
        self.space = 1_000_000

    def room(self) -> int:
        """Say how much."""
        return self.space

    def holds(self, delta: int) -> None:
        """Count."""
        self.held += delta

    def closed(self, _reader: KinesisReader) -> None:
        """Do not care."""


def opened(api: FakeApi, owner: FakeOwner | None = None, *, after: str | None = None) -> KinesisReader:
    """Open a reader."""
    calls: Any = api
    return KinesisReader(
        SHARD, None if after is None else Position(after), BEGINNING, api=calls, owner=owner or FakeOwner()
    )


async def take(reader: KinesisReader, max_records: int = 100) -> list[int]:
    """Read once; return the numbers."""
    chunk = await reader.read(max_records)
    assert chunk is not None
    assert [int(raw.SequenceNumber) for raw in chunk.raws] == list(chunk.positions)
    return numbers(chunk.positions)


def numbers(positions: Sequence[int]) -> list[int]:
    """Shorten sequence numbers."""
    return [position - BASE for position in positions]


async def test_records_are_handed_out_in_helpings_before_more_is_asked_for() -> None:
    """One answer is held at a time, and its bytes are accounted for until the last record is out."""
    api, owner = FakeApi(gives(1, 2, 3, behind_ms=7), gives(4)), FakeOwner()
    reader = opened(api, owner)
    assert await take(reader, 2) == [1, 2]
    assert (reader.buffered(), len(api.asked_at)) == (1, 1)
    assert owner.held > 0
    assert await take(reader, 2) == [3]
    assert owner.held == 0
    assert await take(reader, 2) == [4]
    assert api.iterators == [None]
    assert reader.after(BASE + 4) == str(BASE + 4)


async def test_the_end_of_a_closed_shard_comes_after_its_last_record() -> None:
    """No next iterator: what was received is handed out, then the end, again and again."""
    reader = opened(FakeApi(gives(1, 2, then=None)))
    assert await take(reader, 1) == [1]
    assert await take(reader, 1) == [2]
    assert await reader.read(1) is None
    assert await reader.read(1) is None


async def test_an_expired_iterator_goes_on_after_the_last_record_received() -> None:
    """Not at the checkpoint, which may be far behind, and not at the beginning."""
    api = FakeApi(IteratorExpiredError("old"), gives(1, 2), IteratorExpiredError("old"), gives(3))
    reader = opened(api, after=str(BASE))
    assert await take(reader) == [1, 2]
    assert await take(reader) == [3]
    assert api.iterators == [str(BASE), str(BASE), str(BASE + 2)]


async def test_an_iterator_that_always_expires_is_not_asked_for_without_pause() -> None:
    """Five calls a second, not a busy loop."""
    api = FakeApi(*[IteratorExpiredError("old")] * 10, gives(1))
    began_at = asyncio.get_running_loop().time()
    assert await take(opened(api)) == [1]
    assert asyncio.get_running_loop().time() - began_at > 1.9


async def test_a_cancelled_read_loses_nothing() -> None:
    """Cancelled while a call is under way, the same call is made again."""
    api = FakeApi(gives(1), gives(2))
    api.blocked = asyncio.Event()
    reader = opened(api)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reader.read(5))
        await api.asked.wait()
        reading.cancel()
    api.blocked = None
    assert await take(reader) == [1]
    assert await take(reader) == [2]


async def test_throttling_is_waited_out_and_told_only_when_it_lasts() -> None:
    """A throttle now and then is nobody's business; ten seconds of it are."""
    api = FakeApi(ThrottledError("slow down"), gives(1), *[ThrottledError("slow down")] * 20)
    reader = opened(api)
    assert await take(reader) == [1]
    began_at = asyncio.get_running_loop().time()
    with pytest.raises(ThrottledError):
        await reader.read(5)
    assert 10 <= asyncio.get_running_loop().time() - began_at < 20


@pytest.mark.parametrize("error", [SourceUnavailableError("away"), SourceRefusedError("no")])
async def test_after_trouble_the_first_answer_is_told_even_if_it_is_empty(error: Exception) -> None:
    """So that a quiet shard does not look troubled for hours."""
    reader = opened(FakeApi(error, gives(), gives(1)))
    with pytest.raises(type(error)):
        await reader.read(5)
    chunk = await reader.read(5)
    assert chunk is not None
    assert chunk.raws == []
    assert await take(reader) == [1]


async def test_a_quiet_shard_is_asked_once_a_second_and_a_busy_one_five_times() -> None:
    """The pace is kept from call to call."""
    api = FakeApi(gives(), gives(), gives(1, behind_ms=5), gives(2, behind_ms=5), gives(3))
    reader = opened(api)
    for number in (1, 2, 3):
        assert await take(reader) == [number]
    gaps = [round(later - earlier, 3) for earlier, later in zip(api.asked_at, api.asked_at[1:], strict=False)]
    assert gaps == [1.0, 1.0, 0.205, 0.205]


async def test_an_answer_is_asked_for_no_larger_than_there_is_room() -> None:
    """By the size of the records in the last answer; one record always."""
    owner = FakeOwner()
    api = FakeApi(gives(1, 2, size=100_000 - 402), gives(3, size=100_000 - 402), gives(4))
    reader = opened(api, owner)
    await take(reader)
    await take(reader)
    owner.space = 10
    await take(reader)
    assert api.limits == [1000, 10, 1]


@pytest.mark.parametrize("ends", [gives(), gives(1), IteratorExpiredError("it"), SourceUnavailableError("down"), None])
async def test_an_answer_under_way_holds_the_room_it_was_given(ends: Page | Exception | None) -> None:
    """Readers that ask at the same time share what there is; afterwards only what came is held. None: cancelled."""
    owner = FakeOwner()
    api = FakeApi(*([] if ends is None else [ends]))
    api.blocked = asyncio.Event()
    reader = opened(api, owner)

    async def read() -> None:
        with suppress(SourceUnavailableError):
            await reader.read(100)

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        await api.asked.wait()
        assert owner.held == owner.space
        if ends is None:
            reading.cancel()
        api.blocked.set()
        await asyncio.sleep(0.1)
        assert owner.held == 0
        reading.cancel()


@pytest.mark.parametrize("shards", [1, 8, 50, 1000])
async def test_readers_that_ask_together_share_what_a_source_may_hold(shards: int) -> None:
    """The first ones get much, and all together no more than that; beyond it everyone gets the least."""
    calls: Any = SimulatedStream(Random(1), shards=shards, trouble=CALM)
    source = KinesisSource(kinesis_mapping(ARN), calls)
    for listed in await source.shards():
        await source.reader(listed.id, None, BEGINNING)
    rooms = []
    for _ in range(shards):
        rooms.append(source.room())
        source.holds(rooms[-1])
    least = 256 * 1024
    assert rooms == sorted(rooms, reverse=True)
    assert rooms[0] == 10 * 1024 * 1024
    assert rooms[-1] >= least
    assert min(rooms[:10]) > 1_500_000
    assert sum(room for room in rooms if room > least) <= PREFETCH_MAX_BYTES


async def test_lag_is_what_kinesis_says_and_records_are_counted_only_at_the_end() -> None:
    """Nothing before the first answer; nothing made up in between."""
    reader = opened(FakeApi(gives(1, behind_ms=5000), gives(2, 3), gives()))
    assert (reader.lag().records, reader.lag().seconds) == (None, None)
    await take(reader)
    assert (reader.lag().records, reader.lag().seconds, reader.lag().retention_s) == (None, 5.0, 86_400.0)
    await take(reader, 1)
    assert (reader.lag().records, reader.lag().seconds) == (1, 10.0)
    await take(reader, 1)
    assert (reader.lag().records, reader.lag().seconds) == (0, 0.0)


async def test_a_closed_reader_gives_its_room_back_and_reads_no_more() -> None:
    """Closing is safe twice."""
    owner = FakeOwner()
    reader = opened(FakeApi(gives(1, 2)), owner)
    await take(reader, 1)
    await reader.close()
    await reader.close()
    assert owner.held == 0
    with pytest.raises(SourceRefusedError, match="closed"):
        await reader.read(1)
