"""A fleet of leasing services in one event loop, on one store in memory; each node with its own clock and way to it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from leasing.service import LeasingService
from model.errors import LeaseLostError
from model.ids import TRACKER, MappingId, NodeId, ShardKey
from model.lease import ALL_ROLES, Member, Role, WantedShard
from statemgr.memory_store import MemoryStore
from tests.support.fleet_values import ORDERS, mapping_record, source, take
from tests.support.store_link import Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from leasing.held import HeldLease


class Host:
    """Works on shards by remembering which, and lets the fleet check that nobody else does."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name
        self.working: dict[ShardKey, HeldLease] = {}
        self.drain_s: Callable[[ShardKey], float] = lambda _: 0.0
        self.fail_start: set[ShardKey] = set()
        self.log: list[tuple[float, str, ShardKey]] = []

    def _note(self, what: str, key: ShardKey) -> None:
        self.log.append((asyncio.get_running_loop().time(), what, key))

    def start(self, lease: HeldLease) -> None:
        """See `ShardHost.start`."""
        self._note("start", lease.key)
        if lease.key in self.fail_start:
            raise RuntimeError("cannot start")
        self.fleet.starting(self, lease)
        self.working[lease.key] = lease

    async def drain(self, key: ShardKey) -> None:
        """See `ShardHost.drain`."""
        self._note("drain", key)
        try:
            await asyncio.sleep(self.drain_s(key))
        finally:
            self.working.pop(key, None)
            self._note("quiet", key)

    def lost(self, key: ShardKey) -> None:
        """See `ShardHost.lost`."""
        self._note("lost", key)
        self.working.pop(key, None)

    def times(self, what: str) -> list[float]:
        """Return when something happened."""
        return [at for at, kind, _ in self.log if kind == what]


class Node:
    """One node: its way, its clock, its host, its service."""

    def __init__(self, fleet: Fleet, name: str, *, roles: frozenset[Role], ttl_s: float, seed: int) -> None:
        self.fleet = fleet
        self.name = name
        self.link = Link(fleet.store)
        self.host = Host(fleet, name)
        self.clock_rate = 1.0
        self.clock_ahead_s = 0.0
        self.replaced: list[str] = []
        self.revisions: list[int] = []
        self.leaving = False
        self._ids = 0
        loop = asyncio.get_running_loop()
        self.service = LeasingService(
            self.link,
            self.host,
            name=name,
            roles=roles,
            ttl_s=ttl_s,
            listener=self,
            clock=lambda: loop.time() * self.clock_rate + self.clock_ahead_s,
            rng=random.Random(seed),
            new_id=self._new_id,
        )
        self.task = fleet.tasks.create_task(self.service.run(), name=name)

    def _new_id(self) -> NodeId:
        self._ids += 1
        return NodeId(f"{self.name}-{self._ids}")

    def mappings_changed(self, revision: int) -> None:
        """See `Listener.mappings_changed`."""
        self.revisions.append(revision)

    def store_replaced(self, incarnation: str) -> None:
        """See `Listener.store_replaced`."""
        if set(self.host.working) - set(self.service.held):
            self.fleet.violations.append("the host learnt of the store's loss after that of its leases")
        self.replaced.append(incarnation)

    def kill(self) -> None:
        """End it as `kill -9` does: nothing it does from here on reaches anyone."""
        self.link.refusing = True
        self.host.working.clear()
        self.task.cancel()


