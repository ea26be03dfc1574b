"""Where failed records are read from, on real and embedded servers: topics, buckets, and their sources again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from model.errors import RefusedError, SourceRefusedError, UnavailableError
from model.ids import MappingId, ShardId
from model.mapping import KafkaSource, KinesisSource
from model.record import Records
from model.shard import BEGINNING
from pollers.destinations.aws_clients import AwsClients
from pollers.redriving import kafka as redriving_kafka
from pollers.redriving import s3
from pollers.redriving.documents import Span
from pollers.redriving.kafka import KafkaAccess, KafkaArchive, KafkaRereading, group_of
from pollers.redriving.kinesis import KinesisRereading
from pollers.redriving.s3 import DONE_PREFIX, PREFIX, S3Archive
from pollers.sources.kafka_envelope import KafkaEnvelope
from pollers.sources.kafka_security import KafkaSecurity
from pollers.sources.kinesis_api import KinesisApi
from pollers.sources.kinesis_envelope import KinesisEnvelope
from pollers.sources.kpl import HashKeyRange
from tests.support.aws_servers import aws_client
from tests.support.kinesis_streams import Stream, aws_json
from tests.support.kpl_encoding import User, encode
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pollers.redriving.archive import Archive, Found
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kafka_admin import KafkaAdmin
    from tests.support.kafka_fixtures import KafkaBroker
    from tests.support.kinesis_local import KinesisLocal
    from tests.support.moto_server import MotoServer


async def everything(archive: Archive) -> list[Found]:
    """Read an archive to its end."""
    found: list[Found] = []
    async with asyncio.timeout(60):
        while (some := await archive.read()) is not None:
            found += some
    return found


# Topics


def access(broker: KafkaBroker, group: str) -> KafkaAccess:
    """Return how to get at a broker."""

    async def security() -> KafkaSecurity:
        return KafkaSecurity()

    return KafkaAccess(servers=[broker.bootstrap_servers], group=group, security=security)


async def produce(broker: KafkaBroker, topic: str, *values: bytes, partition: int = 0) -> None:
    """Write messages."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=partition)


@contextlib.asynccontextmanager
async def archive_of(broker: KafkaBroker, topic: str, group: str, **options: Any) -> AsyncIterator[KafkaArchive]:
    """Read a topic as a redrive does."""
    archive = KafkaArchive(access(broker, group), topic, **options)
    try:
        yield archive
    finally:
        await archive.close()


def bodies(found: Sequence[Found]) -> list[bytes]:
    """Return the documents."""
    return [one.body for one in found]


async def test_a_topic_is_read_to_where_it_ended_and_from_where_the_last_redrive_was(kafka: KafkaBroker) -> None:
    """What was removed is not read again, what failed in the middle is, and looking alone commits nothing."""
    topic, group = kafka.new_topic(2), group_of(MappingId(unique_name("m")))
    await produce(kafka, topic, *(b"%d" % n for n in range(5)))
    await produce(kafka, topic, b"other", partition=1)
    async with archive_of(kafka, topic, group, commits=False) as archive:
        assert await archive.count() == 6
        found = await everything(archive)
        assert sorted(bodies(found)) == [b"0", b"1", b"2", b"3", b"4", b"other"]
        await archive.remove(found)
    async with archive_of(kafka, topic, group) as archive:
        found = sorted(await everything(archive))  # the order holds within a partition
        assert [one.name for one in found] == [*(f"{topic}-0@{n}" for n in range(5)), f"{topic}-1@0"]
        await produce(kafka, topic, b"new")
        assert await archive.read() is None
        await archive.remove([found[0], found[2]])
        await archive.remove([found[3]])
        archive.keep([found[1]])
        archive.keep([found[5]], foreign=True)  # committed when it closes
    async with archive_of(kafka, topic, group) as archive:
        assert await archive.count() == 3
        assert bodies(await everything(archive)) == [b"1", b"4", b"new"]


async def test_a_killed_redrive_has_committed_what_it_removed(kafka: KafkaBroker) -> None:
    """Nothing is left to its end."""
    topic, group = kafka.new_topic(1), unique_name("group")
    await produce(kafka, topic, b"0", b"1", b"2")
    archive = KafkaArchive(access(kafka, group), topic)
    found = await everything(archive)
    await archive.remove(found[:1])
    await archive._topic.close()  # a killed node's connection closes, and nothing more
    async with archive_of(kafka, topic, group) as successor:
        assert bodies(await everything(successor)) == [b"1", b"2"]


