"""Records read ahead, bounded in bytes per partition and over all partitions of a consumer.

Pure: values in, values out. Who is in `Prefetch.wanted` may be given more records; everyone else's stay in the client,
which then asks the brokers for no more. A partition whose reader waits with nothing in hand is always wanted, so the
bound delays no one to starvation; with thousands of partitions the excess is one helping for each such reader.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pollers.ports import Chunk
from pollers.sources.kafka_client import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CHUNK_BYTES = 1024 * 1024  # no more is joined to one chunk than makes it this large
_OBJECT_BYTES = 240  # what one record takes in memory beside its key and value
_NOBODY = TopicPartition("", -1)  # keeps `wanted` non-empty: empty would mean everyone to the client
_value_of, _key_of = attrgetter("value"), attrgetter("key")


class Inbox:
    """The records of one partition that wait for their reader, oldest first."""

    def __init__(self, partition: TopicPartition, expected: int) -> None:
        self.partition = partition
        self.expected = expected  # the lowest offset that was not put in here yet
        self.size = 0  # bytes
        self.count = 0  # records
        self.waiting = False  # the reader waits and has nothing
        self._runs: deque[tuple[list[Any], int]] = deque()  # with the bytes of each

    def put(self, raws: list[Any]) -> int:
        """Add consecutive records, passing over any that were put in before; returns the bytes added."""
        if raws[0].offset < self.expected:
            raws = [raw for raw in raws if raw.offset >= self.expected]
            if not raws:
                return 0
        size = held_bytes(raws)
        self._runs.append((raws, size))
        self.expected = raws[-1].offset + 1
        self.size += size
        self.count += len(raws)
        self.waiting = False
        return size

    def take(self, max_records: int) -> Chunk | None:
        """Remove and return the oldest records, at most that many."""
        if not self._runs:
            return None
        raws, size = self._runs.popleft()
        while self._runs and size < _CHUNK_BYTES and len(raws) + len(self._runs[0][0]) <= max_records:
            more, more_size = self._runs.popleft()
            raws += more
            size += more_size
        if len(raws) > max_records:
            left = raws[max_records:]
            raws = raws[:max_records]
            taken = held_bytes(raws)
            self._runs.appendleft((left, size - taken))
            size = taken
        self.size -= size
        self.count -= len(raws)
        return Chunk(raws, [raw.offset for raw in raws], size)

    def oldest_ms(self) -> int | None:
        """Return the timestamp of the oldest record in here."""
        return self._runs[0][0][0].timestamp if self._runs else None

    def clear(self, expected: int) -> None:
        """Forget everything and go on at another offset."""
        self._runs.clear()
        self.size = self.count = 0
        self.expected = expected


class Prefetch:
    """Decides whose records may be taken from the client, so that all inboxes together stay within bounds."""

    def __init__(self, *, max_bytes: int, partition_max_bytes: int) -> None:
        self.wanted = {_NOBODY}
        self._inboxes: dict[TopicPartition, Inbox] = {}
        self._max_bytes = max_bytes
        self._partition_max_bytes = partition_max_bytes
        self._full = False
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes in all inboxes."""
        return self._held

    def add(self, inbox: Inbox) -> None:
        """Begin to serve a partition."""
        self._inboxes[inbox.partition] = inbox
        self._held += inbox.size
        self._review(inbox)

    def remove(self, inbox: Inbox) -> None:
        """Stop serving a partition."""
        del self._inboxes[inbox.partition]
        self.wanted.discard(inbox.partition)
        self._gave(inbox.size)

    def everyone_wanted(self) -> bool:
        """Whether no partition is left out."""
        return len(self.wanted) > len(self._inboxes)

    def put(self, inbox: Inbox, raws: list[Any]) -> int:
        """Add taken records to an inbox; returns the bytes added."""
        size = inbox.put(raws)
        self._held += size
        if self._held >= self._max_bytes and not self._full:
            self._full = True
            self._review_all()
        else:
            self._review(inbox)
        return size

    def take(self, inbox: Inbox, max_records: int) -> Chunk | None:
        """Remove records for the reader; without any, the reader is taken to wait."""
        chunk = inbox.take(max_records)
        inbox.waiting = chunk is None
        if chunk is not None:
            self._gave(chunk.size)
        self._review(inbox)
        return chunk

    def clear(self, inbox: Inbox, expected: int) -> None:
        """Forget what an inbox holds."""
        size = inbox.size
        inbox.clear(expected)
        self._gave(size)
        self._review(inbox)

    def _gave(self, size: int) -> None:
        self._held -= size
        if self._full and self._held < self._max_bytes // 2:
            self._full = False
            self._review_all()

    def _review(self, inbox: Inbox) -> None:
        if inbox.waiting or (not self._full and inbox.size < self._partition_max_bytes):
            self.wanted.add(inbox.partition)
        else:
            self.wanted.discard(inbox.partition)

    def _review_all(self) -> None:
        for inbox in self._inboxes.values():
            self._review(inbox)


def held_bytes(raws: Sequence[Any]) -> int:
    """Estimate the memory that records take, without looking at each in Python."""
    headers: Iterable[Any] = [raw.headers for raw in raws if raw.headers]
    sizes = map(len, filter(None, chain(map(_value_of, raws), map(_key_of, raws))))
    size: int = len(raws) * _OBJECT_BYTES + sum(sizes)
    for several in headers:
        size += sum(200 + len(name) + len(value or b"") for name, value in several)
    return size
