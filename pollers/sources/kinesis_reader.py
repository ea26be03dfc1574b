"""One shard of a stream being read: an iterator, a pace, and what was read and not yet handed out.

One request is under way at most. It holds what its answer may have of what the source may hold in memory, then what the
answer has; the next one is asked for when everything was handed out, which the pump does as its lanes get room.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from model.errors import SourceRefusedError, SourceUnavailableError
from model.ids import Position
from model.record import Derived
from pollers.ports import Chunk, Lag
from pollers.sources.kinesis_api import MAX_RECORDS, IteratorExpiredError, ThrottledError
from pollers.sources.kinesis_pace import Pace

if TYPE_CHECKING:
    from model.ids import ShardId, ShardOrigin
    from pollers.sources.kinesis_api import KinesisApi, KinesisRecord, Page

_OBJECT_BYTES = 400  # what one record takes in memory beside its data
_FIRST_LIMIT = 1_000


class Owner(Protocol):
    """The source, as its readers see it."""

    @property
    def retention_s(self) -> float | None:
        """How long the stream keeps a record, if known."""

    def room(self) -> int:
        """Bytes that one answer may have now."""

    def holds(self, delta: int) -> None:
        """Note that a reader holds more bytes, or less."""

    def closed(self, reader: KinesisReader) -> None:
        """Forget a reader."""


class KinesisReader:
    """A leased shard of the stream. `pollers.ports.ShardReader`."""

    def __init__(
        self, shard: ShardId, after: Position | None, origin: ShardOrigin, *, api: KinesisApi, owner: Owner
    ) -> None:
        self.shard = shard
        self._after = after  # sequence number of the last record received
        self._origin = origin
        self._api = api
        self._owner = owner
        self._pace = Pace()
        self._iterator: str | None = None
        self._ended = False
        self._closed = False
        self._records: list[KinesisRecord] = []  # of the last answer, until the last one was handed out
        self._next = 0  # of those, the first not handed out
        self._held = 0  # bytes of the answer, or of the one asked for
        self._record_bytes: float | None = None  # average of the last answer
        self._behind_ms: int | None = None
        self._ailing = False  # the last call failed, and the pump knows

    def __repr__(self) -> str:
        return f"<KinesisReader {self.shard} after={self._after} buffered={self.buffered()}>"

    @property
    def start(self) -> None:
        """Return None: where a shard begins was noted by the mapping's tracker before anyone could lease it."""

    def after(self, last: int) -> Position:
        """Return the sequence number of the last finished record."""
        return Position(str(last))

    async def read(self, max_records: int) -> Chunk | None:
        """Wait for the next records. None: the shard is closed and everything in it was handed out."""
        while not self.buffered():
            if self._ended:
                return None
            if self._closed:
                raise SourceRefusedError(f"{self.shard}: its reader is closed")
            await self._fetch()
            if self._ailing and not self._ended:
                self._ailing = False
                if not self.buffered():
                    return Chunk([], [], 0)
        return self._take(max_records)

    def buffered(self) -> int:
        """Count what was received and not handed out."""
        return len(self._records) - self._next

    def lag(self) -> Lag:
        """Tell what the last answer told; the number of records is known only at the end of the shard."""
        if self._behind_ms is None:
            return Lag(None, retention_s=self._owner.retention_s)
        buffered = self.buffered()
        seconds = self._behind_ms / 1000
        if buffered:
            seconds = max(seconds, self._api.now_s() - self._records[self._next].ApproximateArrivalTimestamp)
        return Lag(None if self._behind_ms else buffered, seconds, retention_s=self._owner.retention_s)

    def checkpointed(self, position: Position) -> None:
        """Do nothing: Kinesis keeps no checkpoints."""

    async def close(self) -> None:
        """Stop reading."""
        if not self._closed:
            self._closed = True
            self._records, self._next = [], 0
            self._holds(0)
            self._owner.closed(self)

    async def _fetch(self) -> None:
        """Make the next call when it is due. Cancelled: it changed nothing, and the same call is made again."""
        loop = asyncio.get_running_loop()
        if self._pace.due_at > loop.time():
            await asyncio.sleep(self._pace.due_at - loop.time())
        self._pace.asking(loop.time())
        room = self._owner.room()
        self._holds(room)
        try:
            if self._iterator is None:
                self._iterator = await self._api.iterator(self.shard, self._after, self._origin)
            page = await self._api.get_records(self._iterator, limit=self._limit(room))
        except IteratorExpiredError:
            self._iterator = None  # the next one begins after the last record received
            self._pace.failed(loop.time())
        except ThrottledError:
            if self._pace.throttled(loop.time()):
                self._ailing = True
                raise
        except (SourceUnavailableError, SourceRefusedError):
            self._pace.failed(loop.time())
            self._ailing = True
            raise
        else:
            self._received(page)
            self._pace.answered(loop.time(), records=len(page.Records), behind_ms=page.MillisBehindLatest)
        finally:
            if not self._records:
                self._holds(0)

    def _limit(self, room: int) -> int:
        """Return how many records fit into the room there is, going by those of the last answer."""
        if self._record_bytes is None:
            return _FIRST_LIMIT
        return max(1, min(MAX_RECORDS, int(room / self._record_bytes)))

    def _received(self, page: Page) -> None:
        self._iterator = page.NextShardIterator
        self._ended = not page.NextShardIterator
        self._behind_ms = page.MillisBehindLatest
        records = page.Records
        if not records:
            return
        size = page.size + len(records) * _OBJECT_BYTES
        self._after = Position(records[-1].SequenceNumber)
        self._record_bytes = size / len(records)
        self._records, self._next = records, 0
        self._holds(size)

    def _take(self, max_records: int) -> Chunk:
        # All are freed at once, in the order they were made in. Freed batch by batch, in turn with other shards', they
        # leave holes everywhere, and what is made anew lies scattered: a twelfth of the CPU time (docs/performance.md).
        records, first = self._records, self._next
        raws = records[first : first + max_records]
        self._next = first + len(raws)
        size = self._held * len(raws) // len(records)
        if self._next == len(records):
            self._records, self._next = [], 0
            self._holds(0)
        return Chunk(raws, Derived(int, [raw.SequenceNumber for raw in raws]), size)

    def _holds(self, size: int) -> None:
        self._owner.holds(size - self._held)
        self._held = size
