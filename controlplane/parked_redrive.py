"""Have what is parked tried at once, wherever in the fleet it is held, and see what becomes of it.

Only the holders touch their parking lots. They learn of the wish from the mapping's record, and tell in their reports
that everything parked had its turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from model.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from model.ids import MappingId, ShardKey
    from model.progress import ParkedKey, ShardProgress
    from statemgr.stores import Store

_LOOK_S = 0.5


class ParkedCounts(NamedTuple):
    """Records that were parked when the wish was made, and what became of them so far."""

    parked: int
    delivered: int  # or given up by the mapping's own rules
    waiting_shards: int  # whose holders are not through yet


class Watch(Protocol):
    """Whoever watches."""

    async def looked(self, counts: ParkedCounts) -> None:
        """Learn how far it is."""

    async def still_parked(self, key: ParkedKey, shard: ShardKey) -> None:
        """Learn that a key had its turn, and stays parked."""


class ParkedRedrive:
    """One wish. `present` tells what is known of the mapping's shards by now."""

    def __init__(
        self,
        store: Store,
        mapping: MappingId,
        *,
        present: Callable[[], Awaitable[Mapping[ShardKey, ShardProgress]]],
        watch: Watch,
        stop: asyncio.Event,
    ) -> None:
        self._store = store
        self._mapping = mapping
        self._present = present
        self._watch = watch
        self._stop = stop

    async def parked(self) -> int:
        """Count what is parked."""
        return sum(progress.ledger.parked for progress in (await self._present()).values())

    async def look(self) -> ParkedCounts:
        """Tell what is parked, and have nothing done."""
        shards = await self._present()
        for key, progress in shards.items():
            for parked in progress.report.parked_keys:
                await self._watch.still_parked(parked, key)
        return ParkedCounts(sum(progress.ledger.parked for progress in shards.values()), 0, 0)

    async def run(self) -> ParkedCounts:
        """Make the wish, and return once every holder had its keys tried, or when stopped; the wish stands.

        Raises `NotFoundError` when the mapping is gone, and `StoreUnavailableError` before the wish is made.
        """
        before = {key: one.ledger.parked for key, one in (await self._present()).items() if one.ledger.parked}
        number = await self._store.try_parked(self._mapping)
        if number is None:
            raise NotFoundError("the mapping is gone")
        waiting, left = set(before), dict(before)
        while True:
            counts = ParkedCounts(sum(before.values()), sum(before.values()) - sum(left.values()), len(waiting))
            await self._watch.looked(counts)
            if not waiting or await self._stopped():
                return counts
            try:
                shards = await self._present()
            except UnavailableError:
                continue  # the wish is made: look again
            for key in list(waiting):
                progress = shards.get(key)
                # What was parked since has no turn; it only hides that something left.
                parked = 0 if progress is None else min(progress.ledger.parked, before[key])
                left[key] = parked
                if progress is None or not parked or progress.report.parked_tries >= number:
                    waiting.discard(key)
                    for one in () if progress is None else progress.report.parked_keys:
                        await self._watch.still_parked(one, key)

    async def _stopped(self) -> bool:
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True
