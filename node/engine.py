"""The part of a node that works: leases, workers, checkpoints, and the mappings it knows.

Everything it needs comes from outside: the store, who makes a mapping's parts, the clocks. It has no sockets of its
own, so that any number of engines run in one event loop. What a node does besides (servers, HTTP, signals, reading
files again) is `node.wiring`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from controlplane.mappings import AT_REST, Desired, apply
from leasing.clock import trust_clock
from leasing.service import LeasingService
from model.async_event import ASYNC_QUEUE
from model.errors import ConflictError, NotFoundError, RefusedError, UnavailableError
from model.ids import TRACKER
from model.lease import ALL_ROLES
from model.mapping import MappingState
from node.runtimes import Catalogue, Runtimes
from node.workers import PumpWorker, TrackerWorker
from pollers.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from controlplane.function_parts import FunctionFiles
    from leasing.held import HeldLease
    from model.ids import NodeId, ShardKey
    from model.lease import Role
    from node.runtimes import PartsFactory
    from pollers.checkpointer import Checkpointer
    from pollers.fleet import Worker
    from statemgr.stores import Store

log = structlog.get_logger(__name__)

_AGAIN_S = 0.5


class Engine:
    """One node's engine. `leasing.service.Listener`. Run `run()`; stop with `drain()`, or by cancelling it.

    `desired` returns the mappings that the node's own files ask for: a store that forgot them is told again. So it is
    with what they say of functions, if that is given. `make_partition_worker` is for the asynchronous queue.
    """

    def __init__(
        self,
        store: Store,
        checkpointer: Checkpointer,
        make_parts: PartsFactory,
        *,
        name: str,
        ttl_s: float,
        hand_over_s: float,
        desired: Callable[[], Iterable[Desired]],
        roles: frozenset[Role] = ALL_ROLES,
        zone: str = "",
        clock: Callable[[], float] = trust_clock,
        rng: Random | None = None,
        new_id: Callable[[], NodeId] | None = None,
        functions: FunctionFiles | None = None,
        make_partition_worker: Callable[[HeldLease], Worker] | None = None,
    ) -> None:
        self._store = store
        self._functions = functions
        self._make_partition_worker = make_partition_worker
        self._checkpointer = checkpointer
        self._desired = desired
        self._mappings_changed = asyncio.Event()
        self._store_replaced = False
        self.catalogue = Catalogue(store)
        self.runtimes = Runtimes(self.catalogue, make_parts)
        self.fleet = Fleet(self._make_worker, ended=self._ended)
        self.leasing = LeasingService(
            store,
            self.fleet,
            name=name,
            roles=roles,
            zone=zone,
            ttl_s=ttl_s,
            hand_over_s=hand_over_s,
            listener=self,
            clock=clock,
            rng=rng,
            new_id=new_id,
        )

    async def run(self) -> None:
        """Take part in the fleet until drained or cancelled."""
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._checkpointer.run(), name="checkpointer"),
                tasks.create_task(self.fleet.run(), name="fleet"),
                tasks.create_task(self._follow_mappings(), name="follow mappings"),
            ]
            await self.leasing.run()
            for task in background:
                task.cancel()

    async def drain(self, deadline_s: float) -> None:
        """Give everything to its next holders, for at most `deadline_s`, and end `run()`."""
        await self.leasing.drain(deadline_s)

    async def take_up_files(self) -> None:
        """Put the files' mappings into the store, and read what is there. Raises as `controlplane.mappings.apply`."""
        await apply(self._store, list(self._desired()))
        if self._functions is not None:
            await self._functions.take_up()
        await self.catalogue.read()

    def renew(self, differs: Callable[[str], bool]) -> None:
        """Have the mappings whose FunctionName `differs` work with parts made anew."""
        elsewhere = []
        for record in self.catalogue:
            with contextlib.suppress(NotFoundError, RefusedError):  # another version's document: nobody works on it
                if differs(self.catalogue.mapping(record.id).function_name):
                    elsewhere.append(record.id)
        if elsewhere:
            self.runtimes.renew()
        for mapping in elsewhere:
            self.fleet.mapping_changed(mapping, document=True)

    # Workers

    async def _make_worker(self, lease: HeldLease) -> Worker:
        if lease.key.mapping == ASYNC_QUEUE:
            if self._make_partition_worker is None:
                raise RuntimeError("this engine works on no asynchronous invocations")
            return self._make_partition_worker(lease)
        if self.catalogue.record(lease.key.mapping) is None:
            await self.catalogue.read()
        if lease.key.shard == TRACKER:
            return TrackerWorker(lease, self.catalogue, self.runtimes, self._store)
        return PumpWorker(lease, self.catalogue, self.runtimes, self._store)

    def _ended(self, key: ShardKey) -> None:
        self.leasing.give_up(key)

    # Mappings: `leasing.service.Listener`

    def mappings_changed(self, revision: int) -> None:
        """Read the mappings soon."""
        log.debug("mappings.changed", revision=revision)
        self._mappings_changed.set()

    def store_replaced(self, incarnation: str) -> None:
        """Publish what this node knows again, soon."""
        log.error("store.replaced", incarnation=incarnation)
        self._store_replaced = True
        self._mappings_changed.set()

    async def _follow_mappings(self) -> None:
        while True:
            await self._mappings_changed.wait()
            self._mappings_changed.clear()
            try:
                if self._store_replaced:
                    await self._publish_again()
                    self._store_replaced = False
                if self._functions is not None:
                    await self._functions.read()
                changed = await self.catalogue.read()
            except (UnavailableError, ConflictError):  # others are at it as well
                self._mappings_changed.set()
                await asyncio.sleep(_AGAIN_S)
                continue
            for mapping, document in changed.items():
                self.fleet.mapping_changed(mapping, document=document)

    async def _publish_again(self) -> None:
        """Give a store that forgot everything the positions and mappings this node knows (invariant 7)."""
        await self._checkpointer.republish()
        if self._functions is not None:
            await self._functions.publish_again()
        known = [
            Desired(
                record.id,
                record.name,
                record.document,
                record.state not in AT_REST,
                applied=record.applied,
                began=record.state in (MappingState.ENABLED, MappingState.UPDATING),
            )
            for record in self.catalogue
            if record.state is not MappingState.DELETING
        ]
        for wishes in (known, list(self._desired())):
            try:
                await apply(self._store, wishes)
            except ConflictError:
                await self._publish_what_goes(wishes)

    async def _publish_what_goes(self, wishes: Iterable[Desired]) -> None:
        """Put mappings one by one: what contradicts the others' must not keep the rest away."""
        for wish in wishes:
            try:
                await apply(self._store, [wish])
            except ConflictError as exc:
                log.error("mapping.not_published", mapping=wish.name, error=str(exc))  # noqa: TRY400 - no bug
