"""Several nodes count on one real Redis: never more than the limit, all of it, and what happens when something dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from invocation.counting import Counting
from invocation.invoking import NotInvoked
from leasing.clock import trust_clock
from model.function_config import FunctionPart
from statemgr.function_view import FunctionView
from statemgr.redis_store.store import RedisStore
from tests.support.node_process import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from node.embedded_redis import EmbeddedRedis

LIMIT = 7
TTL_S = 2.0
LATE_S = 5 * TTL_S  # later than this even on a busy machine it is not the TTL that gives slots back
NODES = 4


class Function:
    """A function that knows how often it runs at once, whoever invokes it."""

    def __init__(self) -> None:
        self.running = self.most = self.calls = 0
        self.hold: asyncio.Event | None = None

    async def __call__(self) -> None:
        """Run for a moment, or until told."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.calls += 1
        try:
            if self.hold is None:
                await asyncio.sleep(0.002)
            else:
                await self.hold.wait()
        finally:
            self.running -= 1


class Node:
    """One node's counting, on a connection of its own."""

    def __init__(self, url: str, tasks: asyncio.TaskGroup) -> None:
        self.store = RedisStore.from_url(url, timeout_s=0.5)
        self.view = FunctionView(self.store.functions)
        self.counting = Counting(
            self.store.concurrency,
            reserved=lambda: self.view.reserved,
            account=lambda: 1000,
            ttl_s=TTL_S,
            clock=trust_clock,
        )
        self.task = tasks.create_task(self.counting.run())

    async def hammer(self, function: Function, stop: asyncio.Event) -> None:
        """Invoke the function again and again, more often at once than it may run."""

        async def again() -> None:
            while not stop.is_set():
                if isinstance(await self.counting.counted("billing", function), NotInvoked):
                    await asyncio.sleep(0.003)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LIMIT):
                tasks.create_task(again())

    def holders(self, tasks: asyncio.TaskGroup, function: Function) -> None:
        """Start more invocations than may run."""
        for _ in range(2 * LIMIT):
            tasks.create_task(self.counting.counted("billing", function))


@contextlib.asynccontextmanager
async def nodes_on(url: str) -> AsyncIterator[list[Node]]:
    """Run nodes that know of a reserved concurrency."""
    async with asyncio.TaskGroup() as tasks:
        nodes = [Node(url, tasks) for _ in range(NODES)]
        await nodes[0].store.functions.put_part("billing", FunctionPart.CONCURRENCY, str(LIMIT).encode())
        for node in nodes:
            await node.view.read()
        try:
            yield nodes
        finally:
            for node in nodes:
                node.task.cancel()
    for node in nodes:
        await node.store.aclose()


@contextlib.asynccontextmanager
async def hammering(nodes: list[Node]) -> AsyncIterator[Function]:
    """Have all nodes invoke one function."""
    function, stop = Function(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for node in nodes:
            tasks.create_task(node.hammer(function, stop))
        try:
            yield function
        finally:
            stop.set()


async def test_the_fleet_runs_a_function_as_often_as_it_may_and_no_more(redis_url: str) -> None:
    """Four nodes that all want more reach the limit and stay within it; then one of them alone has all of it."""
    async with nodes_on(redis_url) as nodes:
        async with hammering(nodes) as function:
            await eventually(lambda: function.calls > 1000, "a thousand calls")
        assert function.most == LIMIT
        alone = Function()
        alone.hold = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:

            def everything() -> bool:
                nodes[2].holders(tasks, alone)
                return alone.running == LIMIT

            began_at = time.monotonic()
            await eventually(everything, "one node has all")
            assert time.monotonic() - began_at < LATE_S
            alone.hold.set()
        assert alone.most == LIMIT


async def test_the_slots_of_a_dead_node_come_back(redis_url: str) -> None:
    """What a node held that died in the midst of its invocations others can use within the TTL."""
    async with nodes_on(redis_url) as nodes:
        lost, other = Function(), Function()
        lost.hold, other.hold = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:

            def everything(node: Node, function: Function) -> bool:
                node.holders(tasks, function)
                return function.running == LIMIT

            await eventually(lambda: everything(nodes[0], lost), "the first has all")
            nodes[1].holders(tasks, other)
            nodes[0].task.cancel()
            died_at = time.monotonic()
            await eventually(lambda: everything(nodes[1], other), "the second has all")
            assert TTL_S - 1 < time.monotonic() - died_at < LATE_S
            lost.hold.set()
            other.hold.set()
        assert other.most == LIMIT


@pytest.mark.parametrize("how", ["hangs", "is lost"])
async def test_without_redis_the_shares_hold_and_with_it_the_count(own_redis: EmbeddedRedis, how: str) -> None:
    """Redis hangs, or dies with all it knew, under load: never more than the limit runs, before, meanwhile or after."""
    async with nodes_on(own_redis.url) as nodes, hammering(nodes) as function:
        await eventually(lambda: function.calls > 200, "the fleet is at work")
        if how == "hangs":
            assert own_redis.pid is not None
            os.kill(own_redis.pid, signal.SIGSTOP)
        else:
            own_redis.kill()
        try:
            await eventually(lambda: all(node.counting.in_fallback for node in nodes), "all have fallen back")
            before = function.calls
            await eventually(lambda: function.calls > before + 200, "work goes on without Redis")
            assert function.running <= LIMIT
        finally:
            if how == "hangs":
                assert own_redis.pid is not None
                os.kill(own_redis.pid, signal.SIGCONT)
            else:
                own_redis.restart()
        if how == "is lost":
            before = function.calls
            await eventually(lambda: function.calls > before + 100, "work goes on though nothing is reserved there")
            await nodes[0].store.functions.put_part("billing", FunctionPart.CONCURRENCY, str(LIMIT).encode())
        await eventually(lambda: not any(node.counting.in_fallback for node in nodes), "all count again")
        before = function.calls
        await eventually(lambda: function.calls > before + 500, "work goes on")
    assert function.most == LIMIT
