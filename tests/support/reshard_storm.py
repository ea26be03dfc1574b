"""The reshard storm: nodes that come and go on a stream that never stands still, and the judgement of its history.

Everything that happens comes from one seed: writes, splits and merges, deaths and drains, and what the function
answers. Records carry `KEY:NUMBER`, so `tests.support.history` sees each partition key as a partition of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

from model.ids import TRACKER
from model.mapping import MappingRecord, MappingState
from model.mapping_rules import canonical_document
from model.outcome import Delivered, FunctionFailed, NotReached, Throttled
from model.progress import Ledger, ShardProgress
from statemgr.memory_store import MemoryStore
from tests.support.history import FAILED, OK, THROTTLED, Invoked, Partition, check
from tests.support.kinesis_fleet import MAPPING, entries
from tests.support.simulated_fan_out import CONSUMER, SimulatedFanOut
from tests.support.simulated_kinesis import ARN, SimulatedStream, Trouble
from tests.support.storm_node import StormNode

if TYPE_CHECKING:
    from model.invocation import Invocation
    from model.outcome import Outcome
    from tests.support.history import Verdict

KEYS = 24
BATCH, LANES = 10, 2
_NODES = 3
_DOCUMENT = {
    "UUID": MAPPING,
    "Name": "clicks",
    "FunctionName": "f",
    "StartingPosition": "TRIM_HORIZON",
    "BatchSize": BATCH,
    "ParallelizationFactor": LANES,
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """A record's delivery: who asked for it, and when it was done."""

    node: str
    shard: str
    token: int
    at: float


