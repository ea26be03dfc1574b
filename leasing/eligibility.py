"""What a node must not take although the assignment gives it that shard. Pure: told the time, on the node's clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.ids import FencingToken, ShardKey
    from model.lease import FleetSnapshot, Lease

_COOL_DOWN_S = (1.0, 60.0)  # before taking a shard again that its host gave up: the first time, and at most
_REMEMBERED = 1_000  # leases that ended, before those of shards that are wanted no more are forgotten


class Eligibility:
    """Remembers why shards are not to be taken yet, and which leases are over here whatever the store says."""

    def __init__(self) -> None:
        self._not_before = -math.inf  # of any shard
        self._cooling: dict[ShardKey, tuple[float, float]] = {}  # given up: not before, next pause
        self._ended: dict[ShardKey, FencingToken] = {}  # the last lease that ended here, by shard

    def hold_off(self, until: float) -> None:
        """Take nothing before `until`: the store was wiped, and others may still work under leases of the lost one."""
        self._not_before = until

    def cool_down(self, key: ShardKey, now: float) -> None:
        """Leave a shard alone that its host gave up, for longer each time unless it was held well between."""
        not_before, pause_s = self._cooling.get(key, (now, _COOL_DOWN_S[0]))
        if now - not_before > _COOL_DOWN_S[1]:  # it worked well for a while
            pause_s = _COOL_DOWN_S[0]
        self._cooling[key] = (now + pause_s, min(_COOL_DOWN_S[1], 2 * pause_s))

    def end(self, lease: Lease) -> None:
        """Learn that a lease is over here."""
        self._ended[lease.key] = lease.token

    def forget_unwanted(self, snapshot: FleetSnapshot) -> None:
        """Forget pauses of shards that nobody wants any more, and leases of such once there are many."""
        many = len(self._ended) > _REMEMBERED
        if self._cooling or many:
            wanted = {shard.key for shard in snapshot.wanted}
            self._cooling = {key: pause for key, pause in self._cooling.items() if key in wanted}
            if many:
                self._ended = {key: token for key, token in self._ended.items() if key in wanted}

    def held_off_s(self, now: float) -> float:
        """Return for how long nothing is taken; 0 or less: not at all."""
        return self._not_before - now

    def due(self, keys: Iterable[ShardKey], now: float) -> list[ShardKey]:
        """Return those of `keys` that may be taken now."""
        if now < self._not_before:
            return []
        return [key for key in keys if self._cooling.get(key, (now, 0.0))[0] <= now]

    def is_over(self, lease: Lease) -> bool:
        """Whether a lease that the store grants has ended here, or is older than one that has."""
        return lease.token <= self._ended.get(lease.key, 0)
