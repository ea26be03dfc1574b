"""Fetch sessions of the Kafka source: with Apache Kafka, which has them, and the embedded broker, which has not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from model.errors import SourceUnavailableError
from pollers.sources.kafka_fetcher import SessionFetchRequest
from tests.support.kafka_admin import KafkaAdmin
from tests.support.kafka_source import kafka_mapping, kafka_source, produce, read_values, shard
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pollers.ports import ShardReader
    from pollers.sources.kafka import KafkaSource
    from tests.support.kafka import KafkaProcess
    from tests.support.kafka_fixtures import KafkaBroker

pytestmark = pytest.mark.timeout(120)

_PARTITIONS = 40
_STALL_S = 1.0


class Wire:
    """Fetch requests as they go out, and the error codes of whole answers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.errors: list[int] = []
        self.spoil = ""  # a field of the next request within a session, to be made wrong
        self.spoiled: Any = None  # the request

    @property
    def named(self) -> list[int]:
        """How many partitions each request names."""
        return [sum(len(parts) for _, parts in request.topics) for request in self.requests]


@pytest.fixture
def wire() -> Any:
    """Look at every fetch of this process."""
    seen = Wire()
    build, decode = SessionFetchRequest.build, SessionFetchRequest.decode

    def building(self: SessionFetchRequest, struct_class: Any) -> Any:
        request = build(self, struct_class)
        if seen.spoil and request.session_epoch:
            setattr(request, seen.spoil, getattr(request, seen.spoil) + 1000)
            seen.spoil, seen.spoiled = "", request
        seen.requests.append(request)
        return request

    def decoding(self: SessionFetchRequest, data: Any) -> Any:
        answer = decode(self, data)
        seen.errors.append(answer.error_code)
        return answer

    with patch.multiple(SessionFetchRequest, build=building, decode=decoding):
        yield seen


@asynccontextmanager
async def reading(
    broker: KafkaBroker, topic: str, *, partitions: int = _PARTITIONS, **options: Any
) -> AsyncIterator[tuple[KafkaSource, list[ShardReader]]]:
    """Read all partitions of a topic."""
    mapping = kafka_mapping(broker.bootstrap_servers, topic, group=unique_name("group"))
    async with kafka_source(mapping, fetch_max_wait_ms=broker.fetch_max_wait_ms, **options) as source:
        yield source, [await source.reader(shard(topic, number), None) for number in range(partitions)]


def session_of(source: KafkaSource) -> Any:
    """Return the one session there is."""
    assert source._consumer is not None
    [session] = source._consumer._fetcher._sessions.values()
    return session


async def patiently(reader: ShardReader, count: int) -> list[bytes | None]:
    """Read so many values, however often the brokers are away meanwhile."""
    values: list[bytes | None] = []
    while len(values) < count:
        try:
            chunk = await reader.read(count - len(values))
        except SourceUnavailableError:
            await asyncio.sleep(0.05)
            continue
        assert chunk is not None
        values += [raw.value for raw in chunk.raws]
    return values


async def test_requests_name_what_has_changed_and_without_sessions_everything(kafka: KafkaBroker, wire: Wire) -> None:
    """With many partitions, one of which is busy; each value comes once and in order."""
    topic = kafka.new_topic(_PARTITIONS)
    async with reading(kafka, topic) as (source, readers):
        for reader in readers:
            await produce(kafka.bootstrap_servers, topic, readers.index(reader), [b"first"])
            assert await read_values(reader, 1) == [b"first"]
        wire.requests.clear()
        for number in range(20):
            await produce(kafka.bootstrap_servers, topic, 7, [b"%d" % number])
            assert await read_values(readers[7], 1) == [b"%d" % number]
        if session_of(source)._id:
            assert max(wire.named) <= 1
            assert {request.session_id for request in wire.requests} == {session_of(source)._id}
            epochs = [request.session_epoch for request in wire.requests]
            assert epochs == list(range(epochs[0], epochs[0] + len(epochs)))
        else:
            assert set(wire.named) == {_PARTITIONS}
        assert bool(session_of(source)._id) == isinstance(kafka, KafkaAdmin)


