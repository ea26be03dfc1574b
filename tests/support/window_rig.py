"""A pump with tumbling windows over fakes, and a function that notes in its state which records it has seen."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from model.errors import LeaseLostError
from model.mapping import EventSourceMapping, KinesisSource
from model.outcome import Delivered
from pollers.checkpointer import Checkpointer
from pollers.counters import Counters
from pollers.pump import Pump
from pollers.pump_parts import PumpParts
from pollers.retrying import RetryPolicy
from tests.support.pump_fakes import MAPPING, SHARD, FakeLease, FakeSource, Raw, WindowEnvelope, open_gate
from tests.support.saves import Saves

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from model.invocation import Invocation
    from model.outcome import Outcome
    from pollers.ports import Filter

EPOCH_S = 1_600_000_020  # a minute's beginning; loop time 0
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"


def at(position: int, second: float) -> Raw:
    """Make a record that arrives so many seconds after the epoch of the tests."""
    return Raw(position, arrival_ms=round((EPOCH_S + second) * 1000))


@dataclass(frozen=True, slots=True)
class Final:
    """A final call that the function took."""

    start_s: int  # after the epoch of the tests
    seen: list[int]
    early: bool
    batch_id: str


class Aggregator:
    """Adds the positions of each event to the list in its state. `script` may answer in its place."""

    def __init__(self) -> None:
        self.script: Callable[[dict[str, Any], int], Outcome | None] = lambda _event, _attempt: None
        self.events: list[dict[str, Any]] = []
        self.batch_ids: list[str] = []
        self.finals: list[Final] = []
        self.finals_at: list[float] = []  # event-loop time
        self.seconds = 0.0
        self.padding = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Answer after `seconds`."""
        event = json.loads(invocation.event)
        self.events.append(event)
        self.batch_ids.append(invocation.batch_id)
        await asyncio.sleep(self.seconds)
        answer = self.script(event, invocation.attempt)
        if answer is None:
            answer = self.took(event, event["Records"])
        if event["isFinalInvokeForWindow"] and isinstance(answer, Delivered):
            start_s = self.start_of(event)
            seen = event["state"].get("seen", [])
            self.finals.append(Final(start_s, seen, event["isWindowTerminatedEarly"], invocation.batch_id))
            self.finals_at.append(asyncio.get_running_loop().time())
        return answer

    def took(self, event: dict[str, Any], positions: Sequence[int], **more: Any) -> Delivered:
        """Answer with a state that knows these positions too."""
        state = {"seen": [*event["state"].get("seen", []), *positions]}
        if self.padding:
            state["padding"] = ["." * self.padding * len(state["seen"])]
        return Delivered(json.dumps({"state": state, **more}).encode())

    @staticmethod
    def start_of(event: dict[str, Any]) -> int:
        """Return the window's beginning in seconds after the epoch of the tests."""
        minute, second = event["window"]["start"][14:19].split(":")
        return (int(minute) * 60 + int(second) - EPOCH_S % 3600) % 3600

    @property
    def calls(self) -> list[list[int]]:
        """The records of every call; an empty list is a final one."""
        return [event["Records"] for event in self.events]


class WindowRig:
    """One pump with windows and everything around it."""

    def __init__(
        self,
        raws: list[Raw],
        *,
        length_s: int = 60,
        batch_size: int = 3,
        window_s: float = 0.0,
        policy: RetryPolicy | None = None,
        filtered: Filter | None = None,
    ) -> None:
        self.raws = raws
        self.length_s = length_s
        self.batch_size = batch_size
        self.window_s = window_s
        self.policy = policy or RetryPolicy()
        self.filter = filtered
        self.source = FakeSource({SHARD.shard: self.raws})
        self.function = Aggregator()
        self.saves = Saves()
        self.lease = FakeLease()
        self.counters = Counters()
        self.gate = open_gate(self.counters)
        self.behind_s: float | None = None

    @property
    def reader(self) -> Any:
        """The reader opened last."""
        return self.source.readers[-1]

    def close_shard(self) -> None:
        """Let the shard end behind its last record."""
        self.reader.at_end = True
        self.reader.arrived.set()

    def arrive(self, *raws: Raw) -> None:
        """Have records arrive."""
        self.raws += raws
        self.reader.arrived.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Pump, asyncio.Future[bool]]]:
        """Run the pump and its checkpointer from what was saved; kill them at the end."""
        self.lease.progress = self.saves.progress
        loop = asyncio.get_running_loop()
        checkpointer = Checkpointer(self.saves)
        mapping = EventSourceMapping(
            id=MAPPING,
            name="clicks",
            function_name="f",
            source=KinesisSource(ARN),
            batch_size=self.batch_size,
            batching_window_s=self.window_s,
            tumbling_window_s=self.length_s,
        )
        parts = PumpParts(
            mapping=mapping,
            source=self.source,
            envelope=WindowEnvelope(),
            filter=self.filter,
            target=self.function,
            gate=self.gate,
            policy=self.policy,
            counters=self.counters,
            checkpointer=checkpointer,
            random=Random(5),
            now_s=lambda: round(EPOCH_S + loop.time(), 3),
        )
        pump = Pump(parts, self.lease)  # type: ignore[arg-type]  # a fake lease
        outcome: asyncio.Future[bool] = loop.create_future()

        async def run() -> None:
            try:
                outcome.set_result(await pump.run())
            except LeaseLostError as exc:
                outcome.set_exception(exc)

        async with asyncio.TaskGroup() as tasks:
            saving = tasks.create_task(checkpointer.run())
            task = tasks.create_task(run())
            try:
                yield pump, outcome
            finally:
                task.cancel()
                saving.cancel()

    async def until(self, true: Callable[[], bool], limit_s: float = 3600) -> None:
        """Let virtual time pass until something holds."""
        step_s = 0.01
        async with asyncio.timeout(limit_s):
            while not true():
                await asyncio.sleep(step_s)
                step_s = min(1.0, step_s * 1.1)
