"""One shard of a stream as a stream consumer's mapping has it: by enhanced fan-out, aggregates taken apart.

Where the endpoint cannot subscribe the shard is polled, and what is delivered stays the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from model.ids import Position
from pollers.sources.kinesis_fan_out import FanOutReader
from pollers.sources.kinesis_fan_out import Owner as FanOutOwner
from pollers.sources.kinesis_reader import KinesisReader
from pollers.sources.kinesis_reader import Owner as PollingOwner
from pollers.sources.kinesis_subscription import FanOutUnsupportedError
from pollers.sources.kinesis_user_records import UserRecords, checkpoint
from pollers.sources.kpl import EVERYTHING

if TYPE_CHECKING:
    from model.ids import ShardId, ShardOrigin
    from pollers.ports import Chunk, Lag
    from pollers.sources.kinesis_api import KinesisApi
    from pollers.sources.kinesis_subscription import Subscriber
    from pollers.sources.kpl import HashKeyRange


class Owner(FanOutOwner, PollingOwner, Protocol):
    """The source, as its readers see it."""

    @property
    def polled_because(self) -> str | None:
        """Why the stream is polled although its mapping is on a stream consumer; None: it is not."""

    def poll(self, because: str) -> None:
        """Note that the endpoint has no enhanced fan-out."""

    def closed(self, reader: ConsumerReader | KinesisReader) -> None:
        """Forget a reader."""

    async def key_range(self, shard: ShardId) -> HashKeyRange:
        """Return the part of the key space that a shard takes. Raises as the calls of `KinesisApi`."""


class ConsumerReader:
    """A leased shard of the stream. `pollers.ports.ShardReader`."""

    def __init__(
        self,
        shard: ShardId,
        after: Position | None,
        origin: ShardOrigin,
        *,
        subscriber: Subscriber,
        api: KinesisApi,
        owner: Owner,
    ) -> None:
        self.shard = shard
        self._after = after  # sequence number of the last record that came out of `_inner`
        self._origin = origin
        self._api = api
        self._owner = owner
        self._inner: FanOutReader | KinesisReader
        if owner.polled_because is None:
            self._inner = FanOutReader(shard, after, origin, subscriber=subscriber, api=api, owner=owner)
        else:
            self._inner = self._polling()
        self._records = UserRecords()
        self._held = 0
        self._range: HashKeyRange | None = None

    def __repr__(self) -> str:
        return f"<ConsumerReader {self._inner!r}>"

    @property
    def start(self) -> None:
        """Return None: where a shard begins was noted by the mapping's tracker before anyone could lease it."""

    def after(self, last: int) -> Position:
        """Return the sequence number of the last finished record. An aggregate is finished with its last record."""
        return checkpoint(last)

    async def read(self, max_records: int) -> Chunk | None:
        """Wait for the next records. None: the shard is closed and everything in it was handed out."""
        while not len(self._records):
            try:
                chunk = await self._fetch(max_records)
            except FanOutUnsupportedError as exc:
                await self._inner.close()
                self._owner.poll(str(exc))
                self._inner = self._polling()
                continue
            if chunk is None or not chunk.raws:
                return chunk
            self._after = Position(str(chunk.positions[-1]))
            self._records.add(chunk)
            self._account()
        if self._range is None and self._records.has_aggregates:
            self._range = await self._owner.key_range(self.shard)
        return self._take(max_records)

    def buffered(self) -> int:
        """Count what was received and not handed out; an aggregate counts as one record."""
        polled = self._inner.buffered() if isinstance(self._inner, KinesisReader) else 0
        return polled + len(self._records)

    def lag(self) -> Lag:
        """Tell what the last event told, and how it came about if by polling."""
        lag = self._inner.lag()
        remark = self._owner.polled_because and f"polled: {self._owner.polled_because}"
        records, seconds = lag.records, lag.seconds
        if waiting := len(self._records):
            records = None if records is None else records + waiting
            seconds = max(seconds or 0.0, self._api.now_s() - self._records.oldest_s)
        return msgspec.structs.replace(lag, records=records, seconds=seconds, remark=remark)

    def checkpointed(self, position: Position) -> None:
        """Do nothing: Kinesis keeps no checkpoints."""

    async def close(self) -> None:
        """Stop reading."""
        await self._inner.close()
        self._records = UserRecords()
        self._account()
        self._owner.closed(self)

    async def _fetch(self, max_records: int) -> Chunk | None:
        """Wait for more: the records of an event, or as many as asked for of what was polled."""
        if isinstance(self._inner, FanOutReader):
            return await self._inner.read()
        return await self._inner.read(max_records)

    def _polling(self) -> KinesisReader:
        return KinesisReader(self.shard, self._after, self._origin, api=self._api, owner=self._owner)

    def _take(self, max_records: int) -> Chunk:
        taken = self._records.take(max_records, self._range or EVERYTHING)
        self._account()
        return taken

    def _account(self) -> None:
        self._owner.holds(self._records.size - self._held)
        self._held = self._records.size
