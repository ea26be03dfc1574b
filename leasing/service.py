"""The leasing service of one node: holds the leases that the fleet's assignment gives it, and no others.

There is no leader. Every node reads the same snapshot, computes the same assignment (`leasing.assignment`), takes what
is assigned to it and free, and gives back the rest. What a shard's holder does with it is the host's affair
(`ShardHost`); how the store keeps leases apart is `statemgr.stores`. The protocol is explained in `docs/leases.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import Counter
from contextlib import aclosing
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import structlog

from leasing.clock import trust_clock
from leasing.eligibility import Eligibility
from leasing.handover import HandOver
from leasing.held import HeldLease, Reason
from leasing.keeper import Keeper, Session
from leasing.patience import Backoff, within
from leasing.plan import Plan, contradicted, highest_token, make_plan
from leasing.term import MIN_TTL_S, default_margin_s
from model.errors import StoreUnavailableError
from model.ids import FencingToken, NodeId
from model.lease import ALL_ROLES, Member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from leasing.handover import ShardHost
    from model.ids import ShardKey
    from model.lease import FleetSnapshot, Lease, Role, TickReply
    from model.progress import ShardProgress
    from statemgr.stores import LeaseStore

log = structlog.get_logger(__name__)

_TAKEN_AT_ONCE = 500  # shards in one store call
_IN_A_THREAD = 2_000  # shards from which on an assignment would hold up the event loop
_SOON_S = 0.01  # a clock may not tell shorter times apart
_AGAIN_S = 1.0  # how soon to look again for a shard that could not be taken
_LEAVE_S = 1.0


class Listener(Protocol):
    """What else the node wants to know. Synchronous; must not raise."""

    def mappings_changed(self, revision: int) -> None:
        """Learn that mappings were put, changed or deleted since the last call, or that they are now known at all."""

    def store_replaced(self, incarnation: str) -> None:
        """Learn that the store forgot: the positions known here must be published again. Comes before the losses."""


class LeasingService:
    """Membership, balancing and hand-over of one node. Run `run()`; stop with `drain()`, or by cancelling it."""

    def __init__(
        self,
        store: LeaseStore,
        host: ShardHost,
        *,
        name: str,
        roles: frozenset[Role] = ALL_ROLES,
        zone: str = "",
        address: str = "",
        ttl_s: float = 10.0,
        hand_over_s: float = 30.0,
        listener: Listener | None = None,
        clock: Callable[[], float] = trust_clock,
        rng: random.Random | None = None,
        new_id: Callable[[], NodeId] | None = None,
    ) -> None:
        if ttl_s < MIN_TTL_S:
            raise ValueError(f"a lease of {ttl_s} s is too short: {MIN_TTL_S} s or more")
        self._store = store
        self._host = host
        self._roles = roles
        self._zone = zone
        self.address = address  # as told to the fleet; the node may learn it only when it serves
        self._hand_over_s = hand_over_s  # how long one shard may take to become quiet when it moves
        self._listener = listener
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  # jitter
        self._keeper = Keeper(
            store,
            self,
            new_id=new_id or (lambda: NodeId(f"{name}-{secrets.token_hex(4)}")),
            ttl_s=ttl_s,
            margin_s=default_margin_s(ttl_s),
            clock=clock,
            rng=self._rng,
        )
        self._ttl_s = ttl_s
        self._hand_over = HandOver(
            store, host, quiet=self._over, released=self._rebalance, call_s=self._keeper.call_s, rng=self._rng
        )
        self._held: dict[ShardKey, HeldLease] = {}
        self._floor = FencingToken(0)  # the highest token ever seen
        self._eligibility = Eligibility()
        self._tasks: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._version_seen: int | None = None
        self._draining = False
        self._stop = asyncio.Event()
        self._finished = asyncio.Event()
        self.snapshot: FleetSnapshot | None = None  # the last one read
        self.mappings_revision: int | None = None
        self.transitions: Counter[str] = Counter()
        self.awaited = 0  # shards assigned here and not yet held
        self.balanced = False  # whether everything assigned here was held when last looked

    @property
    def node(self) -> NodeId | None:
        """The present membership's id; None while this node is no member."""
        return None if self._keeper.session is None else self._keeper.session.node

    @property
    def held(self) -> Mapping[ShardKey, HeldLease]:
        """The leases under which work goes on, also those being drained."""
        return MappingProxyType(self._held)

    @property
    def last_renewed_at(self) -> float | None:
        """When the last successful heartbeat was asked for, by this service's clock."""
        return self._keeper.last_renewed_at

    @property
    def last_error(self) -> str | None:
        """What keeps the heartbeat from getting through; None while it does."""
        return self._keeper.last_error

    def check(self) -> None:
        """Step down at once if the trust has run out. To be called by whoever notices that the event loop was late."""
        self._keeper.check()

    async def run(self) -> None:
        """Take part in the fleet until `drain()` is called or this is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                loops = [
                    tasks.create_task(self._keeper.run(), name="leasing: keep the membership"),
                    tasks.create_task(self._listen(), name="leasing: listen"),
                    tasks.create_task(self._balance(), name="leasing: balance"),
                    tasks.create_task(self._hand_over.run(), name="leasing: release"),
                ]
                await self._stop.wait()
                for task in loops:
                    task.cancel()
        finally:
            # All leases have ended here by now, before the store can give them to others.
            self._keeper.stop()
            self._tasks = None
            try:
                await self._keeper.leave(_LEAVE_S)
            finally:
                self._finished.set()

    async def drain(self, deadline_s: float) -> None:
        """Give everything to its next holders, for at most `deadline_s`, then leave the fleet and end `run()`."""
        if self._tasks is None:
            self._stop.set()
            return
        self._draining = True
        until = asyncio.get_running_loop().time() + deadline_s
        log.info("member.draining", node=self.node, shards=len(self._held), deadline_s=deadline_s)
        self._keeper.wake()  # so that the others count without this node before the first shard is free
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._give_everything(until)
        self._keeper.stop()
        self._stop.set()
        await self._finished.wait()

    def give_up(self, key: ShardKey) -> None:
        """Take back a shard from a host that cannot go on with it and has stopped. It is taken again after a pause.

        A host that merely has nothing left to do (a closed shard, read to its end) keeps it: the mapping's tracker
        decides when it is no longer wanted. Does nothing when the lease is already over.
        """
        held = self._held.get(key)
        if held is None:
            return
        self._eligibility.cool_down(key, self._clock())
        self._over(held, Reason.GIVEN_UP)
        self._hand_over.let_go(held.lease)

    # Told by the keeper

    def facts(self, node: NodeId) -> Member:
        """See `Membership.facts`."""
        return Member(node, self._roles, draining=self._draining, address=self.address, zone=self._zone)

    def joined(self, session: Session, reply: TickReply) -> None:
        """See `Membership.joined`."""
        self._version_seen = None
        self.renewed(session, reply)

    def renewed(self, session: Session, reply: TickReply) -> None:  # noqa: ARG002  # the keeper has only one
        """See `Membership.renewed`."""
        if reply.version != self._version_seen:
            self._rebalance()
        if reply.mappings_revision != self.mappings_revision:
            self.mappings_revision = reply.mappings_revision
            if self._listener is not None:
                self._listener.mappings_changed(reply.mappings_revision)

    def lost(self, session: Session, reason: Reason) -> None:  # noqa: ARG002  # the keeper has only one
        """See `Membership.lost`."""
        ended = list(self._held.values())
        self._hand_over.forget_all()
        for held in ended:
            held.end(reason)
            self._host.lost(held.key)
        for held in ended:
            self._over(held, reason)
        self.balanced = False

    def store_replaced(self, incarnation: str) -> None:
        """See `Membership.store_replaced`."""
        self.mappings_revision = None
        # Who has not noticed yet may work on for this long, and can publish its positions until then.
        self._eligibility.hold_off(self._clock() + self._ttl_s)
        if self._listener is not None:
            self._listener.store_replaced(incarnation)

    # The loops

    async def _listen(self) -> None:
        wakes: AsyncIterator[None] = self._store.wakes()
        async with aclosing(wakes) as changes:  # type: ignore[type-var]  # an async generator; the Protocol does not say so
            async for _ in changes:
                self._keeper.wake()

    def _rebalance(self) -> None:
        self._changed.set()

    async def _balance(self) -> None:
        backoff = Backoff(self._rng)
        again_s: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await self._changed.wait()
            self._changed.clear()
            session = self._keeper.session
            if session is None:
                again_s = None  # joining sets `_changed`
                continue
            began_at = self._clock()
            try:
                again_s = await self._balance_once(session)
            except StoreUnavailableError as exc:
                log.debug("leases.not_balanced", error=str(exc))
                again_s = backoff.next_s()
                continue
            backoff.reset()
            # A large fleet that changes fast must not be read and computed all the time.
            await asyncio.sleep(min(0.5, 3 * (self._clock() - began_at)))

    async def _balance_once(self, session: Session) -> float | None:
        """Look at the fleet and do what follows from it. Returns after how many seconds to look again in any case."""
        snapshot = await within(self._keeper.call_s, self._store.snapshot)
        if session.ended():
            return None
        self._note(snapshot)
        plan = await self._plan(session, snapshot)
        if session.ended():
            return None
        self._give(plan, asyncio.get_running_loop().time() + self._hand_over_s)
        for lease, recipient in plan.stray.items():
            self._hand_over.let_go(lease, recipient)
        missing = 0
        if not self._draining:
            await self._pass_on(session, plan.pass_on)
            due = self._eligibility.due(plan.take, self._clock())
            missing = len(plan.take) + len(plan.reserved) - await self._take(session, due)
        self.awaited = missing + len(plan.awaited)
        self.balanced = self.awaited == 0 and not session.ended()
        if not missing:
            return None
        left_s = self._eligibility.held_off_s(self._clock())  # nobody tells when a reservation or a pause is over
        return _AGAIN_S if left_s <= 0 else min(_AGAIN_S, max(_SOON_S, left_s))

    async def _plan(self, session: Session, snapshot: FleetSnapshot) -> Plan:
        held = [key for key in self._held if key not in self._hand_over]
        leaving, draining = self._hand_over.recipients, self._draining
        if len(snapshot.wanted) < _IN_A_THREAD:
            return make_plan(snapshot, session.node, held=held, leaving=leaving, draining=draining)
        return await asyncio.to_thread(
            make_plan, snapshot, session.node, held=frozenset(held), leaving=leaving, draining=draining
        )

    def _note(self, snapshot: FleetSnapshot) -> None:
        """Learn from a snapshot that was asked for after every lease in `_held` was granted."""
        self.snapshot = snapshot
        self._version_seen = snapshot.version
        self._floor = max(self._floor, highest_token(snapshot) or self._floor)
        self._eligibility.forget_unwanted(snapshot)
        for key in contradicted(snapshot, {key: held.lease for key, held in self._held.items()}):
            held = self._held[key]
            held.end(Reason.TAKEN)
            self._hand_over.forget(key)
            self._host.lost(key)
            self._over(held, Reason.TAKEN)

    def _give(self, plan: Plan, until: float) -> None:
        if self._tasks is None:
            return
        for key, recipient in plan.give.items():
            held = self._held.get(key)
            if held is not None:
                self._hand_over.begin(held, recipient, until=until, tasks=self._tasks)

    async def _give_everything(self, until: float) -> None:
        session = self._keeper.session
        if session is not None and self.snapshot is not None:
            # By the last snapshot, also if the store cannot be asked now: becoming quiet needs no store.
            self._give(await self._plan(session, self.snapshot), until)
        await self._hand_over.emptied()

    async def _take(self, session: Session, keys: Sequence[ShardKey]) -> int:
        """Acquire shards and start the host on them. Returns how many of them are now held."""
        taken = 0
        for first in range(0, len(keys), _TAKEN_AT_ONCE):
            granted = await self._acquire(session, keys[first : first + _TAKEN_AT_ONCE])
            if session.ended() or self._draining:
                return taken  # leaving the fleet gives them back
            for key, (lease, progress) in granted.items():
                if key in self._held or key in self._hand_over:
                    continue
                if self._eligibility.is_over(lease):
                    # The store has lost its release: somebody may have had the shard since, under a newer token.
                    self._hand_over.let_go(lease)
                else:
                    self._start(HeldLease(lease, progress, term=session.term, clock=self._clock))
                    taken += 1
        return taken

    async def _pass_on(self, session: Session, recipients: Mapping[ShardKey, NodeId]) -> None:
        """Do not let shards wait that were left to this node and are not its own any more."""
        if recipients and self._eligibility.held_off_s(self._clock()) <= 0:
            for key, (lease, _) in (await self._acquire(session, list(recipients)[:_TAKEN_AT_ONCE])).items():
                if not session.ended() and key not in self._held:
                    self._hand_over.let_go(lease, recipients[key])

    async def _acquire(
        self, session: Session, keys: Sequence[ShardKey]
    ) -> Mapping[ShardKey, tuple[Lease, ShardProgress]]:
        limit_s = min(self._keeper.call_s, session.term.trusted_until - self._clock())
        granted = await within(
            limit_s, lambda: self._store.acquire(session.node, keys, floor=self._floor, ttl_s=self._ttl_s)
        )
        self._floor = max([self._floor, *(lease.token for lease, _ in granted.values())])
        return granted

    def _start(self, held: HeldLease) -> None:
        self._held[held.key] = held
        self.transitions[Reason.ACQUIRED] += 1
        log.info("lease.acquired", shard=str(held.key), node=held.node, token=held.token)
        try:
            self._host.start(held)
        except Exception:  # supervision point: one shard that cannot start must not end the others
            log.exception("lease.start_failed", shard=str(held.key), token=held.token)
            self._host.lost(held.key)
            self.give_up(held.key)

    def _over(self, held: HeldLease, reason: Reason) -> None:
        """Note that a lease is over. The host has stopped already, or been told to."""
        held.end(reason)
        self._eligibility.end(held.lease)
        if self._held.get(held.key) is held:
            del self._held[held.key]
        self.transitions[reason] += 1
        event = log.info if reason in (Reason.RELEASED, Reason.STOPPED) else log.warning
        name = "lease.released" if reason in (Reason.RELEASED, Reason.DRAIN_TIMEOUT, Reason.GIVEN_UP) else "lease.lost"
        event(name, shard=str(held.key), node=held.node, token=held.token, reason=reason)