@pytest.mark.parametrize(("spoil", "error"), [("session_id", 70), ("session_epoch", 71)])
async def test_a_session_that_the_broker_does_not_know_begins_anew(
    real_kafka: KafkaAdmin, wire: Wire, spoil: str, error: int
) -> None:
    """Evicted sessions and lost counts: the next request names everything, and nothing is lost or comes twice."""
    topic = real_kafka.new_topic(_PARTITIONS)
    async with reading(real_kafka, topic) as (_, readers):
        for number in range(10):
            await produce(real_kafka.bootstrap_servers, topic, number, [b"%d" % number])
            assert await read_values(readers[number], 1) == [b"%d" % number]
            if number == 4:
                wire.spoil = spoil
        assert wire.errors.count(error) == 1
        assert set(wire.errors) == {0, error}
        assert wire.named[wire.requests.index(wire.spoiled) + 1] >= _PARTITIONS - 1
        assert wire.named[-1] <= 1


async def test_a_broker_that_speaks_no_sessions_is_read_all_the_same(real_kafka: KafkaAdmin, wire: Wire) -> None:
    """As those before Kafka 1.1: every request names everything."""
    topic = real_kafka.new_topic(3)

    def without(self: Any, versions: dict[int, tuple[int, int]]) -> Any:
        return prepare(self, {**versions, self.API_KEY: (4, 6)})

    prepare = SessionFetchRequest.prepare
    with patch.object(SessionFetchRequest, "prepare", without):
        async with reading(real_kafka, topic, partitions=3) as (_, readers):
            for number in (0, 1, 2, 0):
                await produce(real_kafka.bootstrap_servers, topic, number, [b"x", b"y"])
                assert await read_values(readers[number], 2) == [b"x", b"y"]
    assert {request.API_VERSION for request in wire.requests} == {6}
    assert wire.errors == []


async def test_quiet_partitions_are_not_taken_to_be_cut_off(real_kafka: KafkaAdmin) -> None:
    """Answers within a session do not name them; their readers go on waiting, beside a busy one or alone."""
    topic = real_kafka.new_topic(2)
    stall_s = 3.0  # six times what the broker holds an idle fetch for: a busy machine is no stall
    async with reading(real_kafka, topic, partitions=2, stall_s=stall_s) as (_, (busy, quiet)):
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(quiet.read(10))
            for number in range(2):
                await produce(real_kafka.bootstrap_servers, topic, 0, [b"%d" % number])
                assert await read_values(busy, 1) == [b"%d" % number]
                await asyncio.wait([waiting], timeout=stall_s)
            await asyncio.wait([waiting], timeout=2 * stall_s)
            assert not waiting.done()
            await produce(real_kafka.bootstrap_servers, topic, 1, [b"at last"])
        chunk = waiting.result()
        assert chunk is not None
        assert [raw.value for raw in chunk.raws] == [b"at last"]


async def test_partitions_come_and_go_under_load(real_kafka: KafkaAdmin, wire: Wire) -> None:
    """A reader that ends and one that begins disturb nobody; the broker is told."""
    servers, topic = real_kafka.bootstrap_servers, real_kafka.new_topic(3)
    async with reading(real_kafka, topic, partitions=2) as (source, readers), asyncio.TaskGroup() as tasks:
        values = [b"%06d" % number for number in range(3000)]
        for number in range(3):
            tasks.create_task(produce(servers, topic, number, values))
        steady = tasks.create_task(patiently(readers[0], 3000))
        before = await patiently(readers[1], 1000)
        await readers[1].close()
        third = await source.reader(shard(topic, 2), None)
        assert await patiently(third, 3000) == values
        again = await source.reader(shard(topic, 1), readers[1].after(int(before[-1] or b"")))
        assert before + await patiently(again, 2000) == values
        assert await steady == values
    assert set(wire.errors) == {0}


async def test_a_broker_that_dies_under_load_costs_nothing(kafka_process: KafkaProcess, wire: Wire) -> None:
    """Its sessions die with it; every partition goes on with its next record."""
    admin = KafkaAdmin(kafka_process.bootstrap_servers)
    topic = await asyncio.to_thread(admin.new_topic, 8)
    values = [b"%06d" % number for number in range(2000)]

    async def write(those: Sequence[bytes]) -> None:
        for number in range(8):
            await produce(admin.bootstrap_servers, topic, number, those)

    await write(values[:1000])
    options = {"stall_s": _STALL_S, "request_timeout_s": 5.0}
    async with reading(admin, topic, partitions=8, **options) as (source, readers), asyncio.TaskGroup() as tasks:
        read = [tasks.create_task(patiently(reader, 2000)) for reader in readers]
        await asyncio.to_thread(kafka_process.kill)
        await asyncio.to_thread(kafka_process.start)
        await write(values[1000:])
        assert [await one for one in read] == [values] * 8
        assert session_of(source)._id
