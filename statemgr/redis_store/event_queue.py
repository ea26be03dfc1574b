"""The queue of asynchronous invocations in Redis: a stream for each line, one script call per operation.

An event is in its line's stream until it is done. Those that were taken are besides in an order of when they are due,
and what they have been through is beside them: all of it is changed in the script that checks the lease's token.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from model.async_event import ASYNC_QUEUE, NewEvent, QueuedEvent, Standing, partition_key, partition_of
from statemgr.event_queue import MAX_QUEUE_BYTES, PARTITIONS, QueueDepth, QueueFullError, Taken
from statemgr.redis_store.script import Script

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence

    from model.async_event import Settled
    from model.lease import Lease
    from statemgr.event_queue import EventKey
    from statemgr.redis_store.keys import Keys
    from statemgr.redis_store.script import RunScript

_SHARED = ("async_queue",)
_APPEND = Script("async_append", shared=_SHARED)
_TAKE, _SETTLE, _RESUME, _DEPTH = (
    Script(f"async_{name}", common=False, shared=_SHARED) for name in ("take", "settle", "resume", "depth")
)
_MS = 1000
_FULL = -1
_COLUMNS = 6  # of an event in the reply of `async_take.lua`
_SETTLED_AT_ONCE = 500  # in one script call


class _Meta(msgspec.Struct, array_like=True):
    asked: str
    request_id: str
    trace: str


_pack = msgspec.msgpack.Encoder().encode
_unpack_meta = msgspec.msgpack.Decoder(_Meta).decode
_unpack_standing = msgspec.msgpack.Decoder(Standing).decode


class RedisEventQueue:
    """A `statemgr.event_queue.EventQueue`. `run` calls a script, as `RedisStore` does."""

    def __init__(
        self,
        run: RunScript,
        keys: Keys,
        listen: Callable[[], AsyncGenerator[frozenset[bytes] | None, None]],
    ) -> None:
        self._run = run
        self._keys = keys
        self._listen = listen

    async def append(self, event: NewEvent, partitions: Sequence[int], *, max_bytes: int = MAX_QUEUE_BYTES) -> int:
        """See `EventQueue.append`."""
        one, other = partitions
        keys = self._keys
        meta = _pack(_Meta(event.asked, event.request_id, event.trace))
        reply = await self._run(
            _APPEND,
            [*keys.fleet, keys.async_queue, keys.async_lines(one), keys.async_lines(other)],
            [
                keys.wake,
                keys.events,
                ASYNC_QUEUE,
                *(one, other),
                *(partition_key(number).shard for number in (one, other)),
                *(event.line, meta, event.payload),
                *(event.size, max_bytes),
            ],
        )
        if reply == _FULL:
            raise QueueFullError(f"{max_bytes} bytes of events are waiting, or Redis has hardly any memory left")
        return int(reply)

    async def take(
        self, lease: Lease, *, limits: Mapping[str, int], each: int, most: int, max_bytes: int, turn: int = 0
    ) -> Taken | None:
        """See `EventQueue.take`."""
        args: list[Any] = [most, max_bytes, each, turn]
        for line, limit in limits.items():
            args += (line, limit)
        reply = await self._on_behalf(_TAKE, lease, args)
        if reply is None:
            return None
        next_ms, rows = reply[0], reply[1:]
        events = [_event(rows[at : at + _COLUMNS]) for at in range(0, len(rows), _COLUMNS)]
        return Taken(events, None if next_ms < 0 else next_ms / _MS)

    async def settle(self, lease: Lease, settled: Sequence[Settled], *, max_bytes: int = MAX_QUEUE_BYTES) -> bool:
        """See `EventQueue.settle`. Beyond 500 events it takes several calls."""
        for start in range(0, len(settled), _SETTLED_AT_ONCE):
            args: list[Any] = [max_bytes]
            for one in settled[start : start + _SETTLED_AT_ONCE]:
                args += (one.line, one.id, one.size, *_again(one))
            if not await self._on_behalf(_SETTLE, lease, args):
                return False
        return True

    async def resume(self, lease: Lease, held: Collection[EventKey] = ()) -> bool:
        """See `EventQueue.resume`."""
        return bool(await self._on_behalf(_RESUME, lease, [part for key in held for part in key]))

    async def depth(self) -> QueueDepth:
        """See `EventQueue.depth`."""
        keys = [self._keys.meta, self._keys.async_queue, *map(self._keys.async_lines, range(PARTITIONS))]
        events, size, oldest_ms = await self._run(_DEPTH, keys, [])
        return QueueDepth(events, size, None if oldest_ms < 0 else oldest_ms / _MS)

    async def wakes(self) -> AsyncIterator[Collection[int] | None]:
        """See `EventQueue.wakes`."""
        async with aclosing(self._listen()) as heard:
            async for told in heard:
                # An earlier version names no partition.
                yield frozenset(map(int, told)) if told is not None and all(map(bytes.isdigit, told)) else None

    async def _on_behalf(self, script: Script, lease: Lease, args: Sequence[Any]) -> Any:
        partition = partition_of(lease.key)
        keys = [self._keys.progress(ASYNC_QUEUE), self._keys.async_queue, self._keys.async_lines(partition)]
        return await self._run(script, keys, [lease.key.shard, lease.token, partition, *args])


def _again(settled: Settled) -> tuple[int | str, bytes, bytes]:
    """Return, for the script, in how many ms it comes again, its standing, and that without answers if it has any."""
    if settled.again_s is None:
        return "", b"", b""
    standing = settled.standing
    lean = _pack(standing.lean()) if standing.kept_bytes else b""
    return round(settled.again_s * _MS), _pack(standing), lean


def _event(row: Sequence[Any]) -> QueuedEvent:
    line, name, age_ms, meta, payload, standing = row
    told = _unpack_meta(meta)
    event = NewEvent(line.decode(), told.asked, told.request_id, told.trace, payload)
    return QueuedEvent(name.decode(), event, age_ms / _MS, _unpack_standing(standing) if standing else Standing())
