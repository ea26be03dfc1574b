"""How much of what one holder has changed of a shard is saved, and waiting for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from model.errors import LeaseLostError
from model.progress import SaveResult

if TYPE_CHECKING:
    from leasing.held import HeldLease
    from model.progress import ProgressUpdate
    from pollers.checkpointer import Checkpointer, Saving


class ShardSaves:
    """Counts changes under one lease, and those that the store has. `shard` is what the checkpointer saves.

    A shard asks `over` and calls `sent` in its `to_save`, and `answered` in its `saved`.
    """

    def __init__(self, shard: Saving, lease: HeldLease, checkpointer: Checkpointer) -> None:
        self._shard = shard
        self._lease = lease
        self._checkpointer = checkpointer
        self._changes = 0  # counts what is worth saving
        self._changes_saved = 0
        self._batches = 0  # finished
        self._batches_saved = 0
        self._sent = (0, 0)  # changes and batches covered by the save under way
        self._refused: SaveResult | None = None
        self._closed = False
        self._news = asyncio.Event()  # a save came back

    def changed(self) -> None:
        """Have the present state saved soon."""
        self._changes += 1
        self._checkpointer.mark(self._shard)

    def batch_finished(self) -> None:
        """Count a finished batch."""
        self._batches += 1
        self.changed()

    # Waiting

    async def saved_up_to(self, batches: int) -> None:
        """Wait until at most `batches` finished ones are not saved."""
        while self._batches - self._batches_saved > batches:
            self._checkpointer.hurry()
            self._news.clear()
            await self._news.wait()

    async def noted(self) -> None:
        """Have the present state saved, and wait for that. Raises `LeaseLostError`."""
        self.changed()
        await self.all_saved()

    async def all_saved(self) -> None:
        """Wait until the store has everything as it is now. Raises `LeaseLostError`."""
        wanted = self._changes
        while self._changes_saved < wanted:
            self._check_refused()
            self._lease.check()
            self._checkpointer.hurry()
            self._news.clear()
            await self._news.wait()

    async def watch_refusal(self) -> None:
        """Raise `LeaseLostError` as soon as the store refuses a save; return never."""
        while True:
            self._check_refused()
            self._news.clear()
            await self._news.wait()

    def _check_refused(self) -> None:
        if self._refused is not None:
            raise LeaseLostError(self._lease.key, f"the store refused a save: {self._refused}")

    # The checkpointer's side

    @property
    def over(self) -> bool:
        """Whether nothing may be written any more."""
        return self._closed or self._refused is not None

    def sent(self) -> None:
        """Note that the present state is on its way to the store."""
        self._sent = (self._changes, self._batches)

    def answered(self, result: SaveResult) -> None:
        """Learn what became of it. INCOMPLETE is no refusal: the shard is to be `changed`, and sent as a whole."""
        if result is SaveResult.SAVED:
            self._changes_saved, self._batches_saved = self._sent
        elif result is not SaveResult.INCOMPLETE:
            self._refused = result
        self._news.set()

    def close(self, *, instead: ProgressUpdate | None = None) -> None:
        """Save nothing more. For `instead` see `Checkpointer.forget`."""
        self._closed = True
        self._checkpointer.forget(self._shard, instead=instead)
