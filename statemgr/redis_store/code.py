"""The code of functions that the API made, in Redis: `statemgr.stores.CodeStore`.

An archive is stored in pieces, one call each: no call is so long that heartbeats wait for it, or that it runs out of
the time that calls have. One whose pieces are not all there is as good as none.
"""

from __future__ import annotations

import asyncio
import hashlib
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from statemgr.redis_store.codec import US
from statemgr.redis_store.script import Script

if TYPE_CHECKING:
    from collections.abc import Collection

    from statemgr.redis_store.keys import Keys
    from statemgr.redis_store.script import RunFleetScript

    class Call(Protocol):
        """Sends a command. Raises `StoreUnavailableError`."""

        async def __call__(self, what: str, *command: Any) -> Any:
            """Return the reply."""


_NOTE_CODE, _DROP_CODE = Script("note_code"), Script("drop_code")
_PIECE_BYTES = 1024 * 1024
_COMPLETE = b"1"


class RedisCode:
    """The archives. `run` runs a script on the fleet's keys and some more, `call` any command."""

    def __init__(self, run: RunFleetScript, call: Call, keys: Keys) -> None:
        self._run = run
        self._call = call
        self._keys = keys

    async def put_code(self, digest: str, archive: bytes) -> None:
        """See `CodeStore.put_code`."""
        key = self._keys.code(digest)
        # Noted first, with the time: from now on nobody drops it as forgotten.
        if await self._run(_NOTE_CODE, [digest, ""], [self._keys.codes]) == _COMPLETE:
            return
        for number, at in enumerate(range(0, len(archive), _PIECE_BYTES)):
            await self._call("put_code", "HSET", key, number, archive[at : at + _PIECE_BYTES])
        await self._run(_NOTE_CODE, [digest, "1"], [self._keys.codes])

    async def code(self, digest: str) -> bytes | None:
        """See `CodeStore.code`."""
        key = self._keys.code(digest)
        pieces: list[bytes] = []
        for number in count():
            piece = await self._call("code", "HGET", key, number)
            if piece is None:
                break
            pieces.append(piece)
        archive = b"".join(pieces)
        found = await asyncio.to_thread(lambda: hashlib.sha256(archive).hexdigest())
        return archive if found == digest else None

    async def digests(self) -> Collection[str]:
        """See `CodeStore.digests`."""
        noted: dict[bytes, bytes] = await self._call("digests", "HGETALL", self._keys.codes)
        return {digest.decode() for digest, facts in noted.items() if facts.partition(b" ")[2] == _COMPLETE}

    async def keep_only(self, digests: Collection[str], *, older_than_s: float) -> None:
        """See `CodeStore.keep_only`."""
        known = {digest.decode() for digest in await self._call("keep_only", "HKEYS", self._keys.codes)}
        for digest in sorted(known - set(digests)):
            keys = [self._keys.codes, self._keys.code(digest)]
            await self._run(_DROP_CODE, [digest, round(older_than_s * US)], keys)
