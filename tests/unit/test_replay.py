"""Replays: ranges as archives (`pollers.redriving.ranges`), and the range of a stream, in fast-forwarded time."""

from __future__ import annotations

import asyncio
from collections import deque
from math import floor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from model.errors import SourceUnavailableError
from model.ids import Position, ShardId
from model.mapping import KinesisSource
from model.outcome import Delivered, FunctionFailed
from pollers.redriving.job import Redrive, Wishes
from pollers.redriving.kinesis import KinesisRange, KinesisRereading
from pollers.redriving.ranges import NOTHING, Limits, NothingToReread, Piece, RangeArchive, of_record
from pollers.sources.kinesis_api import KinesisApi
from pollers.sources.kinesis_envelope import KinesisEnvelope
from tests.support.redrive_rig import RedriveRig, records
from tests.support.simulated_kinesis import ARN, SimulatedStream, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.errors import EsmdError
    from pollers.redriving.job import Counts

pytestmark = pytest.mark.looptime(noop_cycles=0)

ORDERS = ShardId("orders-0")


class Pages:
    """A range in memory: pieces, and errors between them. `pollers.redriving.ranges.RangeReader`."""

    def __init__(self, *pieces: Piece | EsmdError) -> None:
        self._pieces = deque(pieces)
        self.reads = 0
        self.closed = False

    async def total(self) -> tuple[int, str]:
        """Count the pieces."""
        return len(self._pieces), "records"

    def done(self) -> int:
        """Count the reads."""
        return self.reads

    async def read(self, most: int) -> Piece | None:
        """Return the next piece."""
        assert most >= 1000
        await asyncio.sleep(0.001)
        piece = self._pieces.popleft() if self._pieces else None
        if piece is None or isinstance(piece, Piece):
            self.reads += piece is not None
            return piece
        raise piece

    async def close(self) -> None:
        """Remember."""
        self.closed = True


def piece(*offsets: int, filtered: int = 0, partition: int = 0) -> Piece:
    """Return a piece of a partition."""
    shard = ShardId(f"orders-{partition}")
    return Piece(shard, list(records(*offsets, partition=partition)) if offsets else [], filtered)


async def replay(rig: RedriveRig, archive: RangeArchive, **wishes: Any) -> Counts:
    """Deliver an archive with the job of redrives."""
    took = rig._took
    job = Redrive(
        rig.parts,
        archive,
        read=of_record,
        rereading=NothingToReread(),
        token_of=rig._token_of,
        took=took,
        listener=rig,
        wishes=Wishes(before_ms=1.0, **wishes),
        stop=rig.stop,
    )
    return await job.run()


def made(rig: RedriveRig, *pieces: Piece | EsmdError) -> tuple[Pages, RangeArchive]:
    """Make the archive of a range."""
    pages = Pages(*pieces)
    return pages, RangeArchive(pages, batch_size=rig.parts.mapping.batch_size)


async def test_records_go_in_whole_batches_shard_by_shard() -> None:
    """However they were read; the last batch of all is what is left. The books balance."""
    rig = RedriveRig(batch_size=4)
    pages, archive = made(rig, piece(0, 1, 2, filtered=2), piece(5, 6, 7), piece(), piece(8, 9), piece(0, partition=1))
    counts = await replay(rig, archive)
    assert rig.calls == [[0, 1, 2, 5], [6, 7, 8, 9], [0]]
    assert (archive.records, archive.filtered, counts.delivered_records, counts.failed_records) == (11, 2, 9, 0)
    assert pages.closed
    assert rig.counters.redriven == 9


async def test_what_fails_is_found_by_halves_told_and_passed() -> None:
    """The others of its batch are delivered, and so is what follows."""
    rig = RedriveRig(batch_size=4)
    rig.answer = lambda offsets: FunctionFailed("no", "Unhandled", 200, None) if 2 in offsets else Delivered()
    _, archive = made(rig, piece(*range(8)))
    counts = await replay(rig, archive)
    assert (counts.delivered_records, counts.failed_records) == (7, 1)
    assert [line for line in rig.told if line[0] == "kept"] == [("kept", "orders-0@2", "1", "no")]


async def test_a_source_that_does_not_answer_is_asked_again_and_nothing_is_read_twice() -> None:
    """What was read before is kept meanwhile."""
    rig = RedriveRig(batch_size=4)
    _, archive = made(rig, piece(0, 1), SourceUnavailableError("away"), piece(2, 3), piece(4))
    counts = await replay(rig, archive)
    assert rig.calls == [[0, 1, 2, 3], [4]]
    assert counts.delivered_records == 5


