"""How long the leasing service waits for the store, and how soon it asks again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from model.errors import StoreUnavailableError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")


async def within(limit_s: float, call: Callable[[], Awaitable[_T]]) -> _T:
    """Make a store call that may not take longer than `limit_s`. A hanging store is an unavailable one."""
    if limit_s <= 0:
        raise StoreUnavailableError("no time left to ask the store")
    try:
        async with asyncio.timeout(limit_s):
            return await call()
    except TimeoutError as exc:
        raise StoreUnavailableError(f"the store did not answer within {limit_s:.3g} s") from exc


class Backoff:
    """Growing pauses between attempts, with jitter so that a fleet does not come back in step."""

    def __init__(self, rng: random.Random, *, first_s: float = 0.1, max_s: float = 1.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return how long to wait before the next attempt."""
        pause_s = self._next_s
        self._next_s = min(self._max_s, 2 * pause_s)
        return pause_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start over: an attempt succeeded."""
        self._next_s = self._first_s
