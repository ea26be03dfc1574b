"""What the store conformance suite needs from each implementation: more clients, time that passes, a lost memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from statemgr.memory_store import MemoryStore

if TYPE_CHECKING:
    from statemgr.stores import Store


class StoreLab(Protocol):
    """One fleet's store, empty at first, under a test's control."""

    def client(self) -> Store:
        """Return another client of the same fleet; the lab closes it."""

    async def pass_time(self, seconds: float) -> None:
        """Let time pass on the store's own clock."""

    async def wipe(self) -> None:
        """Lose everything the store remembers."""


class MemoryLab:
    """The in-memory store: all clients are one object, time is a number."""

    def __init__(self) -> None:
        self._now = 1_790_000_000.0
        self._store = MemoryStore(lambda: self._now)

    def client(self) -> Store:
        """Return the one store."""
        return self._store

    async def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self._now += seconds

    async def wipe(self) -> None:
        """Forget everything."""
        self._store.wipe()


@pytest.fixture(params=["memory"])
def lab(request: pytest.FixtureRequest) -> StoreLab:
    """Return each implementation in turn."""
    return MemoryLab()


@pytest.fixture
def store(lab: StoreLab) -> Store:
    """Return a first client of the lab's store."""
    return lab.client()
