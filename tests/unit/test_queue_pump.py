"""A queue poller: outcomes, visibility, throttles, groups and drains, against a queue with SQS's rules."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from model.errors import LeaseLostError, SourceRefusedError, SourceUnavailableError
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, Throttled
from model.progress import ShardState
from pollers.queue_ports import Entry
from tests.support.fake_sqs import FakeQueue
from tests.support.queue_rig import QueueRig, sqs_mapping

if TYPE_CHECKING:
    from pollers.queue_pump import QueuePump

pytestmark = pytest.mark.looptime


def numbered(count: int) -> list[str]:
    """Make bodies."""
    return [f"b{n}" for n in range(count)]


async def ledger(rig: QueueRig, pump: QueuePump) -> dict[str, int]:
    """Return the stored account of a drained poller."""
    stored = (await rig.store.load([pump.key]))[pump.key]
    assert stored.ledger.balanced
    return {name: count for name in stored.ledger.__struct_fields__ if (count := getattr(stored.ledger, name))}


async def test_messages_are_delivered_and_deleted() -> None:
    """Success deletes; the account is polled = delivered."""
    rig = QueueRig(FakeQueue())
    rig.queue.send(*numbered(95))
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(5)
        assert sorted(rig.function.done) == sorted(numbered(95))
        assert rig.queue.stored == {}
        assert pump.held == 0
    assert await ledger(rig, pump) == {"polled": 95, "delivered": 95}
    assert (rig.counters.polled, rig.counters.deleted, rig.counters.invoked) == (95, 95, 95)


async def test_function_errors_leave_messages_to_the_queue() -> None:
    """Nothing is done to a failed batch: visibility sets the retry, redrive the dead letter, and polled is undone."""
    rig = QueueRig(FakeQueue(visibility_s=10, max_receives=2))
    rig.function.answer = lambda bodies: FunctionFailed("boom") if "b0" in bodies else Delivered()
    rig.queue.send("b0")
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(9)
        assert rig.function.calls == [["b0"]]
        assert rig.queue.extensions == []
        await asyncio.sleep(50)
    assert rig.function.calls == [["b0"], ["b0"]]
    assert [one.body for one in rig.queue.dead] == ["b0"]
    assert await ledger(rig, pump) == {}
    assert (rig.counters.polled, rig.counters.failed_invoke, rig.counters.deleted) == (2, 2, 0)


async def test_a_throttling_function_costs_no_receive_count() -> None:
    """Sixty seconds of 429 with maxReceiveCount 2: nothing is dead-lettered, nothing received twice, polling pauses."""
    rig = QueueRig(FakeQueue(visibility_s=10, max_receives=2))
    loop = asyncio.get_running_loop()
    rig.function.answer = lambda _bodies: Throttled("429") if loop.time() < 60 else Delivered()
    rig.queue.send(*numbered(400))
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(5)
        calls = rig.queue.receives
        await asyncio.sleep(50)
        assert rig.queue.receives == calls
        assert len(rig.function.calls) < 100
        assert rig.queue.hidden() <= 10
        await asyncio.sleep(60)
    assert sorted(rig.function.done) == sorted(numbered(400))
    assert rig.queue.dead == []
    assert set(rig.function.receives) == {1}
    assert await ledger(rig, pump) == {"polled": 400, "delivered": 400}


async def test_without_the_heartbeat_a_throttled_batch_is_forgotten_when_its_visibility_ends() -> None:
    """AWS's exact behaviour: the batch is tried until it is visible again, and then received anew."""
    mapping = sqs_mapping(extensions={"visibility_heartbeat": False})
    rig = QueueRig(FakeQueue(visibility_s=10), mapping)
    loop = asyncio.get_running_loop()
    rig.function.answer = lambda _bodies: Throttled("429") if loop.time() < 30 else Delivered()
    rig.queue.send("b0")
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(90)
    assert rig.queue.extensions == []
    assert rig.function.done == ["b0"]
    assert max(rig.function.receives) in (3, 4, 5)
    assert await ledger(rig, pump) == {"polled": 1, "delivered": 1}


