"""How many batches of a queue may be with its function at once, in the whole fleet, and who may have how many. Pure.

A queue is read by numbered poller shards. There are few of them, whatever the concurrency: each carries a share of it.
Shares follow from the concurrency alone, and only grow with it, so pollers that have heard of different concurrencies
never exceed the mapping's maximum together: none can have more than its share of the maximum.

Concurrency moves as AWS's does (spec section 3.2): 5 at first, 300 a minute more while there is a backlog and what is
there is used, up to 1,250; back to 5 when little is used, to 2 when nothing is. ScalingConfig.MaximumConcurrency caps
it and keeps the 5. ProvisionedPollerConfig bounds it on both sides, ten for each poller, and grows by 1,000 a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from model.ids import ShardId, ShardKey
from model.lease import ShardKind, WantedShard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.ids import MappingId
    from model.mapping import EventSourceMapping

MAX_SHARDS = 16
"""Poller shards of one queue, and so the nodes that can work on it at once."""

MAXIMUM = 1250
START = 5
IDLE = 2
INVOKES_OF_A_POLLER = 10

_PER_MINUTE = 300
_PROVISIONED_PER_MINUTE = 1000
_USED = 0.8  # of what is allowed: then it limits
_LONGEST_STEP_S = 30.0  # a tracker that was away does not make up for it at once
_QUIET_S = 60.0  # little used for so long: halve
_IDLE_S = 300.0  # nothing used for so long


@dataclass(frozen=True, slots=True)
class ScalingLimits:
    """What one mapping's concurrency moves between."""

    idle: int
    start: int
    maximum: int
    per_minute: int

    @classmethod
    def of(cls, mapping: EventSourceMapping) -> ScalingLimits:
        """Read them off a mapping."""
        if mapping.provisioned_pollers is not None:
            least = mapping.provisioned_pollers.minimum * INVOKES_OF_A_POLLER
            most = mapping.provisioned_pollers.maximum * INVOKES_OF_A_POLLER
            return cls(least, least, most, _PROVISIONED_PER_MINUTE)
        if mapping.maximum_concurrency is not None:
            start = min(START, mapping.maximum_concurrency)
            return cls(start, start, mapping.maximum_concurrency, _PER_MINUTE)
        return cls(IDLE, START, MAXIMUM, _PER_MINUTE)

    @property
    def shards(self) -> int:
        """How many poller shards there are at most."""
        return min(self.maximum, MAX_SHARDS)


class QueueUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one poller tells of itself, as part of its stored state."""

    busy: int = 0  # most batches with the function, or waiting for it, at once since the last report
    limit: int = 0  # how many the function has room for: less than its share after throttles and errors

    def encode(self) -> bytes:
        """Return the stored form."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> QueueUse:
        """Read the stored form; what cannot be read counts as no use."""
        try:
            return msgspec.json.decode(stored, type=cls)
        except msgspec.DecodeError:
            return cls()


class Allotment(msgspec.Struct, frozen=True):
    """What the state manager tells the pollers of a queue, as part of the tracker's stored state."""

    concurrency: int
    backlog: int | None = None

    def encode(self) -> bytes:
        """Return the stored form."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> Allotment | None:
        """Read the stored form; None if it is none."""
        try:
            return msgspec.json.decode(stored, type=cls)
        except msgspec.DecodeError:
            return None


@dataclass(frozen=True, slots=True)
class Scale:
    """Where scaling stands. `at`, `quiet_since`, `idle_since` are the caller's monotonic time."""

    concurrency: float
    at: float
    quiet_since: float
    idle_since: float


def begin(limits: ScalingLimits, now: float, before: Allotment | None = None) -> Scale:
    """Start where the tracker's predecessor was, or at the beginning."""
    concurrency = limits.start if before is None else min(max(before.concurrency, limits.idle), limits.maximum)
    return Scale(concurrency, now, now, now)


def rescale(scale: Scale, limits: ScalingLimits, *, backlog: int, uses: Iterable[QueueUse], now: float) -> Scale:
    """Return where scaling stands next. `backlog`: messages that could be received now."""
    uses = list(uses)
    busy = sum(use.busy for use in uses)
    reduced = sum(use.limit for use in uses) < int(scale.concurrency) and bool(uses) and busy > 0
    present = scale.concurrency
    step_s = min(max(0.0, now - scale.at), _LONGEST_STEP_S)
    idle_since = now if busy or backlog else scale.idle_since
    if backlog > 0 and present < limits.start:
        return Scale(float(limits.start), now, now, idle_since)
    if backlog > 0 and busy >= int(present * _USED) and not reduced:
        grown = min(float(limits.maximum), present + limits.per_minute * step_s / 60)
        return Scale(grown, now, now, idle_since)
    if busy * 2 >= present or present <= limits.idle:
        return Scale(present, now, now, idle_since)
    if backlog == 0 and present <= limits.start and now - idle_since >= _IDLE_S:
        return Scale(float(limits.idle), now, now, idle_since)
    if present > limits.start and now - scale.quiet_since >= _QUIET_S:
        return Scale(max(float(limits.start), present / 2), now, now, idle_since)
    return replace(scale, at=now, idle_since=idle_since)


def share(index: int, concurrency: int, limits: ScalingLimits) -> int:
    """How much of the concurrency the poller with this number carries."""
    concurrency = min(concurrency, limits.maximum)
    shards = limits.shards
    return concurrency // shards + (index < concurrency % shards)


def shard_name(index: int) -> ShardId:
    """Name a poller shard."""
    return ShardId(f"poller-{index}")


def shard_index(shard: ShardId) -> int:
    """Read the number back. Raises ValueError for another name."""
    return int(shard.removeprefix("poller-"))


def wanted(mapping: MappingId, concurrency: int, limits: ScalingLimits) -> list[WantedShard]:
    """Return the poller shards that carry any of the concurrency."""
    count = min(concurrency, limits.shards)
    return [WantedShard(ShardKey(mapping, shard_name(index)), ShardKind.SOURCE) for index in range(count)]
