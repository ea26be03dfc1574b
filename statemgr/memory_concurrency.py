"""Counting slots inside one process: `statemgr.stores.ConcurrencyStore`, by the rules of `scripts/count.lua`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.concurrency import UNRESERVED, CountReply, PoolGrant, share, unreserved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model.concurrency import Pool, PoolWish


class MemoryConcurrency:
    """Counts slots. `reserved` returns each function's reserved concurrency."""

    def __init__(self, clock: Callable[[], float], *, reserved: Callable[[], Mapping[str, int]]) -> None:
        self._clock = clock
        self._reserved = reserved
        self.wipe()

    def wipe(self) -> None:
        """Forget everything."""
        self._holders: dict[str, float] = {}  # when each expires
        self._held: dict[Pool, dict[str, int]] = {}
        self._last: float | None = None
        self._calm = 0.0

    async def count(
        self, holder: str, wishes: Sequence[PoolWish], *, ttl_s: float, account: int, holders: int, rank: int
    ) -> CountReply:
        """See `ConcurrencyStore.count`."""
        now = self._clock()
        self._calm = min(self._calm, now + ttl_s)
        if self._last is None or now - self._last > ttl_s / 2:
            self._calm = now + ttl_s
        self._last = now
        self._holders[holder] = now + ttl_s
        self._holders = {id_: at for id_, at in self._holders.items() if at > now}
        part = (holders, rank) if now < self._calm else None
        live = sorted(self._holders)
        grants = [self._grant(holder, wish, account, part) for wish in wishes]
        return CountReply(grants, len(live), live.index(holder), calm=part is None)

    async def stop_counting(self, holder: str, pools: Sequence[Pool]) -> None:
        """See `ConcurrencyStore.stop_counting`."""
        self._holders.pop(holder, None)
        for pool in pools:
            self._held.get(pool, {}).pop(holder, None)

    def _grant(self, holder: str, wish: PoolWish, account: int, part: tuple[int, int] | None) -> PoolGrant:
        limit = self._limit(wish.pool, account)
        held = {id_: number for id_, number in self._held.get(wish.pool, {}).items() if id_ in self._holders}
        before = held.pop(holder, 0)
        others = sum(held.values())
        most = max(0, (limit or 0) - others)
        if part is not None:
            most = min(most, share(limit or 0, holders=part[0], rank=part[1]))
        mine = max(wish.in_use, min(wish.keep, max(before, wish.in_use), most))
        free = max(0, most - mine)
        more = min(wish.need, free)
        mine += more + min(wish.extra, (free - more) // len(self._holders))
        self._held[wish.pool] = {**held, holder: mine} if mine else held
        return PoolGrant(limit, mine, others)

    def _limit(self, pool: Pool, account: int) -> int | None:
        reserved = self._reserved()
        return unreserved(account, sum(reserved.values())) if pool == UNRESERVED else reserved.get(pool)
