"""A progress store of one shard, for pumps under test: it can be away, slow, or refuse."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from model.errors import StoreUnavailableError
from model.progress import ParkedRecords, ProgressUpdate, SaveResult, ShardProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardKey


class Saves:
    """Keeps every update, and the shard's parking lot."""

    def __init__(self) -> None:
        self.updates: list[ProgressUpdate] = []
        self.lot = ParkedRecords()
        self.away = False
        self.slow_s = 0.001
        self.answer = SaveResult.SAVED

    async def save(self, updates: Sequence[ProgressUpdate]) -> list[SaveResult]:
        """Keep the updates."""
        await asyncio.sleep(self.slow_s)
        if self.away:
            raise StoreUnavailableError("away in a test")
        return [self._save(update) for update in updates]

    def _save(self, update: ProgressUpdate) -> SaveResult:
        if self.answer is not SaveResult.SAVED:
            return self.answer
        change = update.parked
        if change is not None and change.base not in (None, self.lot.revision):
            return SaveResult.INCOMPLETE
        if change is not None and change.base != change.revision:
            kept = () if change.base is None else self.lot.records
            gone = {*change.drop, *(record.position for record in change.put)}
            records = [*(record for record in kept if record.position not in gone), *change.put]
            self.lot = ParkedRecords(change.revision, tuple(sorted(records, key=lambda record: record.position)))
        self.updates.append(update)
        return SaveResult.SAVED

    async def load_parked(self, key: ShardKey) -> ParkedRecords:
        """Return the lot as the last save left it."""
        if self.away:
            raise StoreUnavailableError("away in a test")
        return self.lot

    @property
    def progress(self) -> ShardProgress:
        """What a next holder would load."""
        if not self.updates:
            return ShardProgress()
        last = self.updates[-1]
        return ShardProgress(last.position, last.token, last.node, last.ledger, last.state, last.report)
