"""The fleet as one node sees it: what the store knows, and fresher news of the shards that the node holds itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from controlplane.explain import read_explanation
from controlplane.status import present_shards, read_status
from model.ids import NodeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.explain import Explanation
    from controlplane.status import LiveShards, Status
    from model.ids import MappingId, ShardKey
    from model.progress import ShardProgress
    from node.health import LeasingFacts
    from statemgr.stores import Store


class FleetView:
    """Reads the store at each question. `live` tells of the node's own shards, `name` is the node's while no member."""

    def __init__(self, store: Store, leasing: LeasingFacts, live: LiveShards, *, name: str) -> None:
        self._store = store
        self._leasing = leasing
        self._live = live
        self._name = name

    @property
    def node(self) -> NodeId:
        """The id under which the node answers."""
        return self._leasing.node or NodeId(self._name)

    async def status(self) -> Status:
        """Return the document of `esmd status`. Raises `StoreUnavailableError`."""
        return await read_status(self._store, self.node, self._live)

    async def explain(self, mapping: str) -> Explanation:
        """Return why a mapping, named or by its id, is where it is. Raises as `read_explanation`."""
        return await read_explanation(self._store, self.node, mapping, self._live, now_s=time.time())

    async def present_shards(self, mapping: MappingId) -> Mapping[ShardKey, ShardProgress]:
        """Return what is known of a mapping's shards by now. Raises `StoreUnavailableError`."""
        snapshot, progress = await self._store.snapshot(), await self._store.load_mapping(mapping)
        return present_shards(self.node, snapshot, (), progress, self._live)
