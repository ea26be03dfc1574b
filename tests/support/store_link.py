"""One node's way to a store in memory: late, lost, or stuck messages, as a network and a stopped process make them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, TypeVar

from model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from model.ids import FencingToken, NodeId, ShardKey
    from model.lease import FleetSnapshot, Lease, Member, TickReply
    from model.progress import ShardProgress
    from statemgr.memory_store import MemoryStore

_T = TypeVar("_T")


def no_delay() -> float:
    """Take no time."""
    return 0.0


class Link:
    """One node's way to the store. A request that was sent arrives, also when its sender has given up waiting."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.refusing = False  # nothing is sent, the caller hears so at once
        self.mute = False  # requests arrive, answers do not
        self.request_s = no_delay
        self.reply_s = no_delay
        self.calls: Counter[str] = Counter()
        self.on_call: Callable[[str, int], None] | None = None  # told of each call's name and number, once sent
        self._holds_only = ""
        self._held_up: deque[Callable[[], None]] | None = None

    def hold_up(self, only: str = "") -> None:
        """Let requests queue on the way, as in front of a stopped process; perhaps only those of one name."""
        self._held_up = self._held_up or deque()
        self._holds_only = only

    def let_through(self) -> None:
        """Deliver what has queued up, in order."""
        queue, self._held_up = self._held_up or deque(), None
        for arrive in queue:
            arrive()

    async def _send(self, name: str, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()
        self.calls[name] += 1
        number = self.calls.total()
        if self.refusing:
            await asyncio.sleep(0)
            raise StoreUnavailableError("refused")

        def deliver(reply: Any) -> None:
            if not answer.cancelled():
                answer.set_result(reply)

        def arrive() -> None:
            if self._held_up is not None and self._holds_only in ("", name):
                self._held_up.append(arrive)
                return
            reply = _run_now(call())
            if not self.mute:
                loop.call_later(self.reply_s(), deliver, reply)

        loop.call_later(self.request_s(), arrive)
        if self.on_call is not None:
            self.on_call(name, number)
        return await answer

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
            if not self.refusing and self._held_up is None:
                yield


def _run_now(call: Coroutine[Any, Any, _T]) -> _T:
    """Run a call of the store in memory, none of which suspends."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the coroutine returned
    raise AssertionError("the store in memory suspended")
