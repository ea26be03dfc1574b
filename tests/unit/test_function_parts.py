"""What files say of functions, brought into the store beside what the API says."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.function_parts import FunctionFiles, apply_parts
from model.errors import ConflictError
from model.function_config import FunctionConfig, FunctionPart
from model.function_definition import FunctionDefinition
from statemgr.function_view import FunctionView
from statemgr.memory_store import MemoryStore

CONCURRENCY, _, DEAD_LETTER, _ = FunctionPart


class Node:
    """One node's files, and its view of what holds."""

    def __init__(self, store: MemoryStore, **concurrency: int) -> None:
        self.view = FunctionView(store.functions)
        self.said = {name: {CONCURRENCY: str(number).encode()} for name, number in concurrency.items()}
        self.files = FunctionFiles(store.functions, self.view, lambda: self.said)

    async def reads(self, **concurrency: int) -> None:
        """Have the node read its changed files again."""
        before, self.said = self.said, Node(MemoryStore(), **concurrency).said
        await self.files.take_up(before=before)


async def reserved(store: MemoryStore) -> dict[str, int]:
    """Return what is reserved."""
    return (await store.functions.functions()).reserved()


async def test_what_a_file_says_holds_for_the_fleet() -> None:
    """It is put once, logged, and seen by the node; a second node with the same file changes nothing."""
    store = MemoryStore()
    ann, bob = Node(store, billing=7), Node(store, billing=7)
    with capture_logs() as logs:
        await ann.files.take_up()
        await bob.files.take_up()
    assert [(entry["event"], entry["function"], entry["by"]) for entry in logs] == [
        ("function.changed", "billing", "file")
    ]
    assert ann.view.reserved == bob.view.reserved == {"billing": 7}


async def test_a_change_by_the_api_outlasts_a_restart_with_the_same_file() -> None:
    """Also the removal of what the file said; a file that asks for something new is heeded."""
    store = MemoryStore()
    await Node(store, billing=7).files.take_up()
    for document, expected in ((b"9", {"billing": 9}), (None, {})):
        await store.functions.put_part("billing", CONCURRENCY, document)
        await Node(store, billing=7).files.take_up()
        assert await reserved(store) == expected
    await Node(store, billing=8).files.take_up()
    assert await reserved(store) == {"billing": 8}


async def test_what_is_taken_out_of_the_files_goes_when_they_are_read_again() -> None:
    """A part that a file says no more goes, a function goes with all that the API said; a restart leaves both."""
    store = MemoryStore()
    ann = Node(store, billing=7, thumbs=2)
    await ann.files.take_up()
    await store.functions.put_part("thumbs", DEAD_LETTER, b'"arn:dead"')
    await Node(store).files.take_up()
    assert await reserved(store) == {"billing": 7, "thumbs": 2}
    ann.said["billing"] = {}
    await ann.files.take_up(before={"billing": {CONCURRENCY: b"7"}, "thumbs": ann.said["thumbs"]})
    assert await reserved(store) == {"thumbs": 2}
    await store.functions.put_part("thumbs", CONCURRENCY, b"3")  # ann has not heard of it
    await ann.reads(billing=7)
    table = await store.functions.functions()
    assert (table.reserved(), table.config("thumbs")) == ({"billing": 7}, FunctionConfig())


async def test_a_store_that_forgot_is_told_again() -> None:
    """Also what the API had said, over what the files say; what somebody else said meanwhile stays."""
    store = MemoryStore()
    ann = Node(store, billing=7)
    await ann.files.take_up()
    await store.functions.put_part("billing", CONCURRENCY, b"9")
    await store.functions.put_part("thumbs", CONCURRENCY, b"2")
    await store.functions.put_part("mails", CONCURRENCY, b"3")
    await ann.files.read()
    store.wipe()
    await store.functions.put_part("mails", CONCURRENCY, b"4")
    await ann.files.publish_again()
    assert ann.view.reserved == {"billing": 9, "thumbs": 2, "mails": 4}
    await Node(store, billing=7).files.take_up()
    assert await reserved(store) == {"billing": 9, "thumbs": 2, "mails": 4}


@pytest.mark.looptime
async def test_nodes_that_put_the_same_at_once_all_get_there() -> None:
    """What others have put is no conflict, however much there is of it."""
    store, random = MemoryStore(), Random(1)
    limits = {f"f{number}": number for number in range(60)}
    nodes = [Node(store, **limits) for _ in range(5)]
    for node in nodes:
        node.files = FunctionFiles(Slow(store.functions, random), node.view, lambda node=node: node.said)  # type: ignore[misc]
    async with asyncio.TaskGroup() as tasks:
        for node in nodes:
            tasks.create_task(node.files.take_up())
    assert await reserved(store) == limits


class Slow:
    """A store whose answers take a while, each way."""

    def __init__(self, inner: Any, random: Random) -> None:
        self._inner = inner
        self._random = random

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(self._random.uniform(0.2, 0.6))
            found = await getattr(self._inner, name)(*args, **options)
            await asyncio.sleep(self._random.uniform(0.2, 0.6))
            return found

        return call


async def test_a_function_that_the_api_makes_meanwhile_stays() -> None:
    """Whether it goes with the file is decided on what the store has, not on what the node last read."""
    store = MemoryStore()
    ann = Node(store, thumbs=2)
    await ann.files.take_up()
    made = FunctionDefinition("python3.11", "app.handler", "", 0, "2026", "revision").encode()
    await store.functions.put_part("thumbs", FunctionPart.DEFINITION, made)
    await ann.reads()
    assert (await store.functions.functions()).document("thumbs", FunctionPart.DEFINITION) == made


async def test_a_store_that_others_keep_changing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who is always faster is an error after a while, and no endless loop."""

    async def faster(*_: object, **__: object) -> None:
        raise ConflictError("changed")

    store = MemoryStore()
    monkeypatch.setattr(store.functions, "put_part", faster)
    with pytest.raises(ConflictError):
        await Node(store, billing=7).files.take_up()
    await apply_parts(store.functions, lambda _: [])
