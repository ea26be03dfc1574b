"""The Apache Kafka that tests, benchmarks and `make services` start: real, and doing what the fixtures promise."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from tests.support.kafka import KEY_PASSWORD, PASSWORDS, READER, STRANGER
from tests.support.kafka_admin import GroupOffset, KafkaAdmin, parse_description
from tests.support.processes import wait_gone
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from tests.support.kafka import KafkaProcess, KafkaSecurity
    from tests.support.kafka_fixtures import KafkaBroker


async def produce(servers: str, topic: str, values: list[bytes], **options: Any) -> None:
    """Write records to partition 0, waiting for each to be accepted."""
    async with AIOKafkaProducer(bootstrap_servers=servers, **options) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def read(servers: str, topic: str, count: int, *, group: str | None = None, **options: Any) -> list[bytes | None]:
    """Read the first records of partition 0 and commit behind them if a group is given."""
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False, **options)
    try:
        await consumer.start()
        consumer.assign([partition])
        consumer.seek(partition, 0)
        values = [(await consumer.getone()).value for _ in range(count)]
        if group is not None:
            await consumer.commit({partition: count})
    finally:
        await consumer.stop()  # also when it could not start, or it warns
    return values


async def test_both_brokers_carry_records(kafka: KafkaBroker) -> None:
    """A topic made by a fixture takes records and gives them back, on the embedded broker and on Apache Kafka."""
    topic = kafka.new_topic(3)
    await produce(kafka.bootstrap_servers, topic, [b"a", b"b"])
    options: dict[str, Any] = {"fetch_max_wait_ms": kafka.fetch_max_wait_ms}
    assert await read(kafka.bootstrap_servers, topic, 2, group=unique_name("g"), **options) == [b"a", b"b"]
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        assert await producer.partitions_for(topic) == {0, 1, 2}


async def test_the_groups_tool_shows_what_was_committed(real_kafka: KafkaAdmin) -> None:
    """`kafka-consumer-groups --describe` prints committed offset, end offset and lag."""
    topic, group = real_kafka.new_topic(2), unique_name("group")
    await produce(real_kafka.bootstrap_servers, topic, [b"a", b"b", b"c"])
    await read(real_kafka.bootstrap_servers, topic, 2, group=group)
    described = await asyncio.to_thread(real_kafka.describe_group, group)
    assert described == [GroupOffset(topic, 0, current=2, end=3, lag=1)]
    with pytest.raises(LookupError):
        await asyncio.to_thread(real_kafka.describe_group, unique_name("nobody"))


async def test_a_topic_grows_and_honours_its_settings(real_kafka: KafkaAdmin) -> None:
    """Partitions can be added, and a topic's own settings (here: the largest message) hold."""
    topic = real_kafka.new_topic(1, config={"max.message.bytes": "2000000"})
    real_kafka.add_partitions(topic, 4)
    value = os.urandom(1_500_000)
    await produce(real_kafka.bootstrap_servers, topic, [value], max_request_size=2_000_000)
    assert await read(real_kafka.bootstrap_servers, topic, 1) == [value]
    async with AIOKafkaProducer(bootstrap_servers=real_kafka.bootstrap_servers) as producer:
        assert await producer.partitions_for(topic) == {0, 1, 2, 3}


@pytest.mark.parametrize("how", ["shut_down", "kill"])
async def test_a_restart_keeps_ports_records_and_offsets(kafka_process: KafkaProcess, how: str) -> None:
    """After a shut-down or a kill the broker comes back where it was with everything it had acknowledged."""
    servers, pid = kafka_process.bootstrap_servers, kafka_process.pid
    admin = KafkaAdmin(servers)
    topic, group = admin.new_topic(1), unique_name("group")
    await produce(servers, topic, [b"a", b"b"])
    await read(servers, topic, 2, group=group)
    await asyncio.to_thread(getattr(kafka_process, how))
    try:
        assert not psutil.pid_exists(pid)
        with pytest.raises(KafkaConnectionError):
            await read(servers, topic, 1)
    finally:
        await asyncio.to_thread(kafka_process.start)
    assert kafka_process.bootstrap_servers == servers
    assert await read(servers, topic, 2) == [b"a", b"b"]
    assert await asyncio.to_thread(admin.describe_group, group) == [GroupOffset(topic, 0, current=2, end=2, lag=0)]


