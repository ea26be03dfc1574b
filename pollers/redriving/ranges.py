"""A range of a source's records as an archive, so that a redrive's job delivers it: `esmd replay`.

Each record is a document of its own: what a function refuses is found by halves, told, and passed; nothing is removed
from anywhere. Every record that was read is filtered out, delivered, failed, or left because the replay was stopped.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from model.ids import Position
from model.record import MAX_EVENT_BYTES
from pollers.redriving.archive import Found, Reread
from pollers.redriving.documents import FailedRecords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.record import Record
    from pollers.redriving.documents import Span

NOTHING = Position("")
"""In place of a checkpoint: nothing of the shard was finished yet."""

_PAGE = 1000


class Limits(NamedTuple):
    """How far a shard is replayed. `until`: its checkpoint, beyond which records come by themselves; None: no limit."""

    shard: ShardId
    until: Position | None


class Piece(NamedTuple):
    """Consecutive records of one shard; `filtered` more were among them."""

    shard: ShardId
    records: Sequence[Record]
    filtered: int = 0


class RangeReader(Protocol):
    """Reads the range shard by shard, parents first. Everything raises `UnavailableError` and `RefusedError`."""

    async def total(self) -> tuple[int, str]:
        """Return how much there is to go through, and the unit of that and of `done`."""

    def done(self) -> int:
        """Tell how much was gone through."""

    async def read(self, most: int) -> Piece | None:
        """Return the next records, perhaps none. None: there are no more. Cancelled, or failed: it loses none."""

    async def close(self) -> None:
        """Disconnect. Never raises."""


class RangeArchive:
    """`Archive` of a range. Batches are made of what one `read` returns."""

    def __init__(self, reader: RangeReader, *, batch_size: int) -> None:
        self._reader = reader
        self._batch_size = batch_size
        self._ready: list[Found] = []
        self._size = 0
        self._ended = False
        self.records = 0  # read
        self.filtered = 0  # of these

    async def count(self) -> int | None:
        """Return None: how far it is, its reader tells."""
        return None

    async def read(self) -> list[Found] | None:
        """Return the next records, whole batches of them while there are more.

        Asks its reader once: whoever waits for a batch to fill may want to stop.
        """
        piece = None if self._ended else await self._reader.read(max(_PAGE, self._batch_size))
        if piece is None:
            self._ended = True
        else:
            self.records += len(piece.records) + piece.filtered
            self.filtered += piece.filtered
            self._ready += [Found(f"{piece.shard}@{one.shown}", b"", (piece.shard, one)) for one in piece.records]
            self._size += sum(len(one.fragment) for one in piece.records)
        if self._ended and not self._ready:
            return None
        if not self._ended and len(self._ready) < self._batch_size and self._size < MAX_EVENT_BYTES:
            return []
        whole = len(self._ready) - len(self._ready) % self._batch_size
        until = whole if whole and not self._ended else len(self._ready)
        found, self._ready = self._ready[:until], self._ready[until:]
        self._size = sum(len(one.handle[1].fragment) for one in self._ready)
        return found

    async def remove(self, found: Sequence[Found]) -> None:
        """Do nothing: the source keeps its records."""

    def keep(self, found: Sequence[Found], *, foreign: bool = False) -> None:
        """Do nothing: same."""

    async def watch(self) -> None:
        """Wait until cancelled: there is nothing to hold on to."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()


class NothingToReread:
    """`Rereading` for documents that hold their records."""

    async def read(self, span: Span) -> Reread:
        """Never called."""
        raise RuntimeError(f"{span} is to be read, though its records are there")

    async def close(self) -> None:
        """Do nothing."""


def of_record(found: Found) -> FailedRecords:
    """Return what a document of a `RangeArchive` is about: its one record."""
    return FailedRecords("", "", 0, 1, (), (found.handle,))
