"""What a node knows of another one to which it forwards invocations. Pure: `now` is event-loop time.

An offer is written once a second at most, and says how many invocations of which node it has counted. So a node knows
what of its own came to it or went since then.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from invocation.placement import beside

if TYPE_CHECKING:
    from model.placement import Offer

FULL_S = 0.2
"""How long a node that had no room is given no more than it had then."""

AWAY_S = 5.0
"""How long a node that could not be reached, or does not let us in, is not asked again."""


class Neighbour:
    """Another node: its offer, and what this node has running there."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self._running: dict[object, str] = {}  # the function
        self._memory_mb: dict[str, int] = {}
        self._most = 0  # so many at once are taken, as far as is known
        self._most_until = 0.0
        self.away = False
        """Whether it was not reached when last asked."""

    def view(self, me: str, now: float) -> Offer | None:
        """Return what it should have by now for this node, which is `me` to it; None while it is not to be asked."""
        if now < self._most_until and len(self._running) >= self._most:
            return None
        counted = self.offer.running.get(me, {})
        if not (self._running or counted):
            return self.offer
        return beside(self.offer, counted, Counter(self._running.values()), self._memory_mb)

    def sent(self, function: str, memory_mb: int) -> object:
        """Note an invocation that is forwarded; returns what to tell of its end with."""
        key = object()
        self._running[key] = function
        self._memory_mb[function] = memory_mb
        return key

    def ended(self, key: object) -> None:
        """Note the end of an invocation, whatever it was."""
        self._running.pop(key, None)

    def refused(self, key: object, now: float, *, away: bool) -> None:
        """Note that it did not take the invocation: it has no room, or (`away`) was not reached at all."""
        self.ended(key)
        self.away = away
        self._most = 0 if away else len(self._running)
        self._most_until = now + (AWAY_S if away else FULL_S)
