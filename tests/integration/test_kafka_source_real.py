"""The Kafka source against Apache Kafka: what the embedded broker cannot show."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from model.errors import SourceRefusedError, SourceUnavailableError
from model.ids import Position
from model.mapping import SourceAccess, StartingPosition
from pollers.ports import Lag
from pollers.sources import kafka_errors
from tests.support.kafka import KEY_PASSWORD, PASSWORDS, READER, STRANGER
from tests.support.kafka_admin import KafkaAdmin
from tests.support.kafka_source import Secrets, kafka_mapping, kafka_source, produce, read_values, shard
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pollers.sources.kafka import KafkaSource
    from tests.support.kafka import KafkaProcess

pytestmark = pytest.mark.timeout(120)


def numbers(start: int, end: int) -> list[bytes]:
    """Make distinguishable values."""
    return [b"%06d" % n for n in range(start, end)]


async def patient_read(source: KafkaSource, topic: str, place: Position | None, count: int) -> list[bytes | None]:
    """Open a partition and read, however often the brokers are away meanwhile."""
    values: list[bytes | None] = []
    async with asyncio.timeout(90):
        while True:
            try:
                reader = await source.reader(shard(topic, 0), place)
                break
            except SourceUnavailableError:
                await asyncio.sleep(0.1)
        while len(values) < count:
            try:
                chunk = await reader.read(100)
            except SourceUnavailableError:
                await asyncio.sleep(0.1)
                continue
            values += [raw.value for raw in chunk.raws]
    return values


async def test_at_timestamp_begins_at_the_first_record_since(real_kafka: KafkaAdmin) -> None:
    """AT_TIMESTAMP finds the first record not older, and the end where there is none."""
    servers, topic = real_kafka.bootstrap_servers, real_kafka.new_topic()
    for n in range(10):
        await produce(servers, topic, 0, [b"%d" % n], timestamp_ms=1_700_000_000_000 + n * 1000)
    for seconds, start, group in (
        (3.5, "4", "between"),
        (3, "3", "exact"),
        (-100, "0", "before"),
        (100, "10", "after"),
    ):
        time = dt.datetime.fromtimestamp(1_700_000_000 + seconds, dt.UTC)
        mapping = kafka_mapping(
            servers, topic, group=unique_name(group), position=StartingPosition.AT_TIMESTAMP, time=time
        )
        async with kafka_source(mapping, fetch_max_wait_ms=500) as source:
            assert (await source.reader(shard(topic, 0), None)).start == start


async def test_aborted_transactions_do_not_exist(real_kafka: KafkaAdmin) -> None:
    """Only committed records arrive; at the end there is no lag, and the group's offset passes the last marker."""
    servers, topic, group = real_kafka.bootstrap_servers, real_kafka.new_topic(), unique_name("group")
    async with AIOKafkaProducer(bootstrap_servers=servers, transactional_id=unique_name("tx")) as producer:
        for n in range(6):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"%d" % n, partition=0)
            await (producer.abort_transaction() if n % 2 else producer.commit_transaction())
    async with kafka_source(kafka_mapping(servers, topic, group=group), fetch_max_wait_ms=100) as source:
        reader = await source.reader(shard(topic, 0), None)
        assert await read_values(reader, 3) == [b"0", b"2", b"4"]
        async with asyncio.timeout(10):
            while reader.lag() != Lag(0, 0.0):  # noqa: ASYNC110  # there is no event for a fetch without records
                await asyncio.sleep(0.02)  # the fetch that learns of the last markers
        reader.checkpointed(reader.after(8))
    (described,) = await asyncio.to_thread(real_kafka.describe_group, group)
    assert (described.current, described.end) == (12, 12)


async def test_added_partitions_show_up(real_kafka: KafkaAdmin) -> None:
    """A topic that grows has more shards at the next look, and they can be read."""
    servers, topic = real_kafka.bootstrap_servers, real_kafka.new_topic(1)
    async with kafka_source(kafka_mapping(servers, topic, group=unique_name("group"))) as source:
        first = await source.reader(shard(topic, 0), None)
        await asyncio.to_thread(real_kafka.add_partitions, topic, 3)
        async with asyncio.timeout(20):
            while len(found := await source.shards()) != 3:
                continue
        assert [one.id for one in found] == [shard(topic, n) for n in range(3)]
        added = await source.reader(shard(topic, 2), None)
        await produce(servers, topic, 2, numbers(0, 10))
        await produce(servers, topic, 0, numbers(10, 20))
        assert await read_values(added, 10) == numbers(0, 10)
        assert await read_values(first, 10) == numbers(10, 20)


async def test_a_missing_topic_is_refused_until_it_exists(real_kafka: KafkaAdmin) -> None:
    """Without the topic someone must act, which the error says; once it is there nothing else needs doing."""
    servers, topic = real_kafka.bootstrap_servers, unique_name("missing")
    async with kafka_source(kafka_mapping(servers, topic, group=unique_name("group"))) as source:
        with pytest.raises(SourceRefusedError, match=f"{topic}.*no such topic"):
            await source.shards()
        await asyncio.to_thread(real_kafka.create_topic, topic, 2)
        async with asyncio.timeout(60):
            while True:
                try:
                    assert len(await source.shards()) == 2
                    break
                except SourceRefusedError:
                    await asyncio.sleep(0.1)


