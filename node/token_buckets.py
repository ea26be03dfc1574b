"""How often each of many callers may do something: token buckets, in bounded memory. Pure: `now` is any one clock's.

A bucket holds `burst` tokens, and gets `rate` of them a second. What is kept for a caller is when his bucket will be
full again; one that is full is as good as none and forgotten. Where more callers are under way than there is room for,
the further ones share one bucket: so whoever comes with ever new addresses is limited as one, and pushes nobody out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

MOST_CALLERS = 10_000
_ROUNDING_S = 1e-6  # more than sums of floating-point numbers are off by


class TokenBuckets:
    """The buckets of all callers. Raises ValueError for a rate or a burst of nothing."""

    def __init__(self, rate: float, burst: float, *, most: int = MOST_CALLERS) -> None:
        if not (rate > 0 and burst >= 1 and most >= 1):
            raise ValueError(f"nobody could ever do anything: {rate} a second, {burst} at once, {most} callers")
        self._each_s = 1 / rate
        self._span_s = burst / rate
        self._most = most
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()  # those used last come last
        self._others_full_at = 0.0

    def __len__(self) -> int:
        """How many callers are kept."""
        return len(self._full_at)

    def wait_s(self, caller: Hashable, now: float) -> float:
        """Return how long a caller has to wait for a token; 0: there is one now. Takes none."""
        kept = self._full_at.get(caller)
        if kept is None:
            self._forget(now)
            kept = now if len(self._full_at) < self._most else self._others_full_at
        wait_s = max(kept, now) + self._each_s - self._span_s - now
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def take(self, caller: Hashable, now: float) -> float:
        """Take a token if there is one; return how long to wait if not, and 0 if so."""
        wait_s = self.wait_s(caller, now)
        if not wait_s:
            self._spend(caller, now)
        return wait_s

    def spend(self, caller: Hashable, now: float) -> None:
        """Take a token that may not be there: what has happened has happened. A bucket is never emptier than empty."""
        if not self.wait_s(caller, now):
            self._spend(caller, now)

    def _spend(self, caller: Hashable, now: float) -> None:
        if caller in self._full_at or len(self._full_at) < self._most:
            self._full_at[caller] = max(self._full_at.get(caller, now), now) + self._each_s
            self._full_at.move_to_end(caller)
        else:
            self._others_full_at = max(self._others_full_at, now) + self._each_s

    def _forget(self, now: float) -> None:
        """Forget full buckets. One used later may be full before one used earlier: it waits for that one, no longer."""
        while self._full_at and next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)
