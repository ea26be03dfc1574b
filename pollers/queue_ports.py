"""What queue pollers need from a queue, as small interfaces. `node.wiring` chooses who provides them."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from model.record import Record


class QueueFacts(NamedTuple):
    """What a queue says about itself."""

    visibility_s: int  # its visibility timeout
    visible: int  # messages that could be received now, approximately
    in_flight: int  # messages received and not deleted, by anybody, approximately
    delayed: int = 0


class Received(NamedTuple):
    """One message as received: the source's own form, which only its envelope looks inside, and what pollers need."""

    raw: Any
    receipt: str  # handle of this receive, by which the message is deleted or its visibility changed
    group: str | None  # MessageGroupId
    receives: int  # ApproximateReceiveCount: 1 for the first time


class Entry(Enum):
    """What became of one entry of a batch call."""

    DONE = auto()
    GONE = auto()  # the receipt handle does not count any more: the message was received again, or is deleted
    AGAIN = auto()  # not now: try again


class QueueEnvelope(Protocol):
    """How a queue's messages look inside the event (spec section 5.2), message by message. Pure."""

    def encode(self, raws: Sequence[Any], positions: Sequence[int]) -> list[Record]:
        """Turn raw messages into records with their JSON made."""

    def event(self, records: Sequence[Record]) -> bytes:
        """Assemble the complete event."""

    def overhead(self) -> int:
        """Bytes of an event beyond the sum of (fragment + 1) over its records."""

    def parse_item_id(self, identifier: object) -> Hashable | None:
        """Return the `Record.item_id` that an itemIdentifier of a partial batch response names; None if malformed."""


class Queue(Protocol):
    """A mapping's queue on this node. Everything raises `SourceUnavailableError` and `SourceRefusedError`."""

    async def facts(self) -> QueueFacts:
        """Ask for the visibility timeout and the backlog."""

    async def moves_after(self) -> int | None:
        """Ask after how many receives the queue moves a message to its dead-letter queue; None: never."""

    async def receive(self, most: int, *, wait_s: int, visibility_s: int | None = None) -> list[Received]:
        """Receive up to `most` messages (10 at most), waiting up to `wait_s` (20 at most) for the first.

        Cancelling it may lose sight of messages until their visibility timeout ends.
        """

    async def delete(self, receipts: Sequence[str]) -> list[Entry]:
        """Delete up to ten messages; results in the order given."""

    async def change_visibility(self, receipts: Sequence[str], visibility_s: int) -> list[Entry]:
        """Hide up to ten messages for so long from now on, 0: show them; results in the order given."""

    async def shards(self) -> Sequence[object]:
        """Return when the queue answers. It has no shards of its own: `statemgr.scaling` decides how many pollers."""

    async def close(self) -> None:
        """Let go of it. Never raises."""


class Message(msgspec.Struct):
    """One message held by this node, from its receive until it is deleted, or left to the queue again."""

    record: Record
    receipt: str
    group: str | None
    receives: int
    until_at: float  # event-loop time up to which it is surely invisible to others
    last_at: float  # event-loop time beyond which the queue does not let its visibility be extended

    @property
    def size(self) -> int:
        """Bytes in an event."""
        return len(self.record.fragment) + 1
