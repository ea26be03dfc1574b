"""The queue of asynchronous invocations inside one process: for tests, and the conformance suite's second opinion."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import TYPE_CHECKING

from model.async_event import NewEvent, QueuedEvent, Standing, partition_key, partition_of
from model.lease import ShardKind, WantedShard
from statemgr.event_queue import MAX_QUEUE_BYTES, EventKey, QueueDepth, QueueFullError, Taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, MutableMapping, Sequence

    from model.async_event import Settled
    from model.ids import ShardKey
    from model.lease import Lease


@dataclass(slots=True)
class _Entry:
    event: NewEvent
    accepted_at: float
    due_at: float  # inf: it is with the partition's holder
    standing: Standing = field(default_factory=Standing)

    @property
    def size(self) -> int:
        return self.event.size + self.standing.kept_bytes


class MemoryEventQueue:
    """A `statemgr.event_queue.EventQueue` in dictionaries.

    `wanted` are the fleet's shards, `changed` is to be called with each one more, `newest_token` knows a shard's.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        wanted: MutableMapping[ShardKey, WantedShard],
        changed: Callable[[], None],
        newest_token: Callable[[ShardKey], int],
    ) -> None:
        self._clock = clock
        self._wanted = wanted
        self._changed = changed
        self._newest_token = newest_token
        self._ids = count(1)
        self._lines: dict[int, dict[str, dict[str, _Entry]]] = defaultdict(lambda: defaultdict(dict))
        self._listeners: dict[asyncio.Event, set[int]] = {}  # partitions to be told of

    async def append(self, event: NewEvent, partitions: Sequence[int], *, max_bytes: int = MAX_QUEUE_BYTES) -> int:
        """See `EventQueue.append`."""
        if (await self.depth()).size + event.size > max_bytes:
            raise QueueFullError(f"{max_bytes} bytes of events are waiting")
        chosen = min(partitions, key=lambda number: sum(map(len, self._lines[number].values())))
        now = self._clock()
        self._lines[chosen][event.line][f"{next(self._ids):012d}"] = _Entry(event, now, now)
        key = partition_key(chosen)
        if key not in self._wanted:
            self._wanted[key] = WantedShard(key, ShardKind.SOURCE)
            self._changed()
        for listener, partitions_of_it in self._listeners.items():
            partitions_of_it.add(chosen)
            listener.set()
        return chosen

    async def take(
        self, lease: Lease, *, limits: Mapping[str, int], each: int, most: int, max_bytes: int, turn: int = 0
    ) -> Taken | None:
        """See `EventQueue.take`."""
        if self._stale(lease):
            return None
        now = self._clock()
        partition = self._lines[partition_of(lease.key)]
        names = sorted(name for name, entries in partition.items() if entries)
        found: list[QueuedEvent] = []
        size = 0
        for at in range(len(names)):
            line = names[(at + turn) % len(names)]
            room = limits.get(line, each)
            for name, entry in sorted(partition[line].items(), key=lambda item: (item[1].due_at, item[0])):
                if room <= 0 or len(found) >= most or (size >= max_bytes and found) or entry.due_at > now:
                    break
                found.append(QueuedEvent(name, entry.event, now - entry.accepted_at, entry.standing))
                entry.due_at = inf
                room -= 1
                size += entry.size
        later = [one.due_at for entries in partition.values() for one in entries.values() if now < one.due_at < inf]
        return Taken(found, min(later) - now if later else None)

    async def settle(self, lease: Lease, settled: Sequence[Settled], *, max_bytes: int = MAX_QUEUE_BYTES) -> bool:
        """See `EventQueue.settle`."""
        if self._stale(lease):
            return False
        for one in settled:
            entries = self._lines[partition_of(lease.key)][one.line]
            if one.again_s is None:
                entries.pop(one.id, None)
            elif one.id in entries:
                entry = entries[one.id]
                entry.due_at = self._clock() + one.again_s
                more = one.standing.kept_bytes - entry.standing.kept_bytes
                fits = not one.standing.kept_bytes or (await self.depth()).size + more <= max_bytes
                entry.standing = one.standing if fits else one.standing.lean()
        return True

    async def resume(self, lease: Lease, held: Collection[EventKey] = ()) -> bool:
        """See `EventQueue.resume`."""
        if self._stale(lease):
            return False
        for line, entries in self._lines[partition_of(lease.key)].items():
            for name, entry in entries.items():
                if entry.due_at == inf and EventKey(line, name) not in held:
                    entry.due_at = self._clock()
        return True

    async def depth(self) -> QueueDepth:
        """See `EventQueue.depth`."""
        every = [one for lines in self._lines.values() for entries in lines.values() for one in entries.values()]
        oldest = max((self._clock() - one.accepted_at for one in every), default=None)
        return QueueDepth(len(every), sum(one.size for one in every), oldest)

    async def wakes(self) -> AsyncIterator[Collection[int] | None]:
        """See `EventQueue.wakes`."""
        heard = asyncio.Event()
        partitions = self._listeners[heard] = set()
        try:
            yield None
            while True:
                await heard.wait()
                heard.clear()
                told = frozenset(partitions)
                partitions.clear()
                yield told
        finally:
            del self._listeners[heard]

    def _stale(self, lease: Lease) -> bool:
        return self._newest_token(lease.key) > lease.token
