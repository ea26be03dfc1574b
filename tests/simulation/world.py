"""One simulated world: nodes on machines, a store, sources, a function; a storm, healing, and calm."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

from model.ids import TRACKER
from model.lease import Holding
from tests.simulation import troubles
from tests.simulation.function import Function, FunctionWay
from tests.simulation.judge import Judge
from tests.simulation.node import SimulatedNode, Surroundings
from tests.simulation.plan import STREAM, TOPIC
from tests.simulation.sources import QueueSource, StreamSource, TopicSource, make_sources
from tests.simulation.stream_way import StreamWay
from tests.support.simulated_redis import SimulatedRedis
from tests.support.simulated_sqs import SqsWay
from tests.support.store_link import Link
from tests.support.virtual_loop import Machine

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from model.ids import NodeId, ShardKey
    from pollers.failure_document import Failure
    from tests.simulation.plan import Plan
    from tests.support.simulated_kafka import BrokersWay
    from tests.support.virtual_loop import VirtualLoop
    from tests.support.wire import Wire

_DRIFT = 0.0005  # of a machine's oscillator
_LOOK_S = 0.5
CALM_S = 120.0
"""How long after the last trouble everything written must have been delivered, saved and accounted for."""
EXPECTED_ERRORS = {"store.replaced"}
"""What nodes may log as errors: it tells of what was done to them."""


class World:
    """The world. Run `happen`; `failed` is set as soon as a promise is broken."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.random = Random(plan.seed + 1)
        self.documents = [dict(document) for document in plan.documents]  # as the nodes' files have them now
        self.healing = asyncio.Event()
        self.failed = asyncio.Event()
        self.ended = False
        self.wiped = self.rolled_back = False  # the store
        self.calm_after_s = 0.0
        self.story: list[str] = []
        self.befell: Counter[str] = Counter()
        self.redis = SimulatedRedis(loop, epoch_s=plan.store_epoch_s)
        self.judge = Judge(loop, self.redis, ttl_s=plan.ttl_s)
        self.judge.on_problem = self.failed.set
        self.judge.terms = lambda member: self._node_of(member).trusts_until(member)
        self.judge.cut_off = lambda member: self._node_of(member).cut_off_drains
        partial = {document["UUID"] for document in plan.documents if "FunctionResponseTypes" in document}
        self.function = Function(plan.function, self._seeded(), self.judge, partial=partial)
        self.sources = make_sources(plan, self.judge, self.redis, self._seeded())
        self.machines: list[Machine] = []
        self.nodes: list[SimulatedNode] = []
        self._tasks: asyncio.TaskGroup | None = None

    def _seeded(self) -> Random:
        return Random(self.random.getrandbits(64))

    @property
    def stream(self) -> StreamSource | None:
        """The stream, if there is one."""
        source = self.sources.get(StreamSource.service)
        return source if isinstance(source, StreamSource) else None

    @property
    def queue(self) -> QueueSource | None:
        """The queue, if there is one."""
        source = self.sources.get(QueueSource.service)
        return source if isinstance(source, QueueSource) else None

    @property
    def topic(self) -> TopicSource | None:
        """The topic, if there is one."""
        source = self.sources.get(TopicSource.service)
        return source if isinstance(source, TopicSource) else None

    # The story

    async def happen(self) -> None:
        """Let it all happen."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for _ in range(self.plan.nodes):
                self.start_node()
            async with asyncio.TaskGroup() as storm:
                storm.create_task(self._write())
                for trouble in self.plan.troubles:
                    storm.create_task(self._befall(trouble.at, trouble.kind), name=trouble.kind)
                await self.sleep(self.plan.storm_s)
                self.heal()
            self.heal()  # what ended just now may have put something back as it was
            self.tell("all is healed")
            await troubles.put_all(self)
            await self._become_calm()
            if not self.wiped:
                for source in self.sources.values():
                    source.check_account(rolled_back=self.rolled_back)
            for node in [node for node in self.nodes if node.lives]:
                await node.drain()
            if self.redis._holdings:
                self.judge.wrong(f"the last node has drained, and the store still has {self.redis._holdings}")

    async def _befall(self, at: float, kind: str) -> None:
        await self.sleep(at)
        if not self.healing.is_set():
            self.befell[kind] += 1
            await troubles.KINDS[kind](self)

    async def _write(self) -> None:
        """Write bursts of records, also of one key, so that a batch and a backlog hold several of its records."""
        keys = [f"key-{number}" for number in range(self.plan.keys)]
        while not self.healing.is_set():
            for key in self.random.choices(keys, k=self.random.randint(1, self.plan.burst)):
                for _ in range(self.random.choice((1, 1, 1, 3))):
                    for source in self.sources.values():
                        source.write(key)
            for source in self.sources.values():
                source.end_burst(keys)
            await self.sleep(self.plan.pace_s * self.random.uniform(0.2, 1.8))

    async def sleep(self, for_s: float) -> None:
        """Let time pass, until the world is healed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await self.healing.wait()

    def heal(self) -> None:
        """End all trouble."""
        self.healing.set()
        self.function.heal()
        self.redis.door.open()
        self.redis.read_only = False
        for source in self.sources.values():
            source.heal()
        for machine in self.machines:
            self.loop.go_on(machine)
        for node in self.nodes:
            if not node.killed:
                for wire in node.wires:
                    self.mend(node, wire)

    async def _become_calm(self) -> None:
        """Wait until everything is delivered, saved and accounted for."""
        began = self.loop.now
        while missing := self._missing():
            if self.loop.now - began > CALM_S:
                self.judge.wrong(f"liveness: {CALM_S:.0f} s after the last trouble {'; '.join(missing)}")
                return
            await asyncio.sleep(_LOOK_S)
        self.calm_after_s = self.loop.now - began
        self.tell(f"calm after {self.calm_after_s:.1f} s")

    def _missing(self) -> list[str]:
        """Return what is missing from calm."""
        redis = self.redis
        missing = [f"{key} has no holder" for key in redis._wanted if key not in redis._holdings]
        for key, progress in redis.progress.stored.items():
            # What a wiped store was told again of a shard long read to its end may be of before that.
            if (progress.ledger.in_flight or progress.ledger.parked) and (key in redis._wanted or not self.wiped):
                missing.append(f"{key} has {progress.ledger}")
        for source in self.sources.values():
            missing += source.missing()
        return missing or self._unbalanced()

    def _unbalanced(self) -> list[str]:
        """Return what is missing from balance: shards are spread within one, and worked on where they are held."""
        lives = [node for node in self.nodes if node.lives]
        members = {session.member.node for session in self.redis._sessions.values()}
        if len(members) != len(lives):
            return [f"{members} are members, {lives} live"]
        missing: list[str] = []
        worked: Counter[ShardKey] = Counter()
        spread: dict[bool, list[int]] = {True: [], False: []}
        for node in lives:
            held = {} if node.engine is None else node.engine.leasing.held
            for key, lease in held.items():
                worked[key] += 1
                if self.redis._holdings.get(key) != Holding(lease.node, lease.token):
                    missing.append(f"{node.name} works on {key} under {lease}, not as the store says")
            for trackers, counts in spread.items():
                counts.append(sum((key.shard == TRACKER) == trackers for key in held))
        if worked != dict.fromkeys(self.redis._wanted, 1):
            missing.append(f"{dict(worked)} are worked on, {sorted(self.redis._wanted)} are wanted")
        return missing + [f"shards are spread {counts}" for counts in spread.values() if max(counts) - min(counts) > 1]

    # What troubles use

    def tell(self, what: str) -> None:
        """Add to the story."""
        self.story.append(f"{self.loop.now:8.3f}  {what}")

    def pick(self) -> SimulatedNode | None:
        """Choose a node that lives and is not in the middle of something."""
        lives = [node for node in self.nodes if node.lives and not node.machine.stopped and node.engine is not None]
        return self.random.choice(lives) if lives else None

    def start_node(self, machine: Machine | None = None) -> SimulatedNode:
        """Start a process, on a machine of its own unless one is given."""
        assert self._tasks is not None
        machine = machine or self._new_machine()
        name = f"node-{len(self.nodes)}"
        around = Surroundings(
            documents=lambda: self.documents,
            store=lambda: Link(self.redis, self.redis.door),
            function=lambda caller: FunctionWay(
                self.function, self.judge, caller=caller, timeout_s=self.plan.function_timeout_s
            ),
            way=self._way_to,
            hand_over=self._handed_over,
            healed=self.healing.is_set,
            died=lambda name, exc: self.judge.wrong(f"{name} died: {exc!r}"),
        )
        node = SimulatedNode(self.plan, around, machine, self.loop, name=name, seed=self.random.getrandbits(64))
        self.nodes.append(node)
        self.tell(f"{name} starts on {machine.name}")
        node.start(self._tasks)
        return node

    def _new_machine(self) -> Machine:
        machine = Machine(
            f"machine-{len(self.machines)}",
            rate=1 + self.random.uniform(-_DRIFT, _DRIFT),
            up_s=self.random.uniform(0, 1e6),
            wall_ahead_s=self.random.uniform(-1, 1),
        )
        self.machines.append(machine)
        return machine

    def mend(self, node: SimulatedNode, wire: Wire) -> None:
        """Let a way be as usual."""
        wire.refusing = wire.mute = False
        wire.let_through()
        node.usual_pace(wire)

    def _way_to(self, service: str) -> StreamWay | SqsWay | BrokersWay:
        source = self.sources.get(service)
        if source is not None:
            return source.way()
        return SqsWay(None) if service == QueueSource.service else StreamWay(None)  # every node has these, used or not

    def _handed_over(self, failure: Failure) -> None:
        source = {STREAM: self.stream, TOPIC: self.topic}[failure.shard.mapping]
        assert source is not None
        source.judge.handed_over(failure)

    def _node_of(self, member: NodeId) -> SimulatedNode:
        name = member.rpartition("-")[0]
        return next(node for node in self.nodes if node.name == name)

    # What must not happen

    def fell_through(self, _loop: object, context: dict[str, Any]) -> None:
        """Take what nobody caught for a problem."""
        if not self.ended:
            self.judge.wrong(f"fell through: {context.get('message')}: {context.get('exception')!r}")

    def logged(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        """Take an error in the log for a problem, but for those that tell of what was done to the world."""
        if not self.ended and event["event"] not in EXPECTED_ERRORS:
            exc = sys.exc_info()[1] if event.pop("exc_info", None) else None
            self.judge.wrong(f"logged: {dict(event)}{'' if exc is None else f': {exc!r}'}")
        return ""
