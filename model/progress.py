"""How far a shard got, as the store keeps it, and the account of its records."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from model.ids import FencingToken, NodeId, Position, ShardKey, ShardOrigin
    from model.record import Record


class Ledger(msgspec.Struct, omit_defaults=False):
    """Account of one shard's records since its first checkpoint. Counts only grow, except `parked` and `in_flight`.

    Invariant 1 of the architecture: every polled record ends in exactly one of the other columns.
    """

    polled: int = 0
    delivered: int = 0
    filtered: int = 0
    destination: int = 0
    dropped: int = 0
    parked: int = 0  # now in the shard's parking lot; delivered, or given up, later
    in_flight: int = 0  # read and not finished; in a stored ledger: as of the save, read again by the next holder

    @property
    def imbalance(self) -> int:
        """Records unaccounted for: 0 when the ledger balances."""
        finished = self.delivered + self.filtered + self.destination + self.dropped + self.parked
        return self.polled - finished - self.in_flight

    @property
    def balanced(self) -> bool:
        """Whether every polled record is accounted for."""
        return self.imbalance == 0

    def resumed(self) -> Ledger:
        """Return the account as the next holder takes it up: what was in flight is read again, and counted then."""
        resumed = self.plus(Ledger(polled=-self.in_flight))
        resumed.in_flight = 0
        return resumed

    def plus(self, other: Ledger) -> Ledger:
        """Return the sum, column by column."""
        return Ledger(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))


class ShardState(StrEnum):
    """What a shard's holder is doing with it, for `status`."""

    STARTING = "starting"
    READING = "reading"
    RETRYING = "retrying"
    WAITING = "waiting"  # the source or the target cannot be reached, or throttles
    DRAINING = "draining"
    DRAINED = "drained"  # read to the end of a closed shard
    FAILED = "failed"  # someone must act; see last_error


class ParkedKey(msgspec.Struct, frozen=True, array_like=True):
    """One parked key, for operators. The key is shortened and printable."""

    key: str
    records: int
    size: int  # bytes
    since: float  # epoch seconds: when it was parked, or taken over by the present holder
    failures: int  # of its first record
    error: str | None


class CircuitState(StrEnum):
    """Whether a mapping's function is called."""

    CLOSED = "closed"  # as usual
    HALF_OPEN = "half_open"  # one probe is with it
    OPEN = "open"  # not before a probe is due


class CircuitReport(msgspec.Struct, frozen=True, array_like=True):
    """How one node gets on with a mapping's function. Never holds a secret."""

    state: CircuitState = CircuitState.CLOSED
    since_ms: int | None = None  # epoch: when it was opened, or closed, last; None: it was never open
    retry_ms: int | None = None  # epoch: the next probe; None when closed
    error: str | None = None
    limit: int | None = None  # how many batches the function is given at once, since it throttles; None: no limit


class WaitsFor(StrEnum):
    """What keeps a shard from going on."""

    FUNCTION = "function"
    SOURCE = "source"
    DESTINATION = "destination"  # the on-failure destination
    PARKING_LOT = "parking_lot"  # it is full


class Blocking(msgspec.Struct, frozen=True, array_like=True):
    """The record that holds up a shard, or a message group, for operators. Texts are short and printable."""

    record: str  # its position; in a queue the message id
    key: str | None  # what stays in order with it, and waits; None: nothing does
    records: int  # with which it goes to the function
    failures: int  # function errors; in a queue: how often the message was received
    invocations: int
    setbacks: int  # failures of any kind since the last progress
    since: float  # epoch seconds: when it was first seen to hold up
    retry_at: float | None  # epoch seconds; None: not known
    others: int = 0  # further records that hold up other lanes, or groups


class Succession(StrEnum):
    """How a shard came to a holder."""

    FIRST = "first"  # nobody is known to have held it before
    HANDED_OVER = "handed_over"  # the one before had drained it
    SAME_NODE = "same_node"  # the same node took it again, after its work on it had failed
    HOLDER_LOST = "holder_lost"  # the one before was killed, cut off or too slow


class Tenure(msgspec.Struct, frozen=True, array_like=True):
    """One holder of a shard."""

    token: int
    node: str
    since: float  # epoch seconds, by its own clock
    succession: Succession


MAX_TENURES = 5
"""How many holders a shard's report names, the present one last: they are written with every save."""


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What the holder tells operators about a shard. Never holds a secret."""

    state: ShardState = ShardState.STARTING
    lag_records: int | None = None
    lag_s: float | None = None  # iterator age: age of the oldest record not yet finished
    last_result: str = "No records processed"  # AWS's LastProcessingResult texts
    last_error: str | None = None
    loss_in_s: float | None = None  # forecast: until the source deletes what is not finished; None: not to be expected
    parked_keys: tuple[ParkedKey, ...] = ()  # those parked longest, at most `MAX_PARKED_SHOWN`
    remark: str | None = None  # what is worth knowing about how the shard is read, and no trouble
    circuit: CircuitReport | None = None  # of the mapping's function on the holder's node
    error_time: float | None = None  # epoch seconds: when `last_error` was last seen
    waits_for: WaitsFor | None = None
    blocking: Blocking | None = None
    tenures: tuple[Tenure, ...] = ()  # at most `MAX_TENURES`
    parked_tries: int = 0  # the last `MappingRecord.parked_tries` for which all that was parked has been tried
    load: float = 1.0  # what it costs its holder; 1: an idle shard
    next_s: int | None = None  # of a schedule: when it fires next, epoch seconds


MAX_PARKED_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ParkedRecords:
    """A shard's parking lot as the store has it: records in order, and the revision they belong to."""

    revision: int = 0  # 0: nothing was ever parked
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class ParkedChange:
    """What one save does to a shard's parking lot, in the same step as its checkpoint.

    `base` is the revision it builds on; None replaces whatever is stored. A store that has another revision, because
    it lost writes, refuses the whole save, so that the lot never has holes.
    """

    base: int | None
    revision: int
    put: tuple[Record, ...] = ()
    drop: tuple[int, ...] = ()  # positions


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """The fenced state of a shard, as read back from the store."""

    position: Position | None = None  # the checkpoint; None: nothing finished yet
    token: FencingToken | None = None  # of the last writer
    node: NodeId | None = None  # of the last writer
    ledger: Ledger = field(default_factory=Ledger)
    state: bytes = b""  # opaque to the store: retry counts, ranges finished ahead, windows
    report: ShardReport = field(default_factory=ShardReport)
    origin: ShardOrigin | None = None  # where to begin without a checkpoint; noted with the first wish for the shard


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """One fenced write. `position` None leaves the stored checkpoint as it is.

    `rewind` allows the position to lie before the stored one: the shard's log began anew. `origin` repeats what the
    lease came with, for a store that has forgotten it.
    """

    key: ShardKey
    token: FencingToken
    node: NodeId
    position: Position | None
    ledger: Ledger
    report: ShardReport
    state: bytes = b""
    rewind: bool = False
    origin: ShardOrigin | None = None
    parked: ParkedChange | None = None  # None: the lot stays as it is


class SaveResult(StrEnum):
    """What the store did with a `ProgressUpdate`."""

    SAVED = "saved"
    STALE = "stale"  # a newer token exists: the lease is lost, nothing was written
    BACKWARD = "backward"  # the position lies before the stored checkpoint, nothing was written
    INCOMPLETE = "incomplete"  # the stored parking lot is not the one the change builds on, nothing was written
