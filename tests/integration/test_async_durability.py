"""Asynchronous invocations while nodes and Redis are killed: what was accepted is delivered, or a destination has it.

`ESMD_ASYNC_EVENTS` says how many events (10,000 for `make durability`).
"""

from __future__ import annotations

import asyncio
import os
from itertools import count
from typing import TYPE_CHECKING

import pytest

from node.embedded_redis import EmbeddedRedis
from tests.support.async_rig import TRIED_ONCE, caller, functions
from tests.support.node_process import NodeProcess, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.async_rig import Caller

EVENTS = int(os.environ.get("ESMD_ASYNC_EVENTS", "2000"))
CALLERS = 16
EVERY_FAILING = 10


async def send(calling: Caller, nodes: list[NodeProcess], numbers: count[int], until: int) -> None:
    """Invoke through the latest node until so many events were accepted, whatever happens to it."""
    while len(calling.accepted) < until:
        number = next(numbers)
        if not await calling.invoke(nodes[-1].address, "work", {"n": number, "fail": number % EVERY_FAILING == 0}):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_accepted_events_survive_killed_nodes_and_servers(tmp_path: Path, fsync: str) -> None:
    """Each one accepted was taken by the function, or its failure is with the destination; in both ways of syncing.

    A killed server has handed all that it answered for to the kernel, which lives on: only a machine that stops loses
    the last second with `everysec`.
    """
    async with functions() as served, caller() as calling:
        with EmbeddedRedis(port=0, settings={"appendfsync": fsync}) as redis:
            document = {
                "redis": {"url": redis.url},
                "leasing": {"ttl": 3},
                "functions": served.section(event_invoke=TRIED_ONCE),
            }
            async with NodeProcess(tmp_path, document, name="first") as first, NodeProcess(tmp_path, document) as node:
                await first.start()
                nodes = [first]
                numbers = count()
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(CALLERS):
                        tasks.create_task(send(calling, nodes, numbers, EVENTS))
                    await eventually(lambda: len(calling.accepted) > EVENTS // 3, "a third is accepted")
                    first.kill()
                    await node.start(ready=False)
                    nodes.append(node)
                    await eventually(lambda: len(calling.accepted) > 2 * EVENTS // 3, "two thirds are accepted")
                    redis.kill()
                    redis.start()
                accepted = set(calling.accepted)

                def missing() -> set[str]:
                    return accepted - served.took - served.sink.keys()

                await eventually(
                    lambda: not missing(), lambda: f"{len(missing())} are missing\n{node.tail()}", limit_s=120
                )
                failing = {one for one, event in calling.accepted.items() if event["fail"]}
                assert failing <= served.sink.keys()
                assert not failing & served.took

                async def drained() -> bool:
                    return bool((await node.status())["async_invoke"]["events"] == 0)

                await eventually(drained, "nothing is left in the queue")
                assert len(accepted) >= EVENTS
                assert calling.refused, "nobody noticed that node and server were killed"
                assert await node.stop() == 0