async def test_visibility_is_extended_while_a_handler_runs_and_not_after_it_failed() -> None:
    """A handler slower than the visibility timeout keeps its message; a failed one's comes back in its time."""
    rig = QueueRig(FakeQueue(visibility_s=10))
    rig.function.seconds = lambda _bodies: 35
    rig.function.answer = lambda _bodies: FunctionFailed("boom") if len(rig.function.calls) == 1 else Delivered()
    rig.queue.send("b0")
    pump = rig.pump()
    loop = asyncio.get_running_loop()
    async with rig.running(pump):
        await asyncio.sleep(36)
        assert rig.function.receives == [1]
        [*_, (last_at, _, seconds)] = rig.queue.extensions
        assert seconds == 10
        await asyncio.sleep(last_at + 10 - loop.time() - 0.5)
        assert rig.function.receives == [1]
        await asyncio.sleep(1)
        assert rig.function.receives == [1, 2]
        await asyncio.sleep(40)
    assert rig.queue.deleted == ["b0"]


async def test_a_quick_handler_causes_no_extension() -> None:
    """Calls to extend are made only shortly before visibility ends."""
    rig = QueueRig(FakeQueue(visibility_s=30))
    rig.function.seconds = lambda _bodies: 15
    rig.queue.send(*numbered(10))
    async with rig.running(rig.pump()):
        await asyncio.sleep(20)
    assert rig.queue.extensions == []


async def test_a_message_that_is_no_longer_ours_is_not_extended_for_ever() -> None:
    """Another consumer deleted it while its handler runs: one call says so, and no other is made for it."""
    rig = QueueRig(FakeQueue(visibility_s=10))
    rig.function.seconds = lambda _bodies: 100
    rig.queue.send("gone", "stays")
    rig.concurrency = 1
    async with rig.running(rig.pump()):
        await asyncio.sleep(5)
        assert sorted(rig.function.running[0]) == ["gone", "stays"]
        [gone] = [one.id for one in rig.queue.stored.values() if one.body == "gone"]
        del rig.queue.stored[gone]
        await asyncio.sleep(100)
    refused = [receipts for receipts in rig.queue.asked_to_change if f"{gone}#1" in receipts]
    assert len(refused) == 1
    assert {body for _, body, _ in rig.queue.extensions} == {"stays"}
    assert rig.queue.deleted == ["stays"]


async def test_partial_responses_delete_what_is_not_listed() -> None:
    """Listed messages come back, the others are deleted; a bad identifier deletes nothing."""
    mapping = sqs_mapping(FunctionResponseTypes=["ReportBatchItemFailures"])
    rig = QueueRig(FakeQueue(visibility_s=10), mapping)

    def answer(bodies: list[str]) -> Outcome:
        ids = {one.body: one.id for one in rig.queue.stored.values()}
        bad = [{"itemIdentifier": ids[body]} for body in bodies if body in ("b3", "b5")]
        if len(rig.function.calls) == 1:
            bad.append({"itemIdentifier": "stranger"})
        return Delivered(json.dumps({"batchItemFailures": bad if len(rig.function.calls) < 3 else []}).encode())

    rig.function.answer = answer
    rig.queue.send(*numbered(10))
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(5)
        assert len(rig.queue.stored) == 10
        await asyncio.sleep(10)
        assert sorted(rig.queue.bodies()) == ["b3", "b5"]
        await asyncio.sleep(10)
    assert rig.queue.stored == {}
    assert [len(call) for call in rig.function.calls] == [10, 10, 2]
    assert await ledger(rig, pump) == {"polled": 10, "delivered": 10}


async def test_filtered_out_messages_are_deleted_at_once() -> None:
    """They are deleted without an invocation, and counted."""
    mapping = sqs_mapping(FilterCriteria={"Filters": [{"Pattern": '{"body": {"n": [1]}}'}]})
    rig = QueueRig(FakeQueue(), mapping)
    rig.queue.send('{"n": 1}', '{"n": 2}', "text", '{"n":  1}')
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(3)
    assert rig.function.calls == [['{"n": 1}', '{"n":  1}']]
    assert rig.queue.stored == {}
    assert await ledger(rig, pump) == {"polled": 4, "delivered": 2, "filtered": 2}
    assert (rig.counters.filtered_out, rig.counters.deleted) == (2, 2)


async def test_failed_deletes_are_tried_again_and_gone_ones_are_not() -> None:
    """An entry that failed is deleted by a later call; one whose receipt does not count any more is forgotten."""
    rig = QueueRig(FakeQueue())
    rig.queue.delete_results += [[Entry.AGAIN, Entry.GONE], [Entry.AGAIN]]
    rig.queue.send("b0", "b1", "b2")
    async with rig.running(rig.pump()):
        await asyncio.sleep(5)
        assert rig.queue.deleted == ["b2", "b0"]
        assert rig.queue.delete_results == type(rig.queue.delete_results)()
    assert rig.counters.deleted == 2


