"""Schedules on real nodes, whose clocks run fast: once across the fleet, after kill -9, and after an outage."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.support.aws_servers import CREDENTIALS, aws_client
from tests.support.fast_clock import environment
from tests.support.node_process import NodeProcess, eventually, url_target
from tests.support.scripted_http import ScriptedServer, answer
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticmq import ElasticMQ

MINUTE_S = 60
SPEED = 120.0  # a minute takes half a second; who sleeps for one wakes up minutes later, and within the grace


def document(redis_url: str, function_url: str, *mappings: dict[str, Any], **function: Any) -> dict[str, Any]:
    """Return a node's file."""
    return {
        "redis": {"url": redis_url},
        "leasing": {"ttl": 3},
        "functions": url_target(function_url, **function),
        "event_source_mappings": [{"FunctionName": "f", **mapping} for mapping in mappings],
    }


def times(function: ScriptedServer, name: str, *, after: int = 0) -> list[int]:
    """Return the times of one schedule's events, epoch seconds, in the order of their arrival."""
    events = [json.loads(request.body) for request in function.complete[after:]]
    mine = [event for event in events if event["resources"] == [f"arn:aws:events:us-east-1:000000000000:rule/{name}"]]
    return [int(datetime.fromisoformat(event["time"]).timestamp()) for event in mine]


async def test_a_schedule_fires_once_across_a_fleet_also_when_its_node_is_killed(
    redis_url: str, tmp_path: Path
) -> None:
    """Every minute has its event; kill -9 repeats the firing in hand at most. Status and metrics tell of it."""
    clock = environment(tmp_path / "clock", base_s=time.time(), speed=SPEED)
    async with ScriptedServer(answer()) as function:
        # A firing counts as missed when it is later than the function's timeout and a minute.
        given = document(redis_url, function.url, {"Name": "tick", "schedule": "cron(* * * * ? *)"}, timeout=900)
        async with (
            NodeProcess(tmp_path, given, name="ann", env=clock) as ann,
            NodeProcess(tmp_path, given, name="bob", env=clock) as bob,
        ):
            await ann.start()
            await eventually(lambda: len(times(function, "tick")) >= 3, "three firings")
            await bob.start()
            ann.kill()
            before = len(times(function, "tick"))
            await eventually(lambda: len(times(function, "tick")) >= before + 8, "firings by the other node")
            mapping = await bob.mapping("tick")
            (shard,) = mapping["shards"]
            assert (shard["id"], shard["state"], shard["owner"] is not None) == ("schedule", "reading", True)
            assert shard["next_firing"].endswith(":00Z")
            assert mapping["ledger"]["balanced"]
            assert (await bob.metrics())['esm_missed_firings_total{mapping="tick",source="schedule"}'] == 0
            assert await bob.stop() == 0
    fired = times(function, "tick")
    assert sorted(set(fired)) == list(range(fired[0], fired[-1] + MINUTE_S, MINUTE_S))
    assert len(fired) - len(set(fired)) <= 1
    assert fired == sorted(fired)


async def test_an_outage_is_caught_up_once_or_skipped_and_a_changed_schedule_begins_anew(
    redis_url: str, tmp_path: Path
) -> None:
    """A day without a node: one firing for the day, or none; what was changed meanwhile has missed nothing."""
    base_s = time.time()
    mappings: list[dict[str, Any]] = [
        {"Name": "once", "schedule": "rate(2 minutes)"},
        {"Name": "skip", "schedule": "rate(2 minutes)", "missed": "skip"},
        {"Name": "changed", "schedule": "rate(1 hour)"},
    ]
    async with ScriptedServer(answer()) as function:
        given = document(redis_url, function.url, *mappings, timeout=300)
        clock = environment(tmp_path / "before", base_s=base_s, speed=SPEED)
        async with NodeProcess(tmp_path, given, name="ann", env=clock) as ann:
            await ann.start()
            await eventually(lambda: times(function, "once") and times(function, "skip"), "the first firings")
            assert await ann.stop() == 0
        last = {name: max(times(function, name)) for name in ("once", "skip")}
        mappings[2]["schedule"] = "rate(2 minutes)"
        given = document(redis_url, function.url, *mappings, timeout=300)
        seen = len(function.complete)
        clock = environment(tmp_path / "after", base_s=base_s, speed=SPEED, ahead_s=86_400)
        async with NodeProcess(tmp_path, given, name="bob", env=clock) as bob:
            await bob.start()
            began_s = base_s + (time.time() - base_s) * SPEED + 86_400
            await eventually(
                lambda: all(len(times(function, m["Name"], after=seen)) >= 2 for m in mappings),
                "two firings of each",
            )
            metrics = await bob.metrics()
            assert await bob.stop() == 0
    once, skip, changed = (times(function, name, after=seen) for name in ("once", "skip", "changed"))
    for name, fired in (("once", once), ("skip", skip)):
        assert all((at_s - last[name]) % 120 == 0 for at_s in fired)  # on the grid of the first firing
        assert metrics[f'esm_missed_firings_total{{mapping="{name}",source="schedule"}}'] >= 700
        assert 0 <= began_s - fired[0] < 3600
    assert once[0] < skip[0]  # the one that stands for all
    assert changed[0] > began_s - 600
    assert metrics['esm_missed_firings_total{mapping="changed",source="schedule"}'] == 0


async def test_a_firing_that_fails_goes_to_the_destination_and_the_next_one_is_fired(
    redis_url: str, elasticmq: ElasticMQ, tmp_path: Path
) -> None:
    """With its event in the document, as asked for; `explain` says when the schedule fires next."""
    name = unique_name("failed")
    aws = {**CREDENTIALS, "AWS_ENDPOINT_URL_SQS": elasticmq.endpoint_url}
    sqs = aws_client("sqs", elasticmq.endpoint_url)
    queue_url = (await asyncio.to_thread(sqs.create_queue, QueueName=name))["QueueUrl"]
    mapping = {
        "Name": "hourly",
        "schedule": "rate(1 hour)",
        "input": {"a": None},
        "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnFailure": {"Destination": f"arn:aws:sqs:us-east-1:000000000000:{name}"}},
        "extensions": {"destination_payload": True},
    }
    clock = environment(tmp_path / "clock", base_s=time.time(), speed=60 * SPEED)
    async with ScriptedServer(answer(500)) as function:
        given = document(redis_url, function.url, mapping, timeout=900)
        async with NodeProcess(tmp_path, given, env={**aws, **clock}) as node:
            await node.start()
            received = await asyncio.to_thread(sqs.receive_message, QueueUrl=queue_url, WaitTimeSeconds=20)
            function.default = answer()
            await eventually(lambda: len(function.complete) >= 3, "the firings after it")
            _, explained = await node.get("/esmd/v1/mappings/hourly/explain")
            assert await node.stop() == 0
    failure = json.loads(received["Messages"][0]["Body"])
    assert failure["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert failure["ScheduleInfo"]["schedule"] == "rate(1 hour)"
    assert failure["payload"] == '{"a":null}' == function.complete[0].body.decode()
    assert json.loads(explained)["next_firing"] is not None
