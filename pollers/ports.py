"""What the pollers need from the outside, as small interfaces. `node.wiring` chooses who provides them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from collections.abc import Set as AbstractSet

    from model.ids import Position, ShardId, ShardOrigin
    from model.invocation import Invocation
    from model.outcome import Outcome
    from model.progress import ShardProgress
    from model.record import Places, Record, Records
    from model.shard import SourceShard
    from pollers.failure_document import Failure
    from pollers.seeking import Found, Place


class Chunk(msgspec.Struct, gc=False):
    """Consecutive records of one shard as the source gave them. Empty: it answers again, and has nothing new."""

    raws: list[Any]  # the source's own record type; only its envelope looks inside
    positions: Sequence[int]  # of each, rising
    size: int  # bytes held, for back-pressure
    runs: Sequence[tuple[int, int]] = ()  # (first, last) of records that a restart reads only together
    strays: AbstractSet[int] = frozenset()  # positions of records that nobody is to have, by the source's own rules


class Lag(msgspec.Struct, frozen=True, gc=False):
    """How far a reader is behind its shard's end, as of its last answer from the source."""

    records: int | None
    seconds: float | None = None
    retention_s: float | None = None  # how long the source keeps a record, where that is known
    first: int | None = None  # position of the oldest record that the source still has, where that is known
    remark: str | None = None  # what operators should know about how the shard is read
    next_s: int | None = None  # of a schedule: when it fires next, epoch seconds


class ShardReader(Protocol):
    """One shard of a source, being read from one position on."""

    @property
    def start(self) -> Position | None:
        """Where reading began, as a checkpoint; None when that is the shard's very beginning.

        Resolved before the first `read` returns, so that a LATEST or AT_TIMESTAMP start is noted durably before
        anything was delivered, and a crash cannot move it.
        """

    def after(self, last: int) -> Position:
        """Return the checkpoint that says: everything up to and including the record at `last` is finished."""

    async def read(self, max_records: int) -> Chunk | None:
        """Wait for the next records, at most `max_records`. None: the source closed the shard and it is read out.

        Cancelling loses no records: the next call returns them. Raises `SourceUnavailableError` (the caller backs
        off and calls again on the same reader), `SourceRefusedError`, or `SourceRestartedError` from then on.
        """

    def buffered(self) -> int:
        """Count the records read ahead and not yet returned by `read`; they are not polled yet."""

    def lag(self) -> Lag:
        """How far behind the end of the shard the last returned record is."""

    def checkpointed(self, position: Position) -> None:
        """Learn that everything before `position` is finished and durably noted; mirror it lazily (group commit)."""

    async def close(self) -> None:
        """Stop reading; push out the mirror of the last checkpoint if that can be done soon. Never raises."""


class Source(Protocol):
    """A mapping's source on this node: one connection, shared by the readers of all its leased shards."""

    async def shards(self) -> Sequence[SourceShard]:
        """Discover which shards exist now, closed ones included. Raises as `ShardReader.read`."""

    async def reader(self, shard: ShardId, start: Position | None, origin: ShardOrigin | None) -> ShardReader:
        """Open a shard after its checkpoint; when `start` is None at its origin, or as the mapping says without one."""

    async def find(self, shard: SourceShard, place: Place, before: ShardProgress) -> Found:
        """Find the place that an operator asks for in a shard whose progress is `before`. Raises as `shards`."""

    async def close(self) -> None:
        """Close the connection and every reader. Never raises."""


class Envelope(Protocol):
    """How one source's records look inside the event and to filters (spec sections 5.1 to 5.3). Pure."""

    def keys(self, raws: Sequence[Any]) -> Sequence[bytes | str | None]:
        """Return the key of each record: see `Record.key`."""

    def encode(self, shard: ShardId, raws: Sequence[Any], places: Places) -> Records:
        """Turn raw records of one shard into records with their JSON made. Never none."""

    def event(self, records: Records) -> bytes:
        """Assemble the complete event, a JSON object. Sources with tumbling windows make one of no records too."""

    def overhead(self) -> int:
        """Bytes of an event beyond the sum of (fragment + 1) over its records."""

    def parse_item_id(self, identifier: object) -> Hashable | None:
        """Return the `Record.item_id` that an itemIdentifier of a partial batch response names; None if malformed."""


class BatchInfo(Protocol):
    """What an on-failure document says about records, in the words of their source (spec section 4.4). Pure."""

    @property
    def member(self) -> str:
        """The name this stands under in the document: `KinesisBatchInfo`, `KafkaBatchInfo`."""

    def of_batch(self, shard: ShardId, records: Sequence[Record], event_bytes: int) -> dict[str, object]:
        """Describe records of one shard, never none, that make an event of `event_bytes`."""


class RecordInfo(BatchInfo, Protocol):
    """The same for a destination that takes each record by itself: a Kafka topic."""

    def of_record(self, record: Record, event_bytes: int) -> dict[str, object]:
        """Describe one record that makes an event of `event_bytes`."""


class Destination(Protocol):
    """A mapping's on-failure destination, shared by its pumps on this node."""

    async def deliver(self, failure: Failure) -> None:
        """Hand records that were given up over, durably: when this returns, they are the destination's.

        May be called again with the same failure, also after it was cancelled: then part of it, or all, may arrive
        twice. Raises `UnavailableError` and `RefusedError`; the caller sets the deadline and decides about retries.
        """

    async def close(self) -> None:
        """Close what belongs to this destination alone. Never raises."""


class Filter(Protocol):
    """The compiled FilterCriteria of one mapping, knowing its source's data key and drop/keep table (spec 5.5)."""

    def keep(self, raws: Sequence[Any]) -> list[bool]:
        """Return for each raw record whether it goes on to the function. Never raises on bad data."""


class Target(Protocol):
    """A function somewhere."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back. Raises nothing but CancelledError.

        Never answers `PartlyFailed`: whether a body means partial failure depends on the mapping. `Delivered` carries
        the body for `pollers.retrying` to read.
        """
