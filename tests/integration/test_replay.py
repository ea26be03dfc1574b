"""Ranges delivered again: `esmd replay` through a real node, from Apache Kafka, which knows times, and a stream."""

from __future__ import annotations

import asyncio
import base64
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.integration.test_seek import numbers, produce
from tests.support.aws_servers import AwsServer
from tests.support.kinesis_nodes import kinesis_nodes
from tests.support.kinesis_streams import Stream
from tests.support.mendable import Mendable, RedriveCommand, redrive
from tests.support.node_process import NodeProcess, eventually, kafka_document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.kafka_admin import KafkaAdmin
    from tests.support.kinesis_local import KinesisLocal


@asynccontextmanager
async def delivered(
    broker: KafkaAdmin, redis_url: str, folder: Path
) -> AsyncIterator[tuple[NodeProcess, Mendable, Mendable, float, str]]:
    """Run a node that has delivered 20 records; yield it, its function, another one, and the time of the middle."""
    topic = broker.new_topic(1)
    await produce(broker, topic, 0, 10)
    await asyncio.sleep(0.01)  # times have milliseconds
    middle = time.time()
    await produce(broker, topic, 10, 10)
    async with Mendable().serving() as function, Mendable().serving() as other:
        function.mend()
        other.mend()
        document = kafka_document(
            broker.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions={"f": {"url": function.url}, "g": {"url": other.url}},
            BatchSize=4,
        )
        async with NodeProcess(folder, document) as node:
            await node.start()
            await function.until(20)

            async def saved() -> bool:
                return any(shard["checkpoint"] == "20" for shard in (await node.mapping())["shards"])

            await eventually(saved, "the checkpoint is saved")
            yield node, function, other, middle, topic


async def test_a_range_goes_through_the_function_once_more_beside_the_live_position(
    real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path
) -> None:
    """From a time, up to a time; a dry run calls nobody; what fails is told and passed; checkpoint and ledger stay."""
    async with delivered(real_kafka, redis_url, tmp_path) as (node, function, _, middle, topic):
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(middle)) + f"{middle % 1:.3f}"[1:]
        status, told = await redrive(node, "orders", "--from", since, "--dry-run", command="replay")
        assert (status, told["delivered_records"], told["read_records"]) == (0, 10, 10)
        assert len(function.taken) == 20
        twelve = base64.b64encode(b"12").decode()
        function.breaks_on = lambda values: twelve in values
        status, told = await redrive(node, "orders", "--from", since, command="replay")
        assert status == 1
        assert (told["read_records"], told["delivered_records"], told["failed_records"]) == (10, 9, 1)
        assert (told["left_records"], told["filtered_records"], told["stopped"]) == (0, 0, False)
        assert [kept["what"] for kept in told["kept"]] == [f"{topic}-0@12"]
        assert numbers(function)[20:] == [10, 11, 13, 14, 15, 16, 17, 18, 19]
        assert int(function.headers[-1]["x-esmd-fencing-token"]) > 0
        function.mend()
        status, told = await redrive(node, "orders", "--from", "1h", "--to", since, command="replay")
        assert (status, told["delivered_records"]) == (0, 10)
        assert numbers(function)[29:] == list(range(10))
        assert (await node.metrics())['esm_replayed_event_count_total{mapping="orders",source="kafka"}'] == 19
        mapping = await node.mapping()
        assert (mapping["ledger"]["delivered"], mapping["ledger"]["balanced"]) == (20, True)
        assert mapping["shards"][0]["checkpoint"] == "20"


async def test_what_the_function_never_had_is_for_another_one_only(
    real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path
) -> None:
    """The mapping's own gets it by itself, in its turn; a function that does not exist is refused."""
    async with delivered(real_kafka, redis_url, tmp_path) as (node, function, other, _, topic):
        function.breaks_on = lambda _values: True
        await produce(real_kafka, topic, 20, 5)
        status, told = await redrive(node, "orders", "--from", "1h", "--dry-run", command="replay")
        assert (status, told["delivered_records"]) == (0, 20)
        status, told = await redrive(node, "orders", "--from", "1h", "--function", "g", command="replay")
        assert (status, told["delivered_records"]) == (0, 25)
        assert numbers(other) == list(range(25))
        status, _, err = await RedriveCommand(
            node, "orders", "--from", "1h", "--function", "nobody", command="replay"
        ).ended()
        assert status == 1
        assert "this node knows no function nobody" in err


async def test_a_client_that_goes_away_stops_the_replay(real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path) -> None:
    """After the batch under way; and what it came to is told by a client that is interrupted."""
    async with delivered(real_kafka, redis_url, tmp_path) as (node, _, other, _, _):
        command = RedriveCommand(node, "orders", "--from", "1h", "--function", "g", "--rate", "2", command="replay")
        await other.until(4)
        command.signal(signal.SIGINT)
        status, out, err = await command.ended()
        assert status == 1
        assert "interrupted" in err
        assert "Stopped before the end" in out
        ended = await node.logged("replay.ended")
        assert ended["stopped"] is True
        account = [ended[f"{what}_records"] for what in ("delivered", "filtered", "failed", "left")]
        assert sum(account) == ended["read_records"] == 20
        assert len(other.taken) < 20


async def test_a_stream_that_was_split_is_moved_back_and_replayed(
    kinesis_local: KinesisLocal, redis_url: str, tmp_path: Path
) -> None:
    """Parents come before their children again; a replay up to now gives the same."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)

    def write(first: int) -> None:
        stream.put([(f"k{n % 4}", b"%d" % n) for n in range(first, first + 8)])

    await asyncio.to_thread(write, 0)
    await asyncio.to_thread(stream.split, stream.open_shards()[0])
    await asyncio.to_thread(write, 8)
    async with (
        Mendable().serving() as function,
        kinesis_nodes(AwsServer(kinesis_local.endpoint_url), stream.arn, function.url, redis_url, tmp_path) as nodes,
    ):
        function.mend()
        node = await nodes.start()
        await function.until(16)

        async def saved() -> bool:
            return bool((await node.mapping("clicks"))["ledger"]["delivered"] == 16)

        await eventually(saved, nodes.tails)
        status, told = await redrive(node, "clicks", "--to", "trim_horizon", command="seek")
        assert (status, told["done"], len(told["shards"])) == (0, True, 3)
        await function.until(32)
        assert sorted(numbers(function)[16:24]) == list(range(8))
        assert sorted(numbers(function)[24:]) == list(range(8, 16))
        status, told = await redrive(node, "clicks", "--from", "1h", command="replay")
        assert (status, told["delivered_records"], told["left_records"]) == (0, 16, 0), nodes.tails()
        assert sorted(numbers(function)[32:40]) == list(range(8))
        assert sorted(numbers(function)[40:]) == list(range(8, 16))
        status, _, err = await RedriveCommand(node, "clicks", "--to", "9999=x", command="seek").ended()
        assert status == 2
        assert "SHARD=POSITION" in err
