"""Invoke so that the next holder knows which records the function had, should this node die of them.

After a take-over nobody knows what ended the holder before, so the first batches of each lane are invoked with only
once it is saved that they are. These are the ones the last holder can have had with the function, or finished and not
saved. Afterwards nothing is saved for this: a record that kills its node then is met carefully by the next holder.

What the saved state means to that one is `pollers.deaths`'s.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pollers.attempts import Flight
from pollers.handing_over import drained_within
from pollers.retrying import FIRST_DELAY_S, MAX_DELAY_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from model.outcome import Outcome
    from pollers.attempts import Work

CAREFUL_BATCHES = 2
"""Of each lane after a take-over: one may have been with the function, and one finished and not saved."""

ALONE_S = 10.0
"""How long an invocation waits for its turn before it goes among others: handlers may be slow, drains may not."""


class Quarantine:
    """The careful invocations of one node: a suspect by itself, or any number of others together.

    So what dies with a suspect dies of it. Invocations that need no care are not in here.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._alone = False
        self._left = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Quarantine {'alone' if self._alone else self._inside}>"

    async def enter(self, *, alone: bool) -> bool:
        """Wait until that is possible, or for `ALONE_S`; tells whether it is alone. Cancelled, it is not inside."""
        try:
            async with asyncio.timeout(ALONE_S):
                while self._alone or (alone and self._inside):
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            alone = False
        self._inside += 1
        self._alone = self._alone or alone
        return alone

    def leave(self, *, alone: bool) -> None:
        """Make room."""
        self._inside -= 1
        self._alone = self._alone and not alone
        self._left.set()


class NoCaution:
    """For deliveries that no other holder goes on with: nothing is saved, and nobody waited for."""

    def begin(self) -> None:
        """Take no note."""

    async def drained_before(self, _work: Work) -> bool:
        """Go on at once."""
        return False

    async def invoke(self, work: Work, call: Callable[[Work], Awaitable[Outcome]]) -> Outcome | None:
        """Call the function."""
        return await call(work)


class Caution:
    """The care of one lane under one lease. `note` returns once the present state is saved."""

    def __init__(self, *, note: Callable[[], Awaitable[None]], quarantine: Quarantine, draining: asyncio.Event) -> None:
        self._note = note
        self._quarantine = quarantine
        self._draining = draining
        self._batches = 0
        self._waited = False

    def begin(self) -> None:
        """Learn that another batch begins."""
        self._batches += 1

    async def drained_before(self, work: Work) -> bool:
        """Wait before the first invocation with records that have killed nodes; True when the node drains before.

        The default is to retry for ever. At least the fleet shall not die of these records all the time.
        """
        if work.deaths < 2 or self._waited:  # noqa: PLR2004 - of the first death they are hardly to blame
            return False
        self._waited = True
        return await drained_within(self._draining, min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(work.deaths - 2, 10)))

    async def invoke(self, work: Work, call: Callable[[Work], Awaitable[Outcome]]) -> Outcome | None:
        """Call the function with `call` once it is saved that it has the records; None when the node drains before.

        Raises `LeaseLostError`. There is no await after the answer. Cancelled, the records count as with the function
        if that was saved: they may have been.
        """
        if self._batches > CAREFUL_BATCHES and not work.deaths:
            return await call(work)
        alone = await self._quarantine.enter(alone=work.deaths > 0)
        try:
            work.flight = Flight.ALONE if alone else Flight.AMONG_OTHERS
            await self._note()
            return None if self._draining.is_set() else await call(work)
        finally:
            work.flight = Flight.NONE
            self._quarantine.leave(alone=alone)
