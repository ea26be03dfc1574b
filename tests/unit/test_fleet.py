"""The node's workers: one per lease, none of them able to hurt another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from model.errors import LeaseLostError
from model.ids import ShardId, ShardKey
from pollers.fleet import Fleet
from tests.support.pump_fakes import MAPPING, FakeLease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from leasing.held import HeldLease
    from pollers.fleet import Worker

pytestmark = pytest.mark.looptime

A, B = (ShardKey(MAPPING, ShardId(name)) for name in "ab")


class Work:
    """A worker that works until told."""

    def __init__(self) -> None:
        self.drained = asyncio.Event()
        self.failure: Exception | None = None
        self.finish = asyncio.Event()
        self.state = "new"
        self.refreshed = 0
        self.drain_s = 1.0
        self.stop_s = 0.0

    async def run(self) -> None:
        """Work."""
        self.state = "running"
        try:
            await self.finish.wait()
            if self.failure is not None:
                raise self.failure
            await asyncio.sleep(self.drain_s)
            self.state = "drained"
        finally:
            if self.state == "running":
                await asyncio.sleep(self.stop_s)
                self.state = "stopped"

    def drain(self) -> None:
        """Finish."""
        self.finish.set()

    def refresh(self) -> None:
        """Count."""
        self.refreshed += 1

    def mapping_changed(self, *, document: bool) -> None:
        """Depend on the document."""
        if document:
            self.drain()


class Rig:
    """A fleet whose workers the test holds."""

    def __init__(self) -> None:
        self.works: dict[ShardKey, Work] = {}
        self.ended: list[ShardKey] = []
        self.refuse = False
        self.making = asyncio.Event()
        self.making.set()
        self.fleet = Fleet(self.make, ended=self.ended.append)

    async def make(self, lease: HeldLease) -> Worker:
        """Make one."""
        await self.making.wait()
        if self.refuse:
            raise RuntimeError("no parts")
        return self.works.setdefault(lease.key, Work())

    def start(self, key: ShardKey) -> None:
        """Begin under a fake lease."""
        self.fleet.start(FakeLease(key=key))  # type: ignore[arg-type]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        """Run the fleet."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.fleet.run())
            await asyncio.sleep(0)
            yield self.fleet
            task.cancel()


async def test_draining_waits_until_the_worker_is_quiet() -> None:
    """A drained worker ends by itself, and is not reported as failed."""
    rig = Rig()
    async with rig.running() as fleet:
        rig.start(A)
        rig.start(B)
        await asyncio.sleep(0.1)
        began_at = asyncio.get_running_loop().time()
        await fleet.drain(A)
        assert asyncio.get_running_loop().time() - began_at == pytest.approx(1)
        assert (rig.works[A].state, rig.works[B].state) == ("drained", "running")
        assert list(fleet) == [B]
        assert rig.ended == []
        await fleet.drain(A)
    assert rig.works[B].state == "stopped"


async def test_an_abandoned_drain_stops_the_worker() -> None:
    """When the drain's deadline passes, the worker is cancelled."""
    rig = Rig()
    async with rig.running() as fleet:
        rig.start(A)
        await asyncio.sleep(0.1)
        rig.works[A].drain_s = 100
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await fleet.drain(A)
        await asyncio.sleep(0.1)
        assert rig.works[A].state == "stopped"


async def test_a_lost_lease_stops_the_worker_at_once() -> None:
    """Lost means cancelled now, not drained."""
    rig = Rig()
    async with rig.running() as fleet:
        rig.start(A)
        await asyncio.sleep(0.1)
        fleet.lost(A)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rig.works[A].state == "stopped"
        assert rig.ended == []
        fleet.lost(B)


async def test_a_shard_that_comes_back_waits_for_its_earlier_worker_to_be_gone() -> None:
    """Lost and taken again at once, a shard is never worked on twice at a time."""
    rig = Rig()
    async with rig.running():
        rig.start(A)
        await asyncio.sleep(0.1)
        first = rig.works.pop(A)
        first.stop_s = 5
        rig.fleet.lost(A)
        rig.start(A)
        await asyncio.sleep(1)
        assert A not in rig.works
        await asyncio.sleep(5)
        assert (first.state, rig.works[A].state) == ("stopped", "running")
        assert list(rig.fleet) == [A]


@pytest.mark.parametrize("failure", [RuntimeError("bug"), LeaseLostError(A, "stale"), None])
async def test_a_worker_that_ends_by_itself_gives_its_lease_back(failure: Exception | None) -> None:
    """A fault, a lost lease or a finished shard is told to the leasing service; the others go on."""
    rig = Rig()
    async with rig.running():
        rig.start(A)
        rig.start(B)
        await asyncio.sleep(0.1)
        rig.works[A].failure = failure
        rig.works[A].finish.set()
        await asyncio.sleep(2)
        assert rig.ended == [A]
        assert rig.works[B].state == "running"


async def test_a_worker_that_cannot_be_made_gives_its_lease_back() -> None:
    """A broken mapping does not take the node down."""
    rig = Rig()
    rig.refuse = True
    async with rig.running():
        rig.start(A)
        await asyncio.sleep(0.1)
        assert rig.ended == [A]


@pytest.mark.parametrize("stopping", ["drain", "lost"])
async def test_a_worker_stopped_before_its_first_step_is_gone_too(stopping: str) -> None:
    """A lease that comes and goes within one turn of the loop leaves nothing behind."""
    rig = Rig()
    async with asyncio.timeout(5), rig.running() as fleet:
        rig.start(A)
        if stopping == "drain":
            await fleet.drain(A)
        else:
            fleet.lost(A)
            await asyncio.sleep(0.1)
        assert list(fleet) == []
        assert rig.ended == []


async def test_draining_a_worker_that_is_still_being_made_does_not_wait_for_it() -> None:
    """Nothing was read yet, so there is nothing to finish."""
    rig = Rig()
    rig.making.clear()
    async with rig.running() as fleet:
        rig.start(A)
        await asyncio.sleep(0.1)
        await fleet.drain(A)
        assert list(fleet) == []
        assert rig.works == {}


async def test_a_restarted_mapping_gives_back_its_leases_after_draining() -> None:
    """A changed document reaches the workers through the ordinary way of taking a shard up."""
    rig = Rig()
    async with rig.running() as fleet:
        rig.start(A)
        await asyncio.sleep(0.1)
        fleet.mapping_changed(MAPPING, document=True)
        await asyncio.sleep(2)
        assert rig.works[A].state == "drained"
        assert rig.ended == [A]


async def test_reports_are_refreshed_every_few_seconds() -> None:
    """Idle shards keep their lag up to date."""
    rig = Rig()
    async with rig.running():
        rig.start(A)
        await asyncio.sleep(21)
        assert 3 <= rig.works[A].refreshed <= 4
