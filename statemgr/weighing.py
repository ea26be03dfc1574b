"""How much each shard of a mapping is said to weigh: what its holders measured, changed seldom. Pure.

A new weight makes every node read the fleet's snapshot again, and may move shards. So weights stand until one of them
is off by half; then all are brought up to date together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.ids import ShardId

_OFF = 1.5


def reweigh(published: Mapping[ShardId, float], measured: Mapping[ShardId, float]) -> dict[ShardId, float]:
    """Return the weights of the shards in `measured`, where 1 is an idle shard. A shard that is new gets its own."""
    known = {shard: published.get(shard, load) for shard, load in measured.items()}
    off = any(not 1 / _OFF < load / known[shard] < _OFF for shard, load in measured.items())
    return dict(measured) if off else known