async def test_brokers_that_go_away_in_the_middle_are_waited_for_and_nothing_is_read_twice(
    embedded_kafka: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new connection reads on where the lost one was."""
    monkeypatch.setattr(redriving_kafka, "_CALL_S", 2.0)
    monkeypatch.setattr(redriving_kafka, "_SILENT", 2)
    topic = embedded_kafka.new_topic(1)
    await produce(embedded_kafka, topic, *(b"%d" % n for n in range(6)))
    async with archive_of(embedded_kafka, topic, unique_name("group")) as archive:
        found = await archive.read() or []
        assert bodies(found) == [b"0"]  # this broker gives them one by one
        embedded_kafka.go_down()
        try:
            with pytest.raises(UnavailableError):
                await archive.remove(found)
            assert archive._topic._consumer is None
        finally:
            embedded_kafka.come_up()
        await archive.remove(found)
        assert bodies(await everything(archive)) == [b"1", b"2", b"3", b"4", b"5"]


async def test_a_topic_that_does_not_exist_is_refused(real_kafka: KafkaAdmin) -> None:
    """Someone wrote the wrong name."""
    async with archive_of(real_kafka, unique_name("none"), unique_name("group")) as archive:
        with pytest.raises(SourceRefusedError, match="no such topic"):
            await archive.read()


async def test_offsets_of_a_source_are_read_again_as_the_mapping_made_them(kafka: KafkaBroker) -> None:
    """Every byte; a range that is not all there is told."""
    topic = kafka.new_topic(2)
    await produce(kafka, topic, *(b"%d" % n for n in range(6)), partition=1)
    envelope = KafkaEnvelope(KafkaSource(topic, "group", ("h:1",)))
    rereading = KafkaRereading(access(kafka, unique_name("group")), topic, envelope, None)
    try:
        shard = ShardId(f"{topic}-1")
        reread = await rereading.read(Span(shard, 1, 3))
        assert reread.whole
        assert [record.position for record in reread.records] == [1, 2, 3]
        event = msgspec.json.decode(envelope.event(Records.of(reread.records)))
        assert [record["value"] for record in event["records"][shard]] == ["MQ==", "Mg==", "Mw=="]
        beyond = await rereading.read(Span(shard, 4, 9))
        assert ([record.position for record in beyond.records], beyond.whole) == ([4, 5], False)
        none = await rereading.read(Span(ShardId(f"{topic}-0"), 0, 3))
        assert (list(none.records), none.whole) == ([], False)
    finally:
        await rereading.close()


# Buckets


@pytest.fixture
async def aws(moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AwsClients]:
    """Give a node's clients."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    async with AwsClients(region="us-east-1", endpoint_url=moto_server.endpoint_url) as clients:
        yield clients


MAPPING = MappingId("4f6e3f0e-0000-4000-8000-000000000001")


async def test_a_bucket_is_read_page_by_page_and_what_was_delivered_is_moved(
    moto_server: MotoServer, aws: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the mapping's own objects, each once; those that are gone meanwhile are nobody's trouble."""
    monkeypatch.setattr(s3, "_LISTED", 3)
    store, bucket = aws_client("s3", moto_server.endpoint_url), unique_name("failed")
    store.create_bucket(Bucket=bucket)
    keys = [f"{PREFIX}{MAPPING}/orders-0/{n:02}" for n in range(8)]
    for key in [*keys, f"{PREFIX}another/orders-0/00", "unrelated"]:
        store.put_object(Bucket=bucket, Key=key, Body=key.encode())
    archive = S3Archive(f"arn:aws:s3:::{bucket}", MAPPING, aws)
    assert await archive.count() == 8
    first = await archive.read() or []
    store.delete_object(Bucket=bucket, Key=keys[4])
    found = [*first, *await everything(archive)]
    assert bodies(found) == [key.encode() for key in keys if key != keys[4]]
    assert found[0].name == "orders-0/00"
    store.delete_object(Bucket=bucket, Key=keys[0])
    await archive.remove(found[:3])
    await archive.remove(found[:3])  # safe to repeat
    left = [one["Key"] for one in store.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == [f"{PREFIX}{MAPPING}/orders-0/{n:02}" for n in (3, 5, 6, 7)] + [
        f"{PREFIX}another/orders-0/00",
        *(DONE_PREFIX + key for key in keys[1:3]),
        "unrelated",
    ]
    moved = store.get_object(Bucket=bucket, Key=DONE_PREFIX + keys[1])["Body"].read()
    assert moved == keys[1].encode()


async def test_objects_from_before_are_not_even_read(moto_server: MotoServer, aws: AwsClients) -> None:
    """An object is written after its document was made, so its own time is enough."""
    store, bucket = aws_client("s3", moto_server.endpoint_url), unique_name("failed")
    store.create_bucket(Bucket=bucket)
    store.put_object(Bucket=bucket, Key=f"{PREFIX}{MAPPING}/a", Body=b"a")
    later_ms = datetime.now(UTC).timestamp() * 1000 + 60_000
    assert await everything(S3Archive(f"arn:aws:s3:::{bucket}", MAPPING, aws, since_ms=later_ms)) == []
    assert len(await everything(S3Archive(f"arn:aws:s3:::{bucket}", MAPPING, aws, since_ms=0))) == 1


async def test_a_bucket_that_does_not_exist_is_refused(aws: AwsClients) -> None:
    """Nothing to wait for."""
    with pytest.raises(RefusedError, match="NoSuchBucket"):
        await S3Archive(f"arn:aws:s3:::{unique_name('none')}", MAPPING, aws).read()


# Streams


@pytest.mark.parametrize("server", ["kinesis_local", "moto_server"])
async def test_records_of_a_stream_are_read_again_by_their_sequence_numbers(
    server: str, request: pytest.FixtureRequest
) -> None:
    """Those in the range and no others; a shard or a number that is not the stream's has nothing."""
    found: KinesisLocal | MotoServer = request.getfixturevalue(server)
    stream = await asyncio.to_thread(Stream, found.endpoint_url)
    for n in range(6):
        await asyncio.to_thread(stream.put, [("k", b"%d" % n)])
    async with aws_json(found.endpoint_url) as caller:
        api = KinesisApi(stream.arn, caller)
        rereading = KinesisRereading(api, KinesisEnvelope(KinesisSource(stream.arn)), None)
        shard = ShardId("shardId-000000000000")
        page = await api.get_records(await api.iterator(shard, None, BEGINNING), limit=100)
        sequences = [int(record.SequenceNumber) for record in page.Records]
        assert len(sequences) == 6
        reread = await rereading.read(Span(shard, sequences[1], sequences[3]))
        assert reread.whole
        assert [record.position for record in reread.records] == sequences[1:4]
        last = await rereading.read(Span(shard, sequences[5], sequences[5]))
        assert ([record.position for record in last.records], last.whole) == (sequences[5:], True)
        gone = await rereading.read(Span(ShardId("shardId-000000000099"), sequences[1], sequences[3]))
        assert (list(gone.records), gone.whole) == ([], False)


async def test_aggregates_are_taken_apart_again_for_a_stream_consumer(kinesis_local: KinesisLocal) -> None:
    """All of an aggregate, as nothing tells which of its records failed; strays of a reshard are not the shard's."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    users = [User("a", 0, b"0"), User("b", 2**127, b"1"), User("c", 1, b"2")]
    await asyncio.to_thread(stream.put, [("k", encode(users)), ("k", b"plain")])
    shard = ShardId("shardId-000000000000")

    async def lower_half(_shard: ShardId) -> HashKeyRange:
        return HashKeyRange(0, 2**127 - 1)

    async with aws_json(kinesis_local.endpoint_url) as caller:
        api = KinesisApi(stream.arn, caller)
        envelope = KinesisEnvelope(KinesisSource(stream.arn))
        page = await api.get_records(await api.iterator(shard, None, BEGINNING), limit=100)
        sequences = [int(record.SequenceNumber) for record in page.Records]
        rereading = KinesisRereading(api, envelope, None, key_range=lower_half)
        reread = await rereading.read(Span(shard, sequences[0], sequences[1]))
    assert reread.whole
    data = [
        record["kinesis"]["data"]
        for record in msgspec.json.decode(envelope.event(Records.of(reread.records)))["Records"]
    ]
    assert [base64.b64decode(one) for one in data] == [b"0", b"2", b"plain"]
    assert len({record.position for record in reread.records}) == 3
