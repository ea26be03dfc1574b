"""Queues and real nodes: processes of the daemon, Redis and SQS servers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.node_process import NodeProcess, eventually, owners
from tests.support.sqs_target import SqsTarget

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.aws_servers import AwsServer
    from tests.support.sqs_servers import Queues, RealQueue


def document(server: AwsServer, real: RealQueue, target: SqsTarget, redis_url: str, **mapping: Any) -> dict[str, Any]:
    """Make a node's configuration with one mapping `orders` from a queue to the target."""
    return {
        "redis": {"url": redis_url},
        "leasing": {"ttl": 3},
        "aws": server.section(),
        "functions": {"f": {"url": target.url, "timeout": 30}},
        "event_source_mappings": [
            {"Name": "orders", "EventSourceArn": real.arn, "FunctionName": "f", **mapping},
        ],
    }


async def held_by(node: NodeProcess, nodes: int) -> bool:
    """Whether so many nodes hold pollers."""
    return len(owners(await node.mapping())) == nodes


async def balanced(node: NodeProcess, delivered: int) -> bool:
    """Whether the stored account says that all were delivered, and balances."""
    ledger = (await node.mapping())["ledger"]
    assert ledger["balanced"], ledger
    return bool(ledger["delivered"] == ledger["polled"] == delivered)


async def test_a_node_reads_a_queue_and_leaves_it_clean(strict_queues: Queues, redis_url: str, tmp_path: Path) -> None:
    """Delivered, deleted, accounted for, and ended within the drain timeout."""
    server, real = strict_queues.server, await asyncio.to_thread(strict_queues.new)
    await asyncio.to_thread(real.send, [f"m{n}" for n in range(500)])
    async with SqsTarget().serving() as target:
        node = NodeProcess(tmp_path, document(server, real, target, redis_url), env=server.environment())
        async with node:
            await node.start()
            await eventually(lambda: len(target.done()) == 500, lambda: f"all messages\n{node.tail()}")
            await eventually(lambda: balanced(node, 500), "the account")
            await eventually(lambda: real.empty, "an empty queue")
            metrics = await node.metrics()
            assert metrics['esm_deleted_event_count_total{mapping="orders",source="sqs"}'] == 500
            assert (await node.mapping())["last_processing_result"] == "OK"
            assert await node.stop() == 0
    assert Counter(target.done()).most_common(1)[0][1] == 1


async def test_a_function_slower_than_the_visibility_timeout_is_refused_without_the_heartbeat(
    queues: Queues, redis_url: str, tmp_path: Path
) -> None:
    """Nothing is received, the status says why in AWS's words, and a longer visibility timeout puts it right."""
    server, real = queues.server, await asyncio.to_thread(queues.new, visibility_s=29)
    await asyncio.to_thread(real.send, ["m"])
    async with SqsTarget().serving() as target:
        settings = document(server, real, target, redis_url, extensions={"visibility_heartbeat": False})
        async with NodeProcess(tmp_path, settings, env=server.environment()) as node:
            await node.start()
            short = "Queue visibility timeout: 29 seconds is less than Function timeout: 30 seconds"

            async def refused() -> bool:
                return bool((await node.mapping())["last_processing_result"] == f"PROBLEM: {short}")

            await eventually(refused, lambda: f"the refusal\n{node.tail()}")
            mapping = await node.mapping()
            assert (mapping["state"], mapping["shards"], real.counts()) == ("Creating", [], (1, 0))
            await asyncio.to_thread(
                real.client.set_queue_attributes, QueueUrl=real.url, Attributes={"VisibilityTimeout": "30"}
            )
            await eventually(lambda: target.done() == ["m"], lambda: f"the message\n{node.tail()}")
            assert [call.receives for call in target.calls] == [(1,)]
            assert (await node.mapping())["state"] == "Enabled"


