"""The calls of Kinesis: what is sent, what an answer means, and how shards are listed page by page."""

from __future__ import annotations

import asyncio
import contextlib
from email.utils import formatdate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from model.errors import RefusedError, SourceRefusedError, SourceUnavailableError, UnavailableError
from model.ids import TRACKER, FencingToken, NodeId, Position, ShardId, ShardKey
from model.lease import Member, ShardKind
from model.mapping import MappingRecord, StartingPosition
from model.shard import BEGINNING, END, at_time, origin_ms
from pollers.sources import kinesis_api
from pollers.sources.kinesis import KinesisSource
from pollers.sources.kinesis_api import IteratorExpiredError, KinesisApi, NotInStreamError, ThrottledError
from statemgr.manager import Tracker
from statemgr.memory_store import MemoryStore
from tests.support.kinesis_script import (
    ARN,
    asked,
    iterator,
    page,
    paging,
    refuses,
    row,
    says,
    scripted_api,
    shard_row,
)
from tests.support.kinesis_streams import aws_json, kinesis_mapping
from tests.support.pump_fakes import MAPPING, FakeLease
from tests.support.scripted_http import ScriptedServer, close_silently, reset
from tests.support.times import EPOCH_2026

if TYPE_CHECKING:
    from invocation.aws_json import AwsJson
    from model.ids import ShardOrigin
    from tests.support.scripted_http import Behaviour

SHARD = ShardId("shardId-000000000000")
ALL = {"Type": "FROM_TRIM_HORIZON"}


async def test_a_call_is_signed_json_of_version_1_1() -> None:
    """Operation, content type and signature are in the headers, and the date is signed."""
    async with scripted_api(page(row(1))) as (api, server):
        found = await api.get_records("it", limit=7)
    (request,) = server.requests
    assert asked(request) == ("GetRecords", {"ShardIterator": "it", "Limit": 7, "StreamARN": ARN})
    assert request.headers["content-type"] == "application/x-amz-json-1.1"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")
    assert "us-east-1/kinesis/aws4_request" in request.headers["authorization"]
    assert "x-amz-target" in request.headers["authorization"]
    assert [bytes(record.Data) for record in found.Records] == [b'"SGVsbG8="']


@pytest.mark.parametrize(
    ("after", "origin", "asks"),
    [
        (
            Position("49"),
            BEGINNING,
            {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "49"},
        ),
        (None, BEGINNING, {"ShardIteratorType": "TRIM_HORIZON"}),
        (None, at_time(EPOCH_2026), {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1767225600.0}),
    ],
)
async def test_an_iterator_begins_after_the_checkpoint_or_at_the_origin(
    after: Position | None, origin: ShardOrigin, asks: dict[str, Any]
) -> None:
    """The checkpoint counts before anything else."""
    async with scripted_api(iterator("it")) as (api, server):
        assert await api.iterator(SHARD, after, origin) == "it"
    assert asked(server.requests[0])[1] == {"StreamARN": ARN, "ShardId": SHARD, **asks}


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (refuses("ProvisionedThroughputExceededException", "Rate exceeded"), ThrottledError),
        (refuses("com.amazonaws.kinesis#LimitExceededException"), ThrottledError),
        (refuses("KMSThrottlingException"), ThrottledError),
        (refuses("ExpiredIteratorException"), IteratorExpiredError),
        (refuses("ExpiredTokenException"), SourceUnavailableError),
        (refuses("ResourceInUseException"), SourceUnavailableError),
        (refuses("InternalFailure", status=500), SourceUnavailableError),
        (refuses("Odd", status=503), SourceUnavailableError),
        (says("no object"), SourceUnavailableError),
        (close_silently(), SourceUnavailableError),
        (reset(), SourceUnavailableError),
        (refuses("ResourceNotFoundException", "Stream clicks not found"), NotInStreamError),
        (refuses("AccessDeniedException", "not authorized"), SourceRefusedError),
        (refuses("KMSDisabledException"), SourceRefusedError),
        (refuses("InvalidArgumentException"), NotInStreamError),
        (says({}, status=403, **{"x-amzn-ErrorType": "UnrecognizedClientException:http://x/"}), SourceRefusedError),
    ],
)
async def test_an_error_says_what_to_do(behaviour: Behaviour, error: type[Exception]) -> None:
    """Wait and try again, begin a new iterator, or have someone act; never anything else."""
    async with scripted_api(behaviour) as (api, _):
        with pytest.raises((SourceUnavailableError, SourceRefusedError)) as caught:
            await api.get_records("it", limit=1)
    assert type(caught.value) is error
    assert str(caught.value).startswith("Kinesis stream clicks")


async def test_a_refusal_is_readable_in_the_status() -> None:
    """Code and message reach LastProcessingResult."""
    async with scripted_api(refuses("ResourceNotFoundException", "Stream clicks not found")) as (api, _):
        with pytest.raises(SourceRefusedError) as caught:
            await api.list_shards(ALL)
    wanted = "PROBLEM: Kinesis stream clicks: ListShards: ResourceNotFoundException: Stream clicks not found"
    assert caught.value.result == wanted


async def test_missing_credentials_are_a_refusal_and_slow_ones_are_not() -> None:
    """What signing says is translated like an answer."""

    class Caller:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def call(self, *_: object, **__: object) -> Any:
            raise self.error

    with pytest.raises(SourceRefusedError, match="no AWS credentials"):
        await KinesisApi(ARN, Caller(RefusedError("no AWS credentials found"))).retention_s()
    with pytest.raises(SourceUnavailableError, match="STS"):
        await KinesisApi(ARN, Caller(UnavailableError("STS"))).retention_s()


