"""Load what the last holder of a shard parked: nothing may be delivered before it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from model.errors import StoreUnavailableError
from pollers.handing_over import drained_within
from pollers.retrying import FIRST_DELAY_S, MAX_DELAY_S

if TYPE_CHECKING:
    import asyncio

    from model.ids import ShardKey
    from model.progress import ParkedRecords


class Lots(Protocol):
    """Where parking lots are stored."""

    async def load_parked(self, key: ShardKey) -> ParkedRecords:
        """Read a shard's parking lot."""


async def load_lot(lots: Lots, key: ShardKey, draining: asyncio.Event, log: Any) -> ParkedRecords | None:
    """Return it, however long the store is away; None when the node drains before."""
    delay_s = FIRST_DELAY_S
    while not draining.is_set():
        try:
            return await lots.load_parked(key)
        except StoreUnavailableError as exc:
            log.warning("parked.not_loaded", error=str(exc), retry_in_s=delay_s)
            await drained_within(draining, delay_s)
            delay_s = min(MAX_DELAY_S, delay_s * 2)
    return None
