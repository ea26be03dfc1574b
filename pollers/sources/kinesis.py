"""A Kinesis stream as a source: lists its shards with their lineage and opens readers on them.

The shards' order across splits and merges is `statemgr.lineage`'s; each shard's reading is `kinesis_reader`'s, or
`kinesis_consumer`'s for a mapping on a stream consumer. Here is what the readers of one mapping on one node share: the
stream's calls, a bound for what they hold in memory, what the shards' key ranges are, and the stream's retention.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from model.errors import SourceRefusedError, SourceUnavailableError
from model.ids import Position, ShardId
from model.mapping import KinesisSource as KinesisStream
from model.mapping import StartingPosition
from model.shard import BEGINNING, END, SourceShard, at_time
from pollers.sources.kinesis_api import KinesisApi
from pollers.sources.kinesis_consumer import ConsumerReader
from pollers.sources.kinesis_places import find_place
from pollers.sources.kinesis_reader import KinesisReader
from pollers.sources.kinesis_subscription import Subscriber
from pollers.sources.kinesis_user_records import PLACE_BITS
from pollers.sources.kpl import EVERYTHING, HashKeyRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardOrigin
    from model.mapping import EventSourceMapping
    from model.progress import ShardProgress
    from pollers.seeking import Found, Place
    from pollers.sources.kinesis_api import Shard
    from pollers.sources.kinesis_subscription import Caller

log = structlog.get_logger(__name__)

PREFETCH_MAX_BYTES = 64 * 1024 * 1024
_ANSWER_MAX_BYTES = 10 * 1024 * 1024  # AWS gives no more, and nothing for five seconds after that
_ANSWER_MIN_BYTES = 256 * 1024  # so that nobody starves
_ASKING = 4  # readers that are thought to ask at the same time
_RETENTION_FRESH_S = 600.0
_RETENTION_AGAIN_S = 60.0


class KinesisSource:
    """The source of one mapping on this node. `pollers.ports.Source`."""

    def __init__(
        self, mapping: EventSourceMapping, caller: Caller, *, prefetch_max_bytes: int = PREFETCH_MAX_BYTES
    ) -> None:
        if not isinstance(mapping.source, KinesisStream):
            raise TypeError(f"{mapping.name} is no Kinesis mapping")
        self._mapping = mapping
        self._api = KinesisApi(mapping.source.arn, caller)
        consumer = mapping.source.consumer_arn
        self._subscriber = None if consumer is None else Subscriber(consumer, caller)
        self._polled_because: str | None = None
        self._key_ranges: dict[ShardId, HashKeyRange] = {}
        self._prefetch_max_bytes = prefetch_max_bytes
        self._held = 0
        self._freed = asyncio.Event()  # readers hold less
        self._readers: dict[ShardId, ConsumerReader | KinesisReader] = {}
        self._closed = False
        self._retention_s: float | None = None
        self._retention_due_at = 0.0
        self._log = log.bind(mapping=mapping.name, stream=mapping.source.arn)

    # --- what the pollers call ---------------------------------------------------------------------------------------

    async def shards(self) -> Sequence[SourceShard]:
        """List the shards whose records are still kept, open and closed."""
        listed = await self._api.list_shards(self._filter())
        # After the listing: a shard that closes in between is read from here on, and its children from their beginning.
        now = datetime.fromtimestamp(self._api.now_s(), UTC)
        return [
            SourceShard(
                ShardId(shard.ShardId),
                tuple(ShardId(parent) for parent in (shard.ParentShardId, shard.AdjacentParentShardId) if parent),
                self._origin(shard, now),
                Position(shard.SequenceNumberRange.StartingSequenceNumber),
                is_open=shard.SequenceNumberRange.EndingSequenceNumber is None,
            )
            for shard in listed
        ]

    async def reader(
        self, shard: ShardId, start: Position | None, origin: ShardOrigin | None
    ) -> ConsumerReader | KinesisReader:
        """Open a shard after its checkpoint, or at its origin."""
        await self._look_up_retention()  # first: a reader that is cancelled here would never be closed
        if self._closed or shard in self._readers:
            raise SourceRefusedError(f"{shard}: {'the source is closed' if self._closed else 'is being read already'}")
        # Leased shards have an origin. One without it lost it with the store: what it has is read rather than lost.
        reader = self._reader(shard, start, origin or BEGINNING)
        self._readers[shard] = reader
        self._key_ranges.pop(shard, None)  # it may be of a stream that was deleted and made anew
        return reader

    async def find(self, shard: SourceShard, place: Place, before: ShardProgress) -> Found:
        """Find a place in a shard."""
        return await find_place(
            self._api,
            shard.id,
            place,
            origin=before.origin or shard.origin or BEGINNING,
            before=before,
            is_open=shard.is_open,
            place_bits=0 if self._subscriber is None else PLACE_BITS,
        )

    def _reader(self, shard: ShardId, start: Position | None, origin: ShardOrigin) -> ConsumerReader | KinesisReader:
        if self._subscriber is None:
            return KinesisReader(shard, start, origin, api=self._api, owner=self)
        return ConsumerReader(shard, start, origin, subscriber=self._subscriber, api=self._api, owner=self)

    async def close(self) -> None:
        """Close every reader. Safe twice."""
        self._closed = True
        for reader in list(self._readers.values()):
            await reader.close()

    # --- what the readers call ---------------------------------------------------------------------------------------

    @property
    def retention_s(self) -> float | None:
        """How long the stream keeps a record, if known."""
        return self._retention_s

    def room(self) -> int:
        """Bytes that one answer may have now: a reader's share, or more of what others leave for those who ask next."""
        left = self._prefetch_max_bytes - self._held
        share = min(left, self._prefetch_max_bytes // max(1, len(self._readers)))
        return max(_ANSWER_MIN_BYTES, min(_ANSWER_MAX_BYTES, max(share, left // _ASKING)))

    def holds(self, delta: int) -> None:
        """Note that a reader holds more bytes, or less."""
        self._held += delta
        if delta < 0:
            self._freed.set()

    async def room_to_read(self) -> None:
        """Wait while the readers hold as much as they may together. Who waits must hold nothing."""
        while self._held >= self._prefetch_max_bytes:
            self._freed.clear()
            await self._freed.wait()

    def closed(self, reader: ConsumerReader | KinesisReader) -> None:
        """Forget a reader."""
        self._readers.pop(reader.shard, None)

    @property
    def polled_because(self) -> str | None:
        """Why the stream is polled although its mapping is on a stream consumer; None: it is not."""
        return self._polled_because

    def poll(self, because: str) -> None:
        """Poll the stream from now on: the endpoint has no enhanced fan-out."""
        if self._polled_because is None:
            self._polled_because = because
            self._log.warning("kinesis.polled", why=because)

    async def key_range(self, shard: ShardId) -> HashKeyRange:
        """Return the part of the key space that a shard takes; all of it if that cannot be known any more."""
        if shard not in self._key_ranges:
            for listed in await self._api.list_shards({"Type": "FROM_TRIM_HORIZON"}):
                if (keys := listed.HashKeyRange) is not None:
                    self._key_ranges[ShardId(listed.ShardId)] = HashKeyRange(
                        int(keys.StartingHashKey), int(keys.EndingHashKey)
                    )
        return self._key_ranges.get(shard, EVERYTHING)

    # --- the mapping's start -----------------------------------------------------------------------------------------

    def _filter(self) -> dict[str, Any]:
        """Return which shards to list: those that hold something the mapping could want."""
        if self._mapping.starting_position is StartingPosition.AT_TIMESTAMP and self._mapping.starting_time is not None:
            return {"Type": "FROM_TIMESTAMP", "Timestamp": self._mapping.starting_time.timestamp()}
        return {"Type": "FROM_TRIM_HORIZON"}

    def _origin(self, shard: Shard, now: datetime) -> ShardOrigin:
        """Return where the mapping begins the shard if it is new."""
        match self._mapping.starting_position:
            case StartingPosition.LATEST:
                return at_time(now) if shard.SequenceNumberRange.EndingSequenceNumber is None else END
            case StartingPosition.AT_TIMESTAMP if self._mapping.starting_time is not None:
                return at_time(self._mapping.starting_time)
            case _:
                return BEGINNING

    async def _look_up_retention(self) -> None:
        """Learn the retention now and then; it is for warnings only, so no answer is no trouble."""
        now = asyncio.get_running_loop().time()
        if now < self._retention_due_at:
            return
        self._retention_due_at = now + _RETENTION_AGAIN_S
        try:
            self._retention_s = await self._api.retention_s()
        except (SourceUnavailableError, SourceRefusedError) as exc:
            self._log.info("kinesis.retention_unknown", reason=str(exc))
        else:
            self._retention_due_at = now + _RETENTION_FRESH_S