class Fleet:
    """Nodes on one store, and what they may never do."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self.store = MemoryStore(self.loop.time)
        self.nodes: list[Node] = []
        self.tokens: dict[ShardKey, int] = {}
        self.violations: list[str] = []
        self.starts: Counter[ShardKey] = Counter()

    def node(self, name: str, *, roles: frozenset[Role] = ALL_ROLES, ttl_s: float = 10.0) -> Node:
        """Start a node."""
        node = Node(self, name, roles=roles, ttl_s=ttl_s, seed=len(self.nodes))
        self.nodes.append(node)
        return node

    async def want(self, count: int, mapping: MappingId = ORDERS, *, weight: float = 1.0) -> None:
        """Want so many source shards (and the tracker) of a mapping. Before any node takes the tracker."""
        admin = NodeId("admin")
        await self.store.put_mapping(mapping_record(mapping, name=mapping))
        await self.store.join(Member(admin, frozenset()), ttl_s=60)
        tracker = await take(self.store, admin, ShardKey(mapping, TRACKER))
        await self.store.set_wanted(mapping, [source(n, mapping, weight) for n in range(count)], tracker=tracker)
        await self.store.leave(admin)

    async def want_instead(self, shards: Sequence[WantedShard], mapping: MappingId = ORDERS) -> None:
        """Change the wanted source shards as the tracker's holder would."""
        tracker = self.holder(ShardKey(mapping, TRACKER))
        assert tracker is not None
        assert await self.store.set_wanted(mapping, shards, tracker=tracker.lease)

    def starting(self, host: Host, lease: HeldLease) -> None:
        """Note what must not be when work on a shard begins. Raises nothing: the service would survive it."""
        self.starts[lease.key] += 1
        if lease.key in host.working:
            self.violations.append(f"{host.name} starts {lease.key} twice")
        if lease.token <= self.tokens.get(lease.key, 0):
            self.violations.append(f"{host.name} starts {lease.key} under an old token")
        self.tokens[lease.key] = lease.token
        try:
            lease.check()
        except LeaseLostError as exc:
            self.violations.append(f"{host.name} starts what it has lost: {exc}")
        self._note_doubles([*self._trusted(), lease.key])

    def _trusted(self) -> list[ShardKey]:
        return [key for node in self.nodes for key, lease in node.host.working.items() if lease.trusted()]

    def _note_doubles(self, keys: list[ShardKey]) -> None:
        self.violations.extend(
            f"{count} trusted holders of {key} at {self.loop.time()}"
            for key, count in Counter(keys).items()
            if count > 1
        )

    def check(self) -> None:
        """Check that no shard is worked on by two holders that trust their lease, and that nothing else went wrong."""
        self._note_doubles(self._trusted())
        assert not self.violations

    def holder(self, key: ShardKey) -> HeldLease | None:
        """Return the trusted lease on a shard."""
        for node in self.nodes:
            lease = node.host.working.get(key)
            if lease is not None and lease.trusted():
                return lease
        return None

    def wanted(self) -> set[ShardKey]:
        """Return all wanted shards."""
        return set(self.store._wanted)

    def owned(self) -> set[ShardKey]:
        """Return the shards that someone works on under a trusted lease."""
        return {key for node in self.nodes for key, lease in node.host.working.items() if lease.trusted()}

    def sources_of(self, node: Node) -> int:
        """Count the source shards a node works on."""
        return sum(key.shard != TRACKER for key in node.host.working)

    async def until(self, done: Callable[[], bool], *, within_s: float) -> float:
        """Step on in small steps of time, checking at each; return how long it took. Fails after `within_s`."""
        began = self.loop.time()
        while not done():
            self.check()
            assert self.loop.time() - began <= within_s, f"not within {within_s} s"
            await asyncio.sleep(0.01)
        self.check()
        return self.loop.time() - began

    async def whole(self, *, within_s: float) -> float:
        """Wait until every wanted shard is worked on, and nothing else."""
        return await self.until(lambda: self.owned() == self.wanted(), within_s=within_s)

    async def settled(self, *, within_s: float) -> float:
        """Wait until every wanted shard is worked on and the fleet is balanced within one."""

        def done() -> bool:
            live = [node for node in self.nodes if not node.task.done() and not node.task.cancelling()]
            counts = [self.sources_of(node) for node in live]
            return self.owned() == self.wanted() and max(counts) - min(counts) <= 1

        return await self.until(done, within_s=within_s)

    async def run_for(self, seconds: float) -> None:
        """Let time pass, checking all the while."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            self.check()
            await asyncio.sleep(0.05)
        self.check()

    def stop(self) -> None:
        """End all nodes at once."""
        for node in self.nodes:
            node.task.cancel()


@asynccontextmanager
async def fleet_of(shards: int) -> AsyncIterator[Fleet]:
    """Give a fleet without nodes that wants so many shards, and stop its nodes afterwards."""
    async with asyncio.TaskGroup() as tasks:
        fleet = Fleet(tasks)
        await fleet.want(shards)
        yield fleet
        fleet.check()
        fleet.stop()
