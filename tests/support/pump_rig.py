"""One pump with everything around it: fakes, a checkpointer, and a store that can be looked into."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

from model.errors import LeaseLostError
from model.ids import MappingId, Position
from model.mapping import EventSourceMapping, Extensions, KafkaSource
from pollers.checkpointer import Checkpointer
from pollers.counters import Counters
from pollers.pump import Pump
from pollers.pump_parts import PumpParts
from pollers.retrying import RetryPolicy
from tests.support.pump_fakes import MAPPING, SHARD, FakeEnvelope, FakeLease, FakeSource, FakeTarget, Raw, open_gate
from tests.support.saves import Saves

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from pollers.ports import Destination, Filter


class Odd:
    """A filter that keeps odd positions."""

    def keep(self, raws: Sequence[Raw]) -> list[bool]:
        """Keep odd ones."""
        return [raw.position % 2 == 1 for raw in raws]


class Rig:
    """One pump with everything around it."""

    def __init__(
        self,
        count: int = 10,
        *,
        batch_size: int = 3,
        window_s: float = 0.0,
        policy: RetryPolicy | None = None,
        lanes: int = 1,
        filtered: Filter | None = None,
        destination: Destination | None = None,
        extensions: Extensions | None = None,
        raws: list[Raw] | None = None,
        default: Position | None = None,
    ) -> None:
        self.mapping = EventSourceMapping(
            id=MappingId(MAPPING),
            name="orders",
            function_name="f",
            source=KafkaSource("orders", "group"),
            batch_size=batch_size,
            batching_window_s=window_s,
            extensions=extensions or Extensions(),
        )
        self.raws = [Raw(n) for n in range(count)] if raws is None else raws
        self.source = FakeSource({SHARD.shard: self.raws}, default=default)
        self.target = FakeTarget()
        self.saves = Saves()
        self.lease = FakeLease()
        self.counters = Counters()
        self.gate = open_gate(self.counters)
        self.policy = policy or RetryPolicy()
        self.lanes = lanes
        self.filter = filtered
        self.given_up_to = destination
        self.checkpointer: Checkpointer | None = None  # of the last run

    def pump(self, checkpointer: Checkpointer) -> Pump:
        """Make the pump."""
        parts = PumpParts(
            mapping=self.mapping,
            source=self.source,
            envelope=FakeEnvelope(),
            filter=self.filter,
            target=self.target,
            gate=self.gate,
            policy=self.policy,
            counters=self.counters,
            checkpointer=checkpointer,
            random=Random(5),
            lanes=self.lanes,
            destination=self.given_up_to,
        )
        return Pump(parts, self.lease)  # type: ignore[arg-type]  # a fake lease

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Pump, asyncio.Future[bool]]]:
        """Run the pump and its checkpointer; cancel what still runs at the end, as a killed process would."""
        self.lease.progress = self.saves.progress
        self.lease.lost = False
        self.checkpointer = checkpointer = Checkpointer(self.saves)
        async with asyncio.TaskGroup() as tasks:
            saving = tasks.create_task(checkpointer.run())
            pump = self.pump(checkpointer)
            outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

            async def run() -> None:
                try:
                    outcome.set_result(await pump.run())
                except LeaseLostError as exc:
                    outcome.set_exception(exc)

            task = tasks.create_task(run())
            try:
                yield pump, outcome
            finally:
                task.cancel()
                saving.cancel()

    async def until(self, true: Callable[[], bool], limit_s: float = 600) -> None:
        """Let virtual time pass until something holds."""
        async with asyncio.timeout(limit_s):
            while not true():  # noqa: ASYNC110 - in virtual time looking again costs nothing
                await asyncio.sleep(0.01)

    def saved(self, position: int) -> bool:
        """Whether the checkpoint is there."""
        return self.saves.progress.position == str(position)
