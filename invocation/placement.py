"""Where an invocation goes when several nodes could run it: the placement service's decisions. Pure.

A warm environment saves a cold start, so it comes first: one of this node, then one of another. A new one is started
here if there is room, then on the fullest other node that has room for it, so that few nodes are in use and the others
stay free for functions that need much. Only then do idle environments of other functions make room, here first.

What others offer is a second old and may be wrong. So it is an order in which to try, and each node decides for itself:
it runs what it is given or refuses, and never hands it on.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from model.placement import Capacity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invocation.settings import HandlerFunction
    from model.ids import NodeId
    from model.placement import Offer

MOST_TRIED = 3
"""Other nodes asked for one invocation: with offers this fresh more refusals mean that the fleet is full."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a node has for more invocations."""

    environments: int  # there are, whatever they do
    free: Capacity
    idle: Capacity  # held by idle environments, which end when the room is needed
    warm: Mapping[str, int]  # idle environments by function


def order(function: str, memory_mb: int, here: Headroom, offers: Mapping[NodeId, Offer]) -> list[NodeId | None]:
    """Return where to try, best first; None is this node, which is always among them: it has the last word.

    `offers` are those of nodes that can be reached and have the same function.
    """
    ranked = sorted(
        (rank, *_fullest_first(offer.free), node)
        for node, offer in offers.items()
        if (rank := _rank(memory_mb, offer.free, offer.idle, warm=offer.warm.get(function, 0) > 0)) is not None
    )[:MOST_TRIED]
    own = _rank(memory_mb, here.free, here.idle, warm=here.warm.get(function, 0) > 0)
    nodes = [node for *_, node in ranked]
    better = sum(own is None or rank < own for rank, *_ in ranked)
    return [*nodes[:better], None, *nodes[better:]]


def beside(offer: Offer, counted: Mapping[str, int], sent: Mapping[str, int], memory_mb: Mapping[str, int]) -> Offer:
    """Return what an offer comes to by now, from invocations of this node by function, and the functions' memory.

    `counted` run there by what the offer says, `sent` do by now: what came since has taken room, and where fewer are
    left their environments wait.
    """
    free, idle, warm = offer.free, offer.idle, dict(offer.warm)
    for function in {*counted, *sent}:
        size = memory_mb.get(function, 0)
        more = sent.get(function, 0) - counted.get(function, 0)
        if more < 0:
            warm[function] = warm.get(function, 0) - more
            idle = idle.plus(Capacity(-more, -more * size))
        for _ in range(more):
            if warm.get(function, 0) > 0:
                warm[function] -= 1
                idle = idle.less(size)
            else:  # idle ones of whatever function make room where there is none
                beyond = max(0, size - free.memory_mb)
                idle = idle.less(beyond) if beyond or not free.environments else idle
                free = free.less(size)
    return msgspec.structs.replace(offer, free=free, idle=idle, warm=warm)


def mark_of(function: HandlerFunction, code: str) -> str:
    """Return a text that is the same on two nodes where the function is. `code` is a hash of what its folder holds."""
    settings = (
        function.name,
        function.handler,
        function.runtime,
        function.timeout_s,
        function.memory_mb,
        sorted((name, text.template) for name, text in function.environment.items()),
        function.isolation,
        function.network,
        code,
    )
    return blake2b(msgspec.json.encode(settings), digest_size=8).hexdigest()


def _rank(memory_mb: int, free: Capacity, idle: Capacity, *, warm: bool) -> int | None:
    """Return 0 for a warm environment, 1 for room, 2 for room that idle environments must make; None for neither."""
    if warm:
        return 0
    if free.fits(memory_mb):
        return 1
    return 2 if free.plus(idle).fits(memory_mb) else None


def _fullest_first(free: Capacity) -> tuple[int, int]:
    return free.memory_mb, free.environments
