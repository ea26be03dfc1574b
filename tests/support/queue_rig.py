"""A queue poller over fakes: a queue in memory, a function that follows a script, a lease that can be lost."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, cast

from model.ids import FencingToken, ShardId, ShardKey
from model.mapping_rules import parse_mapping
from model.outcome import Delivered
from model.record import Record
from pollers.checkpointer import Checkpointer
from pollers.counters import Counters
from pollers.filtering import compile_filter
from pollers.queue_calls import QueueParts
from pollers.queue_ports import Message
from pollers.queue_pump import QueuePump
from pollers.sources.sqs_envelope import SqsEnvelope, SqsRecordView
from statemgr.memory_store import MemoryStore
from statemgr.scaling import Allotment
from tests.support.pump_fakes import MAPPING, NODE, FakeLease, open_gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from leasing.held import HeldLease
    from model.invocation import Invocation
    from model.mapping import EventSourceMapping
    from model.outcome import Outcome
    from tests.support.fake_sqs import FakeQueue


def sqs_mapping(*, fifo: bool = False, **properties: Any) -> EventSourceMapping:
    """Make a mapping of a queue."""
    return parse_mapping(
        {
            "Name": "orders",
            "UUID": MAPPING,
            "FunctionName": "f",
            "EventSourceArn": f"arn:aws:sqs:us-east-1:000000000000:orders{'.fifo' if fifo else ''}",
            **properties,
        }
    )


def message(position: int, group: str | None, *, size: int = 500, receives: int = 1, until_at: float = 30.0) -> Message:
    """Make a message that takes `size` bytes."""
    record = Record(position, position, b"x" * (size - 1), group, f"m{position}")
    return Message(record, f"r{position}", group, receives, until_at, 1e9)


class Function:
    """Answers by a function of the bodies; remembers who was with it when."""

    def __init__(self) -> None:
        self.answer: Callable[[list[str]], Outcome] = lambda _bodies: Delivered()
        self.seconds: Callable[[list[str]], float] = lambda _bodies: 0.01
        self.calls: list[list[str]] = []
        self.receives: list[int] = []  # of every message of every call
        self.invocations: list[Invocation] = []
        self.running: list[list[str]] = []
        self.most_running = 0
        self.done: list[str] = []  # bodies of calls that were answered without an error

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch."""
        records = json.loads(invocation.event)["Records"]
        bodies = [record["body"] for record in records]
        self.receives += [int(record["attributes"]["ApproximateReceiveCount"]) for record in records]
        self.calls.append(bodies)
        self.invocations.append(invocation)
        self.running.append(bodies)
        self.most_running = max(self.most_running, len(self.running))
        try:
            await asyncio.sleep(self.seconds(bodies))
        finally:
            self.running.remove(bodies)
        outcome = self.answer(bodies)
        if isinstance(outcome, Delivered):
            self.done += bodies
        return outcome


class QueueRig:
    """One mapping's queue and function, and any number of pollers."""

    def __init__(self, queue: FakeQueue, mapping: EventSourceMapping | None = None) -> None:
        self.queue = queue
        self.mapping = mapping or sqs_mapping(fifo=queue.fifo)
        self.function = Function()
        self.counters = Counters()
        self.gate = open_gate(self.counters)
        self.store = MemoryStore(asyncio.get_running_loop().time)
        self.checkpointer = Checkpointer(self.store)
        self.concurrency = 16
        self.long_poll_s = 20
        self.leases: dict[int, FakeLease] = {}

    def pump(self, index: int = 0, token: int = 1) -> QueuePump:
        """Make a poller."""
        lease = FakeLease(key=ShardKey(MAPPING, ShardId(f"poller-{index}")), token=FencingToken(token), node=NODE)
        self.leases[index] = lease

        async def allotment() -> Allotment:
            return Allotment(self.concurrency)

        return QueuePump(self.parts(self.mapping), cast("HeldLease", lease), allotment=allotment)

    def parts(self, mapping: EventSourceMapping, *, function_timeout_s: float | None = 30.0) -> QueueParts:
        """Make what the mapping's pollers share."""
        patterns = mapping.filter_patterns
        return QueueParts(
            mapping=mapping,
            source=self.queue,
            fifo=self.queue.fifo,
            envelope=SqsEnvelope(mapping.source, window=mapping.batching_window_s > 0),  # type: ignore[arg-type]
            filter=compile_filter(patterns, SqsRecordView()) if patterns else None,
            target=self.function,
            gate=self.gate,
            counters=self.counters,
            checkpointer=self.checkpointer,
            random=Random(1),
            function_timeout_s=function_timeout_s,
            long_poll_s=self.long_poll_s,
        )

    @asynccontextmanager
    async def running(self, *pumps: QueuePump) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Run pollers and the checkpointer; drain them at the end."""
        async with asyncio.TaskGroup() as tasks:
            saving = tasks.create_task(self.checkpointer.run())
            working = [tasks.create_task(pump.run()) for pump in pumps]
            yield working
            for pump in pumps:
                pump.drain()
            await asyncio.wait(working)
            saving.cancel()