async def test_a_drain_gives_unstarted_messages_back_and_lets_handlers_finish() -> None:
    """What waits is visible at once, in order; what runs finishes and is deleted."""
    rig = QueueRig(FakeQueue(), sqs_mapping(BatchSize=20, MaximumBatchingWindowInSeconds=300))
    rig.concurrency = 1
    rig.queue.send(*numbered(20))
    rig.function.seconds = lambda _bodies: 10
    pump = rig.pump()
    loop = asyncio.get_running_loop()
    async with rig.running(pump) as [working]:
        await asyncio.sleep(5)
        assert [len(call) for call in rig.function.calls] == [20]
        rig.queue.send(*[f"c{n}" for n in range(7)])
        await asyncio.sleep(6)  # received into the window that begins now
        assert pump.held == 7
        pump.drain()
        await asyncio.sleep(1.1)
        assert {one.body for one in rig.queue.visible()} == {f"c{n}" for n in range(7)}
        await working
        assert loop.time() <= 5 + 6 + 20.1
    assert [one.receives for one in rig.queue.stored.values()] == [1] * 7
    assert await ledger(rig, pump) == {"polled": 20, "delivered": 20}
    stored = (await rig.store.load([pump.key]))[pump.key]
    assert stored.report.state is ShardState.DRAINED


async def test_a_lost_lease_stops_invoking() -> None:
    """Under a lease that is not trusted nobody is called."""
    rig = QueueRig(FakeQueue())
    pump = rig.pump()

    async def lose() -> None:
        await asyncio.sleep(1)
        rig.leases[0].lost = True
        rig.queue.send("b0")

    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        tasks.create_task(lose())
        with pytest.raises(LeaseLostError):
            await pump.run()
        saving.cancel()
    assert rig.function.calls == []


async def test_the_account_balances_while_a_lost_lease_ends_the_work() -> None:
    """Messages whose handlers are cut off are still held: a save in between says so."""
    rig = QueueRig(FakeQueue())
    rig.function.seconds = lambda _bodies: 60.0
    rig.queue.send("a")
    pump = rig.pump()
    saved = []
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(pump.run())
        await asyncio.sleep(10)
        assert pump.held == 1
        working.cancel()
        while (update := pump._standing.to_save()) is not None:
            saved.append(update.ledger)
            await asyncio.sleep(0)
    assert len(saved) > 2
    assert all(ledger.balanced and ledger.in_flight == 1 for ledger in saved)


async def test_a_queue_that_is_away_is_asked_again() -> None:
    """Unavailable: backoff; refused: shown as failed, asked again after a while."""
    rig = QueueRig(FakeQueue())
    rig.queue.errors += [SourceUnavailableError("away"), SourceRefusedError("denied")]
    rig.queue.send("b0")
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(5)
        view = rig.counters.probes[pump.key]()
        assert (view.report.state, view.report.last_error) == (ShardState.FAILED, "denied")
        await asyncio.sleep(40)
        assert rig.function.done == ["b0"]
        assert rig.counters.probes[pump.key]().report.last_error is None


async def test_an_unreached_function_is_waited_for() -> None:
    """Not reached is no failure: the batch is held and tried again, nothing else is received."""
    rig = QueueRig(FakeQueue(visibility_s=10))
    rig.function.answer = lambda _bodies: NotReached("refused") if len(rig.function.calls) < 6 else Delivered()
    rig.queue.send("b0")
    async with rig.running(rig.pump()):
        await asyncio.sleep(120)
    assert rig.function.done == ["b0"]
    assert set(rig.function.receives) == {1}
    assert len({invocation.batch_id for invocation in rig.function.invocations}) == 1
    assert [invocation.attempt for invocation in rig.function.invocations] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("batch_size", [10, 3])
