"""Having parked keys tried at once, as whoever asks sees it: `controlplane.parked_redrive`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from controlplane.parked_redrive import ParkedCounts, ParkedRedrive
from model.errors import NotFoundError, StoreUnavailableError
from model.progress import Ledger, ParkedKey, ProgressUpdate, ShardProgress, ShardReport
from statemgr.memory_store import MemoryStore
from tests.support.fleet_values import ANN, CLICKS, ORDERS, shard, take, track

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.ids import ShardKey
    from model.lease import Lease

pytestmark = pytest.mark.looptime


class Lab:
    """A store whose shards' holders are played by the test, and whoever watches."""

    def __init__(self) -> None:
        self.store = MemoryStore(asyncio.get_running_loop().time)
        self.stop = asyncio.Event()
        self.looks: list[ParkedCounts] = []
        self.parked: list[tuple[str, str]] = []
        self.leases: list[Lease] = []
        self.away = False

    async def begin(self, *parked: int) -> None:
        """Have shards with so many records parked."""
        await track(self.store, shards=len(parked))
        for number, records in enumerate(parked):
            self.leases.append(await take(self.store, ANN, shard(number)))
            await self.report(number, records, tries=0)

    async def report(self, number: int, parked: int, *, tries: int) -> None:
        """Have a holder report."""
        lease = self.leases[number]
        keys = (ParkedKey(f"k{number}", parked, 10, 0.0, 3, "boom"),) if parked else ()
        report = ShardReport(parked_keys=keys, parked_tries=tries)
        ledger = Ledger(polled=100, delivered=100 - parked, parked=parked)
        await self.store.save([ProgressUpdate(lease.key, lease.token, lease.node, None, ledger, report)])

    def redrive(self) -> ParkedRedrive:
        """Make the wish's course."""
        return ParkedRedrive(self.store, ORDERS, present=self._present, watch=self, stop=self.stop)

    async def wished(self) -> int:
        """Wait for the wish; return its number."""
        async with asyncio.timeout(10):
            while True:
                _, (record,) = await self.store.mappings()
                if record.parked_tries:
                    return record.parked_tries
                await asyncio.sleep(0.1)

    async def looked(self, counts: ParkedCounts) -> None:
        """Remember."""
        self.looks.append(counts)

    async def still_parked(self, key: ParkedKey, shard: ShardKey) -> None:
        """Remember."""
        self.parked.append((key.key, shard.shard))

    async def _present(self) -> Mapping[ShardKey, ShardProgress]:
        if self.away:
            raise StoreUnavailableError("away")
        return await self.store.load_mapping(ORDERS)


async def test_it_ends_when_every_holder_is_through() -> None:
    """What left the lots counts as delivered; keys that stay are told."""
    lab = Lab()
    await lab.begin(3, 5, 0)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(lab.redrive().run())
        number = await lab.wished()
        await lab.report(0, 0, tries=0)  # not through by its own account, but nothing is left
        await asyncio.sleep(5)
        assert lab.looks[-1] == ParkedCounts(8, 3, 1)
        lab.away = True
        await asyncio.sleep(5)
        lab.away = False
        await lab.report(1, 2, tries=number)
    assert running.result() == ParkedCounts(8, 6, 0)
    assert lab.parked == [("k1", "orders-1")]


async def test_what_is_parked_meanwhile_does_not_count_against_it() -> None:
    """Never less than nothing is delivered."""
    lab = Lab()
    await lab.begin(3)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(lab.redrive().run())
        await lab.report(0, 7, tries=await lab.wished())
    assert running.result() == ParkedCounts(3, 0, 0)


async def test_a_stop_ends_the_watching_and_the_wish_stands() -> None:
    """The holders go on by themselves."""
    lab = Lab()
    await lab.begin(3)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(lab.redrive().run())
        assert await lab.wished() == 1
        lab.stop.set()
    assert running.result() == ParkedCounts(3, 0, 1)


async def test_nothing_parked_is_done_at_once() -> None:
    """And a look wishes nothing."""
    lab = Lab()
    await lab.begin(0)
    assert await lab.redrive().run() == ParkedCounts(0, 0, 0)
    await lab.report(0, 4, tries=0)
    assert await lab.redrive().look() == ParkedCounts(4, 0, 0)
    assert lab.parked == [("k0", "orders-0")]
    assert (await lab.store.mappings())[1][0].parked_tries == 1


async def test_a_mapping_that_is_gone() -> None:
    """There is nobody to ask."""
    lab = Lab()
    redrive = ParkedRedrive(lab.store, CLICKS, present=lab._present, watch=lab, stop=lab.stop)
    with pytest.raises(NotFoundError):
        await redrive.run()
