"""Follow what the state manager and the queue say: one poller's share of the concurrency, the visibility timeout."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from model.errors import SourceRefusedError, SourceUnavailableError, StoreUnavailableError
from statemgr.scaling import share

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pollers.queue_limit import ConcurrencyLimit
    from pollers.queue_ports import Queue, QueueFacts
    from statemgr.scaling import Allotment, ScalingLimits

_ALLOTMENT_S = 2.0
_FACTS_S = 60.0


class Following:
    """Keeps a poller's limit up to date, and what `learn` takes up of the queue. Calls `changed` for a new share."""

    def __init__(
        self,
        queue: Queue,
        learn: Callable[[QueueFacts], None],
        limit: ConcurrencyLimit,
        *,
        ask_allotment: Callable[[], Awaitable[Allotment | None]],
        index: int,
        limits: ScalingLimits,
        changed: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._learn = learn
        self._limit = limit
        self._ask_allotment = ask_allotment
        self._index = index
        self._limits = limits
        self._changed = changed
        self.backlog: int | None = None  # messages that could be received, as the tracker last heard

    async def run(self) -> None:
        """Follow until cancelled."""
        loop = asyncio.get_running_loop()
        facts_at = loop.time() + _FACTS_S
        while True:
            await asyncio.sleep(_ALLOTMENT_S)
            await self.read_allotment()
            if loop.time() >= facts_at:
                facts_at = loop.time() + _FACTS_S
                with suppress(SourceUnavailableError, SourceRefusedError):
                    self._learn(await self._queue.facts())

    async def read_allotment(self) -> None:
        """Ask once. While the store is away the last allotment stands."""
        try:
            allotment = await self._ask_allotment()
        except StoreUnavailableError:
            return
        if allotment is not None:
            self.backlog = allotment.backlog
            self._limit.share = share(self._index, allotment.concurrency, self._limits)
            self._changed()
