"""Giving shards away: let the host become quiet, then release to the named successor.

Each shard is drained by its own task, so that a slow one holds up neither the others nor the heartbeat. A lease is
released only after nobody works under it any more; and once a release was sent nobody ever works under it again, also
if the store's answer was lost, because the release may still arrive.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import structlog

from leasing.held import Reason
from leasing.patience import Backoff, within
from model.errors import StoreUnavailableError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from leasing.held import HeldLease
    from model.ids import NodeId, ShardKey
    from model.lease import Lease
    from statemgr.stores import LeaseStore

log = structlog.get_logger(__name__)

_RELEASED_AT_ONCE = 500  # leases in one store call, so that none blocks the store for long


class ShardHost(Protocol):
    """Who works on the shards. The pollers' fleet provides it."""

    def start(self, lease: HeldLease) -> None:
        """Begin to work, from `lease.progress` on. Returns at once.

        What is left of an earlier, lost lease on the same shard may still be unwinding: the new work must wait for it.
        """

    async def drain(self, key: ShardKey) -> None:
        """Finish what is under way and start nothing new; return when the shard is quiet, its checkpoint written.

        Cancelled: stop at once.
        """

    def lost(self, key: ShardKey) -> None:
        """Stop at once, write nothing more. Not an error when nothing is worked on (any more). Must not raise."""


@dataclass(slots=True)
class _Leaving:
    """A shard on its way out."""

    lease: Lease
    recipient: NodeId | None
    draining: asyncio.Task[None] | None = None  # None: quiet, waiting for the store to confirm the release


class HandOver:
    """The shards on their way from this node to another."""

    def __init__(
        self,
        store: LeaseStore,
        host: ShardHost,
        *,
        quiet: Callable[[HeldLease, Reason], None],
        released: Callable[[], None],
        call_s: float,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._host = host
        self._quiet = quiet  # told when work on a shard has ended, before its release
        self._released = released  # told when the store confirmed releases
        self._call_s = call_s
        self._rng = rng
        self._shards: dict[ShardKey, _Leaving] = {}
        self._to_release = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __contains__(self, key: object) -> bool:
        return key in self._shards

    @property
    def recipients(self) -> dict[ShardKey, NodeId | None]:
        """Every shard on its way out, and to whom."""
        return {key: leaving.recipient for key, leaving in self._shards.items()}

    def begin(self, held: HeldLease, recipient: NodeId | None, *, until: float, tasks: asyncio.TaskGroup) -> None:
        """Drain a shard until the loop time `until` at most, then release it. Does nothing if it is already leaving."""
        if held.key in self._shards:
            return
        self._empty.clear()
        leaving = self._shards[held.key] = _Leaving(held.lease, recipient)
        leaving.draining = tasks.create_task(self._drain(held, leaving, until), name=f"drain {held.key}")

    def let_go(self, lease: Lease, recipient: NodeId | None = None) -> None:
        """Release a lease that nobody works under. A drain under way is stopped; it keeps its recipient."""
        before = self._shards.get(lease.key)
        if before is not None:
            recipient = recipient or before.recipient
            if before.draining is not None:
                before.draining.cancel()
        self._empty.clear()
        self._shards[lease.key] = _Leaving(lease, recipient)
        self._to_release.set()

    def forget(self, key: ShardKey) -> None:
        """Stop caring for a shard: its lease is over without our doing."""
        leaving = self._shards.pop(key, None)
        if leaving is not None and leaving.draining is not None:
            leaving.draining.cancel()
        if not self._shards:
            self._empty.set()

    def forget_all(self) -> None:
        """Stop caring for all of them: the membership is over, and the leases with it."""
        for key in list(self._shards):
            self.forget(key)

    async def emptied(self) -> None:
        """Return when nothing is on its way out."""
        await self._empty.wait()

    async def run(self) -> None:
        """Send releases, many in one call, and repeat those that got no answer. Never returns."""
        backoff = Backoff(self._rng)
        while True:
            await self._to_release.wait()
            quiet = ((key, leaving) for key, leaving in self._shards.items() if leaving.draining is None)
            batch = dict(islice(quiet, _RELEASED_AT_ONCE))
            if not batch:
                self._to_release.clear()
                continue
            try:
                await self._release(list(batch.values()))
            except StoreUnavailableError:
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            for key, leaving in batch.items():
                if self._shards.get(key) is leaving:
                    self.forget(key)
            self._released()

    async def _release(self, batch: list[_Leaving]) -> None:
        leases = [leaving.lease for leaving in batch]
        successor = {leaving.lease.key: leaving.recipient for leaving in batch if leaving.recipient is not None}
        await within(self._call_s, lambda: self._store.release(leases, successor=successor))

    async def _drain(self, held: HeldLease, leaving: _Leaving, until: float) -> None:
        reason = Reason.RELEASED
        try:
            async with asyncio.timeout_at(until):
                await self._host.drain(held.key)
        except TimeoutError:
            reason = Reason.DRAIN_TIMEOUT
        except Exception:  # supervision point: one shard's failure to stop in order is not the others'
            log.exception("lease.drain_failed", shard=str(held.key), token=held.token)
            reason = Reason.GIVEN_UP
        # No await from here on: nothing can come between these steps.
        if self._shards.get(held.key) is not leaving:
            return
        if reason is not Reason.RELEASED:
            self._host.lost(held.key)
        leaving.draining = None
        self._quiet(held, reason)
        self._to_release.set()
