"""Cancellations that a library swallows are not lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from model.errors import StoreUnavailableError
from model.ids import MappingId
from statemgr.cancelling import cancellation_kept
from statemgr.redis_store.store import RedisStore


async def swallow(raises: Exception | None = None) -> None:
    """Behave like a library that loses a cancellation."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    if raises is not None:
        raise raises


@pytest.mark.parametrize("raises", [None, OSError("lost")])
async def test_a_swallowed_cancellation_comes_out_again(raises: Exception | None) -> None:
    """The task ends as cancelled whether the body went on or failed for another reason."""

    async def work() -> None:
        with cancellation_kept():
            await swallow(raises)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


@pytest.mark.looptime
async def test_a_deadline_stays_a_deadline() -> None:
    """A time-out around a body that swallows it is a time-out; one inside that was dealt with is nothing."""

    async def limited() -> None:
        async with asyncio.timeout(1):
            with cancellation_kept():
                await swallow()

    with pytest.raises(TimeoutError):
        await limited()
    with cancellation_kept():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_errors_and_cancellations_pass() -> None:
    """What the body raises by itself comes out as it is."""
    with pytest.raises(OSError, match="broken"), cancellation_kept():
        raise OSError("broken")
    with pytest.raises(asyncio.CancelledError), cancellation_kept():
        raise asyncio.CancelledError


async def test_cancelling_a_store_call_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that asks the store again and again ends when cancelled, even if redis-py loses the cancellation."""
    store = RedisStore.from_url("redis://127.0.0.1:1/0", timeout_s=5)
    asked = asyncio.Event()

    async def execute(*_command: Any) -> dict[bytes, bytes]:
        asked.set()
        await swallow()
        return {}

    monkeypatch.setattr(store._clients, "execute", execute)

    async def loop() -> None:
        for _ in range(3):
            with contextlib.suppress(StoreUnavailableError):
                await store.load_mapping(MappingId("m"))

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(loop())
        await asked.wait()
        task.cancel()
    assert task.cancelled()
    await store.aclose()
