"""The counting service: how many invocations of a function run in the fleet, held against its limit (spec section 6.2).

Every invocation of a node goes through `Counting.counted`, whoever asked for it and wherever the function runs.
`invocation.grants` decides, the store counts; here is one loop that talks to it, and those who wait for its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

import structlog

from invocation.grants import Answer, Grants
from invocation.invoking import NotInvoked, throttled
from model.concurrency import UNRESERVED, Pool, unreserved
from model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from statemgr.stores import ConcurrencyStore

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_T = TypeVar("_T")

LONGEST_TTL_S = 5.0
"""How long the slots of a node that died are missing at most."""

_MARGIN = 0.1
"""The part of the TTL by which a node trusts its slots for less than the store keeps them."""

_CALL_S = 1.0
"""How long a call may take; an invocation waits for two at most."""

_BACK_S = 0.25
"""How long an invocation's caller is kept from his answer, so that the slot is free for his next one."""


class Counting:
    """The slots of one node. Run `run()`; without it nothing is granted. Its end, `aclose`, gives all slots back.

    `reserved` returns the reserved concurrency of functions, one mapping until it changes; `account` that of all
    together. `clock` counts suspends.
    """

    def __init__(
        self,
        store: ConcurrencyStore,
        *,
        reserved: Callable[[], Mapping[str, int]],
        account: Callable[[], int],
        ttl_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._reserved = reserved
        self._account = account
        self._ttl_s = min(ttl_s, LONGEST_TTL_S)
        self._clock = clock
        self._grants = Grants(ttl_s=self._ttl_s)
        self._wanted = asyncio.Event()
        self._waiting: dict[Pool, list[asyncio.Future[bool]]] = {}
        self._returning: list[asyncio.Future[None]] = []
        self._fell_back = False
        self._limits: Mapping[str, int] = {}  # of functions, as looked at last
        self._reserved_of_account = 0
        self.holder = uuid.uuid4().hex
        self.running: Counter[str] = Counter()
        """Invocations under way here, by function."""
        self.throttles: Counter[tuple[str, str]] = Counter()
        """Invocations refused here, by function and reason."""

    @property
    def in_fallback(self) -> bool:
        """Whether the store is away, and each node has its share of the limits."""
        return self._grants.in_fallback(self._clock())

    async def counted(self, function: str, call: Callable[[], Awaitable[_T]]) -> _T | NotInvoked:
        """Invoke a function while its limit allows it. Raises what `call` raises; nothing else but CancelledError."""
        pool = self._pool(function)
        answer = self._take(pool)
        if answer is Answer.ASK:
            answer = Answer.TAKEN if await self._wait(pool) else Answer.REFUSED
        if answer is Answer.REFUSED:
            refusal = throttled(own_limit=pool != UNRESERVED)
            self.throttles[function, refusal.reason or ""] += 1
            return refusal
        self.running[function] += 1
        scarce = False
        try:
            came = await call()
        finally:
            self.running[function] -= 1
            scarce = self._give(pool)
        if scarce:
            await self._returned()
        return came

    async def run(self) -> None:
        """Talk to the store until cancelled."""
        while True:
            wait_s = self._grants.next_call_at() - self._clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s)):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._call()

    async def aclose(self) -> None:
        """Give all slots back. Best effort: those of a node that cannot say so come back by themselves."""
        with contextlib.suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(_CALL_S):
                await self._store.stop_counting(self.holder, self._grants.pools)

    # Slots

    def _pool(self, function: str) -> Pool:
        limits = self._reserved()
        if limits is not self._limits:
            self._limits = limits
            self._reserved_of_account = sum(limits.values())
        return Pool(function) if function in limits else UNRESERVED

    def _take(self, pool: Pool) -> Answer:
        if pool == UNRESERVED:
            limit = unreserved(self._account(), self._reserved_of_account)
        else:
            limit = self._limits.get(pool, 0)
        return self._grants.take(pool, limit, self._clock()) if limit else Answer.REFUSED

    def _give(self, pool: Pool) -> bool:
        """Give a slot back. Returns whether the store is to be told at once; that is under way then."""
        scarce = self._grants.give(pool, self._clock())
        if scarce:
            self._wanted.set()
        return scarce

    async def _wait(self, pool: Pool) -> bool:
        """Wait for a slot that the store grants, or does not."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(pool, []).append(future)
        self._wanted.set()
        try:
            async with asyncio.timeout(2 * _CALL_S):
                return await future
        except BaseException as exc:
            # What was granted at the same moment must not be lost: it would count for ever.
            if future.done() and not future.cancelled() and future.result():
                self._give(pool)
            if isinstance(exc, TimeoutError):
                return False
            raise

    async def _returned(self) -> None:
        """Wait until the store knows of slots given back, but not for long."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append(future)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BACK_S):
                await future

    # The store

    async def _call(self) -> None:
        """Tell the store what is in use, and share out what it grants."""
        waiting, self._waiting = self._waiting, {}
        returning, self._returning = self._returning, []
        asked_at = self._clock()
        counts = {pool: sum(not future.done() for future in futures) for pool, futures in waiting.items()}
        wishes = self._grants.wishes(counts, asked_at)
        holders, rank = self._grants.told
        try:
            async with asyncio.timeout(min(_CALL_S, self._ttl_s / 3)):
                reply = await self._store.count(
                    self.holder,
                    wishes,
                    ttl_s=self._ttl_s,
                    account=self._account(),
                    holders=holders,
                    rank=rank,
                )
        except (StoreUnavailableError, TimeoutError) as exc:
            self._grants.failed()
            self._tell_fallback(str(exc) or "no answer in time")
        else:
            self._grants.answered(wishes, reply, trusted_until=asked_at + self._ttl_s * (1 - _MARGIN))
            self._tell_fallback("")
        finally:
            for pool, futures in waiting.items():
                for future in futures:
                    if not future.done():
                        future.set_result(self._take(pool) is Answer.TAKEN)
            for back in returning:
                if not back.done():
                    back.set_result(None)

    def _tell_fallback(self, error: str) -> None:
        if self.in_fallback != self._fell_back:
            self._fell_back = not self._fell_back
            if self._fell_back:
                log.warning("counting.fallback", holders=self._grants.holders, error=error)
            else:
                log.info("counting.exact_again")
