"""Functions that answer 429 when they have no room: so many at once, or so many a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from model.outcome import Delivered, Throttled

if TYPE_CHECKING:
    from model.invocation import Invocation
    from model.outcome import Outcome
    from pollers.ports import Target


class Room(Protocol):
    """How much a function takes."""

    seconds: float  # of one invocation

    def take(self, running: int, now: float) -> bool:
        """Tell whether one more is taken; `running` are with the function."""

    def capacity(self, seconds: float) -> float:
        """How many invocations end in so long at most."""


class AtOnce:
    """So many at once: a function's reserved concurrency."""

    def __init__(self, most: int, *, seconds: float) -> None:
        self.most = most
        self.seconds = seconds

    def take(self, running: int, now: float) -> bool:
        """Count what runs."""
        return running < self.most

    def capacity(self, seconds: float) -> float:
        """All slots, all the time."""
        return self.most * seconds / self.seconds


class PerSecond:
    """So many a second, with a burst: an API behind a gateway."""

    def __init__(self, rate: float, *, burst: int, seconds: float) -> None:
        self.rate = rate
        self.burst = burst
        self.seconds = seconds
        self._left = float(burst)
        self._at = 0.0

    def take(self, running: int, now: float) -> bool:
        """Spend a token."""
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def capacity(self, seconds: float) -> float:
        """Every token."""
        return self.burst + self.rate * seconds


class Limited:
    """Another function behind a limit, until a time. `pollers.ports.Target`."""

    def __init__(self, target: Target, room: Room, *, until: float) -> None:
        self._target = target
        self._room = room
        self._until = until
        self.running = 0
        self.taken_at: list[float] = []  # event-loop time of the end
        self.throttled = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Answer 429 at once, or take it for as long as it takes."""
        now = asyncio.get_running_loop().time()
        if now < self._until and not self._room.take(self.running, now):
            self.throttled += 1
            await asyncio.sleep(0.002)
            return Throttled("HTTP 429 Too Many Requests")
        self.running += 1
        try:
            await asyncio.sleep(self._room.seconds)
            outcome = await self._target.invoke(invocation)
        finally:
            self.running -= 1
        assert isinstance(outcome, Delivered)
        self.taken_at.append(asyncio.get_running_loop().time())
        return outcome
