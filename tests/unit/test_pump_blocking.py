"""What a pump tells of the record that holds it up, and of who held the shard: in the stored report."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from model.errors import UnavailableError
from model.ids import FencingToken, NodeId
from model.outcome import Delivered, FunctionFailed, Throttled
from model.progress import ShardState, Succession, WaitsFor
from pollers.retrying import RetryPolicy
from tests.support.fake_sqs import FakeQueue
from tests.support.pump_fakes import FakeDestination, Raw
from tests.support.pump_rig import Rig
from tests.support.queue_rig import QueueRig

if TYPE_CHECKING:
    from model.progress import ShardReport

pytestmark = pytest.mark.looptime

BOOM = FunctionFailed("Boom")


def report(rig: Rig) -> ShardReport:
    """Return the report as the store has it."""
    return rig.saves.progress.report


def keyed(count: int) -> list[Raw]:
    """Return records that have keys of their own."""
    return [Raw(n, b"key-%d" % n) for n in range(count)]


async def test_the_blocking_record_is_in_the_stored_report_while_it_blocks() -> None:
    """Its key, attempts and next try; nothing once the function takes it."""
    rig = Rig(raws=keyed(10))
    rig.target.answer = lambda positions, n: BOOM if 3 in positions and n < 5 else Delivered()
    async with rig.running():
        await rig.until(lambda: (blocking := report(rig).blocking) is not None and blocking.failures == 4)
        blocking = report(rig).blocking
        assert blocking is not None
        assert (blocking.record, blocking.key, blocking.records) == ("3", "key-3", 3)
        assert (blocking.failures, blocking.invocations, blocking.others) == (4, 4, 0)
        assert blocking.retry_at is not None
        assert blocking.retry_at >= blocking.since
        assert (report(rig).waits_for, report(rig).last_error) == (WaitsFor.FUNCTION, "Boom")
        assert report(rig).error_time is not None
        await rig.until(lambda: rig.saved(10))
    assert (report(rig).blocking, report(rig).waits_for, report(rig).error_time) == (None, None, None)


async def test_records_that_never_failed_cost_and_tell_nothing() -> None:
    """The report of a shard that goes on has no blocking record at any time."""
    rig = Rig(count=50)
    async with rig.running():
        await rig.until(lambda: rig.saved(50))
    assert {update.report.blocking for update in rig.saves.updates} == {None}


async def test_a_throttled_record_blocks_without_function_errors() -> None:
    """Setbacks are counted apart."""
    rig = Rig(raws=keyed(3))
    rig.target.answer = lambda _p, n: Throttled("busy") if n < 4 else Delivered()
    async with rig.running():
        await rig.until(lambda: report(rig).blocking is not None)
        blocking = report(rig).blocking
        assert blocking is not None
        assert (blocking.failures, report(rig).state) == (0, ShardState.WAITING)
        await rig.until(lambda: rig.saved(3))


async def test_records_wait_for_the_destination() -> None:
    """The one that is being given up, and when the destination is asked again."""
    destination = FakeDestination()
    destination.trouble = UnavailableError("away")
    rig = Rig(raws=keyed(6), policy=RetryPolicy(maximum_retry_attempts=0), destination=destination)
    rig.target.answer = lambda positions, _: BOOM if 3 in positions else Delivered()
    async with rig.running():
        await rig.until(lambda: report(rig).waits_for is WaitsFor.DESTINATION)
        blocking = report(rig).blocking
        assert blocking is not None
        assert (blocking.record, blocking.retry_at is not None) == ("3", True)
        destination.trouble = None
        await rig.until(lambda: rig.saved(6))
    assert report(rig).blocking is None


async def test_the_next_holder_knows_since_when_the_record_blocks_and_who_held_the_shard() -> None:
    """Also after a crash; the history says how the shard came to each."""
    rig = Rig(raws=keyed(6))
    rig.target.answer = lambda positions, _: BOOM if 3 in positions else Delivered()

    async def hold(node: str, token: int, *, drained: bool) -> Any:
        rig.lease.node, rig.lease.token = NodeId(node), FencingToken(token)
        async with rig.running() as (pump, done):
            await rig.until(lambda: report(rig).tenures[-1:] != () and report(rig).tenures[-1].token == token)
            await rig.until(lambda: (blocking := report(rig).blocking) is not None and blocking.failures > token)
            since = report(rig).blocking.since  # type: ignore[union-attr]  # just seen
            if drained:
                pump.drain()
                await asyncio.wait([done])
        return since

    first = await hold("ann", 1, drained=True)
    assert await hold("bob", 2, drained=False) == first
    assert await hold("cat", 3, drained=False) == first
    assert [(tenure.node, tenure.succession) for tenure in report(rig).tenures] == [
        ("ann", Succession.FIRST),
        ("bob", Succession.HANDED_OVER),
        ("cat", Succession.HOLDER_LOST),
    ]


async def test_lanes_that_fail_beside_each_other_are_counted() -> None:
    """The lowest record is named, since the checkpoint waits for it."""
    rig = Rig(raws=keyed(40), lanes=4, batch_size=1)
    rig.target.answer = lambda _p, _n: BOOM
    async with rig.running():
        await rig.until(lambda: (blocking := report(rig).blocking) is not None and blocking.others >= 1)
        blocking = report(rig).blocking
    assert blocking is not None
    assert blocking.record == "0"


@pytest.mark.parametrize("fifo", [True, False])
async def test_a_queue_tells_the_message_that_fails(fifo: bool) -> None:  # noqa: FBT001 - both kinds of queue
    """With its group, how often it came, and when it comes again; nothing once the function takes it."""
    queue = FakeQueue(fifo=fifo)
    queue.send("poison", group="g" if fifo else None)
    rig = QueueRig(queue)
    broken = True
    rig.function.answer = lambda _bodies: BOOM if broken else Delivered()
    pump = rig.pump()
    async with rig.running(pump):
        probe = rig.counters.probes

        async def until(true: Any) -> ShardReport:
            async with asyncio.timeout(600):
                while pump.key not in probe or not true(probe[pump.key]().report):  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0.1)
            return probe[pump.key]().report

        told = await until(lambda one: one.blocking is not None and one.blocking.failures == 2)
        assert told.blocking is not None
        assert told.blocking.key == ("g" if fifo else None)
        assert told.blocking.retry_at is not None
        assert (told.waits_for, told.last_error) == (WaitsFor.FUNCTION, "Boom")
        assert [tenure.succession for tenure in told.tenures] == [Succession.FIRST]
        broken = False
        assert (await until(lambda one: one.blocking is None)).waits_for is None
