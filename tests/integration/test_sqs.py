"""A queue poller end to end on SQS servers, with its function in the test's process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from model.outcome import Delivered, FunctionFailed, Outcome, Throttled
from model.record import MAX_EVENT_BYTES
from tests.support.node_process import eventually
from tests.support.queue_rig import QueueRig, sqs_mapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pollers.queue_pump import QueuePump
    from tests.support.fake_sqs import FakeQueue
    from tests.support.sqs_servers import Queues, RealQueue


@asynccontextmanager
async def rig(real: RealQueue, **properties: Any) -> AsyncIterator[QueueRig]:
    """Make a rig around a real queue."""
    async with real.adapter() as queue:
        queue.fifo = real.fifo  # type: ignore[attr-defined]  # the rig asks
        mapping = sqs_mapping(EventSourceArn=real.arn, **properties)
        made = QueueRig(cast("FakeQueue", queue), mapping)
        made.long_poll_s = 2  # a drain waits for the last one
        yield made


async def balanced(made: QueueRig, pump: QueuePump) -> dict[str, int]:
    """Return the stored account."""
    stored = (await made.store.load([pump.key]))[pump.key]
    assert stored.ledger.balanced
    return {name: count for name in stored.ledger.__struct_fields__ if (count := getattr(stored.ledger, name))}


async def test_a_standard_queue_is_read_empty_and_the_event_is_as_aws_makes_it(queues: Queues) -> None:
    """Every message once; the event has AWS's shape, the body byte for byte."""
    real = queues.new()
    awkward = '{"n":  1.0, "t": "Grüße ✓ 😀\\u00e9", "q": "\\"<&>\\""}\n\ttail'
    attributes = {
        "n": {"DataType": "Number", "StringValue": "6"},
        "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    real.send([awkward], MessageAttributes=attributes)
    real.send([f"m{n}" for n in range(300)])
    async with rig(real) as made:
        pump = made.pump()
        async with made.running(pump):
            await eventually(lambda: len(made.function.done) == 301, "all messages")
            await eventually(lambda: real.empty, "an empty queue")
    assert sorted(made.function.done) == sorted([awkward, *[f"m{n}" for n in range(300)]])
    assert await balanced(made, pump) == {"polled": 301, "delivered": 301}
    [record] = [
        record
        for invocation in made.function.invocations
        for record in json.loads(invocation.event)["Records"]
        if record["body"] == awkward
    ]
    assert record["md5OfBody"] == hashlib.md5(awkward.encode(), usedforsecurity=False).hexdigest()
    assert record["messageAttributes"] == {
        "n": {"stringValue": "6", "stringListValues": [], "binaryListValues": [], "dataType": "Number"},
        "b": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
    }
    assert {"ApproximateReceiveCount", "SentTimestamp", "ApproximateFirstReceiveTimestamp"} <= set(record["attributes"])
    assert (record["eventSource"], record["eventSourceARN"], record["awsRegion"]) == ("aws:sqs", real.arn, "us-east-1")
    assert len(record["md5OfMessageAttributes"]) == 32
    assert all(isinstance(value, str) for value in record["attributes"].values())


async def test_batches_above_ten_are_gathered_in_the_window(queues: Queues) -> None:
    """BatchSize 50 with a window: full batches as soon as they are full, the rest when the window is over."""
    real = queues.new()
    real.send([f"m{n}" for n in range(120)])
    async with rig(real, BatchSize=50, MaximumBatchingWindowInSeconds=2) as made:
        made.concurrency = 16
        async with made.running(made.pump()):
            await eventually(lambda: len(made.function.done) == 120, "all messages")
            await eventually(lambda: real.empty, "an empty queue")
    sizes = [len(call) for call in made.function.calls]
    assert sizes == [50, 50, 20] or (queues.server.real and max(sizes) <= 50)  # AWS gives what it likes at a time
    event = json.loads(made.function.invocations[0].event)
    assert event["Records"][0]["md5OfMessageAttributes"] is None


async def test_a_fifo_queue_keeps_the_order_of_its_groups(strict_queues: Queues) -> None:
    """Three pollers, many groups, a batch fails now and then: groups succeed in the order of sending."""
    real = strict_queues.new(fifo=True, visibility_s=2)
    real.send_groups(20, 12)
    failed: set[str] = set()

    def answer(bodies: list[str]) -> Outcome:
        bad = {body for body in bodies if body.endswith(("/3", "/7"))} - failed
        failed.update(bad)
        return FunctionFailed("boom") if bad else Delivered()

    async with rig(real) as made:
        made.function.answer = answer
        made.concurrency = 48
        async with made.running(*[made.pump(index) for index in range(3)]):
            await eventually(lambda: len(made.function.done) >= 240, "all messages")
            await eventually(lambda: real.empty, "an empty queue")
    for group in range(20):
        mine = [body for body in made.function.done if body.startswith(f"g{group}/")]
        assert mine == [f"g{group}/{n}" for n in range(12)]


async def test_partial_failures_and_redrive(queues: Queues) -> None:
    """Listed messages are tried again after their visibility, and dead-lettered by the queue; the rest is deleted."""
    dead = queues.new()
    real = queues.new(visibility_s=1, dead=dead, receives=2)
    real.send([f"m{n}" for n in range(30)])
    async with rig(real, FunctionResponseTypes=["ReportBatchItemFailures"]) as made:

        def answer(bodies: list[str]) -> Outcome:
            event = json.loads(made.function.invocations[-1].event)
            names = {record["body"]: record["messageId"] for record in event["Records"]}
            failures = [{"itemIdentifier": names[body]} for body in bodies if body in ("m4", "m17")]
            return Delivered(json.dumps({"batchItemFailures": failures}).encode())

        made.function.answer = answer
        made.concurrency = 16
        pump = made.pump()
        async with made.running(pump):
            await eventually(lambda: dead.counts() == (2, 0), "two dead letters")
            await eventually(lambda: real.empty, "an empty queue")
    assert sum(body == "m4" for call in made.function.calls for body in call) == 2
    assert await balanced(made, pump) == {"polled": 28, "delivered": 28}


async def test_filtered_out_messages_are_deleted(queues: Queues) -> None:
    """They leave the queue without an invocation."""
    real = queues.new()
    real.send([json.dumps({"n": n % 2}) for n in range(40)])
    async with rig(real, FilterCriteria={"Filters": [{"Pattern": '{"body": {"n": [1]}}'}]}) as made:
        pump = made.pump()
        async with made.running(pump):
            await eventually(lambda: len(made.function.done) == 20, "the matching messages")
            await eventually(lambda: real.empty, "an empty queue")
    assert set(made.function.done) == {'{"n": 1}'}
    assert await balanced(made, pump) == {"polled": 40, "delivered": 20, "filtered": 20}


async def test_a_drain_returns_what_no_handler_has_begun(queues: Queues) -> None:
    """Messages in an open window are visible again within seconds, in order, and another poller gets them."""
    real = queues.new(visibility_s=300)
    real.send([f"m{n}" for n in range(25)])
    async with rig(real, BatchSize=100, MaximumBatchingWindowInSeconds=300) as made:
        made.concurrency = 16
        pump = made.pump()
        async with made.running(pump):
            await eventually(lambda: pump.held == 25, "all messages held")
        await eventually(lambda: real.counts() == (25, 0), "all messages visible again")
        assert await balanced(made, pump) == {}
    assert made.function.calls == []


async def test_a_drain_returns_messages_of_a_group_in_their_order(strict_queues: Queues) -> None:
    """What a throttling function left with a poller goes to the next one, in order, however it was held."""
    real = strict_queues.new(fifo=True, visibility_s=300)
    real.send_groups(3, 8)
    async with rig(real) as made:
        made.function.answer = lambda _bodies: Throttled("429")
        first = made.pump()
        async with made.running(first):
            await eventually(lambda: made.function.calls, "a throttled batch")
            assert first.held
        await eventually(lambda: real.counts() == (24, 0), "all messages visible again")
        made.function.answer = lambda _bodies: Delivered()
        async with made.running(made.pump(token=2)):
            await eventually(lambda: len(made.function.done) >= 24, "all messages")
            await eventually(lambda: real.empty, "an empty queue")
    for group in range(3):
        mine = [body for body in made.function.done if body.startswith(f"g{group}/")]
        assert mine == [f"g{group}/{n}" for n in range(8)]
    assert max(made.function.receives) == 2


async def test_a_batch_holds_no_more_bytes_than_an_event_may_have(queues: Queues) -> None:
    """BatchSize 10,000: a batch is full with six megabytes, and goes before its window is over."""
    real = queues.new()
    for n in range(30):
        real.send([f"{n:02}" + "x" * 240_000])
    async with rig(real, BatchSize=10_000, MaximumBatchingWindowInSeconds=4) as made:
        made.concurrency = 16
        async with made.running(made.pump()):
            await eventually(lambda: len(made.function.done) == 30, "all messages")
            await eventually(lambda: real.empty, "an empty queue")
    assert max(len(invocation.event) for invocation in made.function.invocations) <= MAX_EVENT_BYTES
    assert sorted(body[:2] for body in made.function.done) == [f"{n:02}" for n in range(30)]
    assert queues.server.real or [len(call) for call in made.function.calls] == [26, 4]


async def test_visibility_is_extended_beyond_the_queues_timeout(queues: Queues) -> None:
    """A handler three times as slow as the visibility timeout is called once."""
    real = queues.new(visibility_s=2)
    real.send(["a", "b"])
    async with rig(real) as made:
        made.function.seconds = lambda _bodies: 6
        async with made.running(made.pump(0), made.pump(1)):
            await eventually(lambda: len(made.function.done) == 2, "both messages")
            await eventually(lambda: real.empty, "an empty queue")
            await asyncio.sleep(0)
    assert set(made.function.receives) == {1}
