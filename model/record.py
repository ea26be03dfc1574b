"""Records on their way from a source to a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable


class Record(msgspec.Struct, gc=False):
    """One record, already in the form it has inside the event.

    The JSON is made once when the record leaves the filter; batches, retries and bisected halves reuse the bytes.
    """

    position: int  # place in the shard: Kafka offset, Kinesis sequence number (of a consumer: see its user records)
    arrival_ms: int  # when the source took it, epoch milliseconds
    fragment: bytes  # the record's JSON in the event
    key: bytes | str | None  # what must stay in order among lanes; None: no key
    item_id: Any  # what a partial batch response names: see the source's envelope

    @property
    def shown(self) -> str:
        """What people know it by: the sequence number where that is its id, else the position."""
        return self.item_id if isinstance(self.item_id, str) else str(self.position)


def order_key(record: Record) -> Hashable:
    """Return what a record stays in order with: its key; a record without one only with itself."""
    return record.position if record.key is None else record.key


class Batch(msgspec.Struct, gc=False):
    """Records that go to the function in one invocation, in order.

    Without records it is the final call of a tumbling window; every other batch has some.
    """

    records: list[Record]
    size: int  # bytes of the whole event

    @property
    def first(self) -> Record:
        """The first record."""
        return self.records[0]

    @property
    def last(self) -> Record:
        """The last record."""
        return self.records[-1]


NO_POSITION = -1
"""Stands for the position of a call without records, where failures are counted by position."""

MAX_EVENT_BYTES = 6 * 1024 * 1024 + 100
"""Largest synchronous invocation payload, 6,291,556 bytes (spec section 2)."""