def trusting(security: KafkaSecurity) -> ssl.SSLContext:
    """Make a client's TLS context that trusts the broker's authority."""
    return ssl.create_default_context(cadata=security.authority_pem)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_sasl_lets_the_reader_in_and_others_not(secure_kafka: KafkaProcess, mechanism: str) -> None:
    """Over TLS, a known user with the right password reads; a wrong password and a user without rights do not."""
    security = secure_kafka.security
    topic = KafkaAdmin(secure_kafka.bootstrap_servers).new_topic(1)
    await produce(secure_kafka.bootstrap_servers, topic, [b"a"])

    def options(user: str, password: str) -> dict[str, Any]:
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": user,
            "sasl_plain_password": password,
            "ssl_context": trusting(security),
        }

    servers = security.sasl_servers
    assert await read(servers, topic, 1, **options(READER, PASSWORDS[READER])) == [b"a"]
    with pytest.raises(KafkaConnectionError):
        await read(servers, topic, 1, **options(READER, "wrong"))
    # Asked through a producer: an aiokafka consumer that was assigned a forbidden topic asks for it in a hot loop.
    async with AIOKafkaProducer(bootstrap_servers=servers, **options(STRANGER, PASSWORDS[STRANGER])) as producer:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.partitions_for(topic)


async def test_mutual_tls_wants_a_certificate(secure_kafka: KafkaProcess, tmp_path: Path) -> None:
    """A client certificate of the broker's authority reads, with an encrypted key too; no certificate is refused."""
    security = secure_kafka.security
    topic = KafkaAdmin(secure_kafka.bootstrap_servers).new_topic(1)
    await produce(secure_kafka.bootstrap_servers, topic, [b"a"])
    for key, password in [(security.reader_key_pem, None), (security.reader_encrypted_key_pem, KEY_PASSWORD)]:
        identity = tmp_path / "client.pem"
        identity.write_text(key + security.reader_certificate_pem)
        context = trusting(security)
        context.load_cert_chain(identity, password=password)
        options: dict[str, Any] = {"security_protocol": "SSL", "ssl_context": context}
        assert await read(security.mutual_tls_servers, topic, 1, **options) == [b"a"]
    with pytest.raises(KafkaConnectionError):
        await read(security.mutual_tls_servers, topic, 1, security_protocol="SSL", ssl_context=trusting(security))


PARENT = """
import sys, time
from tests.support.kafka import KafkaProcess

with KafkaProcess(heap_mb=256) as kafka:
    print(kafka.pid, kafka._home, flush=True)
    time.sleep(120)
"""


@pytest.mark.usefixtures("real_kafka")  # skips where there is no Java
def test_no_kafka_outlives_a_killed_test_run() -> None:
    """After `kill -9` of the process that started it, Kafka ends and its data directory goes."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        try:
            pid, home = parent.stdout.readline().decode().split()
            broker = psutil.Process(int(pid))
        finally:
            parent.kill()
    wait_gone(broker)
    wait_gone(Path(home))


def test_the_groups_tools_table_is_understood() -> None:
    """Absent offsets are None, rows come by partition, and a complaint instead of a table is an error."""
    printed = """
Consumer group 'g' has no active members.

GROUP           TOPIC           PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID     HOST
g               audit           1          -               5               -               -               -
g               audit           0          3               5               2               -               -
"""
    assert parse_description(printed, "") == [GroupOffset("audit", 0, 3, 5, 2), GroupOffset("audit", 1, None, 5, None)]
    with pytest.raises(LookupError, match="does not exist"):
        parse_description("", "Error: Consumer group 'x' does not exist.")
