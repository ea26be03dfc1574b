"""The heartbeat: joins the fleet, keeps the membership, and says at once when it can no longer be trusted.

It knows nothing of shards. Whoever holds leases is told through `Membership`, synchronously, so that no step of work
can come between the end of the trust and the news of it. It never waits for anything but the store and the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

import structlog

from leasing.held import Reason
from leasing.patience import Backoff, within
from leasing.term import Term
from model.errors import StoreUnavailableError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from model.ids import NodeId
    from model.lease import Member, TickReply
    from statemgr.stores import LeaseStore

log = structlog.get_logger(__name__)

_MIN_GAP_S = 0.05  # between two heartbeats, however often woken
_AFTER_EXPIRY_S = 0.02  # how long after another member's expiry to look, at least


class Session:
    """One membership, from the store's first yes to its end."""

    __slots__ = ("node", "over", "term")

    def __init__(self, node: NodeId, term: Term) -> None:
        self.node = node
        self.term = term
        self.over: Reason | None = None

    def ended(self) -> bool:
        """Tell whether it is over. To be asked again after every await."""
        return self.over is not None


class Membership(Protocol):
    """Who must know. All synchronous, none may raise."""

    def facts(self, node: NodeId) -> Member:
        """Return what to tell the fleet about this node."""

    def joined(self, session: Session, reply: TickReply) -> None:
        """Learn that a membership began. It holds nothing yet."""

    def renewed(self, session: Session, reply: TickReply) -> None:
        """Learn that a heartbeat got through."""

    def lost(self, session: Session, reason: Reason) -> None:
        """Learn that the membership, and every lease under it, ended just now."""

    def store_replaced(self, incarnation: str) -> None:
        """Learn that the store is not the one known before: wiped, or put in its place. Comes before `lost`."""


