"""A queue in memory with SQS's rules of visibility, on the event loop's clock. `pollers.queue_ports.Queue`.

It earns trust by the suite in tests/conformance that ElasticMQ passes too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from pollers.queue_ports import Entry, QueueFacts, Received
from pollers.sources.sqs_api import SqsMessage
from tests.support.virtual_loop import true_time

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HIDDEN_S = 43_200.0


@dataclass(slots=True)
class Stored:
    """One message in the queue."""

    id: str
    body: str
    group: str | None
    sent_at: float
    receives: int = 0
    receipt: str = ""
    visible_at: float = 0.0
    received_at: float = 0.0


@dataclass
class FakeQueue:
    """One queue. `errors` are raised by the next calls, `results` replace the next batch answers."""

    visibility_s: int = 30
    fifo: bool = False
    max_receives: int | None = None
    latency_s: float = 0.001
    stored: dict[str, Stored] = field(default_factory=dict)
    dead: list[Stored] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)  # bodies
    errors: deque[Exception] = field(default_factory=deque)
    delete_results: deque[list[Entry]] = field(default_factory=deque)
    receives: int = 0  # calls
    extensions: list[tuple[float, str, int]] = field(default_factory=list)  # when, body, seconds
    asked_to_change: list[list[str]] = field(default_factory=list)  # receipts of each call, granted or not
    closed: bool = False

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._arrived = asyncio.Event()

    # What producers and tests do

    def send(self, *bodies: str, group: str | None = None) -> None:
        """Put messages."""
        now = true_time()
        for body in bodies:
            id_ = f"m{next(self._numbers)}"
            self.stored[id_] = Stored(id_, body, group, now)
        self._arrived.set()

    def bodies(self) -> list[str]:
        """Return what is in the queue, visible or not."""
        return [one.body for one in self.stored.values()]

    def visible(self) -> list[Stored]:
        """Return what could be received now, were it not for groups."""
        now = true_time()
        return [one for one in self.stored.values() if one.visible_at <= now]

    def hidden(self) -> int:
        """Count what is in flight."""
        return len(self.stored) - len(self.visible())

    # `Queue`

    async def facts(self) -> QueueFacts:
        """Tell about the queue."""
        await self._call()
        return QueueFacts(self.visibility_s, len(self.visible()), self.hidden())

    async def moves_after(self) -> int | None:
        """Tell about the queue."""
        await self._call()
        return self.max_receives

    async def receive(self, most: int, *, wait_s: int, visibility_s: int | None = None) -> list[Received]:
        """Hand out visible messages, waiting for the first."""
        assert 1 <= most <= 10
        assert 0 <= wait_s <= 20
        self.receives += 1
        await self._call()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + wait_s
        while True:
            found = self._take(most, self.visibility_s if visibility_s is None else visibility_s)
            now = loop.time()
            if found or now >= ends_at:
                return found
            self._arrived.clear()
            next_visible_at = min((s.visible_at for s in self.stored.values() if s.visible_at > now), default=ends_at)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(ends_at, next_visible_at) + 0.001):
                    await self._arrived.wait()

    async def delete(self, receipts: Sequence[str]) -> list[Entry]:
        """Delete by receipt."""
        assert 1 <= len(receipts) <= 10
        await self._call()
        planted = self.delete_results.popleft() if self.delete_results else []
        return [
            planted[n] if n < len(planted) and planted[n] is not Entry.DONE else self._delete(receipt)
            for n, receipt in enumerate(receipts)
        ]

    async def change_visibility(self, receipts: Sequence[str], visibility_s: int) -> list[Entry]:
        """Hide for longer, or show."""
        assert 1 <= len(receipts) <= 10
        assert 0 <= visibility_s <= MAX_HIDDEN_S
        self.asked_to_change.append(list(receipts))
        await self._call()
        results = [self._change(receipt, visibility_s) for receipt in receipts]
        self._arrived.set()
        return results

    async def shards(self) -> Sequence[object]:
        """Answer."""
        await self.facts()
        return ()

    async def close(self) -> None:
        """Remember."""
        self.closed = True

    # Inside

    async def _call(self) -> None:
        await asyncio.sleep(self.latency_s)
        if self.errors:
            raise self.errors.popleft()

    def _take(self, most: int, visibility_s: int) -> list[Received]:
        now = true_time()
        blocked = {one.group for one in self.stored.values() if one.visible_at > now} if self.fifo else set()
        found: list[Received] = []
        for one in list(self.stored.values()):
            if len(found) == most:
                break
            if one.visible_at > now or (self.fifo and one.group in blocked):
                continue
            one.receives += 1
            if self.max_receives is not None and one.receives > self.max_receives:
                del self.stored[one.id]
                self.dead.append(one)
                continue
            one.receipt = f"{one.id}#{one.receives}"
            one.visible_at = now + visibility_s
            one.received_at = now
            found.append(_received(one))
        return found

    def _find(self, receipt: str) -> Stored | None:
        one = self.stored.get(receipt.partition("#")[0])
        return one if one is not None and one.receipt == receipt else None

    def _delete(self, receipt: str) -> Entry:
        one = self._find(receipt)
        if one is None:
            return Entry.DONE  # deleted before, or received again: SQS says nothing about it
        if self.fifo and one.visible_at <= true_time():
            return Entry.GONE
        del self.stored[one.id]
        self.deleted.append(one.body)
        self._arrived.set()
        return Entry.DONE

    def _change(self, receipt: str, visibility_s: int) -> Entry:
        now = true_time()
        one = self._find(receipt)
        if one is None or one.visible_at <= now or now + visibility_s > one.received_at + MAX_HIDDEN_S:
            return Entry.GONE
        one.visible_at = now + visibility_s
        self.extensions.append((now, one.body, visibility_s))
        return Entry.DONE


def _received(one: Stored) -> Received:
    attributes = {
        "ApproximateReceiveCount": str(one.receives),
        "SentTimestamp": str(int(1_700_000_000_000 + one.sent_at * 1000)),
    }
    if one.group is not None:
        attributes["MessageGroupId"] = one.group
    raw = SqsMessage(one.id, one.receipt, msgspec.Raw(msgspec.json.encode(one.body)), "digest", attributes)
    return Received(raw, one.receipt, one.group, one.receives)
