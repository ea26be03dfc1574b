"""A node in a simulated world: the product's engine and parts, on a machine of its own, with ways to everything else.

What `node.wiring` does besides (servers, HTTP, signals, reading files again) is left out, so that any number of nodes
run in one event loop, and die without saying goodbye.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from controlplane.mappings import Desired
from leasing.held import Reason
from model.errors import UnavailableError
from model.ids import NodeId
from model.mapping_rules import canonical_document, parse_mapping
from node.engine import Engine
from pollers.checkpointer import Checkpointer
from pollers.pump_parts import PumpParts
from tests.simulation.plan import TOPIC
from tests.support.engine_node import Outside, make_parts
from tests.support.simulated_kafka import BROKERS, KAFKA
from tests.support.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model.mapping import EventSourceMapping
    from node.runtimes import PartsFactory
    from pollers.failure_document import Failure
    from pollers.queue_calls import QueueParts
    from tests.simulation.calls import Call
    from tests.simulation.function import FunctionWay
    from tests.simulation.plan import Plan
    from tests.support.store_link import Link
    from tests.support.virtual_loop import Machine, VirtualLoop

_STORE_TIMEOUT_S = 2.0  # as `node.wiring` sets it, or a fifth of the TTL
_DESTINATION_TIMEOUT_S = 5.0
_AGAIN_S = 0.5
_KILL_S = 30.0
_PACE_S = (0.0005, 0.004)  # that a message usually takes, one way


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node finds around it."""

    documents: Callable[[], Iterable[dict[str, Any]]]  # of the mappings in its files
    store: Callable[[], Link]
    function: Callable[[str], FunctionWay]  # by the node's name
    way: Callable[[str], Any]  # to a source's service: a `Wire`, and what the product calls
    hand_over: Callable[[Failure], None]  # to the destination
    healed: Callable[[], bool]
    died: Callable[[str, Exception], None]  # of itself: the node's name, and why


class Destination(Wire):
    """One node's way to the on-failure destination. `pollers.ports.Destination`."""

    def __init__(self, take: Callable[[Failure], None]) -> None:
        super().__init__(timeout_s=_DESTINATION_TIMEOUT_S)
        self._take = take

    def __str__(self) -> str:
        return "the destination"

    async def deliver(self, failure: Failure) -> None:
        """See `Destination`."""

        def serve(answer: Callable[[None], None]) -> None:
            self._take(failure)
            answer(None)

        try:
            await self.carry("deliver", serve)
        except WireError as exc:
            raise UnavailableError(str(exc)) from exc

    async def close(self) -> None:
        """Nothing to close."""


