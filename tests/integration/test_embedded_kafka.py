"""The broker inside confluent-kafka, as the demo and many tests use it: through aiokafka."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from model.errors import RefusedError, UnavailableError
from node.embedded_kafka import FETCH_MAX_WAIT_MS, EmbeddedKafka
from tests.support.processes import wait_gone


def consumer(kafka: EmbeddedKafka, group: str | None = None) -> AIOKafkaConsumer:
    """Make a consumer as the Kafka source makes one for this broker."""
    return AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        retry_backoff_ms=50,
    )


async def test_topics_have_the_partitions_asked_for() -> None:
    """A started broker has exactly the topics and partition counts it was given, and can be given more."""
    async with EmbeddedKafka({"audit": 4, "wide": 100}) as kafka:
        await kafka.create_topic("late", 1)
        async with consumer(kafka) as client:
            assert await client.topics() == {"audit", "wide", "late"}
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            counts = {topic: len(await producer.partitions_for(topic)) for topic in ("audit", "wide", "late")}
    assert counts == {"audit": 4, "wide": 100, "late": 1}


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_records_come_back_as_sent(compression: str | None) -> None:
    """Keys, tombstones, repeated headers and timestamps survive every compression, and offsets are consecutive."""
    partition = TopicPartition("audit", 0)
    big = os.urandom(900_000)
    async with EmbeddedKafka({"audit": 1}) as kafka:
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, compression_type=compression
        ) as producer:
            headers = [("h", b"\xff"), ("h", b""), ("i", b"1")]
            await producer.send_and_wait("audit", key=b"k", value=None, timestamp_ms=1234, headers=headers)
            await producer.send_and_wait("audit", key=None, value=b"")
            await producer.send_and_wait("audit", key=b"", value=big)
        async with consumer(kafka) as client:
            client.assign([partition])
            client.seek(partition, 0)
            records = [await client.getone() for _ in range(3)]
            ends = await client.end_offsets([partition])
    assert [(r.offset, r.key, r.value) for r in records] == [(0, b"k", None), (1, None, b""), (2, b"", big)]
    assert records[0].timestamp == 1234
    assert list(records[0].headers) == headers
    assert ends == {partition: 3}


async def test_a_group_commit_is_seen_by_the_next_member() -> None:
    """An offset committed by one consumer of a group with `assign` is what another one starts from."""
    partition = TopicPartition("audit", 1)
    async with EmbeddedKafka({"audit": 2}) as kafka:
        async with consumer(kafka, "g") as first:
            first.assign([partition])
            assert await first.committed(partition) is None
            await first.commit({partition: 7})
        async with consumer(kafka, "g") as second, consumer(kafka, "other") as other:
            second.assign([partition])
            other.assign([partition])
            assert await second.committed(partition) == 7
            assert await other.committed(partition) is None


async def test_an_overtaken_reader_is_told() -> None:
    """A partition keeps 5 MiB; whoever asks for a dropped record gets an error, never a silent gap."""
    partition = TopicPartition("audit", 0)
    async with EmbeddedKafka({"audit": 1}) as kafka:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            for _ in range(8):
                await producer.send_and_wait("audit", bytes(900_000))
        async with consumer(kafka) as client:
            client.assign([partition])
            beginning = (await client.beginning_offsets([partition]))[partition]
            assert 0 < beginning < 8
            client.seek(partition, 0)
            with pytest.raises(OffsetOutOfRangeError):
                await client.getone()


async def test_an_outage_keeps_port_and_records() -> None:
    """A broker that goes down refuses connections; after it comes up a waiting reader goes on where it was."""
    partition = TopicPartition("audit", 0)
    async with EmbeddedKafka({"audit": 1}) as kafka, consumer(kafka) as client:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            await producer.send_and_wait("audit", b"before")
        client.assign([partition])
        client.seek(partition, 0)
        assert (await client.getone()).value == b"before"
        await kafka.go_down()
        host, _, port = kafka.bootstrap_servers.partition(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))
        await kafka.come_up()
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            await producer.send_and_wait("audit", b"after")
        assert (await client.getone()).value == b"after"


async def test_impossible_topics_are_refused() -> None:
    """A second topic of the same name, no partitions, or no name are refused with the reason; the broker lives on."""
    async with EmbeddedKafka({"audit": 1}) as kafka:
        with pytest.raises(RefusedError, match="audit: TOPIC_ALREADY_EXISTS"):
            await kafka.create_topic("audit", 2)
        for name, partitions in [("none", 0), ("", 1)]:
            with pytest.raises(RefusedError):
                await kafka.create_topic(name, partitions)
        await kafka.create_topic("fine", 1)


async def test_a_broken_start_leaves_no_process() -> None:
    """When a topic cannot be created, the broker that was started for it is ended."""
    kafka = EmbeddedKafka({"audit": 0})
    before = set(psutil.Process().children())
    with pytest.raises(RefusedError):
        await kafka.start()
    assert kafka.pid is None
    assert set(psutil.Process().children()) <= before


async def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without confluent-kafka the error says what to install."""
    (tmp_path / "confluent_kafka.py").write_text("raise ModuleNotFoundError(f'No module named {__name__!r}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RefusedError, match=r"No module named 'confluent_kafka'; install esmd\[embedded\]"):
        await EmbeddedKafka().start()


async def test_a_killed_broker_is_unavailable() -> None:
    """A broker that was killed is reported as unavailable, and stopping what is gone is safe, twice."""
    kafka = EmbeddedKafka()
    await kafka.start()
    assert kafka.pid is not None
    os.kill(kafka.pid, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        await kafka.create_topic("audit", 1)
    await kafka.stop()
    await kafka.stop()
    with pytest.raises(UnavailableError):
        _ = kafka.bootstrap_servers


PARENT = """
import asyncio, os, sys, time
from node.embedded_kafka import EmbeddedKafka

async def main():
    async with EmbeddedKafka({"audit": 1}) as kafka:
        holder = os.fork() if "fork" in sys.argv else None
        if holder == 0:  # inherits the pipe that tells the broker of its parent's end
            time.sleep(60)
            os._exit(0)
        print(kafka.pid, holder or kafka.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def kill_a_parent(*arguments: str) -> tuple[psutil.Process, psutil.Process]:
    """Kill -9 a process that runs a broker; returns the broker and whoever holds the broker's pipe."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", PARENT, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        try:
            broker, holder = parent.stdout.readline().split()
            return psutil.Process(int(broker)), psutil.Process(int(holder))
        finally:
            parent.kill()


def test_no_broker_outlives_a_killed_parent() -> None:
    """After `kill -9` of the parent the broker's process ends by itself."""
    broker, _ = kill_a_parent()
    wait_gone(broker)


def test_no_broker_outlives_a_killed_parent_whose_pipe_is_still_held() -> None:
    """The broker ends even when a sibling process inherited the pipe that should have told it."""
    broker, holder = kill_a_parent("fork")
    try:
        wait_gone(broker)
        assert holder.is_running()
    finally:
        holder.kill()
