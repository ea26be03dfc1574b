"""Every store: what the fleet knows of its functions (`FunctionConfigs`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from model.errors import ConflictError
from model.function_config import EventInvokeConfig, FunctionConfig, FunctionPart, FunctionTable, StoredPart
from tests.support.fleet_values import listen

if TYPE_CHECKING:
    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab

CONCURRENCY, EVENT_INVOKE, DEAD_LETTER, _ = FunctionPart
EVENTS = '{"MaximumRetryAttempts":1,"DestinationConfig":{"OnFailure":{"Destination":"arn:ü"}}}'.encode()


async def test_of_a_fresh_fleets_functions_nothing_is_said(store: Store) -> None:
    """An empty store answers with no functions, and the defaults for each."""
    table = await store.functions.functions()
    assert table == FunctionTable()
    assert table.config("billing") == FunctionConfig()
    assert table.reserved() == {}


async def test_parts_are_kept_apart(store: Store) -> None:
    """Each part is stored by itself with its time, and all of them make up what holds for the function."""
    made = await store.functions.put_part("billing", CONCURRENCY, b"7")
    assert made.document == b"7"
    assert made.modified_time > 1_000_000_000
    await store.functions.put_part("billing", EVENT_INVOKE, EVENTS)
    await store.functions.put_part("billing", DEAD_LETTER, b'"arn:dead"')
    await store.functions.put_part("thumbs", CONCURRENCY, b"0")
    table = await store.functions.functions()
    assert table.functions["billing"][CONCURRENCY] == made
    assert table.config("billing") == FunctionConfig(7, EventInvokeConfig(1, on_failure="arn:ü"), "arn:dead")
    assert table.reserved() == {"billing": 7, "thumbs": 0}


async def test_two_changes_of_different_parts_both_hold(store: Store) -> None:
    """Changes of different parts made side by side do not undo each other."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.functions.put_part("billing", CONCURRENCY, b"7"))
        tasks.create_task(store.functions.put_part("billing", DEAD_LETTER, b'"arn:dead"'))
    assert (await store.functions.functions()).config("billing") == FunctionConfig(7, dead_letter="arn:dead")


async def test_a_part_taken_away_keeps_its_mark(store: Store) -> None:
    """What a file asked for last is known also after the API removed or replaced it."""
    await store.functions.put_part("billing", CONCURRENCY, b"7", applied="mark")
    gone = await store.functions.put_part("billing", CONCURRENCY, None)
    assert (gone.document, gone.applied) == (None, "mark")
    table = await store.functions.functions()
    assert table.functions["billing"][CONCURRENCY] == gone
    assert table.reserved() == {}
    assert (await store.functions.put_part("billing", CONCURRENCY, b"9")).applied == "mark"
    assert (await store.functions.put_part("billing", CONCURRENCY, b"9", applied="")).applied == ""


async def test_a_change_can_depend_on_all_functions(store: Store) -> None:
    """Nothing is written when any function changed since the revision that the caller has seen."""
    seen = (await store.functions.functions()).revision
    await store.functions.put_part("billing", CONCURRENCY, b"7", seen=seen)
    with pytest.raises(ConflictError):
        await store.functions.put_part("thumbs", CONCURRENCY, b"7", seen=seen)
    table = await store.functions.functions()
    assert table.reserved() == {"billing": 7}
    await store.functions.put_part("thumbs", CONCURRENCY, b"7", seen=table.revision)


async def test_a_forgotten_function_leaves_nothing(store: Store) -> None:
    """All parts of a function go together; those of others stay; forgetting what is not there changes nothing."""
    for part, document in ((CONCURRENCY, b"7"), (EVENT_INVOKE, EVENTS), (DEAD_LETTER, b'"arn:dead"')):
        await store.functions.put_part("billing", part, document)
    kept = await store.functions.put_part("thumbs", CONCURRENCY, b"1")
    seen = (await store.functions.functions()).revision
    with pytest.raises(ConflictError):
        await store.functions.forget_function("billing", seen=seen - 1)
    assert (await store.functions.functions()).revision == seen
    await store.functions.forget_function("billing", seen=seen)
    after = await store.functions.functions()
    assert after.functions == {"thumbs": {CONCURRENCY: kept}}
    await store.functions.forget_function("billing")
    assert await store.functions.functions() == after


async def test_the_fleet_is_told_of_a_change(lab: StoreLab, store: Store) -> None:
    """A change wakes the others and raises the revision by which nodes see that there is something to read."""
    before, _ = await store.mappings()
    async with listen(lab.client()) as wakes:
        await anext(wakes)
        await store.functions.put_part("billing", CONCURRENCY, b"7")
        async with asyncio.timeout(5):
            await anext(wakes)
    assert (await store.mappings())[0] > before


async def test_a_wiped_store_has_forgotten_functions_too(lab: StoreLab, store: Store) -> None:
    """A store that lost its memory knows of no functions; what is then put is kept."""
    await store.functions.put_part("billing", CONCURRENCY, b"7")
    await lab.wipe()
    assert await store.functions.functions() == FunctionTable()
    stored = await store.functions.put_part("billing", CONCURRENCY, b"8")
    assert stored == StoredPart(b"8", "", stored.modified_time)
    assert (await store.functions.functions()).reserved() == {"billing": 8}
