"""What a redrive needs from the place that failed records are in, and from their source. Interfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.record import Record
    from pollers.redriving.documents import Span


class Found(NamedTuple):
    """One failure document as it was read. Only its archive looks into `handle`."""

    name: str  # for people
    body: bytes
    handle: Any


class Archive(Protocol):
    """An on-failure destination that can be read. Everything raises `UnavailableError` and `RefusedError`."""

    async def count(self) -> int | None:
        """Return about how many documents there are; None: not known."""

    async def read(self) -> list[Found] | None:
        """Return the next documents; none of them: none came just now. None: there are no more.

        Cancelling it loses nothing: what it had read is there for the next redrive.
        """

    async def remove(self, found: Sequence[Found]) -> None:
        """Take documents out for good: their records were delivered. Safe to repeat."""

    def keep(self, found: Sequence[Found], *, foreign: bool = False) -> None:
        """Note that documents stay where they are; `foreign`: they are not this mapping's, and never were."""

    async def watch(self) -> None:
        """Do what is needed to have what was read for ourselves, until cancelled."""

    async def close(self) -> None:
        """Give back what was read and stays. Never raises."""


class Reread(NamedTuple):
    """What the source still has of the records that a document names."""

    records: Sequence[Record]  # filtered as the mapping does
    whole: bool  # the first and the last of them are there, and as many as the document says


class Rereading(Protocol):
    """Reads records of a source by their positions. Raises `UnavailableError` and `RefusedError`."""

    async def read(self, span: Span) -> Reread:
        """Return the records from the first to the last of a span, both included."""

    async def close(self) -> None:
        """Close connections of its own. Never raises."""
