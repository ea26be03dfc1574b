"""A node without sockets: the real leasing, fleet, workers and checkpointer, on a way to a shared store in memory.

What `node.wiring.Node` does besides (servers, HTTP, signals, reloading files) is left out, so that any number of
nodes run in one event loop in fast-forwarded time, and die without saying goodbye.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from leasing.service import LeasingService
from model.ids import TRACKER, NodeId
from model.mapping import KinesisSource as KinesisStream
from node.runtimes import Catalogue, Runtimes
from node.workers import PumpWorker, TrackerWorker
from pollers.checkpointer import Checkpointer
from pollers.counters import Meters
from pollers.fleet import Fleet
from pollers.pump_parts import PumpParts
from pollers.retrying import RetryPolicy
from pollers.sources.kinesis import KinesisSource
from pollers.sources.kinesis_envelope import KinesisEnvelope
from tests.support.pump_fakes import open_gate
from tests.support.store_link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from leasing.held import HeldLease
    from model.ids import ShardKey
    from model.mapping import EventSourceMapping
    from pollers.fleet import Worker
    from pollers.ports import Target
    from pollers.sources.kinesis_subscription import Caller
    from statemgr.memory_store import MemoryStore

DRAIN_S = 30.0
TTL_S = 10.0


class StoreWay(Link):
    """A node's way to everything the store does: what was sent arrives, after its sender's death too."""

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Send what `Link` does not spell out, progress and mappings, like all the rest."""
        method = getattr(self.store, name)

        def send(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            return self._send(name, lambda: method(*args, **kwargs))

        return send


class StormNode:
    """One node reading Kinesis through `caller` and calling `target`."""

    def __init__(self, store: MemoryStore, caller: Caller, target: Target, *, name: str, seed: int) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.killed_at: float | None = None
        self._random = Random(seed)
        self._caller = caller
        self._target = target
        self._link = StoreWay(store)
        self._link.request_s = self._link.reply_s = lambda: self._random.uniform(0.0005, 0.004)
        self._way: Any = self._link
        self._meters = Meters()
        self._checkpointer = Checkpointer(self._way)
        self._catalogue = Catalogue(self._way)
        self._runtimes = Runtimes(self._catalogue, self._make_parts)
        self._mappings_changed = asyncio.Event()
        self._fleet = Fleet(self._make_worker, ended=self._ended)
        self.leasing = LeasingService(
            self._way,
            self._fleet,
            name=name,
            ttl_s=TTL_S,
            hand_over_s=DRAIN_S,
            listener=self,
            clock=loop.time,
            rng=self._random,
            new_id=self._new_id,
        )
        self._ids = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run until killed or drained."""
        self._task = tasks.create_task(self._run(), name=self.name)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._checkpointer.run()),
                tasks.create_task(self._fleet.run()),
                tasks.create_task(self._follow_mappings()),
            ]
            await self.leasing.run()
            for task in background:
                task.cancel()

    async def kill(self) -> None:
        """End it as `kill -9` does: nothing more is saved or given back."""
        assert self._task is not None
        self.killed_at = asyncio.get_running_loop().time()
        self._link.refusing = True
        self._task.cancel()
        await asyncio.wait([self._task])

    async def drain(self) -> None:
        """End it in order."""
        assert self._task is not None
        await self.leasing.drain(DRAIN_S)
        await asyncio.wait([self._task])

    def mappings_changed(self, revision: int) -> None:
        """See `leasing.service.Listener`."""
        self._mappings_changed.set()

    def store_replaced(self, incarnation: str) -> None:
        """See `leasing.service.Listener`. The store in memory forgets nothing."""
        raise AssertionError("the store was replaced")

    async def _follow_mappings(self) -> None:
        while True:
            await self._mappings_changed.wait()
            self._mappings_changed.clear()
            for mapping, document in (await self._catalogue.read()).items():
                self._fleet.mapping_changed(mapping, document=document)

    async def _make_worker(self, lease: HeldLease) -> Worker:
        if self._catalogue.record(lease.key.mapping) is None:
            await self._catalogue.read()
        if lease.key.shard == TRACKER:
            return TrackerWorker(lease, self._catalogue, self._runtimes, self._way)
        return PumpWorker(lease, self._catalogue, self._runtimes, self._way)

    def _ended(self, key: ShardKey) -> None:
        self.leasing.give_up(key)

    def _make_parts(self, mapping: EventSourceMapping) -> PumpParts:
        assert isinstance(mapping.source, KinesisStream)
        counters = self._meters.of(mapping.name, mapping.source.kind)
        return PumpParts(
            mapping=mapping,
            source=KinesisSource(mapping, self._caller),
            envelope=KinesisEnvelope(mapping.source),
            filter=None,
            target=self._target,
            gate=open_gate(counters, seed=self._random.getrandbits(32)),
            policy=RetryPolicy.of(mapping, in_order=True),
            counters=counters,
            checkpointer=self._checkpointer,
            random=self._random,
            lanes=mapping.parallelization_factor,
        )

    def _new_id(self) -> NodeId:
        self._ids += 1
        return NodeId(f"{self.name}-{self._ids}")