class Keeper:
    """Keeps this node a member, under a new id whenever a membership was lost."""

    def __init__(
        self,
        store: LeaseStore,
        membership: Membership,
        *,
        new_id: Callable[[], NodeId],
        ttl_s: float,
        margin_s: float,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._store = store
        self._membership = membership
        self._new_id = new_id
        self._ttl_s = ttl_s
        self._margin_s = margin_s
        self._clock = clock
        self._rng = rng
        self._nudge = asyncio.Event()
        self._incarnation: str | None = None
        self._forsaken: NodeId | None = None  # may still be a member in the store, though no longer for us
        self._stopped = False
        self.session: Session | None = None
        self.call_s = ttl_s / 5  # how long one store call may take
        self.last_renewed_at: float | None = None
        self.last_error: str | None = None

    def wake(self) -> None:
        """Beat soon: something changed, here or elsewhere."""
        self._nudge.set()

    def check(self) -> None:
        """End the membership if its trust has run out. For a watchdog that finds the event loop late."""
        session = self.session
        if session is not None and not session.term.trusted(self._clock()):
            self._end(session, Reason.TERM_ENDED)

    async def run(self) -> None:
        """Stay a member until stopped or cancelled. A membership that began always ends with `Membership.lost`."""
        try:
            while not self._stopped:
                session = await self._join()
                reason = await self._keep(session)
                self._end(session, reason)
        finally:
            self.stop()

    def stop(self) -> None:
        """End the membership here, at once and for good. `leave` tells the store."""
        self._stopped = True
        if self.session is not None:
            self._end(self.session, Reason.STOPPED)

    async def leave(self, limit_s: float) -> None:
        """Tell the store that the last membership is over. Best effort: it expires by itself."""
        with contextlib.suppress(StoreUnavailableError):
            await within(limit_s, self._leave_forsaken)

    async def _join(self) -> Session:
        backoff = Backoff(self._rng)
        while True:
            try:
                if self._forsaken is not None:  # so that nobody waits for an expiry, nor counts a ghost
                    await within(self.call_s, self._leave_forsaken)
                session = await self._try_join()
            except StoreUnavailableError as exc:
                self.last_error = str(exc)
                await asyncio.sleep(backoff.next_s())
                continue
            if session is not None:
                return session

    async def _leave_forsaken(self) -> None:
        if self._forsaken is not None:
            await self._store.leave(self._forsaken)
            self._forsaken = None

    async def _try_join(self) -> Session | None:
        session = Session(self._new_id(), Term(self._ttl_s, self._margin_s))
        self._forsaken = session.node  # until we know better: the request may get through and its answer not
        member = self._membership.facts(session.node)
        asked_at = self._clock()
        reply = await within(self.call_s, lambda: self._store.join(member, ttl_s=self._ttl_s))
        self._meet(reply)
        session.term.renewed(asked_at)
        if not (reply.member and session.term.trusted(self._clock())):
            return None
        self._forsaken = None
        self.session = session
        self.last_renewed_at, self.last_error = asked_at, None
        self._watch(session)
        log.info("member.joined", node=session.node, ttl_s=self._ttl_s)
        self._membership.joined(session, reply)
        return session

    async def _keep(self, session: Session) -> Reason:
        """Beat until the membership is lost; say why."""
        backoff = Backoff(self._rng, first_s=0.05, max_s=max(0.1, self.call_s / 2))
        delay_s = self._regular_s()
        while True:
            await self._pause(session, delay_s)
            if session.over is not None:
                return session.over
            member = self._membership.facts(session.node)
            asked_at = self._clock()
            if not session.term.trusted(asked_at):  # the timer that should have said so is late
                return Reason.TERM_ENDED
            limit_s = min(self.call_s, session.term.trusted_until - asked_at)
            try:
                reply = await within(limit_s, lambda: self._store.tick(member, ttl_s=self._ttl_s))  # noqa: B023  # awaited in this turn
            except StoreUnavailableError as exc:
                self._note_failure(session, exc)
                delay_s = backoff.next_s()
                continue
            # Also when the answer is good: whoever looked at the clock in between has stopped working already.
            if session.ended() or not session.term.trusted(self._clock()):
                return session.over or Reason.TERM_ENDED
            if self._meet(reply):
                return Reason.STORE_REPLACED
            if not reply.member:
                return Reason.MEMBERSHIP_LOST
            session.term.renewed(asked_at)
            if self.last_error is not None:
                log.info("member.renewed_again", node=session.node)
            self.last_renewed_at, self.last_error = asked_at, None
            backoff.reset()
            self._membership.renewed(session, reply)
            delay_s = self._regular_s()
            if reply.next_expiry_s is not None:
                delay_s = min(delay_s, reply.next_expiry_s + _AFTER_EXPIRY_S * self._rng.uniform(1.0, 3.0))

    def _regular_s(self) -> float:
        return self._ttl_s / 3 * self._rng.uniform(0.9, 1.0)

    async def _pause(self, session: Session, delay_s: float) -> None:
        """Wait until the next heartbeat is due, or someone wants it sooner, or the membership is over.

        Neither an impatient fleet nor a failing store makes it beat more often than every `_MIN_GAP_S`.
        """
        await asyncio.sleep(_MIN_GAP_S)
        if not session.ended() and delay_s > _MIN_GAP_S:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s - _MIN_GAP_S):
                    await self._nudge.wait()
        self._nudge.clear()

    def _note_failure(self, session: Session, exc: StoreUnavailableError) -> None:
        if self.last_error is None:
            left_s = session.term.trusted_until - self._clock()
            log.warning("member.not_renewed", node=session.node, error=str(exc), trusted_for_s=round(left_s, 3))
        self.last_error = str(exc)

    def _meet(self, reply: TickReply) -> bool:
        """Note which store answered; tell whether it is another one than before."""
        before, self._incarnation = self._incarnation, reply.incarnation
        if before is None or before == reply.incarnation:
            return False
        log.warning("store.replaced", incarnation=reply.incarnation, before=before)
        self._membership.store_replaced(reply.incarnation)
        return True

    def _watch(self, session: Session) -> None:
        """End the membership the moment its trust runs out, whatever else is being awaited."""
        if session.over is not None:
            return
        left_s = session.term.trusted_until - self._clock()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._watch, session)
        else:
            self._end(session, Reason.TERM_ENDED)

    def _end(self, session: Session, reason: Reason) -> None:
        if session.over is not None:
            return
        session.over = reason
        session.term.end()
        self.session = None
        self._forsaken = session.node
        self._nudge.set()
        if reason is Reason.STOPPED:
            log.info("member.left", node=session.node)
        else:
            log.warning("member.lost", node=session.node, reason=reason)
        self._membership.lost(session, reason)
