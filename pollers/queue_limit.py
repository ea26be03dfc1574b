"""How many batches may be with the function at once, by what it answered lately. Pure.

The share given by the state manager is the ceiling. Throttles halve the limit and stop receiving until the function
takes a batch again; function errors lower it by one, unless the mapping reports batch item failures (spec 4.2). Every
batch that the function takes raises it by one, so that a recovered function gets back its share within a few rounds.
However low it is, one batch is tried; but the state manager is told how low it is, so that a function without room does
not get more pollers.
"""

from __future__ import annotations

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 20.0


class ConcurrencyLimit:
    """The limit of one poller."""

    def __init__(self, share: int, *, reduces_on_errors: bool) -> None:
        self._share = share
        self._limit = share
        self._reduces_on_errors = reduces_on_errors
        self.throttled = False  # the function takes nothing now: receive nothing

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {self.now}/{self._share}{' throttled' if self.throttled else ''}>"

    @property
    def now(self) -> int:
        """Batches that may be with the function."""
        return min(max(1, self._limit), self._share)

    @property
    def room(self) -> int:
        """Batches that the function seems to have room for: one is tried even where that is none."""
        return min(self._limit, self._share)

    @property
    def share(self) -> int:
        """What the state manager allows."""
        return self._share

    @share.setter
    def share(self, share: int) -> None:
        if self._limit >= self._share:  # not reduced: follow upwards at once
            self._limit = share
        self._share = share

    def took(self) -> None:
        """Note that the function answered without an error."""
        self.throttled = False
        self._limit = min(self._share, self.now + 1) if self._limit < self._share else self._share

    def failed(self) -> None:
        """Note a function error: the function was reached."""
        self.throttled = False
        if self._reduces_on_errors:
            self._limit = max(0, self.now - 1)

    def refused(self) -> None:
        """Note a throttle, or that the function was not reached."""
        self.throttled = True
        self._limit = self.now // 2


def retry_delay_s(setbacks: int, retry_after_s: float | None, draw: float) -> float:
    """How long a batch that was throttled waits; `draw` is between 0 and 1. Retry-After is honoured."""
    if retry_after_s is not None:
        return max(0.0, retry_after_s) + draw * FIRST_DELAY_S
    ceiling_s: float = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(setbacks, 10))
    return ceiling_s * (0.5 + draw / 2)
