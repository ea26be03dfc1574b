"""One node's way to a store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from model.errors import StoreUnavailableError
from tests.support.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from model.ids import FencingToken, NodeId, ShardKey
    from model.lease import FleetSnapshot, Lease, Member, TickReply
    from model.progress import ShardProgress
    from statemgr.memory_store import MemoryStore
    from tests.support.wire import Door

_T = TypeVar("_T")


class Link(Wire):
    """One node's way to the store: what was sent arrives, after its sender's death too."""

    def __init__(self, store: MemoryStore, door: Door | None = None, *, timeout_s: float | None = None) -> None:
        super().__init__(door, timeout_s=timeout_s)
        self.store = store

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Send what is not spelled out below, progress and mappings, like all the rest."""
        method = getattr(self.store, name)

        def send(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            return self._send(name, lambda: method(*args, **kwargs))

        return send

    async def _send(self, name: str, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        try:
            return await self.carry(name, lambda answer: answer(_run_now(call())))
        except WireError as exc:
            raise StoreUnavailableError(str(exc)) from exc

    async def join(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.join`."""
        return await self._send("join", lambda: self.store.join(member, ttl_s=ttl_s))

    async def tick(self, member: Member, *, ttl_s: float) -> TickReply:
        """See `LeaseStore.tick`."""
        return await self._send("tick", lambda: self.store.tick(member, ttl_s=ttl_s))

    async def leave(self, node: NodeId) -> None:
        """See `LeaseStore.leave`."""
        await self._send("leave", lambda: self.store.leave(node))

    async def snapshot(self) -> FleetSnapshot:
        """See `LeaseStore.snapshot`."""
        return await self._send("snapshot", self.store.snapshot)

    async def acquire(
        self, node: NodeId, keys: Sequence[ShardKey], *, floor: FencingToken, ttl_s: float
    ) -> Mapping[ShardKey, tuple[Lease, ShardProgress]]:
        """See `LeaseStore.acquire`."""
        return await self._send("acquire", lambda: self.store.acquire(node, keys, floor=floor, ttl_s=ttl_s))

    async def release(self, leases: Sequence[Lease], *, successor: Mapping[ShardKey, NodeId] | None = None) -> None:
        """See `LeaseStore.release`."""
        await self._send("release", lambda: self.store.release(leases, successor=successor))

    def wakes(self) -> AsyncIterator[None]:
        """See `LeaseStore.wakes`."""
        return self._wakes()

    async def _wakes(self) -> AsyncIterator[None]:
        async for _ in self.store.wakes():
            if self.passes:
                yield


def _run_now(call: Coroutine[Any, Any, _T]) -> _T:
    """Run a call of the store in memory, none of which suspends."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the coroutine returned
    raise AssertionError("the store in memory suspended")
