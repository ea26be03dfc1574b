"""Parked groups of FIFO queues: kept hidden and tried again by their poller, in order, costing no receive counts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from model.outcome import Delivered, FunctionFailed
from tests.support.fake_sqs import FakeQueue
from tests.support.queue_rig import QueueRig, sqs_mapping

if TYPE_CHECKING:
    from model.outcome import Outcome

pytestmark = pytest.mark.looptime

PARKING = {"park_failing_keys": True}


async def test_a_failing_group_is_parked_and_tried_again_without_costing_receive_counts() -> None:
    """For as long as it fails nothing of it is dead-lettered; then it goes on in order, and others never waited."""
    rig = QueueRig(
        FakeQueue(fifo=True, visibility_s=5, max_receives=1), sqs_mapping(fifo=True, BatchSize=10, extensions=PARKING)
    )
    mended = False
    rig.function.answer = lambda bodies: FunctionFailed("boom") if "g3/2" in bodies and not mended else Delivered()
    for n in range(5):
        for group in range(8):
            rig.queue.send(f"g{group}/{n}", group=f"g{group}")
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(300)
        assert sorted(rig.queue.bodies()) == ["g3/2", "g3/3", "g3/4"]
        view = rig.counters.probes[pump.key]()
        assert (view.ledger.parked, view.ledger.delivered, view.ledger.imbalance) == (1, 37, 0)
        (parked,) = view.report.parked_keys
        assert (parked.key, parked.records, parked.error) == ("g3", 1, "boom")  # the queue holds back the others
        assert parked.failures > 3
        mended = True
        await asyncio.sleep(70)
        assert rig.queue.bodies() == []
    assert rig.queue.dead == []
    assert set(rig.function.receives) == {1}
    for group in range(8):
        assert [b for b in rig.function.done if b.startswith(f"g{group}/")] == [f"g{group}/{n}" for n in range(5)]
    stored = (await rig.store.load([pump.key]))[pump.key].ledger
    assert stored.balanced
    assert (stored.polled, stored.delivered, stored.parked, stored.in_flight) == (40, 40, 0, 0)


async def test_groups_of_a_failing_batch_are_told_apart() -> None:
    """What shared a batch with the poison is delivered at once; only the poison waits for its delays."""
    rig = QueueRig(FakeQueue(fifo=True), sqs_mapping(fifo=True, BatchSize=10, extensions=PARKING))
    rig.concurrency = 1
    rig.function.answer = lambda bodies: FunctionFailed("boom") if "g1/0" in bodies else Delivered()
    for group in range(5):
        rig.queue.send(f"g{group}/0", group=f"g{group}")
    async with rig.running(rig.pump()):
        await asyncio.sleep(0.3)
        assert len(rig.function.calls[0]) == 5
        assert sorted(rig.function.done) == ["g0/0", "g2/0", "g3/0", "g4/0"]


async def test_an_hour_of_parking_is_enough_and_then_the_queue_decides() -> None:
    """The message is left to the queue, whose redrive policy counts a receive for each hour."""
    rig = QueueRig(FakeQueue(fifo=True, visibility_s=30, max_receives=2), sqs_mapping(fifo=True, extensions=PARKING))
    rig.function.answer = lambda _bodies: FunctionFailed("boom")
    rig.queue.send("g/0", group="g")
    async with rig.running(rig.pump()):
        await asyncio.sleep(3500)
        assert set(rig.function.receives) == {1}
        await asyncio.sleep(3600)
        assert set(rig.function.receives) == {1, 2}
        assert rig.queue.dead == []
        await asyncio.sleep(600)
    assert [one.body for one in rig.queue.dead] == ["g/0"]


async def test_no_more_is_parked_than_the_mapping_says() -> None:
    """Beyond that failed messages are left to the queue as without parking."""
    extensions = {**PARKING, "parked_max_bytes": 65536}
    rig = QueueRig(FakeQueue(fifo=True, visibility_s=600), sqs_mapping(fifo=True, extensions=extensions))
    rig.function.answer = lambda _bodies: FunctionFailed("boom")
    for group in range(4):
        rig.queue.send(f"g{group}/" + "x" * 30_000, group=f"g{group}")
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(120)
        ledger_now = rig.counters.probes[pump.key]().ledger
        assert (ledger_now.parked, ledger_now.polled) == (2, 2)


async def test_a_reported_message_is_parked_and_what_was_done_is_deleted() -> None:
    """With ReportBatchItemFailures the function names the first failure of a group and what it left undone."""
    mapping = sqs_mapping(fifo=True, extensions=PARKING, FunctionResponseTypes=["ReportBatchItemFailures"])
    rig = QueueRig(FakeQueue(fifo=True), mapping)
    ids: dict[str, str] = {}

    def answer(bodies: list[str]) -> Outcome:
        records = json.loads(rig.function.invocations[-1].event)["Records"]
        ids.update({record["body"]: record["messageId"] for record in records})
        left = bodies[bodies.index("g/2") :] if "g/2" in bodies else []
        failures = [{"itemIdentifier": ids[body]} for body in left]
        return Delivered(json.dumps({"batchItemFailures": failures}).encode())

    rig.function.answer = answer
    rig.queue.send(*[f"g/{n}" for n in range(5)], group="g")
    pump = rig.pump()
    async with rig.running(pump):
        await asyncio.sleep(60)
        assert rig.queue.deleted == ["g/0", "g/1"]
        assert rig.counters.probes[pump.key]().report.parked_keys[0].failures > 2
        assert all(call in (["g/2"], [f"g/{n}" for n in range(5)]) for call in rig.function.calls)


async def test_a_drain_gives_parked_messages_back_in_order() -> None:
    """The next poller receives them, one receive older, and parks them again if they fail."""
    rig = QueueRig(FakeQueue(fifo=True), sqs_mapping(fifo=True, extensions=PARKING))
    rig.function.answer = lambda bodies: FunctionFailed("boom") if "g/0" in bodies else Delivered()
    rig.queue.send(*[f"g/{n}" for n in range(3)], group="g")
    async with rig.running(rig.pump()):
        await asyncio.sleep(30)
    assert [one.body for one in rig.queue.visible()] == ["g/0", "g/1", "g/2"]
    rig.function.answer = lambda _bodies: Delivered()
    pump = rig.pump(token=2)
    async with rig.running(pump):
        await asyncio.sleep(30)
    assert rig.function.done == ["g/0", "g/1", "g/2"]


async def test_a_wish_of_an_operator_has_every_parked_group_tried_at_once() -> None:
    """Whatever the backoff; the report says when all of them had their turn, and each wish is carried out once."""
    rig = QueueRig(FakeQueue(fifo=True), sqs_mapping(fifo=True, extensions=PARKING))
    rig.function.answer = lambda _bodies: FunctionFailed("boom")
    for group in range(3):
        rig.queue.send(f"g{group}/0", group=f"g{group}")
    pump = rig.pump()

    async def tried(number: int) -> None:
        async with asyncio.timeout(10):
            while True:
                stored = (await rig.store.load([pump.key])).get(pump.key)
                if stored is not None and stored.report.parked_tries == number:
                    return
                await asyncio.sleep(0.05)

    async with rig.running(pump):
        pump.try_parked(4)  # as the worker does when it begins
        await tried(4)
        await asyncio.sleep(600)  # the delays have grown to a minute
        calls = len(rig.function.calls)
        pump.try_parked(5)
        pump.try_parked(5)
        await tried(5)
        assert sorted(rig.function.calls[calls:]) == [["g0/0"], ["g1/0"], ["g2/0"]]
        rig.function.answer = lambda _bodies: Delivered()
        pump.try_parked(6)
        await tried(6)
        assert rig.queue.bodies() == []
