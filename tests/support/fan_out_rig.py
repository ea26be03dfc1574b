"""A fan-out reader over a script: subscriptions that say what they are told to, in the loop's time."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from invocation.classify import Answer, Failure, FailureKind
from model.ids import Position, ShardId
from model.shard import BEGINNING
from pollers.sources.kinesis_api import Page
from pollers.sources.kinesis_fan_out import FanOutReader
from pollers.sources.kinesis_subscription import Subscriber
from tests.support.event_stream import shard_event
from tests.support.fan_out_script import CONSUMER, ScriptedOpener
from tests.support.kinesis_script import row

if TYPE_CHECKING:
    from tests.support.fan_out_script import ScriptedAnswer

SHARD = ShardId("shardId-000000000000")
BASE = 10**55
LOST = Failure(FailureKind.CUT_SHORT)


class FakeApi:
    """The calls that a consumer may make beside: answers whether the shard is over."""

    def __init__(self) -> None:
        self.page: Page | Exception = Page([], "more")
        self.iterators: list[Position | None] = []

    async def iterator(self, _shard: ShardId, after: Position | None, _origin: object) -> str:
        """Note where it begins."""
        self.iterators.append(after)
        return "it"

    async def get_records(self, _iterator: str, *, limit: int) -> Page:
        """Answer."""
        assert limit == 1
        if isinstance(self.page, Exception):
            raise self.page
        return self.page


class FakeOwner:
    """A source that has room, until told otherwise."""

    retention_s = 86_400.0

    def __init__(self) -> None:
        self.held = 0
        self.room = asyncio.Event()
        self.room.set()

    def holds(self, delta: int) -> None:
        """Count."""
        self.held += delta

    async def room_to_read(self) -> None:
        """Wait until there is room."""
        assert self.held == 0
        await self.room.wait()


class Rig:
    """A reader over a script."""

    def __init__(self, *script: ScriptedAnswer | Answer | Failure, after: int | None = None) -> None:
        self.opener = ScriptedOpener(*script)
        self.api = FakeApi()
        self.owner = FakeOwner()
        calls: Any = self.api
        self.reader = FanOutReader(
            SHARD,
            None if after is None else Position(str(BASE + after)),
            BEGINNING,
            subscriber=Subscriber(CONSUMER, self.opener),
            api=calls,
            owner=self.owner,
        )

    async def take(self) -> list[int]:
        """Read once; return the numbers."""
        chunk = await self.reader.read()
        assert chunk is not None
        assert [int(raw.SequenceNumber) for raw in chunk.raws] == list(chunk.positions)
        return [position - BASE for position in chunk.positions]

    def started(self) -> list[int | None]:
        """Return where each subscription began."""
        return [int(start["SequenceNumber"]) - BASE if "SequenceNumber" in start else None for start in self.starts]

    @property
    def starts(self) -> list[dict[str, Any]]:
        """Return the starting positions."""
        return self.opener.starts

    @property
    def gaps(self) -> list[float]:
        """Return the seconds between subscriptions."""
        return [round(later - earlier, 3) for earlier, later in pairwise(self.opener.called_at)]


def brings(*numbers: int, go_on: int | None = None, behind_ms: int = 0) -> bytes:
    """Encode an event with records; without a number to go on at, that of the last record."""
    on = numbers[-1] if go_on is None and numbers else go_on
    return shard_event(
        [row(number) for number in numbers], go_on=None if on is None else str(BASE + on), behind_ms=behind_ms
    )


def refusal(code: str, status: int = 400) -> Answer:
    """Make an error answer."""
    return Answer(status, {}, json.dumps({"__type": code}).encode())
