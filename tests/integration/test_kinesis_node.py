"""A node on a real stream, as a user watches it: status, metrics, filters."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

from tests.support.kinesis_nodes import kinesis_nodes
from tests.support.node_process import eventually
from tests.support.scripted_http import ScriptedServer, answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kinesis_streams import Streams
    from tests.support.node_process import NodeProcess
    from tests.support.scripted_http import Received

LABELS = '{mapping="clicks",source="kinesis"}'


def numbers(requests: list[Received]) -> list[int]:
    """Return what the records of some events carry."""
    records = [record for request in requests for record in json.loads(request.body)["Records"]]
    return [json.loads(base64.b64decode(record["kinesis"]["data"]))["n"] for record in records]


async def shard(node: NodeProcess) -> dict[str, Any]:
    """Return the only shard's part of the status; empty while there is none."""
    shards: list[dict[str, Any]] = (await node.mapping("clicks")).get("shards", [])
    return shards[0] if shards else {}


async def test_a_shard_that_stands_still_is_shown_and_so_is_its_recovery(
    streams: Streams, redis_url: str, tmp_path: Path
) -> None:
    """A throttling function: the iterator age grows; then all is delivered, nothing is behind, the books balance."""
    stream = await asyncio.to_thread(streams.new)
    await asyncio.to_thread(stream.put, [("k", b'{"n": %d}' % n) for n in range(20)])
    filters = {"FilterCriteria": {"Filters": [{"Pattern": '{"data": {"n": [{"numeric": ["<", 15]}]}}'}]}}
    async with (
        ScriptedServer(answer(429)) as function,
        kinesis_nodes(streams.server, stream.arn, function.url, redis_url, tmp_path, BatchSize=10, **filters) as nodes,
    ):
        node = await nodes.start()
        await function.received(2)
        seen = await shard(node)
        assert (seen["state"], seen["checkpoint"]) == ("waiting", None)

        async def older() -> bool:
            return bool((await shard(node))["lag_s"] > seen["lag_s"] + 1)

        await eventually(older, "a growing iterator age")
        metrics = await node.metrics()
        assert metrics[f"esm_iterator_age_seconds{LABELS}"] > seen["lag_s"]
        assert metrics[f"esm_throttles_total{LABELS}"] >= 2
        refused = len(function.complete)
        function.default = answer()

        async def done() -> bool:
            ledger = (await node.mapping("clicks"))["ledger"]
            return bool((ledger["delivered"], ledger["filtered"], ledger["in_flight"]) == (15, 5, 0))

        await eventually(done, "everything delivered or filtered out")
        assert numbers(function.complete[refused:])[-15:] == list(range(15))
        await eventually(lambda: recovered(node), "a shard with nothing behind")
        mapping = await node.mapping("clicks")
        assert mapping["ledger"]["balanced"]
        assert mapping["last_processing_result"] == "OK"
        metrics = await node.metrics()
        assert metrics[f"esm_polled_event_count_total{LABELS}"] == 20
        assert metrics[f"esm_filtered_out_event_count_total{LABELS}"] == 5
        assert metrics[f"esm_offset_lag{LABELS}"] == 0


async def recovered(node: NodeProcess) -> bool:
    """Whether the shard is read to its present end."""
    seen = await shard(node)
    return (seen["state"], seen["lag_records"], seen["lag_s"], seen["last_error"]) == ("reading", 0, 0.0, None)
