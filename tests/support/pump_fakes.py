"""Fakes around a pump: a source made of lists, a target that follows a script, a lease that can be lost."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from model.errors import LeaseLostError
from model.ids import FencingToken, MappingId, NodeId, Position, ShardId, ShardKey, ShardOrigin
from model.lease import Lease
from model.outcome import Delivered
from model.progress import ShardProgress
from model.record import Places, Record, Records
from model.shard import SourceShard
from pollers.circuit import Circuit
from pollers.counters import Counters
from pollers.gate import Gate
from pollers.ports import Chunk, Lag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.errors import EsmdError
    from model.invocation import Invocation
    from model.outcome import Outcome
    from pollers.failure_document import Failure
    from pollers.seeking import Found, Place

MAPPING = MappingId("4f6e3f0e-0000-4000-8000-000000000001")
TOKEN = FencingToken(7)
NODE = NodeId("node-a")
SHARD = ShardKey(MAPPING, ShardId("orders-0"))


@dataclass(slots=True)
class FakeLease:
    """A lease that is trusted until `lose`."""

    key: ShardKey = SHARD
    token: FencingToken = TOKEN
    node: NodeId = NODE
    progress: ShardProgress = field(default_factory=ShardProgress)
    lost: bool = False

    @property
    def lease(self) -> Lease:
        """The lease as a value."""
        return Lease(self.key, self.node, self.token)

    def check(self) -> None:
        """Raise once lost."""
        if self.lost:
            raise LeaseLostError(self.key, "lost in a test")


def open_gate(counters: Counters | None = None, *, seed: int = 3) -> Gate:
    """Make the gate of a function that was never called."""
    return Gate(Circuit(Random(seed)), mapping="orders", counters=counters or Counters())


def record(position: int, *, size: int = 10, key: bytes | None = None, arrival_ms: int = 0) -> Record:
    """Make a record whose fragment has `size` bytes."""
    text = f'{{"n":{position}'
    return Record(position, arrival_ms, f"{text}{' ' * (size - len(text) - 1)}}}".encode(), key, position)


@dataclass(slots=True)
class Raw:
    """A record as the fake source gives it."""

    position: int
    key: bytes | None = None
    arrival_ms: int = 0


class FakeEnvelope:
    """An event that is a JSON list of positions."""

    def keys(self, raws: Sequence[Any]) -> list[bytes | None]:
        """Return the keys."""
        return [raw.key for raw in raws]

    def encode(self, shard: ShardId, raws: Sequence[Any], places: Places) -> Records:
        """Make records."""
        return Records(
            places,
            [raw.arrival_ms for raw in raws],
            self.keys(raws),
            list(places),
            b"[%b]" % b",".join([b"%d" % position for position in places]),
        )

    def event(self, records: Records) -> bytes:
        """Return the positions."""
        return bytes(records.text)

    def overhead(self) -> int:
        """Count the brackets, less one comma."""
        return 1

    def parse_item_id(self, identifier: object) -> int | None:
        """Take whole numbers."""
        return identifier if isinstance(identifier, int) and not isinstance(identifier, bool) else None


class WindowEnvelope(FakeEnvelope):
    """An event that is a JSON object, as Kinesis': `{"Records":[...]}`."""

    def event(self, records: Records) -> bytes:
        """Return the positions; there may be none."""
        return b"".join((b'{"Records":', records.text, b"}"))

    def overhead(self) -> int:
        """Count the rest, less one comma."""
        return len('{"Records":[]}') - 1