async def test_a_killed_broker_costs_nothing(kafka_process: KafkaProcess) -> None:
    """After kill -9 and a restart the source goes on by itself with the next record."""
    servers = kafka_process.bootstrap_servers
    topic = await asyncio.to_thread(KafkaAdmin(servers).new_topic)
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        for value in numbers(0, 500):
            await producer.send_and_wait(topic, value, partition=0)
    mapping = kafka_mapping(servers, topic, group=unique_name("group"))
    async with kafka_source(mapping, stall_s=1.0, request_timeout_s=5.0) as source, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(patient_read(source, topic, None, 1000))
        await asyncio.to_thread(kafka_process.kill)
        await asyncio.to_thread(kafka_process.start)
        await produce(servers, topic, 0, numbers(500, 1000))
        assert await reading == numbers(0, 1000)


def access(*types: str) -> list[SourceAccess]:
    """Refer to the secrets below by their types, the authority always included."""
    return [SourceAccess(kind, f"${{env:{kind}}}") for kind in (*types, "SERVER_ROOT_CA_CERTIFICATE")]


def secrets(kafka: KafkaProcess, *, user: str = READER, password: str | None = None) -> Secrets:
    """Know every secret of the secured broker, for one user."""
    login = json.dumps({"username": user, "password": password or PASSWORDS[user]})
    security = kafka.security
    reader = {"certificate": security.reader_certificate_pem, "privateKey": security.reader_encrypted_key_pem}
    stranger = {"certificate": security.stranger_certificate_pem, "privateKey": security.stranger_key_pem}
    return Secrets(
        BASIC_AUTH=login,
        SASL_SCRAM_256_AUTH=login,
        SASL_SCRAM_512_AUTH=login,
        CLIENT_CERTIFICATE_TLS_AUTH=json.dumps(
            {**reader, "privateKeyPassword": KEY_PASSWORD} if user == READER else stranger
        ),
        SERVER_ROOT_CA_CERTIFICATE=json.dumps({"certificate": security.authority_pem}),
    )


METHODS = ["BASIC_AUTH", "SASL_SCRAM_256_AUTH", "SASL_SCRAM_512_AUTH", "CLIENT_CERTIFICATE_TLS_AUTH"]


def secured_servers(kafka: KafkaProcess, method: str) -> str:
    """Return the listener for a method."""
    mutual = method == "CLIENT_CERTIFICATE_TLS_AUTH"
    return kafka.security.mutual_tls_servers if mutual else kafka.security.sasl_servers


async def refusal(servers: str, entries: Sequence[SourceAccess], known: Secrets, topic: str = "secured") -> str:
    """Return the LastProcessingResult of a mapping that is refused."""
    mapping = kafka_mapping(servers, topic, group=unique_name("group"), access=entries)
    async with kafka_source(mapping, known) as source:
        with pytest.raises(SourceRefusedError) as caught:
            await source.reader(shard(topic, 0), None)
        assert not any(password in str(caught.value) for password in PASSWORDS.values())
        return caught.value.result


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_gets_in(secure_kafka: KafkaProcess, method: str) -> None:
    """Records can be read and offsets committed with SASL PLAIN and SCRAM over TLS, and with client certificates."""
    topic = await asyncio.to_thread(KafkaAdmin(secure_kafka.bootstrap_servers).new_topic)
    await produce(secure_kafka.bootstrap_servers, topic, 0, numbers(0, 10))
    mapping = kafka_mapping(
        secured_servers(secure_kafka, method), topic, group=unique_name("group"), access=access(method)
    )
    async with kafka_source(mapping, secrets(secure_kafka)) as source:
        reader = await source.reader(shard(topic, 0), None)
        assert await read_values(reader, 10) == numbers(0, 10)
        reader.checkpointed(Position("10"))
        await reader.close()
        assert (await source.reader(shard(topic, 0), None)).start == "10"


@pytest.mark.parametrize("method", METHODS[:3])
async def test_a_wrong_password_is_told_as_aws_does(secure_kafka: KafkaProcess, method: str) -> None:
    """Wrong credentials end in AWS's text, with no password in the message."""
    known = secrets(secure_kafka, password="wrong")
    servers = secure_kafka.security.sasl_servers
    assert await refusal(servers, access(method), known) == kafka_errors.SASL_FAILED


@pytest.mark.parametrize("method", ["SASL_SCRAM_512_AUTH", "CLIENT_CERTIFICATE_TLS_AUTH"])
async def test_a_user_without_rights_is_told_as_aws_does(secure_kafka: KafkaProcess, method: str) -> None:
    """A known user that may not read the topic ends in AWS's text."""
    topic = await asyncio.to_thread(KafkaAdmin(secure_kafka.bootstrap_servers).new_topic)
    await produce(secure_kafka.bootstrap_servers, topic, 0, numbers(0, 1))
    known = secrets(secure_kafka, user=STRANGER)
    servers = secured_servers(secure_kafka, method)
    assert await refusal(servers, access(method), known, topic) == kafka_errors.NOT_AUTHORIZED


async def test_an_untrusted_server_is_told_as_aws_does(secure_kafka: KafkaProcess) -> None:
    """A certificate of an authority we do not know is our refusal."""
    servers = secure_kafka.security.sasl_servers
    entries = access("BASIC_AUTH")[:1]
    assert await refusal(servers, entries, secrets(secure_kafka)) == kafka_errors.SERVER_REJECTED


async def test_a_missing_client_certificate_is_told_as_aws_does(secure_kafka: KafkaProcess) -> None:
    """A server that wants a certificate and gets none refuses us."""
    servers = secure_kafka.security.mutual_tls_servers
    assert await refusal(servers, access(), secrets(secure_kafka)) == kafka_errors.CLIENT_REJECTED
