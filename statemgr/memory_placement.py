"""What nodes offer each other, inside one process: `statemgr.stores.PlacementStore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from model.ids import NodeId


class MemoryPlacement:
    """The offers and the secret. `members` returns the nodes that are members now."""

    def __init__(self, members: Callable[[], Container[NodeId]]) -> None:
        self._members = members
        self.wipe()

    def wipe(self) -> None:
        """Forget everything."""
        self._offers: dict[NodeId, bytes] = {}
        self._secret = ""

    async def offer(self, node: NodeId, document: bytes | None) -> None:
        """See `PlacementStore.offer`."""
        members = self._members()
        self._offers = {one: kept for one, kept in self._offers.items() if one in members and one != node}
        if document is not None and node in members:
            self._offers[node] = document

    async def offers(self) -> Mapping[NodeId, bytes]:
        """See `PlacementStore.offers`."""
        members = self._members()
        return {node: document for node, document in self._offers.items() if node in members}

    async def fleet_secret(self, proposed: str) -> str:
        """See `PlacementStore.fleet_secret`."""
        self._secret = self._secret or proposed
        return self._secret