class FakeReader:
    """Reads a growing list of raws; raises what it is told to, once."""

    def __init__(self, shard: list[Raw], start: Position | None, default: Position | None) -> None:
        self._shard = shard
        self._next = int(start) if start is not None else int(default or 0)
        self.start = start or default
        self.arrived = asyncio.Event()
        self.errors: deque[Exception] = deque()
        self.at_end = False
        self.closed = False
        self.mirrored: list[Position] = []
        self.most_wanted = 0
        self.behind_s: float | None = None  # what `lag` tells besides the count
        self.first: int | None = None  # same
        self.read_ahead = 0

    def after(self, last: int) -> Position:
        """Offsets as Kafka's."""
        return Position(str(last + 1))

    async def read(self, max_records: int) -> Chunk | None:
        """Return the next records."""
        self.most_wanted = max(max_records, self.most_wanted)
        while True:
            if self.errors:
                raise self.errors.popleft()
            first = bisect_left(self._shard, self._next, key=lambda raw: raw.position)
            raws = self._shard[first : first + max_records]
            if raws:
                self._next = raws[-1].position + 1
                return Chunk(raws, [raw.position for raw in raws], 10 * len(raws))
            if self.at_end:
                return None
            self.arrived.clear()
            await self.arrived.wait()

    def buffered(self) -> int:
        """Nothing is read ahead, unless a test says so."""
        return self.read_ahead

    def lag(self) -> Lag:
        """Count what is left."""
        first = bisect_left(self._shard, self._next, key=lambda raw: raw.position)
        return Lag(len(self._shard) - first, self.behind_s, first=self.first)

    def checkpointed(self, position: Position) -> None:
        """Remember the mirror."""
        self.mirrored.append(position)

    async def close(self) -> None:
        """Remember."""
        self.closed = True


class FakeSource:
    """Shards in memory. `found` are the places that an operator asks for."""

    def __init__(self, shards: dict[str, list[Raw]], *, default: Position | None = None) -> None:
        self.contents = shards
        self.default = default
        self.readers: list[FakeReader] = []
        self.errors: deque[Exception] = deque()
        self.found: dict[str, Found] = {}

    async def find(self, shard: SourceShard, place: Place, before: ShardProgress) -> Found:
        """Return what a test has set."""
        return self.found[shard.id]

    async def shards(self) -> list[SourceShard]:
        """List them."""
        if self.errors:
            raise self.errors.popleft()
        return [SourceShard(ShardId(name)) for name in self.contents]

    async def reader(self, shard: ShardId, start: Position | None, origin: ShardOrigin | None = None) -> FakeReader:
        """Open one."""
        if self.errors:
            raise self.errors.popleft()
        reader = FakeReader(self.contents[shard], start, self.default)
        self.readers.append(reader)
        return reader

    async def close(self) -> None:
        """Nothing to close."""


class FakeTarget:
    """Answers by a function of the positions in the event and the attempt; delivered by default."""

    def __init__(self, answer: Callable[[list[int], int], Outcome] = lambda _positions, _attempt: Delivered()) -> None:
        self.answer = answer
        self.calls: list[list[int]] = []
        self.invocations: list[Invocation] = []
        self.running = 0
        self.most_running = 0
        self.seconds = 0.0
        self.called = asyncio.Event()

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Answer after `seconds`."""
        positions = json.loads(invocation.event)
        self.calls.append(positions)
        self.invocations.append(invocation)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.called.set()
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        return self.answer(positions, invocation.attempt)

    def delivered(self) -> list[int]:
        """Every position of every call, in order."""
        return [position for call in self.calls for position in call]


class FakeDestination:
    """Takes failures, unless there is trouble."""

    def __init__(self) -> None:
        self.taken: list[Failure] = []
        self.trouble: EsmdError | None = None
        self.seconds = 0.0
        self.attempts_at: list[float] = []
        self.tried = asyncio.Event()
        self.running = 0
        self.closed = False

    def __str__(self) -> str:
        return "a fake destination"

    async def deliver(self, failure: Failure) -> None:
        """Take a failure after `seconds`."""
        self.attempts_at.append(asyncio.get_running_loop().time())
        self.tried.set()
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if self.trouble is not None:
            raise self.trouble
        self.taken.append(failure)

    async def close(self) -> None:
        """Remember."""
        self.closed = True

    @property
    def positions(self) -> list[list[int]]:
        """What was taken, failure by failure."""
        return [[one.position for one in failure.records] for failure in self.taken]
