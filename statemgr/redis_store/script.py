"""A script of `scripts/`, and what runs one."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Script:
    """A script's text and its SHA-1, by which Redis remembers it. `shared`: files whose functions it uses besides."""

    def __init__(self, name: str, *, common: bool = True, shared: tuple[str, ...] = ()) -> None:
        folder = resources.files("statemgr.redis_store") / "scripts"
        names = [f"{file}.lua" for file in (*(("common",) if common else ()), *shared, name)]
        self.name = name
        self.text = "".join((folder / file).read_text(encoding="utf-8") for file in names).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


class RunScript(Protocol):
    """Runs a script with the keys and arguments it is given. Raises `StoreUnavailableError`."""

    async def __call__(self, script: Script, keys: Sequence[bytes], args: Sequence[Any], /) -> Any:
        """Return the reply."""


class RunFleetScript(Protocol):
    """Runs a script on the fleet's keys, some more behind them. Raises `StoreUnavailableError`."""

    async def __call__(self, script: Script, args: Sequence[Any], more_keys: Sequence[bytes], /) -> Any:
        """Return the reply."""
