"""A partition of the asynchronous queue in memory, with a function that answers from a script."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from invocation.classify import Answer
from leasing.held import HeldLease
from leasing.term import Term
from model.async_event import Condition, NewEvent, partition_key
from model.function_config import FunctionConfig
from model.lease import Member
from model.progress import ShardProgress
from pollers.async_counters import AsyncMeters
from pollers.async_delivery import AsyncDelivery
from pollers.async_pump import AsyncPump, Share
from statemgr.memory_store import MemoryStore
from tests.support.fleet_values import ANN, take

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from model.async_event import Condition, Result

HERE = (3, 3)
OK = Answer(200, {}, b'"ok"')
FAILED = Answer(200, {"X-Amz-Function-Error": "Unhandled"}, b'{"errorMessage":"no"}')
THROTTLED = Answer(429, {})
AWAY = Answer(502, {})


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


@dataclass
class World:
    """A store, a function that answers from a script, and destinations that may refuse."""

    store: MemoryStore = field(default_factory=lambda: MemoryStore(now))
    answers: list[Answer] = field(default_factory=list)  # then OK
    config: FunctionConfig = field(default_factory=FunctionConfig)
    meters: AsyncMeters = field(default_factory=AsyncMeters)
    calls: list[tuple[float, str, str]] = field(default_factory=list)  # when, line, request id
    held: dict[str, asyncio.Event] = field(default_factory=dict)  # lines whose answers wait
    running: int = 0
    told: list[tuple[float, str, Condition]] = field(default_factory=list)
    buried: list[str] = field(default_factory=list)
    refusing: list[Exception] = field(default_factory=list)

    async def invoke(self, event: NewEvent) -> Answer:
        """Answer from the script."""
        self.calls.append((round(now(), 1), event.line, event.request_id))
        self.running += 1
        try:
            if event.line in self.held:
                await self.held[event.line].wait()
        finally:
            self.running -= 1
        return self.answers.pop(0) if self.answers else OK

    async def function_config(self, function: str) -> FunctionConfig:
        """Return the one configuration."""
        del function
        return self.config

    async def tell(self, destination: str, event: NewEvent, result: Result) -> None:
        """Take a result, or refuse."""
        del event
        if self.refusing:
            raise self.refusing.pop(0)
        self.told.append((round(now(), 1), destination, result.condition))

    async def bury(self, arn: str, event: NewEvent, result: Result) -> None:
        """Take a dead letter."""
        del event, result
        self.buried.append(arn)

    def delivery(self) -> AsyncDelivery:
        """Return what delivers."""
        return AsyncDelivery(self.invoke, self, self, self.meters, now=now, clock=now)

    async def append(self, line: str = "f", request_id: str = "r-1", payload: bytes = b"{}") -> None:
        """Accept an event."""
        await self.store.events.append(NewEvent(line, line, request_id, "Root=1", payload), HERE)

    async def lease(self) -> HeldLease:
        """Take the partition's lease."""
        await self.store.join(Member(ANN), ttl_s=1e6)
        lease = await take(self.store, ANN, partition_key(3))
        term = Term(1e6, 1.0)
        term.renewed(now())
        return HeldLease(lease, ShardProgress(), term=term, clock=now)

    async def left(self) -> int:
        """Return how many events there are."""
        return (await self.store.events.depth()).events

    async def until(self, holds: Callable[[], bool], *, step_s: float = 0.1) -> None:
        """Let time pass until something holds."""
        async with asyncio.timeout(100_000):
            while True:
                if holds():
                    return
                await asyncio.sleep(step_s)


@asynccontextmanager
async def pumping(world: World, lease: HeldLease, share: Share | None = None) -> AsyncIterator[AsyncPump]:
    """Run a pump; drain it at the end."""
    pump = AsyncPump(world.store.events, lease, world.delivery(), share or Share(), random=Random(1))
    async with asyncio.timeout(1_000_000), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(pump.run())
        yield pump
        pump.drain()
        await running
