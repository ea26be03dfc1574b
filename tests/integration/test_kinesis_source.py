"""The Kinesis source on real servers: where reading begins, what a record becomes, and what a node makes of it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from model.errors import SourceRefusedError
from model.ids import Position, ShardId
from model.mapping import StartingPosition
from model.record import Places
from model.shard import BEGINNING, END, origin_ms
from pollers.lane import lane_numbers
from pollers.sources.kinesis_envelope import KinesisEnvelope
from pollers.sources.kpl import deaggregate
from tests.support.kinesis_fleet import MAPPING, Fleet, Producer, kinesis_fleet
from tests.support.kinesis_streams import (
    Stream,
    aws_json,
    datas,
    kinesis_mapping,
    kinesis_source,
    read_out,
    read_records,
)
from tests.support.kpl_encoding import User, encode
from tests.support.node_process import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kinesis_local import KinesisLocal
    from tests.support.kinesis_streams import Streams
    from tests.support.moto_server import MotoServer

FIRST = ShardId("shardId-000000000000")


async def test_records_are_read_from_the_beginning_after_a_checkpoint_and_not_at_all(streams: Streams) -> None:
    """TRIM_HORIZON without a checkpoint, right behind it with one, and what was read twice is the same."""
    stream = await asyncio.to_thread(streams.new)
    await asyncio.to_thread(stream.put, [("k", b"%d" % n) for n in range(10)])
    async with kinesis_source(streams.server.endpoint_url, kinesis_mapping(stream.arn)) as source:
        (shard,) = await source.shards()
        assert (shard.id, shard.parents, shard.origin) == (FIRST, (), BEGINNING)
        reader = await source.reader(FIRST, None, BEGINNING)
        raws = await read_records(reader, 10)
        assert datas(raws) == [b"%d" % n for n in range(10)]
        checkpoint = reader.after(int(raws[3].SequenceNumber))
        with pytest.raises(SourceRefusedError, match="being read already"):
            await source.reader(FIRST, None, BEGINNING)
        await reader.close()
        again = await source.reader(FIRST, checkpoint, BEGINNING)
        assert datas(await read_records(again, 6)) == [b"%d" % n for n in range(4, 10)]


async def test_a_record_becomes_the_event_with_its_data_untouched(streams: Streams) -> None:
    """Bytes that are no text, a key that is not ASCII, the server's own time and number."""
    stream = await asyncio.to_thread(streams.new)
    data = bytes(range(256))
    ((shard, sequence),) = await asyncio.to_thread(stream.put, [("schlüssel", data)])
    mapping = kinesis_mapping(stream.arn)
    async with kinesis_source(streams.server.endpoint_url, mapping) as source:
        reader = await source.reader(FIRST, None, BEGINNING)
        (raw,) = await read_records(reader, 1)
        assert reader.lag().retention_s == 86_400.0
    envelope = KinesisEnvelope(mapping.source)  # type: ignore[arg-type]  # of this kind, as made above
    (shown,) = json.loads(envelope.event(envelope.encode(FIRST, [raw], Places([int(raw.SequenceNumber)]))))["Records"]
    assert datas([raw]) == [data]
    assert (shown["kinesis"]["partitionKey"], shown["kinesis"]["sequenceNumber"]) == ("schlüssel", sequence)
    assert shown["eventID"] == f"{shard}:{sequence}"
    arrived = datetime.fromtimestamp(shown["kinesis"]["approximateArrivalTimestamp"], UTC)
    assert abs(arrived - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_start_in_time_skips_what_arrived_before(streams: Streams) -> None:
    """AT_TIMESTAMP to the millisecond."""
    stream = await asyncio.to_thread(streams.new)
    await asyncio.to_thread(stream.put, [("k", b"before")])
    async with kinesis_source(streams.server.endpoint_url, kinesis_mapping(stream.arn)) as source:
        reader = await source.reader(FIRST, None, BEGINNING)
        (raw,) = await read_records(reader, 1)
    start = datetime.fromtimestamp(raw.ApproximateArrivalTimestamp, UTC) + timedelta(milliseconds=1)
    await asyncio.sleep(streams.server.moment_s)  # so that the next record arrives in a later millisecond
    await asyncio.to_thread(stream.put, [("k", b"after")])
    mapping = kinesis_mapping(stream.arn, position=StartingPosition.AT_TIMESTAMP, time=start)
    async with kinesis_source(streams.server.endpoint_url, mapping) as source:
        (shard,) = await source.shards()
        assert shard.origin is not None
        reader = await source.reader(FIRST, None, shard.origin)
        assert datas(await read_records(reader, 1)) == [b"after"]


async def test_latest_begins_where_the_mapping_first_looked_however_late_the_reader_comes(streams: Streams) -> None:
    """Records that arrive between the first look and the first read are not lost."""
    stream = await asyncio.to_thread(streams.new)
    await asyncio.to_thread(stream.put, [("k", b"old")])
    await asyncio.sleep(streams.server.moment_s)  # so that now is later than the record's millisecond
    mapping = kinesis_mapping(stream.arn, position=StartingPosition.LATEST)
    async with kinesis_source(streams.server.endpoint_url, mapping) as source:
        (shard,) = await source.shards()
    assert shard.origin is not None
    assert origin_ms(shard.origin) is not None
    await asyncio.sleep(streams.server.moment_s)  # as above
    await asyncio.to_thread(stream.put, [("k", b"new")])
    async with kinesis_source(streams.server.endpoint_url, mapping) as source:
        reader = await source.reader(FIRST, None, shard.origin)
        assert datas(await read_records(reader, 1)) == [b"new"]


async def test_a_closed_shard_is_read_to_its_end_and_its_children_name_it(closing_streams: Streams) -> None:
    """A split: the parent ends, and the listing says whose children the new shards are. In moto no shard ends."""
    stream = await asyncio.to_thread(closing_streams.new)
    await asyncio.to_thread(stream.put, [("k", b"%d" % n) for n in range(3)])
    await asyncio.to_thread(lambda: stream.split(stream.open_shards()[0]))
    latest = kinesis_mapping(stream.arn, position=StartingPosition.LATEST)
    async with kinesis_source(closing_streams.server.endpoint_url, latest) as source:
        parent, *children = await source.shards()
        assert (parent.id, parent.parents, parent.origin) == (FIRST, (), END)
        assert [child.parents for child in children] == [(FIRST,), (FIRST,)]
        reader = await source.reader(FIRST, None, BEGINNING)
        raws = await read_out(reader)
        assert datas(raws) == [b"0", b"1", b"2"]
        assert await reader.read(1) is None


async def test_a_merged_shard_names_both_parents(closing_streams: Streams) -> None:
    """ParentShardId and AdjacentParentShardId."""
    stream = await asyncio.to_thread(closing_streams.new, shards=2)
    await asyncio.to_thread(lambda: stream.merge(*stream.open_shards()))
    async with kinesis_source(closing_streams.server.endpoint_url, kinesis_mapping(stream.arn)) as source:
        *parents, child = await source.shards()
    assert set(child.parents) == {parent.id for parent in parents}


async def test_a_stream_consumer_is_served_by_subscription(closing_streams: Streams) -> None:
    """The server's own SubscribeToShard: records of a backlog and new ones, and a place to go on from."""
    stream = await asyncio.to_thread(closing_streams.new)
    await asyncio.to_thread(stream.put, [("k", b"%d" % n) for n in range(3)])
    consumer = await asyncio.to_thread(stream.register_consumer)
    mapping = kinesis_mapping(stream.arn, consumer=consumer)
    async with kinesis_source(closing_streams.server.endpoint_url, mapping) as source:
        reader = await source.reader(FIRST, None, BEGINNING)
        raws = await read_records(reader, 3, places=True)
        await asyncio.to_thread(stream.put, [("k", b"3")])
        raws += await read_records(reader, 1, places=True)
        assert datas(raws) == [b"0", b"1", b"2", b"3"]
        assert (reader.lag().remark, reader.lag().retention_s) == (None, 86_400.0)
        await reader.close()
        again = await source.reader(FIRST, Position(raws[1].SequenceNumber), BEGINNING)
        assert datas(await read_records(again, 2, places=True)) == [b"2", b"3"]


async def test_a_stream_consumer_is_polled_where_there_are_no_subscriptions(
    moto_server: MotoServer, tmp_path: Path
) -> None:
    """Moto's answer to SubscribeToShard is its web server's error page: after the third one, a warning and a remark."""
    stream = await asyncio.to_thread(Stream, moto_server.endpoint_url)
    producer = Producer(stream, keys=3)
    await asyncio.to_thread(producer.write, 3)
    async with aws_json(moto_server.endpoint_url) as caller:
        fleet = Fleet(caller, f"{stream.arn}/consumer/fast:1", tmp_path)
        with capture_logs() as logged:
            async with fleet.node():
                verdict = await fleet.delivered(producer)
        assert verdict.problems() == []
        report = (await fleet.progress())[FIRST].report
    assert (report.remark or "").startswith(f"polled: Kinesis consumer {stream.name}/")
    assert report.last_error is None
    assert [entry["event"] for entry in logged if entry["log_level"] == "warning"] == ["kinesis.polled"]


async def test_more_shards_than_a_page_holds_are_all_listed(kinesis_local: KinesisLocal) -> None:
    """This server lists a hundred at a time."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url, shards=150)
    async with kinesis_source(kinesis_local.endpoint_url, kinesis_mapping(stream.arn)) as source:
        assert len({shard.id for shard in await source.shards()}) == 150


async def test_a_stream_that_is_not_there_is_a_refusal(streams: Streams) -> None:
    """Someone must act; the text names the stream."""
    arn = f"arn:aws:kinesis:{streams.server.region}:{streams.server.account}:stream/nowhere"
    async with kinesis_source(streams.server.endpoint_url, kinesis_mapping(arn)) as source:
        with pytest.raises(SourceRefusedError, match="nowhere"):
            await source.shards()
        with pytest.raises(SourceRefusedError, match="nowhere"):
            await (await source.reader(FIRST, Position("1"), BEGINNING)).read(1)


async def test_an_aggregate_of_the_producer_library_is_one_record_of_a_polled_stream(streams: Streams) -> None:
    """As in AWS it is passed on untouched: taking it apart is the function's business."""
    stream = await asyncio.to_thread(streams.new)
    aggregate = encode([User("a", None, b"one"), User("b", None, b"two")])
    assert len(deaggregate(aggregate) or ()) == 2
    await asyncio.to_thread(stream.put, [("k", aggregate)])
    async with kinesis_source(streams.server.endpoint_url, kinesis_mapping(stream.arn)) as source:
        reader = await source.reader(FIRST, None, BEGINNING)
        (raw,) = await read_records(reader, 1)
    assert (datas([raw]), raw.PartitionKey) == ([aggregate], "k")


async def test_a_failing_key_stalls_its_lane_alone_and_what_the_others_finished_is_not_delivered_again(
    streams: Streams, tmp_path: Path
) -> None:
    """Four lanes, one of them stuck; the node dies, and its successor goes on with what is left only."""
    stream = await asyncio.to_thread(streams.new)
    producer = Producer(stream, keys=12)
    (failing,) = lane_numbers(["key-0"], 4)
    stuck = [
        key for key, lane in zip(producer.written, lane_numbers(producer.written, 4), strict=True) if lane == failing
    ]
    await asyncio.to_thread(producer.write, 20)
    more = ["ParallelizationFactor: 4", "BatchSize: 5"]
    async with kinesis_fleet(streams.server.endpoint_url, stream, tmp_path, more) as fleet:
        fleet.function.poison = {("key-0", 0)}
        async with fleet.node() as node:

            async def others_saved() -> bool:
                progress = (await fleet.progress()).get(FIRST)
                return progress is not None and progress.ledger.delivered >= 20 * (12 - len(stuck))

            await eventually(others_saved, "the other lanes' records")
            await node.kill()
        assert ("key-0", 0) not in fleet.function.arrivals
        fleet.function.poison = set()
        async with fleet.node():
            verdict = await fleet.delivered(producer)
    assert verdict.problems() == []
    assert verdict.duplicates == 0


async def test_a_latest_mapping_survives_the_death_of_every_node_before_its_first_record(
    closing_streams: Streams, tmp_path: Path
) -> None:
    """Where LATEST was is stored with the first discovery, so what comes while nobody runs is delivered."""
    server = closing_streams.server
    stream = await asyncio.to_thread(closing_streams.new, shards=2)
    old = Producer(stream, keys=3)
    await asyncio.to_thread(old.write)
    await asyncio.sleep(server.moment_s)  # so that the mapping begins in a later millisecond
    async with kinesis_fleet(server.endpoint_url, stream, tmp_path, position="LATEST") as fleet:
        async with fleet.node() as node:
            await fleet.noted(3)
            await node.kill()
        await asyncio.to_thread(lambda: stream.split(stream.open_shards()[0]))
        producer = Producer(stream, keys=9, prefix="new")
        await asyncio.to_thread(producer.write, 3)
        async with fleet.node():
            verdict = await fleet.delivered(producer)
    assert verdict.problems() == []
    assert {found.shard.partition("/")[0] for found in fleet.function.log} == {MAPPING}