async def test_a_dry_run_counts_and_calls_nobody() -> None:
    """It reads all of it."""
    rig = RedriveRig(batch_size=4)
    _, archive = made(rig, piece(*range(9), filtered=3))
    counts = await replay(rig, archive, dry_run=True)
    assert (counts.delivered_records, archive.filtered, rig.calls) == (9, 3, [])


async def test_stopping_ends_after_the_batch_under_way_and_the_rest_is_left() -> None:
    """What was read and not tried is neither delivered nor failed."""
    rig = RedriveRig(batch_size=2)

    def stop_after_one(_offsets: list[int]) -> Delivered:
        rig.stop.set()
        return Delivered()

    rig.answer = stop_after_one
    _, archive = made(rig, piece(*range(8)))
    counts = await replay(rig, archive)
    assert (counts.delivered_records, counts.failed_records, archive.records) == (2, 0, 8)


async def test_a_rate_spreads_the_records() -> None:
    """Ten records at two a second take four seconds and a half, as the first goes at once."""
    rig = RedriveRig(batch_size=10)
    _, archive = made(rig, piece(*range(10)))
    began = asyncio.get_running_loop().time()
    await replay(rig, archive, rate=2.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(4, abs=0.6)
    assert rig.calls == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


# The range of a stream


class Kinesis:
    """A stream that splits once: ten records before and ten after, one a second."""

    def __init__(self, trouble: Trouble) -> None:
        self.stream = SimulatedStream(Random(5), shards=1, retention_s=1e9, trouble=trouble)
        self.begun_ms = 0
        self.parent = self.stream.open_shards()[0]

    async def write(self) -> None:
        """Write everything."""
        self.begun_ms = floor(self.stream.now_s() * 1000)
        for number in range(20):
            if number == 10:
                self.stream.split(self.parent)
            self.stream.put("k")
            await asyncio.sleep(1)

    async def replayed(self, from_s: float, to_s: float, *limits: Limits) -> list[int]:
        """Read a range, by the numbers of the records in it; seconds since the first was written."""
        api = KinesisApi(ARN, self.stream)
        forms = KinesisRereading(api, KinesisEnvelope(KinesisSource(ARN)), None)
        shards = limits or [Limits(ShardId(name), None) for name in self.stream.all]
        from_ms, to_ms = self.begun_ms + int(from_s * 1000), self.begun_ms + int(to_s * 1000)
        reader = KinesisRange(api, forms, shards, from_ms=from_ms, to_ms=to_ms)
        assert await reader.total() == ((to_ms - from_ms) // 1000 * len(shards), "seconds")
        numbers = {number: place for place, number in enumerate(self.numbers())}
        found: list[int] = []
        while True:
            try:
                came = await reader.read(1000)
            except SourceUnavailableError:
                continue
            if came is None:
                assert reader.done() == (await reader.total())[0]
                return found
            assert reader.done() <= (await reader.total())[0]
            found += [numbers[record.position] for record in came.records]

    def numbers(self) -> Sequence[int]:
        """Return the sequence numbers, in the order they were written."""
        return sorted(number for shard in self.stream.all.values() for number in shard.numbers)


CALM = Trouble(throttled=0, failed=0, unanswered=0, expired=0, slow=0, listed_late_s=0)


@pytest.mark.parametrize("trouble", [CALM, Trouble(throttled=0.1, failed=0.1, expired=0.2)], ids=["calm", "trouble"])
async def test_a_range_of_a_stream_is_read_across_its_split(trouble: Trouble) -> None:
    """From the first record at or after its begin to the last one before its end, parents first."""
    kinesis = Kinesis(trouble)
    await kinesis.write()
    assert await kinesis.replayed(-5, 100) == list(range(20))
    assert await kinesis.replayed(2.5, 7.5) == [3, 4, 5, 6, 7]
    assert await kinesis.replayed(7.5, 12.5) == [8, 9, 10, 11, 12]
    assert await kinesis.replayed(50, 60) == []


async def test_a_range_ends_at_the_checkpoint_of_each_shard() -> None:
    """What a mapping's own function has not had yet comes by itself."""
    kinesis = Kinesis(CALM)
    await kinesis.write()
    limit = Position(str(kinesis.parent.numbers[6]))
    assert await kinesis.replayed(2.5, 100, Limits(ShardId(kinesis.parent.id), limit)) == [3, 4, 5, 6]
    assert await kinesis.replayed(2.5, 100, Limits(ShardId(kinesis.parent.id), NOTHING)) == []