async def test_eleven_hundred_shards_are_listed_page_by_page() -> None:
    """The token alone stands for stream and filter on every page but the first."""
    rows = [shard_row(number) for number in range(1100)]
    async with scripted_api(paging(rows, size=1000)) as (api, server):
        found = await api.list_shards(ALL)
    assert [shard.ShardId for shard in found] == [row["ShardId"] for row in rows]
    assert [asked(request)[1] for request in server.requests] == [
        {"StreamARN": ARN, "ShardFilter": ALL},
        {"NextToken": "1000"},
    ]


async def test_eleven_hundred_shards_are_wanted_and_leased() -> None:
    """From the pages to the leases: the tracker notes where each begins, and a node takes them all."""
    store, node = MemoryStore(), NodeId("node-a")
    await store.put_mapping(MappingRecord(MAPPING, "clicks", b"{}", 0))
    await store.join(Member(node), ttl_s=60)
    key = ShardKey(MAPPING, TRACKER)
    lease, progress = (await store.acquire(node, [key], floor=FencingToken(0), ttl_s=60))[key]
    rows = [shard_row(number) for number in range(1100)]
    async with ScriptedServer(paging(rows, size=1000)) as server, aws_json(server.url) as caller:
        source = KinesisSource(kinesis_mapping(ARN), caller)
        (_, (record,)) = await store.mappings()
        tracker = Tracker(
            store,
            FakeLease(key, lease.token, node, progress),
            current=lambda: (record, True),
            discover=source.shards,
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(tracker.run())
            async with asyncio.timeout(30):
                async with contextlib.aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
                    async for _ in wakes:
                        if len((await store.snapshot()).wanted) == 1101:
                            break
            tracker.drain()
            await running
    keys = [wanted.key for wanted in (await store.snapshot()).wanted if wanted.kind is ShardKind.SOURCE]
    taken = await store.acquire(node, keys, floor=FencingToken(0), ttl_s=60)
    assert len(taken) == 1100
    assert {found.origin for _, found in taken.values()} == {BEGINNING}


async def test_a_listing_that_took_too_long_begins_anew() -> None:
    """A page's token is good for five minutes."""
    async with scripted_api() as (api, server):
        first = says({"Shards": [shard_row(0)], "NextToken": "t"})
        last = says({"Shards": [shard_row(1)], "NextToken": None})
        server.then(first, refuses("ExpiredNextTokenException"), first, last)
        assert len(await api.list_shards(ALL)) == 2
        server.then(*[first, refuses("ExpiredNextTokenException")] * 3)
        with pytest.raises(SourceUnavailableError, match="too long"):
            await api.list_shards(ALL)


@pytest.mark.parametrize(
    ("ahead_s", "believed"),
    [(0, "ours"), (2, "ours"), (3, "theirs"), (300, "theirs"), (-1, "theirs"), (-300, "theirs")],
)
async def test_latest_is_now_by_kinesis_s_clock_where_ours_is_wrong(
    monkeypatch: pytest.MonkeyPatch, ahead_s: float, believed: str
) -> None:
    """A node whose clock is minutes off must not lose minutes of records, nor deliver minutes of old ones."""
    ours_s = EPOCH_2026.timestamp()
    monkeypatch.setattr(kinesis_api, "time", SimpleNamespace(time=lambda: ours_s))
    theirs_s = ours_s - ahead_s
    async with ScriptedServer() as server, aws_json(server.url) as caller:
        rows = [shard_row(0, closed=True), shard_row(1, 0), shard_row(2, 0)]
        server.then(says({"Shards": rows}, Date=formatdate(theirs_s, usegmt=True)))
        source = KinesisSource(kinesis_mapping(ARN, position=StartingPosition.LATEST), caller)
        closed, *opened = await source.shards()
    assert (closed.id, closed.origin) == ("shardId-000000000000", END)
    assert [shard.parents for shard in opened] == [(closed.id,)] * 2
    right_s = ours_s if believed == "ours" else theirs_s
    assert [shard.origin and origin_ms(shard.origin) for shard in opened] == [right_s * 1000] * 2


async def test_a_start_in_time_lists_only_what_it_can_want() -> None:
    """AT_TIMESTAMP asks for the shards from there on, and begins all of them there; a merge shows both parents."""
    async with ScriptedServer() as server, aws_json(server.url) as caller:
        server.then(says({"Shards": [shard_row(2, 0, 1)]}))
        mapping = kinesis_mapping(ARN, position=StartingPosition.AT_TIMESTAMP, time=EPOCH_2026)
        (shard,) = await KinesisSource(mapping, caller).shards()
        assert asked(server.requests[0])[1]["ShardFilter"] == {"Type": "FROM_TIMESTAMP", "Timestamp": 1767225600.0}
    assert shard.parents == ("shardId-000000000000", "shardId-000000000001")
    assert shard.origin == at_time(EPOCH_2026)


async def test_a_shard_whose_opening_was_cut_off_can_be_opened_again() -> None:
    """A hand-over may come while the stream's retention is looked up; nobody has a reader to close by then."""

    class Caller:
        asked = 0

        async def call(self, *_: object, **__: object) -> Any:
            self.asked += 1
            if self.asked == 1:
                await asyncio.Event().wait()
            raise UnavailableError("no answer")

    source = KinesisSource(kinesis_mapping(ARN), cast("AwsJson", Caller()))
    shard = ShardId("shardId-000000000000")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(source.reader(shard, None, BEGINNING), 0.01)
    reader = await source.reader(shard, None, BEGINNING)
    assert reader.shard == shard
