"""What API and files say of functions, as a node last read it."""

from __future__ import annotations

import pytest

from model.errors import StoreUnavailableError
from model.function_config import FunctionConfig, FunctionPart, FunctionTable
from statemgr.function_view import FunctionView
from statemgr.memory_store import MemoryStore


async def test_the_view_reads_once_and_then_when_told() -> None:
    """The first question reads the table; changes show after it was read again."""
    functions = MemoryStore().functions
    view = FunctionView(functions)
    await functions.put_part("billing", FunctionPart.CONCURRENCY, b"7")
    assert await view.function_config("billing") == FunctionConfig(7)
    await functions.put_part("billing", FunctionPart.CONCURRENCY, b"8")
    assert await view.function_config("billing") == FunctionConfig(7)
    await view.read()
    assert await view.function_config("billing") == FunctionConfig(8)


async def test_an_unreachable_store_leaves_the_view_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the store the last answer holds; where nothing was ever read, that is told."""

    async def away() -> FunctionTable:
        raise StoreUnavailableError("away")

    functions = MemoryStore().functions
    await functions.put_part("billing", FunctionPart.CONCURRENCY, b"7")
    known, unknown = FunctionView(functions), FunctionView(functions)
    await known.read()
    monkeypatch.setattr(functions, "functions", away)
    with pytest.raises(StoreUnavailableError):
        await known.read()
    assert await known.function_config("billing") == FunctionConfig(7)
    with pytest.raises(StoreUnavailableError):
        await unknown.function_config("billing")


async def test_a_store_that_forgot_everything_takes_nothing_from_the_view() -> None:
    """What the node knows is what the store is told again; what the store then says is what holds."""
    store = MemoryStore()
    await store.functions.put_part("billing", FunctionPart.CONCURRENCY, b"7")
    view = FunctionView(store.functions)
    await view.read()
    store.wipe()
    await view.read()
    assert view.reserved == {"billing": 7}
    await store.functions.put_part("thumbs", FunctionPart.CONCURRENCY, b"1")
    await view.read()
    assert view.reserved == {"thumbs": 1}
