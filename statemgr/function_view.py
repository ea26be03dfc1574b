"""What API and files say of functions, as this node last read it from the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from model.function_config import FunctionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model.function_config import FunctionConfig
    from statemgr.stores import FunctionConfigs


class FunctionView:
    """A copy of the table. Whoever hears that the mappings' revision changed has it read again."""

    def __init__(self, store: FunctionConfigs) -> None:
        self._store = store
        self._read = False
        self._reading = asyncio.Lock()  # an answer that was overtaken must not replace a newer one
        self.table = FunctionTable()
        self.changed: Callable[[], None] = lambda: None
        """Called when the table is another one."""
        self.reserved: Mapping[str, int] = {}
        """The concurrency reserved for functions; another mapping when anything has changed."""

    async def read(self) -> None:
        """Read the table anew. Raises `StoreUnavailableError`, and the copy stays as it is.

        It also stays where the store has forgotten everything.
        """
        async with self._reading:
            table = await self._store.functions()
            forgotten = not table.revision and self.table.revision  # whoever knows more will tell the store again
            if table != self.table and not forgotten:
                self.table, self.reserved = table, table.reserved()
                self.changed()
            self._read = True

    async def function_config(self, function: str) -> FunctionConfig:
        """Return what holds for a function. Raises `StoreUnavailableError` only when nothing was ever read."""
        if not self._read:
            await self.read()
        return self.table.config(function)
