"""What the fleet knows of its functions, inside one process: `statemgr.stores.FunctionConfigs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import ConflictError
from model.function_config import FunctionPart, FunctionTable, StoredPart

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.function_config import FunctionParts


class MemoryFunctions:
    """All parts in a dictionary. `raised` makes a higher number of one, `changed` tells the fleet to look."""

    def __init__(
        self, clock: Callable[[], float], *, raised: Callable[[int], int], changed: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._raised = raised
        self._changed = changed
        self.wipe()

    def wipe(self) -> None:
        """Forget everything."""
        self._revision = 0
        self._functions: dict[str, FunctionParts] = {}

    async def functions(self) -> FunctionTable:
        """See `FunctionConfigs.functions`."""
        return self._table()

    def reserved(self) -> dict[str, int]:
        """Return each function's reserved concurrency."""
        return self._table().reserved()

    async def put_part(
        self,
        function: str,
        part: FunctionPart,
        document: bytes | None,
        *,
        applied: str | None = None,
        seen: int | None = None,
    ) -> StoredPart:
        """See `FunctionConfigs.put_part`."""
        self._check_seen(function, seen)
        parts = self._functions.setdefault(function, {})
        mark = parts.get(part, StoredPart(None)).applied if applied is None else applied
        parts[part] = StoredPart(document, mark, self._clock())
        self._revise()
        return parts[part]

    async def forget_function(self, function: str, *, seen: int | None = None) -> None:
        """See `FunctionConfigs.forget_function`."""
        self._check_seen(function, seen)
        if self._functions.pop(function, None) is not None:
            self._revise()

    def _check_seen(self, function: str, seen: int | None) -> None:
        if seen is not None and seen != self._revision:
            raise ConflictError(f"function {function}: the functions have changed")

    def _table(self) -> FunctionTable:
        return FunctionTable(self._revision, {name: dict(parts) for name, parts in self._functions.items()})

    def _revise(self) -> None:
        self._revision = self._raised(self._revision)
        self._changed()
