"""Which failed records go to the function next, what an outcome means for their documents, and how fast. Pure.

Documents are taken in the order they were read. Those that follow each other and are of one shard share a batch, up to
the mapping's batch size; a document with more records takes several, in order, and no more of it goes once one failed.
A document is done only when all its records were taken. When documents that share a batch fail, they are told apart by
halves: what keeps failing is one document, and it stays where it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from model.ids import ShardId
    from model.record import Record


class Place(NamedTuple):
    """One record and the shard it is of."""

    shard: ShardId
    record: Record


@dataclass(slots=True, eq=False)
class Document:
    """A document with its records. `found` is whatever its archive knows it by."""

    found: Any
    places: list[Place]
    done: int = 0  # of its records, the first so many were taken
    error: str | None = None  # why it failed
    complete: bool = True  # False: some of its records are not to be had any more

    @property
    def left(self) -> list[Place]:
        """Records that were not taken yet."""
        return self.places[self.done :]


class Attempt(NamedTuple):
    """One batch: records of one shard, no two at the same position."""

    shard: ShardId
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Settled:
    """Documents that an attempt settled."""

    done: list[Document] = field(default_factory=list)
    failed: list[Document] = field(default_factory=list)


@dataclass(slots=True)
class _Part:
    """The records that an attempt holds of one document: the next `count` of those left."""

    document: Document
    count: int


@dataclass(slots=True)
class _Group:
    """Documents that are tried together; what they hold is summed up as they come."""

    documents: list[Document] = field(default_factory=list)
    shards: set[ShardId] = field(default_factory=set)
    positions: set[int] = field(default_factory=set)
    size: int = 0

    def add(self, document: Document) -> None:
        self.documents.append(document)
        self.shards.update(place.shard for place in document.places)
        self.positions.update(place.record.position for place in document.places)
        self.size += _size(document)


def _size(document: Document) -> int:
    return sum(len(place.record.fragment) + 1 for place in document.places)


class Plan:
    """The documents that were read and are not settled. `overhead` and `max_bytes` are of events."""

    def __init__(self, *, batch_size: int, overhead: int, max_bytes: int) -> None:
        self._batch_size = batch_size
        self._overhead = overhead
        self._max_bytes = max_bytes
        self._todo: deque[list[Document]] = deque()  # groups that are tried together
        self._trying: list[_Part] = []
        self._group: list[Document] = []

    def __len__(self) -> int:
        """Count the documents that are not settled."""
        return sum(map(len, self._todo)) + len(self._group)

    def add(self, documents: Iterable[Document]) -> list[Document]:
        """Take documents behind the others; returns those without records, which are done as they are."""
        empty: list[Document] = []
        group = _Group()
        for document in documents:
            if not document.places:
                empty.append(document)
                continue
            if group.documents and not self._fits(group, document):
                self._todo.append(group.documents)
                group = _Group()
            group.add(document)
        if group.documents:
            self._todo.append(group.documents)
        return empty

    def _fits(self, group: _Group, document: Document) -> bool:
        positions = {place.record.position for place in document.places}
        return (
            len(group.shards | {place.shard for place in document.places}) == 1
            and len(positions) == len(document.places)
            and group.positions.isdisjoint(positions)
            and len(group.positions) + len(positions) <= self._batch_size
            and self._overhead + group.size + _size(document) <= self._max_bytes
        )

    def next(self) -> Attempt | None:
        """Return what to try next; `learn` must follow. None: nothing is left."""
        if not self._group:
            if not self._todo:
                return None
            self._group = self._todo.popleft()
        self._trying = []
        size, shard = self._overhead, self._group[0].left[0].shard
        records: list[Record] = []
        seen: set[int] = set()
        for document in self._group:
            part = _Part(document, 0)
            for place in document.left:
                grown = size + len(place.record.fragment) + 1
                full = len(records) == self._batch_size or (grown > self._max_bytes and records)
                if full or place.shard != shard or place.record.position in seen:
                    break
                size = grown
                part.count += 1
                seen.add(place.record.position)
                records.append(place.record)
            self._trying.append(part)
        return Attempt(shard, records)

    def learn(self, taken: Collection[int], error: str | None = None) -> Settled:
        """Learn which positions of the last attempt the function took, and why not the others."""
        settled = Settled()
        left: list[Document] = []
        for part in self._trying:
            document, until = part.document, part.document.done + part.count
            while document.done < until and document.places[document.done].record.position in taken:
                document.done += 1
            if not document.left:
                settled.done.append(document)
            elif document.done < until:
                document.error = error
                left.append(document)
        unfinished = [document for document in self._group if document.left and document not in left]
        self._trying, self._group = [], unfinished  # a document with more than a batch goes on
        if len(left) == 1:
            settled.failed.extend(left)
        elif left:
            half = len(left) // 2
            self._todo.extendleft((left[half:], left[:half]))  # the first half is next
        return settled


class Pacer:
    """Keeps to so many records a second. Times are of any one clock, in seconds; None: as fast as it goes."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due_at: float | None = None

    def most(self, batch_size: int) -> int:
        """Return how many records may go together, so that a slow rate does not come in bursts."""
        return batch_size if self._rate is None else max(1, min(batch_size, int(self._rate)))

    def wait_s(self, now: float) -> float:
        """Return how long to wait before anything goes."""
        return 0.0 if self._due_at is None else max(0.0, self._due_at - now)

    def sent(self, records: int, now: float) -> None:
        """Note that so many records go now; a delay is not made up for."""
        if self._rate is not None:
            self._due_at = max(now, self._due_at or now) + records / self._rate
