"""Whole nodes on one memory store, reading a real stream and calling a function inside the test.

Records are numbered per partition key (`tests.support.numbered`), so what was delivered is judged per key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from random import Random
from threading import Lock
from typing import TYPE_CHECKING, Any

from config.load import load
from model.ids import MappingId
from model.outcome import Delivered, FunctionFailed
from node.credentials import Access
from node.function_side import FunctionSide
from node.options import Overrides, RunOptions
from node.placement import Placement
from node.sandboxing import worker_manager
from node.signals import Shutdown
from node.wiring import Node
from pollers.destinations.aws_clients import AwsClients
from statemgr.memory_store import MemoryStore
from tests.support.fan_out_front import fan_out_front
from tests.support.history import FAILED, OK, Invoked, check
from tests.support.kinesis_streams import aws_json
from tests.support.numbered import Numbering, entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from invocation.aws_json import AwsJson
    from model.invocation import Invocation
    from model.outcome import Outcome
    from model.progress import ShardProgress
    from tests.support.fan_out_front import FanOutFront
    from tests.support.history import Partition, Verdict
    from tests.support.kinesis_streams import Stream

MAPPING = MappingId("4f6e3f0e-0000-4000-8000-00000000000c")
_DOCUMENT = """
listen: 127.0.0.1:0
leasing: {{ttl: 3}}
drain_timeout: 10
functions: {{f: {{url: "http://127.0.0.1:9/"}}}}
event_source_mappings:
  - UUID: {uuid}
    Name: clicks
    EventSourceArn: {arn}
    FunctionName: f
    StartingPosition: {position}
"""


@dataclass
class Function:
    """The function: remembers every invocation, fails by seed."""

    fail: float = 0.0
    seconds: float = 0.0
    log: list[Invoked] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(7))
    called: asyncio.Event = field(default_factory=asyncio.Event)
    arrivals: dict[tuple[str, int], float] = field(default_factory=dict)  # epoch seconds of the first delivery
    held: asyncio.Event | None = None  # calls wait for it
    poison: set[tuple[str, int]] = field(default_factory=set)  # key and number of records it fails on

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Take a batch."""
        started = time.time()
        if self.held is not None:
            await self.held.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        carried = entries(invocation.event)
        failed = self.random.random() < self.fail or any((e.topic, e.offset) in self.poison for e in carried)
        self.log.append(
            Invoked(
                started=started,
                ended=time.time(),
                mapping=invocation.mapping,
                shard=str(invocation.shard),
                token=invocation.token,
                batch=invocation.batch_id,
                attempt=invocation.attempt,
                outcome=FAILED if failed else OK,
                records=carried,
            )
        )
        if failed:
            return FunctionFailed("planted")
        for entry in carried:
            self.arrivals.setdefault((entry.topic, entry.offset), time.time())
        self.called.set()
        return Delivered()


@dataclass
class _Targets:
    function: Function
    caller: AwsJson

    def make(self, _settings: object) -> Function:
        return self.function

    def aws(self, _service: str, *, version: str = "1.1") -> AwsJson:
        return self.caller


class Producer:
    """Writes numbered records of several keys to a stream, in order per key, whichever threads ask for it."""

    def __init__(self, stream: Stream, *, keys: int, prefix: str = "key") -> None:
        self._stream = stream
        self._writing = Lock()  # between two threads numbers could be given in one order and written in another
        self._numbering = Numbering(f"{prefix}-{number}" for number in range(keys))

    def write(self, rounds: int = 1) -> None:
        """Write that many records of every key. Blocks."""
        with self._writing:
            keys = [key for _ in range(rounds) for key in self.written]
            self._stream.put([(key, self._numbering.next(key).encode()) for key in keys])

    @property
    def written(self) -> dict[str, int]:
        """How many records of each key there are."""
        return self._numbering.written

    def expected(self) -> dict[Partition, range]:
        """Return what has to arrive."""
        return self._numbering.expected()

    @property
    def total(self) -> int:
        """Count the records written."""
        return self._numbering.total


