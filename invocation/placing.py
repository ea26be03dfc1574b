"""Runs functions in the sandboxes of the fleet: here, or on a node that offers room (`invocation.placement`).

What runs is counted once, by whoever calls this (`invocation.counted`). On a node that is alone, or that has a warm
environment of its own, nothing is asked and nothing waited for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, assert_never

import structlog

from invocation.forwarding import Destination, Lost, Refused, forward
from invocation.invoking import InvocationResult, NotInvoked
from invocation.placement import order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invocation.invoking import Request
    from invocation.neighbours import Neighbour
    from invocation.settings import HandlerFunction
    from invocation.transport import Transport
    from invocation.worker_manager import WorkerManager
    from model.ids import NodeId

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Fleet(Protocol):
    """The other nodes, as far as placement knows them."""

    @property
    def alone(self) -> bool:
        """Whether there are none."""

    @property
    def me(self) -> str:
        """The id under which others know this node."""

    def mark(self, function: HandlerFunction) -> str | None:
        """Return what tells a definition and its code from others; None while that is not known."""

    async def neighbours(self, function: str, mark: str) -> Mapping[NodeId, Neighbour]:
        """Return the nodes that can be reached and have this very function. Raises nothing but CancelledError."""

    async def secret(self, *, renew: bool = False) -> str | None:
        """Return what nodes prove themselves with; None while it cannot be had."""


class Placing:
    """The placement service: `invocation.local_target.FunctionRunner`."""

    def __init__(self, workers: WorkerManager, fleet: Fleet, transport: Transport) -> None:
        self._workers = workers
        self._fleet = fleet
        self._transport = transport
        self.forwarded: Counter[tuple[str, str]] = Counter()
        """Invocations sent to other nodes, by function and what came of it."""

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Invoke a function once. Raises nothing but CancelledError, after which the function does not run any more."""
        if self._fleet.alone or self._workers.is_warm(function):
            return await self._workers.invoke(function, request)
        mark = self._fleet.mark(function)
        if mark is None:
            return await self._workers.invoke(function, request)
        neighbours = await self._fleet.neighbours(function.name, mark)
        now = asyncio.get_running_loop().time()
        offers = {node: view for node, one in neighbours.items() if (view := one.view(self._fleet.me, now)) is not None}
        refusal: NotInvoked | None = None
        for node in order(function.name, function.memory_mb, self._workers.headroom(), offers):
            if node is None:
                came = await self._workers.invoke(function, request)
                if isinstance(came, NotInvoked) and came.status == HTTPStatus.TOO_MANY_REQUESTS:
                    refusal = came
                    continue
                return came
            elsewhere = await self._forward(node, neighbours[node], function, mark, request)
            if elsewhere is not None:
                return elsewhere
        if refusal is None:
            raise AssertionError("this node is among those that are tried")
        return refusal

    async def _forward(
        self, node: NodeId, neighbour: Neighbour, function: HandlerFunction, mark: str, request: Request
    ) -> InvocationResult | NotInvoked | None:
        """Have another node run it. None: it has not, and never will."""
        offer = neighbour.offer
        key = neighbour.sent(function.name, function.memory_mb)
        result = "cancelled"
        try:
            secret = await self._fleet.secret() if offer.guarded else None
            came = await forward(self._transport, Destination(offer, self._fleet.me, secret), function, mark, request)
            now = asyncio.get_running_loop().time()
            match came:
                case Refused(why, away):
                    result = "unreached" if away else "refused"
                    if away and not neighbour.away:
                        log.warning("forward.unreached", node=node, address=offer.address, error=why)
                    neighbour.refused(key, now, away=away)
                    if came.stranger and offer.guarded:
                        await self._fleet.secret(renew=True)  # the store may have another one by now
                    return None
                case Lost(why, failed):
                    result = "lost"
                    log.warning(
                        "forward.lost", node=node, function=function.name, request_id=request.request_id, error=why
                    )
                    return failed
                case NotInvoked():
                    result = "failed"
                    return came
                case InvocationResult():
                    result = "ok" if came.function_error is None else "error"
                    neighbour.away = False
                    return came
                case _:
                    assert_never(came)
        finally:
            neighbour.ended(key)
            self.forwarded[function.name, result] += 1
