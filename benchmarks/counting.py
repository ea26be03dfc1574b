"""What counting adds to an invocation: with slots to hand, and where each slot is asked for and given back at once.

Two nodes count on one Redis of this machine; their functions do nothing. `to hand`: one function that takes of the
account's concurrency, one invocation after the other. `asked for`: a function with one reserved slot, invoked by the
two nodes in turn, so that each invocation is a call to take the slot and another to give it back.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

import uvloop

from benchmarks.processes import BenchmarkFailedError
from benchmarks.results import Figure, Row, percentile
from invocation.counting import LONGEST_TTL_S, Counting
from leasing.clock import trust_clock
from model.function_config import FunctionPart
from statemgr.function_view import FunctionView
from statemgr.redis_store.store import RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.bench import Bench


class CountingCost:
    """Microseconds of `Counting.counted`. `benchmarks.bench.Case`."""

    name = "counting"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure."""
        bench.say(self.name)
        found: dict[str, list[float]] = {}
        for _ in range(bench.options.rounds):
            with bench.redis() as redis:
                for what, took in uvloop.run(_round(redis, bench.options.seconds)).items():
                    for part, name in ((0.5, "p50"), (0.99, "p99")):
                        found.setdefault(f"{what} {name}", []).append(percentile(took, part))
        yield Row(self.name, tuple(Figure.of(name, "us", values) for name, values in found.items()))


async def _round(redis: str, seconds: float) -> dict[str, list[float]]:
    """Return microseconds of invocations, by whether slots are to hand."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        running, nodes = [], []
        for _ in range(2):
            store = await stack.enter_async_context(aclosing(RedisStore.from_url(redis)))
            view = FunctionView(store.functions)
            await store.functions.put_part("one", FunctionPart.CONCURRENCY, b"1")
            await view.read()
            node = Counting(
                store.concurrency,
                reserved=lambda view=view: view.reserved,  # type: ignore[misc]
                account=lambda: 1000,
                ttl_s=LONGEST_TTL_S,
                clock=trust_clock,
            )
            running.append(tasks.create_task(node.run()))
            nodes.append(node)
        await asyncio.sleep(LONGEST_TTL_S + 1)  # until each has heard of the other, and a fresh store is trusted
        found = {
            "to hand": await _calls(nodes[:1], "any", seconds),
            "asked for": await _calls(nodes, "one", seconds),
        }
        for task in running:
            task.cancel()
    return found


async def _calls(nodes: Sequence[Counting], function: str, seconds: float) -> list[float]:
    took: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for node in nodes:
            began = time.perf_counter()
            came = await node.counted(function, _nothing)
            took.append((time.perf_counter() - began) * 1_000_000)
            if came is not None:
                raise BenchmarkFailedError(f"an invocation was refused: {came}")
            await asyncio.sleep(0)  # else nobody talks to the store, and the nodes pass for dead
    return took


async def _nothing() -> None:
    """Be a function that does nothing."""
