"""A queue's tracker, where a function may run for longer than the queue hides its messages (spec 1.3, rule 3)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from model.ids import TRACKER, FencingToken, ShardKey
from model.lease import Member, ShardKind
from model.mapping import MappingRecord, MappingState
from model.progress import ShardState
from node.runtimes import Catalogue, Runtimes
from node.workers import TrackerWorker
from tests.support.fake_sqs import FakeQueue
from tests.support.pump_fakes import MAPPING, NODE, FakeLease
from tests.support.queue_rig import QueueRig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from leasing.held import HeldLease
    from model.mapping import EventSourceMapping
    from model.progress import ShardReport
    from pollers.queue_calls import QueueParts

pytestmark = pytest.mark.looptime

SHORT = "Queue visibility timeout: 30 seconds is less than Function timeout: 300 seconds"


class Rig:
    """A queue that hides messages for 30 s, a function that may run for 300, and the mapping's tracker."""

    def __init__(self) -> None:
        self.queue = FakeQueue(visibility_s=30)
        self.function_timeout_s: float | None = 300.0
        self._made = QueueRig(self.queue)
        self.store = self._made.store
        self._catalogue = Catalogue(self.store)
        self._runtimes = Runtimes(self._catalogue, self._parts)
        self._key = ShardKey(MAPPING, TRACKER)
        self._worker: TrackerWorker | None = None

    def _parts(self, mapping: EventSourceMapping) -> QueueParts:
        return self._made.parts(mapping, function_timeout_s=self.function_timeout_s)

    async def put(self, state: MappingState = MappingState.CREATING, *, heartbeat: bool, batch_size: int = 10) -> None:
        """Store the mapping, as a file that is read again does."""
        document = {
            "Name": "orders",
            "UUID": MAPPING,
            "FunctionName": "f",
            "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:orders",
            "BatchSize": batch_size,
            "extensions": {"visibility_heartbeat": heartbeat},
        }
        await self.store.put_mapping(MappingRecord(MAPPING, "orders", msgspec.json.encode(document), 0, state))
        await self._catalogue.read()
        if self._worker is not None:
            self._worker.mapping_changed(document=True)

    @asynccontextmanager
    async def tracked(self) -> AsyncIterator[list[Any]]:
        """Run the tracker, following the store as a node does; yield the log."""
        await self.store.join(Member(NODE), ttl_s=1e9)
        granted = await self.store.acquire(NODE, [self._key], floor=FencingToken(0), ttl_s=1e9)
        lease = cast("HeldLease", FakeLease(key=self._key, token=granted[self._key][0].token))
        self._worker = TrackerWorker(lease, self._catalogue, self._runtimes, self.store)

        async def follow() -> None:
            while True:
                await asyncio.sleep(0.1)
                await self._catalogue.read()

        with capture_logs() as logged:
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(follow())
                working = tasks.create_task(self._worker.run())
                await asyncio.sleep(1)
                yield logged
                self._worker.drain()
                await working
                following.cancel()

    async def state(self) -> MappingState:
        """Return where the mapping stands."""
        _, (record,) = await self.store.mappings()
        return record.state

    async def pollers(self) -> int:
        """Count the pollers that are wanted."""
        return sum(wanted.kind is ShardKind.SOURCE for wanted in (await self.store.snapshot()).wanted)

    async def report(self) -> ShardReport:
        """Return what the tracker tells."""
        return (await self.store.load([self._key]))[self._key].report


def warnings(logged: list[Any]) -> list[Any]:
    """Return what was said of it."""
    return [entry["why"] for entry in logged if entry["event"] == "queue.visibility_short"]


async def test_without_the_heartbeat_such_a_mapping_is_not_polled_until_it_is_put_right() -> None:
    """As AWS refuses to create it: no poller is wanted, and the status says why. A longer visibility puts it right."""
    rig = Rig()
    await rig.put(heartbeat=False)
    async with rig.tracked() as logged:
        assert (await rig.state(), await rig.pollers()) == (MappingState.CREATING, 0)
        report = await rig.report()
        assert (report.state, report.last_result) == (ShardState.FAILED, f"PROBLEM: {SHORT}")
        assert report.last_error == SHORT
        rig.queue.visibility_s = 300
        await asyncio.sleep(6)
        assert (await rig.state(), await rig.pollers()) == (MappingState.ENABLED, 5)
        assert (await rig.report()).last_error is None
        assert warnings(logged) == []
        rig.queue.visibility_s = 30
        await asyncio.sleep(30)
        assert (await rig.state(), await rig.pollers()) == (MappingState.ENABLED, 5), "one that works goes on"
        assert warnings(logged) == [SHORT], "and it is said once"


async def test_an_update_that_makes_it_so_stops_its_pollers() -> None:
    """Turning the heartbeat off withdraws them, turning it on brings them back."""
    rig = Rig()
    await rig.put(heartbeat=True)
    async with rig.tracked():
        assert (await rig.state(), await rig.pollers()) == (MappingState.ENABLED, 5)
        await rig.put(MappingState.UPDATING, heartbeat=False)
        await asyncio.sleep(1)
        assert (await rig.state(), await rig.pollers()) == (MappingState.UPDATING, 0)
        assert (await rig.report()).last_error == SHORT
        await rig.put(MappingState.UPDATING, heartbeat=True)
        await asyncio.sleep(1)
        assert (await rig.state(), await rig.pollers()) == (MappingState.ENABLED, 5)


async def test_with_the_heartbeat_it_is_polled_and_warned_about_once() -> None:
    """What a handler takes longer for is extended, so nothing is lost: a warning is enough."""
    rig = Rig()
    await rig.put(heartbeat=True)
    async with rig.tracked() as logged:
        await asyncio.sleep(30)
        assert (await rig.state(), await rig.pollers()) == (MappingState.ENABLED, 5)
        assert warnings(logged) == [SHORT]


async def test_a_timeout_that_is_not_known_is_not_judged() -> None:
    """Only AWS knows how long a function may run whose timeout nobody has told."""
    rig = Rig()
    rig.function_timeout_s = None
    await rig.put(heartbeat=False)
    async with rig.tracked() as logged:
        assert (await rig.state(), await rig.pollers()) == (MappingState.ENABLED, 5)
        assert warnings(logged) == []
