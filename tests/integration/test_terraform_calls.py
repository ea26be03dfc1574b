"""The calls of Terraform's AWS provider for event source mappings, against a real node: states, values, tags."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from node.embedded_redis import EmbeddedRedis
from tests.support.aws_servers import aws_client
from tests.support.lambda_client import lambda_calls
from tests.support.node_process import NodeProcess
from tests.support.scripted_http import ScriptedServer
from tests.support.terraform_mapping import TerraformMapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUEUE = "arn:aws:sqs:us-east-1:000000000000:plan"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/plan"
PATTERN = '{ "body": {"kind": ["order", "refund"]} }'  # with the blanks that `jsonencode` or a heredoc leaves
AUTH = {"access_keys": {"test": "test"}}


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[tuple[NodeProcess, Any]]:
    """Run a node that wants signed requests, beside a queue, a stream and a topic; yield a client of the provider's."""
    with EmbeddedRedis(port=0) as redis:
        async with ScriptedServer() as server:
            document = {
                "redis": {"url": redis.url},
                "leasing": {"ttl": 3},
                "auth": AUTH,
                "functions": {name: {"url": server.url, "timeout": 20} for name in ("f", "g")},
                "embedded": {"aws": {}, "kafka": {"topics": {"plan": 2}}},
            }
            async with NodeProcess(folder, document) as node:
                await node.start()
                local_aws = (await node.logged("embedded.aws"))["endpoint_url"]
                sqs, kinesis = [aws_client(service, local_aws) for service in ("sqs", "kinesis")]
                await asyncio.to_thread(sqs.create_queue, QueueName="plan")
                await asyncio.to_thread(kinesis.create_stream, StreamName="plan", ShardCount=1)
                async with lambda_calls(f"http://{node.address}") as client:
                    yield node, client


async def source_of(kind: str, node: NodeProcess) -> dict[str, Any]:
    """Return what a resource says of its source."""
    if kind == "queue":
        return {"event_source_arn": QUEUE}
    if kind == "stream":
        return {"event_source_arn": STREAM, "starting_position": "TRIM_HORIZON"}
    servers = (await node.logged("embedded.kafka"))["servers"]
    return {
        "self_managed_event_source": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [servers]}},
        "topics": ["plan"],
        "starting_position": "TRIM_HORIZON",
    }


FIRST: dict[str, dict[str, Any]] = {
    "queue": {
        "scaling_config": {"MaximumConcurrency": 4},
        "filter_criteria": {"Filters": [{"Pattern": PATTERN}]},
        "function_response_types": ["ReportBatchItemFailures"],
        "maximum_batching_window_in_seconds": 1,
        "batch_size": 25,
    },
    "stream": {
        "bisect_batch_on_function_error": True,
        "destination_config": {"OnFailure": {"Destination": QUEUE}},
        "maximum_record_age_in_seconds": 3600,
        "maximum_retry_attempts": 2,
        "parallelization_factor": 2,
    },
    "topic": {
        "self_managed_kafka_event_source_config": {"ConsumerGroupId": "plans"},
        "filter_criteria": {"Filters": [{"Pattern": '{"value": {"kind": ["order"]}}'}]},
    },
}


@pytest.mark.slow
async def test_resources_of_all_kinds_of_sources(tmp_path: Path) -> None:
    """Created, planned without a difference, imported, changed, retagged, disabled, enabled, and destroyed."""
    async with fleet(tmp_path) as (node, client):
        for kind, more in FIRST.items():
            source = {"function_name": "f", **await source_of(kind, node)}
            one = TerraformMapping(client, {**source, **more}, tags={"team": "a", "stage": "test"})
            await one.create()
            assert one.states[-1] == "Enabled"
            assert await one.plan() == {}, kind
            imported = TerraformMapping(client, one.config, uuid=one.uuid, tags=one.tags)
            assert await imported.plan() == {}, kind

            await one.update(one.config, tags={"team": "b"})  # nothing but tags
            assert one.states[-1] == "Enabled"
            assert await one.plan() == {}, kind

            plainer = {name: value for name, value in more.items() if name not in ("scaling_config", "filter_criteria")}
            await one.update({**source, **plainer, "batch_size": 7, "function_name": "g"})
            assert await one.plan() == {}, kind
            assert "FilterCriteria" not in (await one.read())
            for enabled, state in ((False, "Disabled"), (True, "Enabled")):
                await one.update({**one.config, "enabled": enabled})
                assert one.states[-1] == state
                assert await one.plan() == {}, kind
            await one.delete()
            assert set(one.states) <= {
                "Creating", "Enabled", "Updating", "Disabling", "Disabled", "Enabling", "Deleting",
            }  # fmt: skip


async def test_a_resource_that_is_disabled_from_the_beginning(tmp_path: Path) -> None:
    """The waiter is told of it; a bare resource has no differences; deleting twice is deleting."""
    async with fleet(tmp_path) as (node, client):
        one = TerraformMapping(client, {"function_name": "f", **await source_of("queue", node), "enabled": False})
        await one.create()
        assert one.states[-1] == "Disabled"
        assert await one.plan() == {}
        await one.update({**one.config, "batch_size": 3})
        assert (one.states[-1], (await one.read())["State"]) == ("Disabled", "Disabled")
        await one.delete()
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            await one.read()
        await one.delete()
