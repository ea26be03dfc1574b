"""The node's part in the placement service: what it offers to others, what others offer to it, and the metrics.

A node writes its offer when it changes, once a second at most, and only while there is somebody to read it and there
are functions to offer. Offers of others are read when an invocation finds no warm environment here.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

import structlog
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from invocation.code_version import code_digest, code_version
from invocation.neighbours import Neighbour
from invocation.placement import mark_of
from invocation.placing import Placing
from invocation.settings import HandlerFunction
from invocation.transport import Transport
from model.errors import StoreUnavailableError
from model.lease import Role
from model.placement import Offer, decode_offers
from node.reach import network_id, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from invocation.settings import FunctionSettings
    from invocation.worker_manager import WorkerManager
    from leasing.service import LeasingService
    from model.ids import NodeId
    from node.options import ListenAddress
    from statemgr.stores import PlacementStore

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_EVERY_S = 1.0
_FRESH_S = 0.25  # so old may offers be that were read
_READ_S = 0.25  # an invocation waits so long for them
_AGAIN_S = 5.0  # after the store had no answer
_SURE_S = 60.0  # an offer is written again, should the store have lost its last writes
_CODE_EVERY_S = 5.0
_CODE_SHARE = 50  # times as long as a look at the code has taken it is not looked at
_CONNECT_S = 1.0
_WITHDRAW_S = 1.0
_RUNNING_ROLES = frozenset({Role.FRONTEND, Role.POLLERS})


class Placement(Collector):
    """Offers and neighbours of one node. Use as an async context manager, and run `run()` once it has `joined()`.

    `functions` returns those of the present configuration. `placing` is what runs them.
    """

    def __init__(
        self,
        store: PlacementStore,
        workers: WorkerManager,
        functions: Callable[[], Mapping[str, FunctionSettings]],
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._every_s = every_s
        self._store = store
        self._workers = workers
        self._functions = functions
        self._leasing: LeasingService | None = None
        self._listen: ListenAddress | None = None
        self._reach: tuple[str, str] | None = None
        self._network = network_id()
        self._tls = self._guarded = self._offering = False
        # A connection that breaks after the event was sent may have run it: nothing is repeated.
        self._transport = Transport(stale_s=0.0, connect_s=_CONNECT_S)
        self._code: dict[str, tuple[str, str]] = {}  # by folder: its version, and a hash of its contents
        self._code_at = 0.0  # when to look at it again
        self._marks: dict[str, tuple[HandlerFunction, str, str]] = {}  # with the hash of its code, and the mark
        self._written: tuple[NodeId, Offer] | None = None
        self._again_at = 0.0
        self._neighbours: dict[NodeId, Neighbour] = {}
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()
        self._secret: str | None = None
        self._secret_at = -every_s
        self._asking = asyncio.Lock()
        self.running: dict[str, Counter[str]] = {}
        """Invocations that run here for other nodes, by node and function."""
        self.placing = Placing(workers, self, self._transport)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()

    def joined(
        self,
        leasing: LeasingService,
        address: ListenAddress,
        *,
        roles: frozenset[Role],
        tls: bool,
        guarded: bool,
    ) -> None:
        """Learn where this node is and who else there is."""
        self._listen = address
        self._tls, self._guarded = tls, guarded
        self._offering = bool(roles & _RUNNING_ROLES)
        self._leasing = leasing

    async def run(self) -> None:
        """Offer what there is until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(self._every_s)
            if self.alone or not (handlers := self._handlers()):
                continue
            await self._look_at(handlers)
            if not self._offering:
                continue
            if self._guarded:
                await self.secret()  # before others come with it
            try:
                await self._offer()
                failing = False
            except StoreUnavailableError as exc:
                if not failing:
                    log.warning("placement.not_offered", error=str(exc))
                failing = True

    async def withdraw(self) -> None:
        """Offer nothing any more. Best effort: offers end with the membership, and what comes is refused."""
        self._offering = False
        if self._written is None:
            return
        node, _ = self._written
        try:
            async with asyncio.timeout(_WITHDRAW_S):
                await self._store.offer(node, None)
        except (StoreUnavailableError, TimeoutError) as exc:
            log.warning("placement.not_withdrawn", error=str(exc) or "no answer in time")

    @contextlib.contextmanager
    def counted(self, node: str, function: str) -> Iterator[None]:
        """Count an invocation that runs here for another node."""
        counts = self.running.setdefault(node, Counter())
        counts[function] += 1
        try:
            yield
        finally:
            counts[function] -= 1
            if not counts[function]:
                del counts[function]
            if not counts and self.running.get(node) is counts:
                del self.running[node]

    def function(self, name: str, mark: str) -> HandlerFunction | None:
        """Return the function that another node means; None where it is another one here, or none."""
        found = self._functions().get(name)
        return found if isinstance(found, HandlerFunction) and self.mark(found) == mark else None

    # `invocation.placing.Fleet`

    @property
    def alone(self) -> bool:
        """Whether there is no other node."""
        leasing = self._leasing
        if leasing is None or leasing.node is None or leasing.snapshot is None:
            return True
        return all(member.node == leasing.node for member in leasing.snapshot.members)

    @property
    def me(self) -> str:
        """The id under which others know this node."""
        return "" if self._leasing is None else str(self._leasing.node)

    def mark(self, function: HandlerFunction) -> str | None:
        """Return what tells a definition and its code from others; None while that is not known."""
        known = self._marks.get(function.name)
        return known[2] if known is not None and known[0] == function else None

    async def neighbours(self, function: str, mark: str) -> Mapping[NodeId, Neighbour]:
        """Return the nodes that can be reached and have this very function."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._fresh_until:
            async with self._reading:
                if loop.time() >= self._fresh_until:
                    await self._read()
        return {node: one for node, one in self._neighbours.items() if one.offer.marks.get(function) == mark}

    async def secret(self, *, renew: bool = False) -> str | None:
        """Return what nodes prove themselves with; None while it cannot be had. Asks once a second at most."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if (renew or self._secret is None) and loop.time() - self._secret_at >= self._every_s:
                try:
                    async with asyncio.timeout(_READ_S):
                        self._secret = await self._store.fleet_secret(secrets.token_urlsafe(32))
                except (StoreUnavailableError, TimeoutError) as exc:
                    log.warning("placement.no_secret", error=str(exc) or "no answer in time")
                self._secret_at = loop.time()
            return self._secret

    async def _read(self) -> None:
        """Read what others offer. Without an answer the last one stands, and nobody asks again for a while."""
        own = None if self._leasing is None else self._leasing.node
        try:
            async with asyncio.timeout(_READ_S):
                offers = decode_offers(await self._store.offers())
        except (StoreUnavailableError, TimeoutError) as exc:
            log.warning("placement.not_read", error=str(exc) or "no answer in time")
            self._fresh_until = asyncio.get_running_loop().time() + _AGAIN_S
            return
        self._fresh_until = asyncio.get_running_loop().time() + _FRESH_S
        reachable = {n: o for n, o in offers.items() if n != own and o.host in {"", self._network}}
        for node in [node for node, one in self._neighbours.items() if node not in reachable]:
            del self._neighbours[node]
        for node, offer in reachable.items():
            if node in self._neighbours:
                self._neighbours[node].offer = offer
            else:
                self._neighbours[node] = Neighbour(offer)

    def _handlers(self) -> list[HandlerFunction]:
        return [one for one in self._functions().values() if isinstance(one, HandlerFunction)]

    async def _look_at(self, handlers: Iterable[HandlerFunction]) -> None:
        """See which code the functions have: at once where it was not seen yet, else now and then."""
        now = asyncio.get_running_loop().time()
        folders = {one.code for one in handlers}
        for folder in self._code.keys() - folders:
            del self._code[folder]
        if now < self._code_at:
            folders -= self._code.keys()
        began_at = time.perf_counter()
        for folder in folders:
            version = await asyncio.to_thread(code_version, folder)
            if self._code.get(folder, ("", ""))[0] != version:
                self._code[folder] = version, await asyncio.to_thread(code_digest, folder)
        if folders:
            self._code_at = now + max(_CODE_EVERY_S, (time.perf_counter() - began_at) * _CODE_SHARE)
        for one in handlers:
            now_is = (one, self._code[one.code][1])
            if one.name not in self._marks or self._marks[one.name][:2] != now_is:
                self._marks[one.name] = (*now_is, mark_of(*now_is))
        for name in self._marks.keys() - {one.name for one in handlers}:
            del self._marks[name]

    async def _offer(self) -> None:
        """Write what there is, if it is not what was written last."""
        node = None if self._leasing is None else self._leasing.node
        if node is None or self._listen is None:
            return
        if self._reach is None:  # in a thread: it may ask for the machine's full name
            self._reach = await asyncio.to_thread(reach, self._listen, tls=self._tls)
        room = self._workers.headroom()
        address, network = self._reach
        offer = Offer(
            address=address,
            host=network,
            tls=self._tls,
            guarded=self._guarded,
            environments=room.environments,
            free=room.free,
            idle=room.idle,
            marks={name: mark for name, (_, _, mark) in self._marks.items()},
            warm=dict(room.warm),
            running={node: dict(functions) for node, functions in self.running.items()},
        )
        now = asyncio.get_running_loop().time()
        if self._written == (node, offer) and now < self._again_at:
            return
        await self._store.offer(node, offer.encode())
        self._written = node, offer
        self._again_at = now + _SURE_S

    # `prometheus_client.registry.Collector`

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metric; none before something was forwarded."""
        forwarded = CounterMetricFamily(
            "esm_forwarded_invocations", "Invocations sent to other nodes.", labels=["function", "result"]
        )
        for (function, result), number in self.placing.forwarded.items():
            forwarded.add_metric([function, result], number)
        return [forwarded]