@pytest.mark.slow
async def test_a_throttling_function_dead_letters_nothing(
    strict_queues: Queues, redis_url: str, tmp_path: Path
) -> None:
    """429 for two visibility timeouts and maxReceiveCount 2: nothing is received twice, most of it not even once."""
    server, dead = strict_queues.server, await asyncio.to_thread(strict_queues.new)
    real = await asyncio.to_thread(strict_queues.new, visibility_s=5, dead=dead, receives=2)
    await asyncio.to_thread(real.send, [f"m{n}" for n in range(300)])
    async with SqsTarget(answer=lambda _bodies: 429).serving() as target:
        node = NodeProcess(tmp_path, document(server, real, target, redis_url), env=server.environment())
        async with node:
            await node.start()
            await eventually(lambda: target.calls, "a call")
            throttled_at = target.calls[0].began
            await eventually(lambda: target.calls[-1].began > throttled_at + 11, "eleven seconds of 429")
            assert real.counts()[1] <= 50  # five batches: a function without room is no reason for more
            target.answer = lambda _bodies: 200
            await eventually(lambda: len(target.done()) == 300, lambda: f"all messages\n{node.tail()}")
            await eventually(lambda: balanced(node, 300), "the account")
            await eventually(lambda: real.empty, "an empty queue")
    assert {count for call in target.calls for count in call.receives} == {1}
    assert dead.empty


async def test_a_drain_lets_handlers_finish_and_returns_the_rest(
    queues: Queues, redis_url: str, tmp_path: Path
) -> None:
    """SIGTERM: batches with the function are deleted, what waits for one is visible at once, and the node ends."""
    server, real = queues.server, await asyncio.to_thread(queues.new, visibility_s=300)
    bodies = [f"m{n}" for n in range(46)]  # five pollers: one of them has a full batch, and not all of them have
    await asyncio.to_thread(real.send, bodies)
    async with SqsTarget(seconds=5).serving() as target:
        settings = document(server, real, target, redis_url, BatchSize=10, MaximumBatchingWindowInSeconds=300)
        async with NodeProcess(tmp_path, settings, env=server.environment()) as node:
            await node.start()
            await eventually(
                lambda: target.running and real.counts() == (0, 46), "everything received, something begun"
            )
            asked_at = time.monotonic()
            node.signal(signal.SIGTERM)
            await eventually(lambda: real.counts()[0], "what waited visible again")
            assert await node.ended() == 0
            assert time.monotonic() - asked_at < 25  # the drain timeout; the visibility timeout is twelve times that
    done = target.done()
    assert 10 <= len(done) < 46
    assert len(set(done)) == len(done)
    await eventually(lambda: real.counts() == (46 - len(done), 0), "only what waited left")


@pytest.mark.slow
async def test_concurrency_begins_at_five_and_grows_while_there_is_a_backlog(
    strict_queues: Queues, redis_url: str, tmp_path: Path
) -> None:
    """Three hundred a minute, so thirty after the first look at the queue."""
    server, real = strict_queues.server, await asyncio.to_thread(strict_queues.new)
    await asyncio.to_thread(real.send, [f"m{n}" for n in range(2000)])
    async with SqsTarget(seconds=0.5).serving() as target:
        settings = document(server, real, target, redis_url, BatchSize=1)
        async with NodeProcess(tmp_path, settings, env=server.environment()) as node:
            await node.start()
            await eventually(lambda: target.most_running >= 5, "five at once")
            assert target.most_running == 5
            await eventually(lambda: target.most_running >= 25, "more at once")
            assert sum(real.counts()) > 0, "the queue ran dry: the test has shown nothing"


@pytest.mark.slow
async def test_provisioned_pollers_hold_across_the_fleet(strict_queues: Queues, redis_url: str, tmp_path: Path) -> None:
    """Two of them on two nodes: the function sees twenty calls at once from the start, and never more."""
    server, real = strict_queues.server, await asyncio.to_thread(strict_queues.new)
    await asyncio.to_thread(real.send, [f"m{n}" for n in range(1000)])
    pollers = {"ProvisionedPollerConfig": {"MinimumPollers": 2, "MaximumPollers": 2}}
    async with SqsTarget(seconds=0.5).serving() as target, AsyncExitStack() as nodes:
        settings = document(server, real, target, redis_url, BatchSize=1, **pollers)
        fleet = [NodeProcess(tmp_path, settings, name=f"node{n}", env=server.environment()) for n in range(2)]
        for node in fleet:
            await nodes.enter_async_context(node)
            await node.start()
        await eventually(lambda: held_by(fleet[0], 2), "pollers on two nodes")
        await eventually(lambda: target.most_running == 20, "twenty at once")
        calls = len(target.calls)
        await eventually(lambda: len(target.calls) >= calls + 100, "more calls")
        assert sum(real.counts()) > 0, "the queue ran dry: the test has shown nothing"
        assert target.most_running == 20


