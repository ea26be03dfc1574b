"""Which container takes the next invocation: one at a time each, first come first served, dead ones later.

Knows nothing of HTTP. A container that gave no clear answer rests for a while, so that it does not draw invocations
away from those that work; while no other is alive, resting ones are tried all the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

REST_S = 5.0

T = TypeVar("T")


class ContainerPool(Generic[T]):
    """Hands containers out and takes them back."""

    def __init__(self, containers: Sequence[T], *, rest_s: float = REST_S) -> None:
        self._free = deque(containers)
        self._rest_s = rest_s
        self._resting: dict[T, asyncio.TimerHandle] = {}  # in the order they will be tried again
        self._busy = 0
        self._waiters: deque[asyncio.Future[T]] = deque()
        self.size = len(containers)

    @property
    def full(self) -> bool:
        """Whether who asks for a container now has to wait."""
        return not self._free and (bool(self._busy) or not self._resting)

    async def take(self) -> T:
        """Wait for a container. The caller gives it back, whatever happens."""
        if not self._waiters and (found := self._next()) is not None:
            return found
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # handed over and cancelled in the same step
                self.give_back(waiter.result(), alive=True)
            raise

    def give_back(self, container: T, *, alive: bool) -> None:
        """Return a container; one that is not `alive` rests before its next invocation."""
        self._busy -= 1
        if alive:
            self._free.append(container)
        else:
            timer = asyncio.get_running_loop().call_later(self._rest_s, self._rested, container)
            self._resting[container] = timer
        self._hand_out()

    def close(self) -> None:
        """Forget the timers of resting containers."""
        for container, timer in self._resting.items():
            timer.cancel()
            self._free.append(container)
        self._resting.clear()

    def _rested(self, container: T) -> None:
        del self._resting[container]
        self._free.append(container)
        self._hand_out()

    def _next(self) -> T | None:
        if self._free:
            found = self._free.popleft()
        elif self._resting and not self._busy:  # nobody else is alive
            found = next(iter(self._resting))
            self._resting.pop(found).cancel()
        else:
            return None
        self._busy += 1
        return found

    def _hand_out(self) -> None:
        while self._waiters:
            if self._waiters[0].done():  # cancelled while waiting
                self._waiters.popleft()
            elif (found := self._next()) is not None:
                self._waiters.popleft().set_result(found)
            else:
                return
