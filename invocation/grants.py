"""How many slots a node holds of each pool, when it asks for more, when it gives back: the counting decides. Pure.

A node may start an invocation on a slot it holds without asking anybody, so it keeps a few to hand: as many as it used
a moment ago and some more, and of what is free in the fleet no more than its part. Where little is free that is
nothing, and every slot goes back as soon as its invocation has ended: so the limit is exact, and all of it is of use to
whoever needs it.

What a node holds it trusts for a while. When that is over, for the others too, and the store does not answer, it has
its *fallback share* of each limit; the shares of all nodes together are the limit.

`now` is seconds of one clock that counts suspends too, here and in `trusted_until`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from model.concurrency import PoolWish, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.concurrency import CountReply, Pool

KEEP_S = 1.0
"""How far back use is looked at: slots used within it are kept, if there is room."""

LOOK_S = 0.25
"""How often a node looks after slots that it holds: so long another one may be refused what nobody uses."""

AGAIN_S = 0.25
"""How long after a failed call the next one is made."""

_CALLS = 5
"""A node that holds nothing calls the store so often within the TTL."""

_OTHERS = 0.3
"""The part of the TTL by which others may trust their slots for longer than this node: they called after it, by the
time between two calls at most, and a store that is away for one is away for all. More than 1 / _CALLS."""

_HEADROOM = 8
"""One more slot for so many in use is kept to hand."""


class Answer(Enum):
    """What comes of asking for a slot."""

    TAKEN = auto()
    REFUSED = auto()
    ASK = auto()  # the store


@dataclass(slots=True)
class _Slots:
    """One pool, as this node knows it."""

    in_use: int = 0
    held: int = 0
    spare: int = 0  # how many of those that are free in the fleet may be kept to hand
    unknown: bool = False  # the store knows no limit
    peak: int = 0  # the most in use at once since `peak_at`
    peak_before: int = 0  # the same for the time before
    peak_at: float = 0.0

    def used(self, now: float) -> None:
        """Take note of how many are in use now."""
        if now - self.peak_at >= KEEP_S:
            self.peak_before = self.peak if now - self.peak_at < 2 * KEEP_S else 0
            self.peak, self.peak_at = 0, now
        self.peak = max(self.peak, self.in_use)

    @property
    def recently(self) -> int:
        """The most that were in use at once lately."""
        return max(self.peak, self.peak_before)

    @property
    def target(self) -> int:
        """How many to hold for what is under way and what may come."""
        recently = self.recently
        to_hand = recently - self.in_use + math.ceil(recently / _HEADROOM)
        return self.in_use + min(to_hand, self.spare)


class Grants:
    """What one node holds. `ttl_s` is how long the store keeps what it holds without hearing of it.

    Before the store answered once there is nothing, and no share either.
    """

    def __init__(self, *, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._pools: dict[Pool, _Slots] = {}
        self._trusted_until: float | None = None
        self._failing = False
        self._called_at = -math.inf
        self._fresh = True  # has never been on a share, nor heard of one
        self.holders, self.rank = 1, 0

    @property
    def told(self) -> tuple[int, int]:
        """The number of holders, and the rank among them, by which the store tells this one's share.

        One that has just started is on no share, and a store that has just started need not spare any for it.
        """
        return (1, 0) if self._fresh else (self.holders, self.rank)

    @property
    def pools(self) -> Sequence[Pool]:
        """The pools of which anything is held, or was lately."""
        return list(self._pools)

    def in_fallback(self, now: float) -> bool:
        """Tell whether the shares hold."""
        until = self._trusted_until
        return self._failing and until is not None and now >= until + _OTHERS * self._ttl_s

    def take(self, pool: Pool, limit: int, now: float) -> Answer:
        """Take a slot, if there is one. `limit` is the pool's, as it is known here.

        Where the store knows of no limit it has forgotten, or was told that there is none any more: until everybody has
        heard of that, each has his share.
        """
        slots = self._pools.get(pool)
        trusted = self._trusted_until is not None and now < self._trusted_until
        if slots is not None and trusted and slots.in_use < slots.held:
            return self._taken(slots, now)
        unknown = slots is not None and slots.unknown
        if not self._failing and not unknown:
            return Answer.ASK
        if unknown or self.in_fallback(now):
            slots = slots or self._pools.setdefault(pool, _Slots())
            if slots.in_use < share(limit, holders=self.holders, rank=self.rank):
                return self._taken(slots, now)
        return Answer.REFUSED

    def give(self, pool: Pool, now: float) -> bool:
        """Give a slot back. True: it is to go back to the store at once, since others may need it."""
        slots = self._pools[pool]
        slots.used(now)
        slots.in_use -= 1
        return not self._failing and slots.held - slots.in_use > 2 * slots.spare

    def next_call_at(self) -> float:
        """Return when to call the store, unasked. It has to hear of this node in any case."""
        if self._failing:
            return self._called_at + AGAIN_S
        beat_s = self._ttl_s / _CALLS
        return self._called_at + (min(LOOK_S, beat_s) if self._pools else beat_s)

    def wishes(self, waiting: Mapping[Pool, int], now: float) -> list[PoolWish]:
        """Return what to tell the store. What is given back is not used any more from here on."""
        self._called_at = now
        for pool in waiting:
            self._pools.setdefault(pool, _Slots())
        return [self._wish(pool, slots, waiting.get(pool, 0), now) for pool, slots in self._pools.items()]

    def _wish(self, pool: Pool, slots: _Slots, waiting: int, now: float) -> PoolWish:
        slots.used(now)
        target = slots.target
        keep = max(slots.in_use, min(slots.held, max(target, slots.in_use + waiting)))
        slots.held = keep
        need = max(0, waiting - (keep - slots.in_use))
        return PoolWish(pool, slots.in_use, keep, need, max(0, target + waiting - keep - need))

    def answered(self, wishes: Sequence[PoolWish], reply: CountReply, *, trusted_until: float) -> None:
        """Take over what the store granted. A pool of which nothing was held or used lately is forgotten."""
        self._failing = False
        self._trusted_until = trusted_until
        self._fresh = self._fresh and not reply.calm
        if reply.calm or reply.holders >= self.holders:
            self.holders, self.rank = reply.holders, reply.rank
        for wish, grant in zip(wishes, reply.grants, strict=True):
            slots = self._pools[wish.pool]
            slots.held = grant.held
            slots.unknown = grant.limit is None
            free = max(0, (grant.limit or 0) - grant.others - slots.in_use)
            slots.spare = free if reply.holders == 1 else free // (2 * reply.holders)
            if not (slots.held or slots.in_use or slots.recently or wish.need):
                del self._pools[wish.pool]

    def failed(self) -> None:
        """Take note that the store did not answer. What it was told may hold or not; the next call tells it again."""
        self._failing, self._fresh = True, False

    def _taken(self, slots: _Slots, now: float) -> Answer:
        slots.in_use += 1
        slots.used(now)
        return Answer.TAKEN
