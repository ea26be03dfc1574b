"""The fleet's shared memory in Redis: one script call per operation.

What is decided is decided in `scripts/`, atomically; this module carries values there and back (`codec`), and turns
every failure into `StoreUnavailableError`. Every call, with connecting and waiting for a connection, ends within
`timeout_s`; nothing is retried, since only the caller knows whether a late success would still be good.

Costs on two shared cores: a tick 0.1 ms of the node's CPU, a save of 16 shards 0.13 ms (0.06 ms is any command). With
10,000 shards a snapshot keeps Redis busy for 11 ms and the node for 40 ms, ending a membership costs Redis 20 ms,
500 acquisitions 7 ms, 500 saves 2 ms; all of it takes 7 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from model.errors import ConflictError, StoreUnavailableError
from model.ids import FencingToken, ShardId, ShardKey
from model.lease import Lease
from model.progress import SaveResult
from statemgr.cancelling import cancellation_kept
from statemgr.redis_store import codec
from statemgr.redis_store.code import RedisCode
from statemgr.redis_store.concurrency import RedisConcurrency
from statemgr.redis_store.connect import RedisClients, connect
from statemgr.redis_store.event_queue import RedisEventQueue
from statemgr.redis_store.functions import RedisFunctions
from statemgr.redis_store.keys import DEFAULT_NAMESPACE, Keys
from statemgr.redis_store.placement import RedisPlacement
from statemgr.redis_store.script import Script
from statemgr.redis_store.wakes import listen
from statemgr.stores import check_tracker, wanted_sources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from model.ids import MappingId, NodeId, ShardOrigin
    from model.lease import FleetSnapshot, Member, TickReply, WantedShard
    from model.mapping import MappingRecord, MappingState
    from model.progress import ParkedRecords, ProgressUpdate, ShardProgress

_T = TypeVar("_T")
DEFAULT_TIMEOUT_S = 2.0
_CHUNK = 500  # shards per script call, so that no call keeps Redis from others for more than a few milliseconds
_PARALLEL = 32  # calls under way at once; heartbeats come on top and never queue behind others
_RESULTS = {ord("s"): SaveResult.SAVED, ord("t"): SaveResult.STALE, ord("b"): SaveResult.BACKWARD,
            ord("i"): SaveResult.INCOMPLETE}  # fmt: skip


_BEAT, _LEAVE, _SNAPSHOT, _ACQUIRE, _RELEASE = map(Script, ("beat", "leave", "snapshot", "acquire", "release"))
_PUT_MAPPING, _MAPPINGS, _MAPPING = map(Script, ("put_mapping", "mappings", "mapping"))
_SET_STATE = Script("set_state")
_SET_WANTED, _REMOVE_MAPPING, _PING = map(Script, ("set_wanted", "remove_mapping", "ping"))
_REPORT_DRAINED, _TRY_PARKED, _RETIRE = map(Script, ("report_drained", "try_parked", "retire"))
_WISH_SEEK, _MOVE = map(Script, ("wish_seek", "move"))
_SAVE, _LOAD = Script("save", common=False), Script("load", common=False)


class RedisStore:
    """A `statemgr.stores.Store` in Redis 6.2 or later, or Valkey.

    Choose `timeout_s` well below the leases' TTL, so that a renewal that hangs can be tried again within it.
    """

    def __init__(self, clients: RedisClients, *, namespace: str = DEFAULT_NAMESPACE, timeout_s: float) -> None:
        self._clients = clients
        self._keys = Keys(namespace)
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._closed = False
        self.functions = RedisFunctions(self._fleet, self._keys)
        self.code = RedisCode(self._fleet, self._call, self._keys)
        self.concurrency = RedisConcurrency(self._run, self._keys)
        heard = partial(listen, clients, self._keys.events, timeout_s=timeout_s)
        self.events = RedisEventQueue(self._run, self._keys, heard)
        self.placement = RedisPlacement(self._fleet, self._run, self._keys)

    @classmethod
    def from_url(
        cls, url: str, *, namespace: str = DEFAULT_NAMESPACE, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> RedisStore:
        """Return a store for a URL (see `address`); nothing is connected yet. Raises ValueError for a bad URL."""
        return cls(connect(url, timeout_s=timeout_s), namespace=namespace, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"RedisStore({self._clients.address})"

    # Membership and leases

    async def join(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.join`."""
        return await self._beat(member, ttl_s, "join")

    async def tick(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.tick`."""
        return await self._beat(member, ttl_s, "tick")

    async def leave(self, node: NodeId) -> None:
        """See `LeaseStore.leave`."""
        await self._fleet(_LEAVE, [node])

    async def snapshot(self) -> FleetSnapshot:
        """See `LeaseStore.snapshot`."""
        return codec.snapshot(await self._fleet(_SNAPSHOT))

    async def acquire(
        self, node: NodeId, keys: Sequence[ShardKey], *, floor: FencingToken, ttl_s: float
    ) -> Mapping[ShardKey, tuple[Lease, ShardProgress]]:
        """See `LeaseStore.acquire`. Beyond 500 shards it takes several calls."""
        taken: dict[ShardKey, tuple[Lease, ShardProgress]] = {}
        for chunk in _chunks(keys):
            progress_keys, places = self._progress_keys(chunk)
            args: list[Any] = [node, floor, _microseconds(ttl_s)]
            for key, place in zip(chunk, places, strict=True):
                args += (place, str(key))
            reply = await self._fleet(_ACQUIRE, args, progress_keys)
            for number, token, *stored in zip(*(reply[column::5] for column in range(5)), strict=True):
                lease = Lease(chunk[int(number)], node, FencingToken(int(token)))
                taken[lease.key] = (lease, codec.progress(*stored))
        return taken

    async def release(self, leases: Sequence[Lease], *, successor: Mapping[ShardKey, NodeId] | None = None) -> None:
        """See `LeaseStore.release`."""
        named = successor or {}
        for chunk in _chunks(leases):
            args: list[Any] = []
            for lease in chunk:
                args += (str(lease.key), f"{lease.token} {lease.node}", named.get(lease.key, ""))
            await self._fleet(_RELEASE, args)

    async def wakes(self) -> AsyncIterator[None]:
        """See `LeaseStore.wakes`. Also yields for changes made by the one who listens."""
        async with contextlib.aclosing(listen(self._clients, self._keys.wake, timeout_s=self._timeout_s)) as heard:
            async for _ in heard:
                if self._closed:
                    return
                yield

    # Progress

    async def load(self, keys: Sequence[ShardKey]) -> Mapping[ShardKey, ShardProgress]:
        """See `ProgressStore.load`. Beyond 500 shards it takes several calls."""
        found: dict[ShardKey, ShardProgress] = {}
        for chunk in _chunks(keys):
            progress_keys, places = self._progress_keys(chunk)
            args: list[Any] = []
            for key, place in zip(chunk, places, strict=True):
                args += (place, key.shard)
            reply = await self._run(_LOAD, progress_keys, args)
            for key, position, rest, origin in zip(chunk, reply[::3], reply[1::3], reply[2::3], strict=True):
                if rest is not None or origin is not None:
                    found[key] = codec.progress(position, rest, origin)
        return found

    async def save(self, updates: Sequence[ProgressUpdate]) -> Sequence[SaveResult]:
        """See `ProgressStore.save`. Beyond 500 shards it takes several calls."""
        results: list[SaveResult] = []
        for chunk in _chunks(updates):
            progress_keys, places = self._progress_keys([update.key for update in chunk], before=2)
            keys = [self._keys.meta, self._keys.removed, *progress_keys]
            parking = [update.key for update in chunk if update.parked is not None]
            lots = {key: len(keys) + number for number, key in enumerate(parking, start=1)}
            reply = await self._run(
                _SAVE, [*keys, *map(self._keys.parked, parking)], codec.save_args(chunk, places, lots)
            )
            results += [_RESULTS[letter] for letter in reply]
        return results

    async def load_parked(self, key: ShardKey) -> ParkedRecords:
        """See `ProgressStore.load_parked`."""
        return codec.parked_records(await self._call("load_parked", "HGETALL", self._keys.parked(key)))

    async def load_mapping(self, mapping: MappingId) -> Mapping[ShardKey, ShardProgress]:
        """See `ProgressStore.load_mapping`."""
        fields = await self._call("load_mapping", "HGETALL", self._keys.progress(mapping))
        return codec.mapping_progress(mapping, fields)

    # Mappings

    async def put_mapping(
        self, record: MappingRecord, *, expected_revision: int | None = None, seen: int | None = None
    ) -> MappingRecord:
        """See `MappingStore.put_mapping`."""
        terms = ["" if term is None else term for term in (expected_revision, seen)]
        args = [record.id, record.name, record.document, record.state, record.state_reason, record.applied, *terms]
        reply = await self._fleet(_PUT_MAPPING, args)
        if reply[0] == b"seen":
            raise ConflictError(f"mapping {record.name}: the mappings have changed")
        if reply[0] == b"revision":
            raise ConflictError(f"mapping {record.name}: its revision is {reply[1]}, not {expected_revision}")
        if reply[0] == b"name":
            raise ConflictError(f"another mapping has the name {record.name}")
        return codec.record(reply[1])

    async def mappings(self) -> tuple[int, Sequence[MappingRecord]]:
        """See `MappingStore.mappings`."""
        revision, packed = await self._fleet(_MAPPINGS)
        return int(revision), sorted(map(codec.record, packed), key=lambda record: record.name)

    async def mapping(self, mapping: MappingId) -> MappingRecord | None:
        """See `MappingStore.mapping`."""
        packed = await self._fleet(_MAPPING, [mapping])
        return None if packed is None else codec.record(packed)

    async def set_mapping_state(
        self, mapping: MappingId, state: MappingState, reason: str, *, tracker: Lease, revision: int | None = None
    ) -> bool:
        """See `MappingStore.set_mapping_state`."""
        return await self._as_tracker(_SET_STATE, mapping, tracker, state, reason, "" if revision is None else revision)

    async def set_wanted(
        self,
        mapping: MappingId,
        shards: Sequence[WantedShard],
        *,
        tracker: Lease,
        origins: Mapping[ShardId, ShardOrigin] | None = None,
    ) -> bool:
        """See `MappingStore.set_wanted`."""
        wanted = wanted_sources(mapping, shards)
        packed = (codec.pack_wanted(wanted), codec.pack_origins(origins or {}))
        return await self._as_tracker(_SET_WANTED, mapping, tracker, *packed, *map(str, wanted))

    async def report_drained(self, lease: Lease) -> bool:
        """See `MappingStore.report_drained`."""
        mapping, shard = lease.key
        args = [mapping, lease.token, shard]
        return bool(await self._fleet(_REPORT_DRAINED, args, [self._keys.progress(mapping)]))

    async def try_parked(self, mapping: MappingId) -> int | None:
        """See `MappingStore.try_parked`."""
        return int(await self._fleet(_TRY_PARKED, [mapping])) or None

    async def wish_seek(self, mapping: MappingId, wish: str) -> int | None:
        """See `MappingStore.wish_seek`."""
        return int(await self._fleet(_WISH_SEEK, [mapping, wish])) or None

    async def move(
        self, mapping: MappingId, updates: Sequence[ProgressUpdate], *, tracker: Lease, wish: int
    ) -> SaveResult:
        """See `MappingStore.move`."""
        check_tracker(tracker, mapping)
        keys = [self._keys.progress(mapping), *(self._keys.parked(update.key) for update in updates)]
        reply = await self._fleet(_MOVE, [mapping, tracker.token, wish, *codec.move_args(updates)], keys)
        return _RESULTS[reply[0]]

    async def retire(self, shards: Sequence[ShardId], *, tracker: ProgressUpdate) -> bool:
        """See `MappingStore.retire`."""
        lease = Lease(tracker.key, tracker.node, tracker.token)
        lots = [self._keys.parked(ShardKey(lease.key.mapping, shard)) for shard in shards]
        args = (codec.pack_progress(tracker), *shards)
        return await self._as_tracker(_RETIRE, lease.key.mapping, lease, *args, more_keys=lots)

    async def remove_mapping(self, mapping: MappingId, *, tracker: Lease) -> bool:
        """See `MappingStore.remove_mapping`."""
        # A shard that is new since then was leased after the mapping was to go, and so never read.
        names = await self._call("remove_mapping", "HKEYS", self._keys.progress(mapping))
        shards = {ShardId(name[2:].decode()) for name in names if name.startswith(b"d/")}
        lots = [self._keys.parked(ShardKey(mapping, shard)) for shard in sorted(shards)]
        return await self._as_tracker(_REMOVE_MAPPING, mapping, tracker, more_keys=lots)

    async def ping(self) -> None:
        """Return when Redis answers and takes a write."""
        await self._fleet(_PING)

    async def aclose(self) -> None:
        """Close connections. Safe to call twice."""
        self._closed = True
        with contextlib.suppress(RedisError, OSError):
            await self._clients.aclose()

    # Calls

    async def _beat(self, member: Member, ttl_s: float, how: str) -> TickReply:
        args = [
            self._keys.wake,
            member.node,
            _microseconds(ttl_s),
            codec.standing(member),
            member.address,
            uuid.uuid4().hex,
            how,
        ]
        return codec.tick_reply(await self._run(_BEAT, self._keys.fleet, args, queue=False))

    async def _as_tracker(
        self, script: Script, mapping: MappingId, tracker: Lease, *args: Any, more_keys: Sequence[bytes] = ()
    ) -> bool:
        check_tracker(tracker, mapping)
        keys = [self._keys.progress(mapping), *more_keys]
        return bool(await self._fleet(script, [mapping, tracker.token, *args], keys))

    async def _fleet(self, script: Script, args: Sequence[Any] = (), more_keys: Sequence[bytes] = ()) -> Any:
        return await self._run(script, [*self._keys.fleet, *more_keys], [self._keys.wake, *args])

    async def _run(self, script: Script, keys: Sequence[bytes], args: Sequence[Any], *, queue: bool = True) -> Any:
        try:
            return await self._call(script.name, "EVALSHA", script.sha, len(keys), *keys, *args, queue=queue)
        except NoScriptError:  # a server that was restarted or failed over; EVAL also makes it remember
            return await self._call(script.name, "EVAL", script.text, len(keys), *keys, *args, queue=queue)

    async def _call(self, what: str, *command: Any, queue: bool = True) -> Any:
        try:
            with cancellation_kept():  # redis-py may lose one
                async with asyncio.timeout(self._timeout_s):
                    async with self._slots if queue else contextlib.nullcontext():
                        return await self._clients.execute(*command)
        except NoScriptError:
            raise
        except (RedisError, OSError, TimeoutError) as exc:
            raise StoreUnavailableError(f"{self._clients.address}: {what}: {_reason(exc)}") from exc

    def _progress_keys(self, keys: Sequence[ShardKey], *, before: int = 0) -> tuple[list[bytes], list[int]]:
        """Return the progress keys of the shards' mappings, and for each shard the number of its own."""
        numbers: dict[MappingId, int] = {}
        places = [numbers.setdefault(key.mapping, len(numbers) + 1 + before) for key in keys]
        return [self._keys.progress(mapping) for mapping in numbers], places


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _microseconds(seconds: float) -> int:
    return round(seconds * codec.US)


def _reason(exc: BaseException) -> str:
    if isinstance(exc, (TimeoutError, RedisTimeoutError)):
        return "no answer in time"
    return f"{type(exc).__name__}: {exc}"
