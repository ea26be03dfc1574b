"""A shard as its source lists it: where it came from, and where reading it begins.

An *origin* is a StartingPosition made definite for one shard. The mapping's tracker notes it durably when it first sees
the shard, so neither a restart nor a hand-over can move it: LATEST becomes the time at which the mapping first looked,
and a shard that appears later, by a split or a merge, begins at its beginning whatever the mapping says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from model.ids import ShardOrigin

if TYPE_CHECKING:
    from model.ids import Position, ShardId

BEGINNING = ShardOrigin("TRIM_HORIZON")
"""The oldest record that the source still has."""

END = ShardOrigin("END")
"""Nothing of the shard is to be read: it was closed before a LATEST mapping began."""

PUT = ShardOrigin("PUT")
"""A Kafka partition that an operator has moved: its checkpoint counts alone, whatever its consumer group has."""

_AT = "AT_TIMESTAMP "
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - datetime.UTC is the same and newer
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class SourceShard:
    """A shard of a source.

    `origin` is where a mapping that begins now begins it; None: the source decides that itself when it opens the
    shard, and shards have no lineage. No position in the shard lies before `begins`: a checkpoint that does is of
    another stream of the same name.
    """

    id: ShardId
    parents: tuple[ShardId, ...] = ()
    origin: ShardOrigin | None = None
    begins: Position | None = None
    is_open: bool = True  # it may get further records


def at_time(time: datetime) -> ShardOrigin:
    """Return the origin of the first record that arrived at or after a time, to the millisecond."""
    return at_ms((time - _EPOCH) // _MS)


def at_ms(ms: int) -> ShardOrigin:
    """Return the same origin for epoch milliseconds."""
    return ShardOrigin(f"{_AT}{ms}")


def origin_ms(origin: ShardOrigin) -> int | None:
    """Return the epoch milliseconds of an origin in time, None for the others. Raises ValueError if it is no origin."""
    if origin in (BEGINNING, END, PUT):
        return None
    if not origin.startswith(_AT):
        raise ValueError(f"not an origin: {origin!r}")
    return int(origin.removeprefix(_AT))
