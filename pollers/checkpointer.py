"""Write checkpoints: one round trip for all shards that moved, a moment after the first of them did.

Meanwhile, and while the save before is under way, further shards gather and batches of the same shard become one
update. Nobody waits for that moment: who has to wait for a save asks for it at once (`hurry`). The writes are fenced: a
stale one is refused by the store and ends the pump that made it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from model.errors import StoreUnavailableError
from model.progress import ParkedChange, SaveResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardKey
    from model.progress import ParkedRecords, ProgressUpdate
    from model.record import Record

log = structlog.get_logger(__name__)

_GATHER_S = 0.005  # half as many updates where batches take a millisecond, and a crash repeats no more batches
_FIRST_DELAY_S = 0.05
_MAX_DELAY_S = 1.0
# Of one round trip, to keep the script short for everyone else on the server. A window's state may have 1 MB.
_MAX_UPDATES = 500
_MAX_BYTES = 2 * 1024 * 1024


class Writer(Protocol):
    """The part of `statemgr.stores.ProgressStore` that a checkpointer needs."""

    async def save(self, updates: Sequence[ProgressUpdate]) -> Sequence[SaveResult]:
        """Write several shards' progress in one round trip; results in the order given."""

    async def load_parked(self, key: ShardKey) -> ParkedRecords:
        """Read a shard's parking lot."""


class Saving(Protocol):
    """A shard whose progress is to be saved."""

    @property
    def key(self) -> ShardKey:
        """The shard."""

    def to_save(self) -> ProgressUpdate | None:
        """Return the present state, at the moment it is sent; None when nothing may be written any more."""

    def saved(self, update: ProgressUpdate, result: SaveResult) -> None:
        """Learn what became of an update made by `to_save`."""


class Checkpointer:
    """Saves for all shards of a node. Run `run` once; `mark` from anywhere in the same loop."""

    def __init__(self, store: Writer) -> None:
        self._store = store
        self._dirty: dict[ShardKey, Saving] = {}
        self._work = asyncio.Event()
        self._hurried = asyncio.Event()
        self._last: dict[ShardKey, ProgressUpdate] = {}
        self._lots: dict[ShardKey, dict[int, Record]] = {}  # the parking lots as of the last saves
        self.load_parked = store.load_parked

    def mark(self, shard: Saving) -> None:
        """Have the shard's state saved soon."""
        self._dirty[shard.key] = shard
        self._work.set()

    def hurry(self) -> None:
        """Have what is marked saved now: somebody waits for it."""
        self._hurried.set()

    def forget(self, shard: Saving, *, instead: ProgressUpdate | None = None) -> None:
        """Save nothing more for a shard: it ended.

        Its parking lot is too large to be kept for others. Without it, only `instead` may be published again, which
        lies before all that was parked.
        """
        if self._dirty.get(shard.key) is shard:
            del self._dirty[shard.key]
        lot = self._lots.pop(shard.key, None)
        if lot is None:
            return
        last = self._last.pop(shard.key)
        last_without = instead if lot else replace(last, parked=None)
        if last_without is not None:
            self._last[shard.key] = last_without

    async def republish(self) -> None:
        """Write what was last saved from here once more, for a store that has forgotten it.

        Each update keeps the token it was saved under, so whatever a newer holder wrote stands. Raises
        `StoreUnavailableError`.
        """
        updates = [self._with_lot(update) for update in self._last.values()]
        while updates:
            count = size = 0
            while count < min(len(updates), _MAX_UPDATES) and size < _MAX_BYTES:
                size += _size(updates[count])
                count += 1
            await self._store.save(updates[:count])
            del updates[:count]

    async def save_again(self, key: ShardKey) -> None:
        """Write what was last saved of one shard once more. Raises `StoreUnavailableError`."""
        if key in self._last:
            await self._store.save([self._with_lot(self._last[key])])

    async def run(self) -> None:
        """Save until cancelled."""
        delay_s = _FIRST_DELAY_S
        while True:
            await self._work.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_S):
                    await self._hurried.wait()
            self._hurried.clear()
            pairs = self._next()
            if not self._dirty:
                self._work.clear()
            if not pairs:
                continue
            try:
                results = await self._store.save([update for _, update in pairs])
            except StoreUnavailableError as exc:
                # The write may have happened: saving the same or a later position again is harmless.
                log.warning("checkpoint.not_saved", shards=len(pairs), error=str(exc), retry_in_s=delay_s)
                self._dirty = {shard.key: shard for shard, _ in pairs} | self._dirty
                self._work.set()
                await asyncio.sleep(delay_s)
                delay_s = min(_MAX_DELAY_S, delay_s * 2)
                continue
            delay_s = _FIRST_DELAY_S
            for (shard, update), result in zip(pairs, results, strict=True):
                if result is not SaveResult.SAVED:
                    log.warning(
                        "checkpoint.refused", shard=str(shard.key), token=update.token, position=update.position,
                        result=result,
                    )  # fmt: skip
                else:
                    self._keep(update)
                shard.saved(update, result)

    def _next(self) -> list[tuple[Saving, ProgressUpdate]]:
        """Take as many of the shards that moved as one round trip should carry, those that wait longest first."""
        pairs: list[tuple[Saving, ProgressUpdate]] = []
        size = 0
        for key, shard in list(self._dirty.items())[:_MAX_UPDATES]:
            if size >= _MAX_BYTES:
                break
            del self._dirty[key]
            update = shard.to_save()
            if update is not None:
                pairs.append((shard, update))
                size += _size(update)
        return pairs

    def _keep(self, update: ProgressUpdate) -> None:
        """Remember what was saved, for `republish`."""
        before = self._last.get(update.key)
        change = update.parked
        if change is not None:
            lot = {} if change.base is None else self._lots.get(update.key, {})
            for position in change.drop:
                lot.pop(position, None)
            lot.update((record.position, record) for record in change.put)
            self._lots[update.key] = lot
        elif before is not None and before.parked is not None:
            update = replace(update, parked=before.parked)  # its revision is still the lot's
        self._last[update.key] = update

    def _with_lot(self, update: ProgressUpdate) -> ProgressUpdate:
        """Have an update put the whole parking lot."""
        if update.parked is None:
            return update
        whole = ParkedChange(None, update.parked.revision, tuple(self._lots[update.key].values()))
        return replace(update, parked=whole)


def _size(update: ProgressUpdate) -> int:
    """Return about how many bytes an update sends beyond the usual."""
    parked = 0 if update.parked is None else sum(len(record.fragment) for record in update.parked.put)
    return len(update.state) + parked
