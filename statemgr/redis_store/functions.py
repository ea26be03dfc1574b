"""What the fleet knows of its functions, in Redis: `statemgr.stores.FunctionConfigs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from model.errors import ConflictError
from model.function_config import FunctionPart, FunctionTable, StoredPart
from statemgr.redis_store.codec import US
from statemgr.redis_store.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.function_config import FunctionParts
    from statemgr.redis_store.keys import Keys
    from statemgr.redis_store.script import RunFleetScript

_FUNCTIONS, _PUT_PART, _FORGET_FUNCTION = map(Script, ("functions", "put_part", "forget_function"))

_unpack = msgspec.msgpack.Decoder(tuple[str | bool, str, int]).decode


class RedisFunctions:
    """The parts of functions. `run` runs a script on the fleet's keys and some more."""

    def __init__(self, run: RunFleetScript, keys: Keys) -> None:
        self._run = run
        self._keys = keys

    async def functions(self) -> FunctionTable:
        """See `FunctionConfigs.functions`."""
        revision, flat = await self._run(_FUNCTIONS, (), [self._keys.functions])
        found: dict[str, FunctionParts] = {}
        for field, packed in zip(flat[::2], flat[1::2], strict=True):
            name, _, part = field.decode().partition("/")
            found.setdefault(name, {})[FunctionPart(part)] = _part(packed)
        return FunctionTable(int(revision), found)

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
        args = [function, part, *_optional(document), *_optional(applied), "" if seen is None else seen]
        stored = await self._run(_PUT_PART, args, self._more_keys())
        if stored is None:
            raise _changed(function)
        return _part(stored)

    async def forget_function(self, function: str, *, seen: int | None = None) -> None:
        """See `FunctionConfigs.forget_function`."""
        fields = [f"{function}/{part}" for part in FunctionPart]
        args = [function, "" if seen is None else seen, *fields]
        if await self._run(_FORGET_FUNCTION, args, self._more_keys()) is None:
            raise _changed(function)

    def _more_keys(self) -> Sequence[bytes]:
        return [self._keys.functions, self._keys.reserved_concurrency]


def _changed(function: str) -> ConflictError:
    return ConflictError(f"function {function}: the functions have changed")


def _optional(value: Any) -> tuple[str, Any]:
    return ("0", "") if value is None else ("1", value)


def _part(packed: bytes) -> StoredPart:
    document, applied, modified_us = _unpack(packed)
    return StoredPart(None if isinstance(document, bool) else document.encode(), applied, modified_us / US)