class Fleet:
    """Nodes that come and go; the store and the function stay."""

    def __init__(
        self, caller: AwsJson, arn: str, folder: Path, more: Iterable[str] = (), position: str = "TRIM_HORIZON"
    ) -> None:
        self.store = MemoryStore()
        self.function = Function()
        self._caller = caller
        self._file = folder / "kinesis.yaml"
        document = _DOCUMENT.format(uuid=MAPPING, arn=arn, position=position)
        self._file.write_text(document + "".join(f"    {line}\n" for line in more))

    @contextlib.asynccontextmanager
    async def node(self) -> AsyncIterator[_Running]:
        """Run a node for the length of the block, then drain it; `kill` on what this yields ends it at once."""
        options = RunOptions((self._file,), Overrides(), load([self._file], environ={}))
        targets: Any = _Targets(self.function, self._caller)
        resolver: Any = None
        shutdown = Shutdown()
        functions = FunctionSide(options.settings, self.store)
        async with worker_manager(options.settings, resolver, limits=dict) as workers, asyncio.TaskGroup() as tasks:
            aws = AwsClients(region="us-east-1")
            placement = Placement(self.store.placement, workers, lambda: options.settings.functions)
            node = Node(
                options, self.store, resolver, targets, aws, workers=workers, functions=functions, placement=placement
            )
            running = _Running(tasks.create_task(node.run(shutdown, Access(None, resolver))), shutdown)
            try:
                yield running
            finally:
                shutdown.drain.set()

    async def delivered(self, producer: Producer, *, within_s: float = 60.0) -> Verdict:
        """Wait until everything written was delivered; return the verdict on the history."""
        async with asyncio.timeout(within_s):
            while len(self.function.arrivals) < producer.total:
                self.function.called.clear()
                await self.function.called.wait()
        return self.verdict(producer)

    def verdict(self, producer: Producer) -> Verdict:
        """Judge what was delivered so far."""
        return check(self.function.log, producer.expected())

    async def noted(self, shards: int, *, within_s: float = 30.0) -> None:
        """Wait until the store knows of that many shards, the tracker counted."""
        async with asyncio.timeout(within_s), contextlib.aclosing(self.store.wakes()) as wakes:  # type: ignore[type-var]
            async for _ in wakes:
                if len(await self.progress()) >= shards:
                    return

    async def progress(self) -> dict[str, ShardProgress]:
        """Return the stored progress by shard."""
        return {str(key.shard): found for key, found in (await self.store.load_mapping(MAPPING)).items()}


@dataclass
class _Running:
    task: asyncio.Task[None]
    shutdown: Shutdown

    async def kill(self) -> None:
        """End the node as if its process had died: nothing is saved or given back any more."""
        self.task.cancel()
        await asyncio.wait([self.task])


@contextlib.asynccontextmanager
async def kinesis_fleet(
    endpoint_url: str | None,
    stream: Stream,
    folder: Path,
    more: Iterable[str] = (),
    position: str = "TRIM_HORIZON",
    *,
    fan_out: bool = False,
) -> AsyncIterator[Fleet]:
    """Make a fleet that reads a stream; `more` are further lines of the mapping.

    `fan_out`: as a stream consumer, of a Kinesis that does it as AWS does.
    """
    if fan_out and endpoint_url is not None:
        async with consumer_fleet(endpoint_url, stream, folder, more) as (fleet, _):
            yield fleet
        return
    async with aws_json(endpoint_url) as caller:
        arn = await asyncio.to_thread(stream.register_consumer) if fan_out else stream.arn
        yield Fleet(caller, arn, folder, more, position)


@contextlib.asynccontextmanager
async def consumer_fleet(
    endpoint_url: str, stream: Stream, folder: Path, more: Iterable[str] = (), *, lives_s: float = 300.0
) -> AsyncIterator[tuple[Fleet, FanOutFront]]:
    """Make a fleet that reads as a stream consumer, of a Kinesis whose subscriptions last so long."""
    async with fan_out_front(endpoint_url, lives_s=lives_s) as front, aws_json(front.server.url) as caller:
        yield Fleet(caller, f"{stream.arn}/consumer/fast:1", folder, more), front
