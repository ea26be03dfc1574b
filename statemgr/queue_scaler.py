"""Scales the pollers of one queue, on behalf of the mapping's tracker. `statemgr.scaling` decides.

Input are the queue's backlog and what the pollers last reported of themselves; output the poller shards that are
wanted, and the allotment that the tracker saves with its report, where the pollers read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from model.ids import ShardKey
from statemgr.scaling import Allotment, QueueUse, Scale, begin, rescale, shard_name, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.ids import MappingId, ShardId
    from statemgr.scaling import ScalingLimits
    from statemgr.stores import ProgressStore

log = structlog.get_logger(__name__)

SCALING_S = 5.0
"""How often a queue's concurrency is considered."""


class Facts(Protocol):
    """A queue's backlog."""

    @property
    def visible(self) -> int:
        """Messages that could be received now."""


class QueueScaler:
    """Follows one queue. `before` is the allotment that the tracker's predecessor saved."""

    def __init__(
        self, store: ProgressStore, mapping: MappingId, *, clock: Callable[[], float], before: Allotment | None
    ) -> None:
        self._store = store
        self._mapping = mapping
        self._clock = clock
        self._before = before
        self._scale: Scale | None = None
        self._limits: ScalingLimits | None = None
        self._allotment = before

    def state(self) -> bytes:
        """Return the allotment in its stored form."""
        return b"" if self._allotment is None else self._allotment.encode()

    async def shards(self, facts: Facts, limits: ScalingLimits) -> Sequence[ShardId]:
        """Consider the concurrency, and return the poller shards that carry it. Raises `StoreUnavailableError`."""
        now = self._clock()
        if self._scale is None or limits != self._limits:
            self._scale, self._limits = begin(limits, now, self._allotment), limits
        else:
            present = min(int(self._scale.concurrency), limits.shards)
            keys = [ShardKey(self._mapping, shard_name(index)) for index in range(present)]
            progress = await self._store.load(keys)
            uses = [QueueUse.decode(one.state) for one in progress.values()]
            self._scale = rescale(self._scale, limits, backlog=facts.visible, uses=uses, now=now)
        concurrency = int(self._scale.concurrency)
        if self._allotment is None or concurrency != self._allotment.concurrency:
            log.info("queue.concurrency", mapping_id=self._mapping, concurrency=concurrency, backlog=facts.visible)
        self._allotment = Allotment(concurrency, facts.visible)
        return [shard.key.shard for shard in wanted(self._mapping, concurrency, limits)]
