"""Counting slots in Redis: `statemgr.stores.ConcurrencyStore`. One script call, whatever the number of pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.concurrency import CountReply, PoolGrant
from statemgr.redis_store.codec import US
from statemgr.redis_store.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.concurrency import Pool, PoolWish
    from statemgr.redis_store.keys import Keys
    from statemgr.redis_store.script import RunScript

_COUNT, _STOP_COUNTING = Script("count", common=False), Script("stop_counting", common=False)
_FIRST = 3  # where the pools' answers begin


class RedisConcurrency:
    """Counts slots. `run` runs a script."""

    def __init__(self, run: RunScript, keys: Keys) -> None:
        self._run = run
        self._keys = keys

    async def count(
        self, holder: str, wishes: Sequence[PoolWish], *, ttl_s: float, account: int, holders: int, rank: int
    ) -> CountReply:
        """See `ConcurrencyStore.count`."""
        args: list[Any] = [holder, round(ttl_s * US), account, holders, rank]
        for wish in wishes:
            args += (wish.pool, wish.in_use, wish.keep, wish.need, wish.extra)
        fixed = [self._keys.reserved_concurrency, self._keys.counting, self._keys.counting_holders]
        reply = await self._run(_COUNT, [*fixed, *(self._keys.slots(wish.pool) for wish in wishes)], args)
        numbers = reply[_FIRST:]
        grants = [
            PoolGrant(None if limit < 0 else limit, held, others)
            for limit, held, others in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        ]
        return CountReply(grants, reply[0], reply[1], calm=bool(reply[2]))

    async def stop_counting(self, holder: str, pools: Sequence[Pool]) -> None:
        """See `ConcurrencyStore.stop_counting`."""
        await self._run(_STOP_COUNTING, [self._keys.counting_holders, *map(self._keys.slots, pools)], [holder])