@pytest.mark.slow
async def test_maximum_concurrency_holds_across_four_nodes(
    strict_queues: Queues, redis_url: str, tmp_path: Path
) -> None:
    """MaximumConcurrency 7: the function sees seven calls at once, and never more."""
    server, real = strict_queues.server, await asyncio.to_thread(strict_queues.new)
    await asyncio.to_thread(real.send, [f"m{n}" for n in range(4000)])
    async with SqsTarget(seconds=0.2).serving() as target, AsyncExitStack() as nodes:
        settings = document(server, real, target, redis_url, ScalingConfig={"MaximumConcurrency": 7})
        fleet = [NodeProcess(tmp_path, settings, name=f"node{n}", env=server.environment()) for n in range(4)]
        for node in fleet:
            await nodes.enter_async_context(node)
            node.spawn()
        await eventually(lambda: target.most_running == 7, "seven at once")

        async def spread() -> bool:
            fleet[0].address = (await fleet[0].logged("http.listening"))["address"]
            held = owners(await fleet[0].mapping())
            return len(held) == 4 and sum(map(len, held.values())) == 7

        await eventually(spread, "seven pollers on four nodes")
        calls = len(target.calls)
        await eventually(lambda: len(target.calls) >= calls + 60, "more calls")
        assert sum(real.counts()) > 0, "the queue ran dry: the test has shown nothing"
        assert target.most_running == 7
        visible, in_flight = real.counts()
        assert visible
        assert in_flight <= 70 + 10  # what was just taken and is being deleted


@pytest.mark.slow
async def test_groups_stay_in_order_when_a_node_is_killed(
    strict_queues: Queues, redis_url: str, tmp_path: Path
) -> None:
    """200 groups of 50 messages, three nodes, one killed: in order, nothing lost, only what was in flight repeated."""
    server, real = strict_queues.server, await asyncio.to_thread(strict_queues.new, fifo=True, visibility_s=5)
    async with SqsTarget(seconds=0.1).serving() as target, AsyncExitStack() as nodes:
        settings = document(server, real, target, redis_url)
        fleet = [NodeProcess(tmp_path, settings, name=f"node{n}", env=server.environment()) for n in range(3)]
        for node in fleet:
            await nodes.enter_async_context(node)
            await node.start()
        await eventually(lambda: held_by(fleet[0], 3), "pollers on three nodes")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(real.send_groups, 200, 50))
            await eventually(lambda: sum(len(call.bodies) for call in target.calls) >= 1500, "a part of the messages")
            killed_at = fleet[1].kill()
            assert sum(len(call.bodies) for call in target.calls) < 9000, "too late to show anything"
        await eventually(lambda: len(set(target.done())) == 10_000, "all messages", limit_s=200)
        await eventually(lambda: real.empty, "an empty queue")
        for node in (fleet[0], fleet[2]):
            assert not node.find("ledger.imbalance")
    firsts: dict[str, list[int]] = {}
    seen: Counter[str] = Counter()
    for call in sorted(target.calls, key=lambda call: call.ended):
        for body in call.bodies:
            group, _, number = body.partition("/")
            if not seen[body]:
                firsts.setdefault(group, []).append(int(number))
            seen[body] += 1
    assert firsts == {f"g{group}": list(range(50)) for group in range(200)}
    repeated = {body for body, count in seen.items() if count > 1}
    in_flight = {body for call in target.calls for body in call.bodies if killed_at - 2 < call.ended < killed_at + 2}
    assert repeated <= in_flight
    assert len(repeated) <= 10 * 16
    busy: dict[str, float] = {}
    for call in sorted(target.calls, key=lambda call: call.began):
        for group in {body.partition("/")[0] for body in call.bodies}:
            assert call.began >= busy.get(group, 0.0), f"{group} was with the function twice"
        for group in {body.partition("/")[0] for body in call.bodies}:
            busy[group] = call.ended
