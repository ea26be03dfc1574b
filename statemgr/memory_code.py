"""The code of functions that the API made, inside one process: `statemgr.stores.CodeStore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class MemoryCode:
    """All archives in a dictionary."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.wipe()

    def wipe(self) -> None:
        """Forget everything."""
        self._archives: dict[str, tuple[float, bytes]] = {}

    async def put_code(self, digest: str, archive: bytes) -> None:
        """See `CodeStore.put_code`."""
        self._archives[digest] = (self._clock(), archive)

    async def code(self, digest: str) -> bytes | None:
        """See `CodeStore.code`."""
        found = self._archives.get(digest)
        return None if found is None else found[1]

    async def digests(self) -> Collection[str]:
        """See `CodeStore.digests`."""
        return set(self._archives)

    async def keep_only(self, digests: Collection[str], *, older_than_s: float) -> None:
        """See `CodeStore.keep_only`."""
        before = self._clock() - older_than_s
        self._archives = {
            digest: (put, archive)
            for digest, (put, archive) in self._archives.items()
            if digest in digests or put >= before
        }