@dataclass
class Function:
    """The function, outside every node: a call that arrived is carried out, whether or not its caller lives on."""

    random: Random
    log: list[Invoked] = field(default_factory=list)
    deliveries: dict[tuple[str, int], list[Delivery]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: Counter[str] = field(default_factory=Counter)

    async def invoke(self, node: str, invocation: Invocation) -> Outcome:
        """Take a batch for a node: most answers are quick and good."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer: asyncio.Future[Outcome] = loop.create_future()
        slow = self.random.random() < 0.02
        seconds = self.random.uniform(0.5, 3.0) if slow else self.random.uniform(0.02, 0.4)
        outcome = self._draw()

        def over() -> None:
            self._note(node, invocation, started, outcome)
            if not answer.cancelled():
                answer.set_result(outcome)

        loop.call_later(seconds, over)
        return await answer

    def _draw(self) -> Outcome:
        drawn = self.random.random()
        if drawn < 0.02:
            return FunctionFailed("by seed")
        if drawn < 0.03:
            return Throttled("by seed")
        if drawn < 0.035:
            return NotReached("by seed")
        return Delivered()

    def _note(self, node: str, invocation: Invocation, started: float, outcome: Outcome) -> None:
        now = asyncio.get_running_loop().time()
        self.outcomes[type(outcome).__name__] += 1
        words = {Delivered: OK, FunctionFailed: FAILED}
        noted = Invoked(
            started=started,
            ended=now,
            mapping=invocation.mapping,
            shard=str(invocation.shard.shard),
            token=invocation.token,
            batch=invocation.batch_id,
            attempt=invocation.attempt,
            outcome=words.get(type(outcome), THROTTLED),
            records=entries(invocation.event),
        )
        self.log.append(noted)
        if noted.outcome == OK:
            for entry in noted.records:
                done = Delivery(node, noted.shard, noted.token, now)
                self.deliveries.setdefault((entry.topic, entry.offset), []).append(done)
            self.changed.set()


@dataclass(slots=True)
class _Target:
    """The function as one node sees it."""

    function: Function
    node: str

    async def invoke(self, invocation: Invocation) -> Outcome:
        """See `pollers.ports.Target`."""
        return await self.function.invoke(self.node, invocation)


class Storm:
    """One storm. Run `blow`, then `calm`, then ask what came of it."""

    def __init__(self, seed: int, tasks: asyncio.TaskGroup, *, fan_out: bool = False) -> None:
        self.random = Random(seed)
        self.loop = asyncio.get_running_loop()
        self.store = MemoryStore(self.loop.time)
        self.stream = SimulatedStream(Random(self.random.random()), trouble=Trouble())
        self.fan_out = SimulatedFanOut(self.stream, Random(seed))
        self._packed = fan_out  # some records in aggregates
        self._document = {**_DOCUMENT, "EventSourceArn": CONSUMER if fan_out else ARN}
        self.function = Function(Random(self.random.random()))
        self.nodes: dict[str, StormNode] = {}
        self.drained: list[str] = []
        self.reshards = 0
        self._tasks = tasks
        self._alive: list[StormNode] = []

    async def blow(self, for_s: float) -> None:
        """Have it all happen at once for so long."""
        record = MappingRecord(MAPPING, "clicks", canonical_document(self._document), 0, MappingState.CREATING)
        await self.store.put_mapping(record)
        for _ in range(_NODES):
            self._add_node()
        until = self.loop.time() + for_s
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write(until))
            tasks.create_task(self._reshard(until))
            tasks.create_task(self._come_and_go(until))

    async def _write(self, until: float) -> None:
        keys = [f"key-{number}" for number in range(KEYS)]
        while self.loop.time() < until:
            # Bursts of one key too, so that a batch and a backlog hold several of its records.
            for key in self.random.choices(keys, k=self.random.randint(1, 12)):
                for _ in range(self.random.choice((1, 1, 1, 4))):
                    self.stream.put(key)
            if self._packed:
                self.stream.put_packed(self.random.choices(keys, k=self.random.randint(1, 30)))
            await asyncio.sleep(self.random.uniform(0.1, 0.9))

    async def _reshard(self, until: float) -> None:
        while self.loop.time() < until:
            await asyncio.sleep(self.random.uniform(2, 6))
            self.stream.disturb()
            self.reshards += 1

    async def _come_and_go(self, until: float) -> None:
        while self.loop.time() + 60 < until:
            await asyncio.sleep(self.random.uniform(25, 60))
            node = self._alive.pop(self.random.randrange(_NODES))
            if self.random.random() < 0.6:
                await node.kill()
                await asyncio.sleep(self.random.uniform(0, 5))
            else:
                await node.drain()
                self.drained.append(node.name)
            self._add_node()

    def _add_node(self) -> None:
        name = f"node-{len(self.nodes)}"
        node = StormNode(
            self.store, self.fan_out, _Target(self.function, name), name=name, seed=self.random.getrandbits(32)
        )
        self.nodes[name] = node
        self._alive.append(node)
        node.start(self._tasks)

    async def calm(self, *, within_s: float) -> float:
        """Wait until everything is delivered, saved and accounted for; return how long it took. Else TimeoutError."""
        began = self.loop.time()
        async with asyncio.timeout(within_s):
            while len(self.function.deliveries) < self.stream.written.total():
                self.function.changed.clear()
                await self.function.changed.wait()
            while not await self.settled():  # noqa: ASYNC110 - the loop's time is free, and the store wakes nobody for progress
                await asyncio.sleep(0.25)
        return self.loop.time() - began

    async def settled(self) -> bool:
        """Whether just the open shards are wanted, and nothing of any shard is in flight."""
        wanted = {shard.key.shard for shard in (await self.store.snapshot()).wanted} - {TRACKER}
        ledgers = [progress.ledger for progress in (await self.progress()).values()]
        return wanted == {shard.id for shard in self.stream.open_shards()} and (
            sum(ledger.delivered for ledger in ledgers) >= self.stream.written.total()
            and not any(ledger.in_flight for ledger in ledgers)
        )

    async def progress(self) -> dict[str, ShardProgress]:
        """Return the stored progress by shard, the tracker's too."""
        return {str(key.shard): found for key, found in (await self.store.load_mapping(MAPPING)).items()}

    async def end(self) -> None:
        """Stop the nodes that are left."""
        for node in self._alive:
            await node.drain()

    # --- what came of it ---------------------------------------------------------------------------------------------

    def verdict(self) -> Verdict:
        """Judge losses, order per key, tokens and overlaps."""
        expected = {Partition(key, 0): range(count) for key, count in self.stream.written.items()}
        return check(self.function.log, expected, overlaps=True)

    def early_children(self) -> list[str]:
        """Return the shards of which the function saw something before all of their parents was delivered."""
        first: dict[str, float] = {}
        for invoked in self.function.log:
            first[invoked.shard] = min(first.get(invoked.shard, invoked.started), invoked.started)
        never = float("inf")
        early = []
        for name, began in first.items():
            for parent in self.stream.all[name].parents:
                done = [self.function.deliveries.get(record) for record in self.stream.all[parent].carried]
                finished = max((found[0].at if found else never for found in done), default=0.0)
                if began < finished:
                    early.append(f"{name} at {began:.3f}, its parent {parent} finished at {finished:.3f}")
        return early

    def unexplained_duplicates(self) -> list[str]:
        """Return repeats beyond what deaths explain: the batch in flight and the one before it, per lane and lease."""
        after_death: Counter[tuple[str, int]] = Counter()
        unexplained = []
        for record, deliveries in self.function.deliveries.items():
            for before, after in pairwise(deliveries):
                if self.nodes[before.node].killed_at is None or after.token == before.token:
                    unexplained.append(f"{record}: {before}, {after}")
                after_death[before.shard, before.token] += 1
        most = 2 * BATCH * LANES
        return unexplained + [f"{lease}: {count} repeats" for lease, count in after_death.items() if count > most]

    async def account(self) -> Ledger:
        """Return the sum of all ledgers, each of which balances."""
        total = Ledger()
        for name, progress in (await self.progress()).items():
            assert progress.ledger.balanced, (name, progress.ledger)
            total = total.plus(progress.ledger)
        return total