class SimulatedNode:
    """One process on a machine. `start` it; end it with `kill` or `drain`."""

    def __init__(
        self, plan: Plan, around: Surroundings, machine: Machine, loop: VirtualLoop, *, name: str, seed: int
    ) -> None:
        self.name = name
        self.machine = machine
        self.killed = False
        self.draining = False
        self.engine: Engine | None = None  # once it runs
        self.store = around.store()
        self.store.timeout_s = min(_STORE_TIMEOUT_S, plan.ttl_s / 5)
        self.function = around.function(name)
        self.function.holds = self._holds
        self.destination = Destination(around.hand_over)
        self.ways: dict[str, Any] = {}  # to the sources, by service
        self._around = around
        self._plan = plan
        self._loop = loop
        self._random = Random(seed)
        self._ids = 0
        self._task: asyncio.Task[None] | None = None
        for wire in self.wires:
            self.usual_pace(wire)

    def __repr__(self) -> str:
        return f"<{self.name}{' killed' if self.killed else ' draining' if self.draining else ''}>"

    # Its network

    @property
    def wires(self) -> list[Wire]:
        """All ways it has."""
        return [self.store, self.function, self.destination, *self.ways.values()]

    def usual_pace(self, wire: Wire) -> None:
        """Have messages take as long as they usually do."""
        self.pace(wire, *_PACE_S)

    def pace(self, wire: Wire, least_s: float, most_s: float) -> None:
        """Have messages take a while."""
        wire.request_s = wire.reply_s = lambda: self._random.uniform(least_s, most_s)
        wire.loses = self._loses

    def _loses(self) -> bool:
        lost = self._plan.answers_lost
        return lost > 0 and not self._around.healed() and self._random.random() < lost

    def way_to(self, service: str) -> Any:
        """Return the way to the service of a source."""
        if service not in self.ways:
            self.ways[service] = wire = self._around.way(service)
            self.usual_pace(wire)
        return self.ways[service]

    # Its life

    @property
    def lives(self) -> bool:
        """Whether the process is there, and is to stay."""
        return self._task is not None and not self._task.done() and not self.killed and not self.draining

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run until killed or drained."""
        self._task = tasks.create_task(self._run(), name=self.name, context=self.machine.context.copy())

    async def _run(self) -> None:
        if self._plan.document(TOPIC) is not None:
            BROKERS.set(self.way_to(KAFKA))
        try:
            async with asyncio.TaskGroup() as tasks:
                self.engine = engine = self._make_engine(tasks)
                while True:
                    try:
                        await engine.take_up_files()
                        break
                    except UnavailableError:
                        await asyncio.sleep(_AGAIN_S)
                await engine.run()
        except Exception as exc:  # noqa: BLE001 - a process that dies of itself
            if not self.killed:
                self._around.died(self.name, exc)

    def _make_engine(self, tasks: asyncio.TaskGroup) -> Engine:
        store: Any = self.store
        checkpointer = Checkpointer(store)
        return Engine(
            store,
            checkpointer,
            self._parts(checkpointer, tasks),
            name=self.name,
            ttl_s=self._plan.ttl_s,
            hand_over_s=self._plan.drain_s,
            desired=lambda: [_desired(document) for document in self._around.documents()],
            clock=self._boot_s,
            rng=self._random,
            new_id=self._new_id,
        )

    def _parts(self, checkpointer: Checkpointer, tasks: asyncio.TaskGroup) -> PartsFactory:
        """Return the product's own factory, with the simulated world behind what it makes."""
        outside = Outside(self.function, self.way_to)
        timeout_s = self._plan.function_timeout_s
        parts = make_parts(outside, checkpointer, tasks, self._random, function_timeout_s=timeout_s)

        def make(mapping: EventSourceMapping) -> PumpParts | QueueParts:
            made = parts(mapping)
            if not isinstance(made, PumpParts):
                return made
            destination = None if made.destination is None else self.destination
            return replace(made, destination=destination, now_s=lambda: time.time())  # noqa: PLW0108 - it is patched

        return make

    def _boot_s(self) -> float:
        return self.machine.boot_s(self._loop.now)

    def _new_id(self) -> NodeId:
        self._ids += 1
        return NodeId(f"{self.name}-{self._ids}")

    async def kill(self) -> None:
        """End it as `kill -9` does: nothing it does from here on reaches anyone."""
        assert self._task is not None
        self.killed = True
        for wire in self.wires:
            wire.refusing = True
        self._task.cancel()
        self._loop.go_on(self.machine)
        done, _ = await asyncio.wait([self._task], timeout=_KILL_S)
        assert done, f"{self.name} was cancelled, and goes on"

    async def drain(self) -> None:
        """End it in order."""
        assert self._task is not None
        self.draining = True
        if self.engine is None:
            await self.kill()  # it has not begun
            return
        drain = self._loop.create_task(self.engine.drain(self._plan.drain_s), context=self.machine.context.copy())
        await asyncio.wait([drain, self._task])

    # What it believes

    def _holds(self, call: Call) -> bool:
        if self.engine is None or self.killed or self.machine.stopped:
            return False
        held = self.engine.leasing.held.get(call.shard)
        return held is not None and held.token == call.token and held.trusted(self._boot_s())

    def trusts_until(self, member: NodeId) -> float | None:
        """Return the true time until which it trusts a membership; None if that is over, or another's."""
        session = None if self.engine is None or self.killed else self.engine.leasing._keeper.session
        if session is None or session.node != member:
            return None
        return self.machine.true_s(session.term.trusted_until)

    @property
    def cut_off_drains(self) -> int:
        """How many shards it gave away without having become quiet."""
        if self.engine is None:
            return 0
        return sum(self.engine.leasing.transitions[reason] for reason in (Reason.DRAIN_TIMEOUT, Reason.GIVEN_UP))


def _desired(document: dict[str, Any]) -> Desired:
    mapping = parse_mapping(document)
    return Desired(mapping.id, mapping.name, canonical_document(document), mapping.enabled)
