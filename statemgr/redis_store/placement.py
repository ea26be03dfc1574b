"""What nodes offer each other, in Redis: `statemgr.stores.PlacementStore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.ids import NodeId
from statemgr.redis_store.script import Script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from statemgr.redis_store.keys import Keys
    from statemgr.redis_store.script import RunFleetScript, RunScript

_OFFER, _OFFERS = map(Script, ("offer", "offers"))
_FLEET_SECRET = Script("fleet_secret", common=False)


class RedisPlacement:
    """The offers and the secret. `fleet` runs a script on the fleet's keys and some more, `run` on those alone."""

    def __init__(self, fleet: RunFleetScript, run: RunScript, keys: Keys) -> None:
        self._fleet = fleet
        self._run = run
        self._keys = keys

    async def offer(self, node: NodeId, document: bytes | None) -> None:
        """See `PlacementStore.offer`."""
        await self._fleet(_OFFER, [node, document or b""], [self._keys.offers])

    async def offers(self) -> Mapping[NodeId, bytes]:
        """See `PlacementStore.offers`."""
        flat = await self._fleet(_OFFERS, (), [self._keys.offers])
        return {NodeId(node.decode()): document for node, document in zip(flat[::2], flat[1::2], strict=True)}

    async def fleet_secret(self, proposed: str) -> str:
        """See `PlacementStore.fleet_secret`."""
        secret: bytes = await self._run(_FLEET_SECRET, [self._keys.fleet_secret], [proposed])
        return secret.decode()