async def test_groups_of_a_fifo_queue_keep_their_order_and_never_overlap(batch_size: int) -> None:
    """Two pollers and failures: per group, first successes come in order, and no two calls share a group."""
    rig = QueueRig(FakeQueue(fifo=True, visibility_s=5), sqs_mapping(fifo=True, BatchSize=batch_size))
    rig.concurrency = 32
    overlaps: list[set[str]] = []

    def seconds(bodies: list[str]) -> float:
        groups = {body.partition("/")[0] for body in bodies}
        others = {body.partition("/")[0] for call in rig.function.running for body in call if call is not bodies}
        overlaps.append(groups & others)
        return 0.05

    rig.function.seconds = seconds
    rig.function.answer = lambda bodies: (
        FunctionFailed("boom") if any(b.endswith("/4") for b in bodies) and len(rig.function.calls) % 3 else Delivered()
    )
    for n in range(12):
        for group in range(20):
            rig.queue.send(f"g{group}/{n}", group=f"g{group}")
    one, two = rig.pump(0), rig.pump(1)
    async with rig.running(one, two):
        await asyncio.sleep(400)
    assert not any(overlaps)
    for group in range(20):
        assert [b for b in rig.function.done if b.startswith(f"g{group}/")] == [f"g{group}/{n}" for n in range(12)]
    assert rig.queue.stored == {}


async def test_a_failing_or_slow_group_does_not_hold_up_others() -> None:
    """With two slots, one group that always fails and one that takes for ever leave the third alone."""
    rig = QueueRig(
        FakeQueue(fifo=True, visibility_s=30), sqs_mapping(fifo=True, ScalingConfig={"MaximumConcurrency": 3})
    )
    rig.concurrency = 3
    pumps = [rig.pump(index) for index in range(3)]
    rig.function.seconds = lambda bodies: 1000 if "slow/0" in bodies else 0.1
    rig.function.answer = lambda bodies: FunctionFailed("boom") if "bad/0" in bodies else Delivered()
    rig.queue.send("slow/0", "slow/1", group="slow")
    async with rig.running(*pumps):
        await asyncio.sleep(1)
        rig.queue.send("bad/0", "bad/1", group="bad")
        rig.queue.send(*[f"good/{n}" for n in range(30)], group="good")
        await asyncio.sleep(90)
        assert [body for body in rig.function.done if body.startswith("good")] == [f"good/{n}" for n in range(30)]
        assert "bad/1" not in rig.function.done
        for pump in pumps:
            pump.drain()
        await asyncio.sleep(1000)


async def test_fleet_wide_maximum_concurrency_is_reached_and_never_exceeded() -> None:
    """MaximumConcurrency 7 over seven pollers on any number of nodes: seven at once, and no more in flight."""
    rig = QueueRig(FakeQueue(visibility_s=60), sqs_mapping(ScalingConfig={"MaximumConcurrency": 7}))
    rig.concurrency = 7
    rig.function.seconds = lambda _bodies: 2
    rig.queue.send(*numbered(500))
    pumps = [rig.pump(index) for index in range(7)]
    most_hidden = 0
    async with rig.running(*pumps):
        for _ in range(200):
            await asyncio.sleep(0.1)
            most_hidden = max(most_hidden, rig.queue.hidden())
    assert rig.function.most_running == 7
    assert most_hidden <= 70


async def test_function_errors_reduce_concurrency_and_success_restores_it() -> None:
    """A failing function is called by fewer at once, a recovered one by all again."""
    rig = QueueRig(FakeQueue(visibility_s=5))
    rig.concurrency = 16 * 8
    loop = asyncio.get_running_loop()
    rig.function.seconds = lambda _bodies: 1
    rig.function.answer = lambda _bodies: FunctionFailed("boom") if loop.time() < 60 else Delivered()
    rig.queue.send(*numbered(3000))
    async with rig.running(rig.pump()):
        await asyncio.sleep(55)
        rig.function.most_running = 0
        await asyncio.sleep(4)
        assert rig.function.most_running == 1
        await asyncio.sleep(60)
        assert rig.function.most_running == 8


async def test_an_idle_queue_is_polled_with_long_waits() -> None:
    """Three calls a minute by each poller, and a message that comes is there at once."""
    rig = QueueRig(FakeQueue())
    loop = asyncio.get_running_loop()
    async with rig.running(rig.pump()):
        await asyncio.sleep(600)
        assert 29 <= rig.queue.receives <= 32
        came_at = loop.time()
        rig.queue.send("b0")
        while not rig.function.done:  # noqa: ASYNC110 - the loop's time is free
            await asyncio.sleep(0.01)
        assert loop.time() - came_at < 0.1
