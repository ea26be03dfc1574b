"""One shard of a mapping at work, put together by the node's own parts: a real source, a function inside the test.

The mapping is a document as people write it, so that its rules are read and checked on the way. Nothing of the fleet
is here: the lease is a fake, the store remembers what was saved last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from config.load import load
from invocation.client import Targets
from model.ids import FencingToken, ShardId, ShardKey
from model.outcome import Delivered
from node.embedded_kafka import FETCH_MAX_WAIT_MS
from node.parts import Parts
from pollers.checkpointer import Checkpointer
from pollers.counters import Meters
from pollers.destinations.aws_clients import AwsClients
from pollers.pump import Pump
from pollers.pump_parts import PumpParts
from pollers.queue_pump import QueuePump
from pollers.sources.kafka import KafkaSource
from statemgr.scaling import Allotment
from tests.support.pump_fakes import FakeLease
from tests.support.saves import Saves
from tests.support.targets import Secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from model.invocation import Invocation
    from model.outcome import Outcome
    from model.progress import ProgressUpdate, SaveResult, ShardProgress

POLLER = "poller-0"
"""The shard of a queue."""


class SavedProgress(Saves):
    """A progress store of one shard that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._saved = asyncio.Event()

    async def save(self, updates: Sequence[ProgressUpdate]) -> list[SaveResult]:
        """Keep the updates, and wake whoever waits."""
        results = await super().save(updates)
        self._saved.set()
        return results

    async def until(self, true: Callable[[ShardProgress], bool]) -> None:
        """Wait until something holds of what is stored."""
        while not true(self.progress):
            self._saved.clear()
            await self._saved.wait()


class Function:
    """Answers by a function of the event; remembers the events."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Outcome] = lambda _event: Delivered()
        self.events: list[dict[str, Any]] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch."""
        event = json.loads(invocation.event)
        self.events.append(event)
        return self.answer(event)

    @property
    def calls(self) -> list[list[dict[str, Any]]]:
        """The records of every call."""
        return [records_of(event) for event in self.events]


def records_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an event's records, of whatever source."""
    if "Records" in event:
        found: list[dict[str, Any]] = event["Records"]
        return found
    return [record for records in event["records"].values() for record in records]


class _Targets:
    """The node's connections, with the function in the place of what the mapping names."""

    def __init__(self, real: Targets, function: Function) -> None:
        self.aws = real.aws
        self._function = function

    def make(self, _settings: object) -> Function:
        return self._function


class MappingRig:
    """One mapping's function and stored progress, and its pump while `running`."""

    def __init__(self, folder: Path, document: dict[str, Any], *, endpoint_url: str = "http://127.0.0.1:9") -> None:
        self.function = Function()
        self.saves = SavedProgress()
        self.endpoint_url = endpoint_url
        file = folder / f"{document['Name']}.yaml"
        configuration = {
            "aws": {"region": "us-east-1", "account_id": "000000000000", "endpoint_url": endpoint_url},
            "functions": {"f": {"url": "http://127.0.0.1:9/"}},
            "event_source_mappings": [{"FunctionName": "f", **document}],
        }
        file.write_text(json.dumps(configuration))
        self.settings = load([file], environ={})
        (self.mapping,) = self.settings.mappings

    @contextlib.asynccontextmanager
    async def running(self, shard: str = POLLER, *, within_s: float = 60.0) -> AsyncIterator[Pump | QueuePump]:
        """Work on one shard, from what was saved, for the length of the block; drain it then."""
        key = ShardKey(self.mapping.id, ShardId(shard))
        checkpointer = Checkpointer(self.saves)
        aws = AwsClients(region="us-east-1", endpoint_url=self.endpoint_url)
        real = Targets(Secrets(), region="us-east-1", aws_endpoint_url=self.endpoint_url)
        async with real as connected, aws, asyncio.timeout(within_s), asyncio.TaskGroup() as tasks:
            targets: Any = _Targets(connected, self.function)
            make = Parts(
                self.settings, tasks=tasks, resolver=Secrets(), targets=targets, aws=aws, meters=Meters(),
                checkpointer=checkpointer,
            )  # fmt: skip
            parts = make(self.mapping)
            lease: Any = FakeLease(key, FencingToken(7), progress=self.saves.progress)
            pump: Pump | QueuePump
            parts = replace(parts, random=_Brisk())
            if isinstance(parts, PumpParts):
                if isinstance(parts.source, KafkaSource):
                    parts.source._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # the embedded broker does not long-poll
                pump = Pump(parts, lease)
            else:
                pump = QueuePump(replace(parts, long_poll_s=1), lease, allotment=_ample)  # a drain waits for a poll
            saving = tasks.create_task(checkpointer.run())
            working = tasks.create_task(pump.run())
            yield pump
            pump.drain()
            await working
            await parts.close()
            saving.cancel()


class _Brisk(Random):
    """Draws short delays, so that tests need not sit through backoffs."""

    def uniform(self, a: float, b: float) -> float:
        return super().uniform(a, b) / 20


async def _ample() -> Allotment:
    return Allotment(16)
