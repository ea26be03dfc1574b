"""One partition being read: the reader's side of an inbox. Filling it is left to `pollers.sources.kafka_dispatcher`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from model.errors import SourceRestartedError
from model.ids import Position
from pollers.ports import Chunk, Lag
from pollers.sources.kafka_errors import again

if TYPE_CHECKING:
    from model.errors import SourceRefusedError, SourceUnavailableError
    from pollers.sources.kafka_client import Seen, TopicPartition
    from pollers.sources.kafka_inbox import Inbox

    Trouble = SourceRefusedError | SourceUnavailableError


class Feed(Protocol):
    """What a reader needs from the source it belongs to."""

    def pull(self, reader: KafkaReader, max_records: int) -> Chunk | None:
        """Remove records from the reader's inbox; without any, see that some come."""

    def trouble(self) -> Trouble | None:
        """Return what stands between the whole source and its brokers."""

    def seen(self, partition: TopicPartition) -> Seen | None:
        """Return what the brokers last said about the partition."""

    def finished(self, reader: KafkaReader, offset: int) -> None:
        """Mirror a checkpoint to the consumer group."""

    def restarted(self, reader: KafkaReader) -> None:
        """Forget what was committed: the partition's offsets begin anew."""

    async def give_up(self, reader: KafkaReader) -> None:
        """Stop serving the reader."""


class KafkaReader:
    """A leased partition of the topic.

    `lost` counts the records that the brokers deleted before they were read.
    """

    def __init__(self, partition: TopicPartition, start: int, inbox: Inbox, feed: Feed) -> None:
        self.partition = partition
        self.inbox = inbox
        self.lost = 0
        self.stalled: Trouble | None = None  # this partition gets no answers
        self.first: int | None = None  # where the partition's log began when that was asked last
        self._start = start
        self._checkpoint = start
        self._next = start  # offset after the last record returned by `read`
        self._feed = feed
        self._wake: asyncio.Future[None] | None = None
        self._closed = False
        self._restarted: SourceRestartedError | None = None

    def __repr__(self) -> str:
        return f"<KafkaReader {self.partition} next={self._next} buffered={self.inbox.count}>"

    @property
    def start(self) -> Position:
        """The first offset to be read, also after the brokers made us begin elsewhere."""
        return Position(str(self._start))

    def after(self, last: int) -> Position:
        """Return the offset to commit once the record at `last` and all before it are finished."""
        return Position(str(last + 1))

    async def read(self, max_records: int) -> Chunk:
        """Wait for the next records. A partition has no end, so this never returns None."""
        loop = asyncio.get_running_loop()
        while True:
            if self._restarted is not None:
                raise self._restarted
            # Between removing the records and returning them there is no await: cancelling loses none.
            chunk = self._feed.pull(self, max_records)
            if chunk is not None:
                self._next = chunk.positions[-1] + 1
                return chunk
            trouble = self._feed.trouble() or self.stalled
            if trouble is not None:
                raise again(trouble) from trouble
            self._wake = loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def buffered(self) -> int:
        """Count the records in the inbox."""
        return self.inbox.count

    def lag(self) -> Lag:
        """Compare with the end of the partition as the last fetch saw it; read-ahead records count as unread."""
        seen = self._feed.seen(self.partition)
        if seen is None or seen.highwater is None:
            return Lag(None, first=self.first)
        # What is left of the log after our last record may be no records at all but transaction markers.
        past_markers = seen.position if seen.position is not None and not self.inbox.count else None
        records = max(0, seen.highwater - max(self._next, past_markers or 0))
        if records == 0:
            return Lag(0, 0.0, first=self.first)
        oldest_ms = self.inbox.oldest_ms()
        seconds = None if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1000)
        return Lag(records, seconds, first=self.first)

    def checkpointed(self, position: Position) -> None:
        """Mirror the checkpoint to the consumer group within a second or so."""
        if not self._closed:
            self._checkpoint = int(position)
            self._feed.finished(self, int(position))

    @property
    def unfinished(self) -> bool:
        """Whether records were returned that are not finished."""
        return self._next > self._checkpoint

    async def close(self) -> None:
        """Stop reading; the group gets the last checkpoint if the brokers answer soon."""
        if not self._closed:
            self._closed = True
            await self._feed.give_up(self)

    def mirrored(self, offset: int, seen: Seen | None) -> int:
        """Return what to commit for a checkpoint: past the markers that follow when nothing else is left to read."""
        if seen is None or seen.position is None or self.inbox.count or offset != self._next:
            return offset
        return max(offset, seen.position)

    def wake(self) -> None:
        """Let a waiting `read` look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def begin_again(self, offset: int) -> None:
        """Go on at the log's beginning, because the place we were at lies beyond its end.

        The checkpoint lies there too, so the pump has to take it back before anything of the new log is delivered.
        """
        self._start = self._next = self._checkpoint = offset
        self.first = None
        self._feed.restarted(self)
        self._restarted = SourceRestartedError(
            f"{self.partition.topic}-{self.partition.partition} began anew at offset {offset}",
            position=Position(str(offset)),
        )
        self.wake()
