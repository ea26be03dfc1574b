"""Every store: who holds how many slots of which pool (`ConcurrencyStore`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from model.concurrency import UNRESERVED, CountReply, Pool, PoolGrant, PoolWish
from model.function_config import FunctionPart

if TYPE_CHECKING:
    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab

BILLING = Pool("billing")
TTL_S = 0.5  # to be let pass
LONG_S = 60.0


async def count(
    store: Store,
    holder: str,
    *wishes: PoolWish,
    ttl_s: float = LONG_S,
    account: int = 1000,
    holders: int = 1,
    rank: int = 0,
) -> CountReply:
    """Count with defaults."""
    return await store.concurrency.count(holder, wishes, ttl_s=ttl_s, account=account, holders=holders, rank=rank)


def wish(in_use: int = 0, keep: int = 0, need: int = 0, extra: int = 0, pool: Pool = BILLING) -> PoolWish:
    """Return a wish."""
    return PoolWish(pool, in_use, keep, need, extra)


@pytest.fixture
async def limited(store: Store) -> Store:
    """Return a store in which 7 are reserved for one function."""
    await store.functions.put_part("billing", FunctionPart.CONCURRENCY, b"7")
    return store


async def test_all_together_hold_no_more_than_the_limit(limited: Store) -> None:
    """Holders get what they need until the limit is reached, and the next one what was given back."""
    assert (await count(limited, "a", wish(need=4))).grants == [PoolGrant(7, 4, 0)]
    assert await count(limited, "b", wish(need=4)) == CountReply([PoolGrant(7, 3, 4)], 2, 1, calm=False)
    assert await count(limited, "a", wish(4, 4, need=1)) == CountReply([PoolGrant(7, 4, 3)], 2, 0, calm=False)
    assert (await count(limited, "b", wish(1, 1))).grants == [PoolGrant(7, 1, 4)]
    assert (await count(limited, "a", wish(4, 4, need=9))).grants == [PoolGrant(7, 6, 1)]


async def test_one_alone_may_hold_everything(limited: Store) -> None:
    """The whole limit is there for one holder when the others need nothing."""
    await count(limited, "b")
    assert (await count(limited, "a", wish(need=9))).grants == [PoolGrant(7, 7, 0)]


async def test_what_is_only_handy_is_shared(limited: Store) -> None:
    """Slots for later are a holder's part of what is free."""
    await count(limited, "b")
    assert (await count(limited, "a", wish(need=1, extra=9))).grants == [PoolGrant(7, 4, 0)]


async def test_a_stopped_holder_holds_nothing(limited: Store) -> None:
    """Whoever says that he stops gives back what he held, and counts no more."""
    await count(limited, "a", wish(need=7))
    await limited.concurrency.stop_counting("a", [BILLING])
    assert await count(limited, "b", wish(need=7)) == CountReply([PoolGrant(7, 7, 0)], 1, 0, calm=False)
    await limited.concurrency.stop_counting("nobody", [])


async def test_a_dead_holders_slots_come_back(lab: StoreLab, limited: Store) -> None:
    """What a holder held is free once it was silent for the TTL; if it comes back, only what it uses is its own."""
    await count(limited, "b")
    await count(limited, "a", wish(need=7), ttl_s=TTL_S)
    await lab.pass_time(TTL_S)
    assert (await count(limited, "b", wish(need=7))).grants == [PoolGrant(7, 7, 0)]
    assert (await count(limited, "a", wish(2, 7))).grants == [PoolGrant(7, 2, 7)]
    assert (await count(limited, "b", wish(6, 7, need=1))).grants == [PoolGrant(7, 6, 2)]


async def test_a_lower_limit_takes_what_is_not_in_use(limited: Store) -> None:
    """After the limit was lowered holders keep what they use and nothing more; they get more again below it."""
    await count(limited, "a", wish(need=7))
    await limited.functions.put_part("billing", FunctionPart.CONCURRENCY, b"2")
    assert (await count(limited, "a", wish(3, 7, need=1))).grants == [PoolGrant(2, 3, 0)]
    assert (await count(limited, "b", wish(need=1))).grants == [PoolGrant(2, 0, 3)]
    assert (await count(limited, "a", wish(1, 1))).grants == [PoolGrant(2, 1, 0)]
    assert (await count(limited, "b", wish(need=2))).grants == [PoolGrant(2, 1, 1)]


async def test_what_is_not_reserved_is_shared_by_all_others(limited: Store) -> None:
    """The shared pool is the account's concurrency less what is reserved."""
    reply = await count(limited, "a", wish(need=200, pool=UNRESERVED), wish(need=200), account=107)
    assert reply.grants == [PoolGrant(100, 100, 0), PoolGrant(7, 7, 0)]
    await limited.functions.put_part("thumbs", FunctionPart.CONCURRENCY, b"300")
    assert (await count(limited, "b", wish(need=1, pool=UNRESERVED), account=107)).grants == [PoolGrant(0, 0, 100)]


async def test_a_pool_that_is_no_more_grants_nothing(limited: Store) -> None:
    """A function whose reservation was removed has no pool of its own; what is in use there stays known."""
    await count(limited, "a", wish(need=2))
    await limited.functions.put_part("billing", FunctionPart.CONCURRENCY, None)
    assert (await count(limited, "a", wish(1, 2, need=3, extra=1))).grants == [PoolGrant(None, 1, 0)]


async def test_after_a_silence_nobody_gets_more_than_his_share(lab: StoreLab, limited: Store) -> None:
    """When nobody could count for a while, others may be at work on their shares: for a TTL only the own is granted."""
    first = await count(limited, "a", wish(1, 1, need=7), ttl_s=TTL_S, holders=2, rank=0)
    assert first == CountReply([PoolGrant(7, 4, 0)], 1, 0, calm=False)
    late = await count(limited, "b", wish(3, 3, need=1), ttl_s=TTL_S, holders=2, rank=1)
    assert late.grants == [PoolGrant(7, 3, 4)]
    async with asyncio.timeout(30):
        while late.grants[0].held < 7:
            await lab.pass_time(TTL_S / 5)
            late = await count(limited, "a", wish(1, 1, need=7), ttl_s=TTL_S, holders=2, rank=0)
            assert late.calm is (late.grants[0].held > 4)


async def test_a_lost_memory_is_a_silence(lab: StoreLab, limited: Store) -> None:
    """A store that forgot who holds what grants shares only, and learns from each holder what it has in use."""
    await count(limited, "a", wish(need=5))
    await lab.wipe()
    await limited.functions.put_part("billing", FunctionPart.CONCURRENCY, b"7")
    assert (await count(limited, "b", wish(need=7), holders=2, rank=1)).grants == [PoolGrant(7, 3, 0)]
    assert (await count(limited, "a", wish(5, 5, need=1), holders=2, rank=0)).grants == [PoolGrant(7, 5, 3)]
