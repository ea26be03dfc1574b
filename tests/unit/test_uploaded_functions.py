"""What a node makes of the functions that the API made: fetching, trouble with it, and what it tells the store."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from config.settings import ControlPlaneSettings, Settings
from controlplane.function_documents import Standing
from invocation.settings import HandlerFunction, Isolation
from model.errors import StoreUnavailableError
from model.function_config import FunctionPart
from model.function_definition import FunctionDefinition, shown_digest
from node.function_side import FunctionSide
from statemgr.memory_store import MemoryStore
from tests.support.archives import handler
from tests.support.definitions_rig import RUNTIME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

ONE, TWO = handler(1), handler(2)


def definition(code: bytes, **more: Any) -> FunctionDefinition:
    """Return a function's definition."""
    digest = shown_digest(sha256(code).hexdigest())
    return FunctionDefinition(RUNTIME, "app.handler", digest, len(code), "2026", "revision", **more)


async def put(store: MemoryStore, code: bytes, *, archive: bool = True, **more: Any) -> FunctionDefinition:
    """Make a function as another node would."""
    made = definition(code, **more)
    if archive:
        await store.code.put_code(made.digest, code)
    await store.functions.put_part("up", FunctionPart.DEFINITION, made.encode())
    return made


def side_of(folder: Path, store: MemoryStore, **plane: Any) -> FunctionSide:
    """Return a node's side of functions, which allows them."""
    return FunctionSide(
        Settings(data_dir=folder, control_plane=ControlPlaneSettings(create_functions=True, **plane)), store
    )


@asynccontextmanager
async def following(side: FunctionSide) -> AsyncIterator[asyncio.Event]:
    """Have a node follow the store; yield what is set when it has other functions than before."""
    changed = asyncio.Event()
    side.uploaded.changed = changed.set
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(side.run())
        yield changed
        task.cancel()


async def test_a_change_is_followed_without_anybody_asking(tmp_path: Path) -> None:
    """Whoever reads the table has the code fetched; the function is what the definition and the file say."""
    store = MemoryStore()
    side = side_of(tmp_path, store, isolation=Isolation.BUBBLEWRAP, network=True)
    async with following(side) as changed:
        made = await put(store, ONE, timeout=9, memory_size=256, environment={"A": "1"})
        await side.view.read()
        await changed.wait()
    function = side.uploaded.functions["up"]
    expected = HandlerFunction("up", "app.handler", function.code, RUNTIME, 9.0, 256, function.environment)
    assert function == replace(expected, isolation=Isolation.BUBBLEWRAP, network=True)
    assert function.environment["A"].template == "1"
    assert (tmp_path / "functions/up" / made.digest / "app.py").read_bytes()
    assert side.take(side.files_settings).listed_function("up") == function


async def test_the_version_before_goes_on_until_the_next_is_here(tmp_path: Path) -> None:
    """Code that the store has not, or not yet, is asked for again after a while; meanwhile the state says so."""
    store = MemoryStore()
    side = side_of(tmp_path, store)
    first = await put(store, ONE)
    await side.uploaded.refresh()
    before = side.uploaded.functions["up"]
    second = await put(store, TWO, archive=False)
    with capture_logs() as logged:
        for _ in range(2):
            await side.uploaded.refresh()
    assert [line["event"] for line in logged] == ["function.not_fetched"]
    assert side.uploaded.functions["up"] == before
    problem = "its code is not in the store"
    assert side.uploaded.standing("up", second) == Standing(ready=False, runs=True, problem=problem)
    assert side.uploaded.metric().samples[1].value == 1
    async with following(side) as changed:
        await store.code.put_code(second.digest, TWO)
        await changed.wait()  # by itself: nothing else has changed
    assert side.uploaded.functions["up"].code.endswith(second.digest)
    assert side.uploaded.standing("up", second) == Standing(ready=True, runs=True)
    assert side.uploaded.standing("new", first) == Standing(ready=False, runs=False)


async def test_a_store_that_lost_its_code_is_given_it_again(tmp_path: Path) -> None:
    """By a node that has it; code of no function is not."""
    store = MemoryStore()
    side = side_of(tmp_path, store)
    made = await put(store, ONE)
    await side.uploaded.refresh()
    await store.code.put_code(sha256(TWO).hexdigest(), TWO)
    store.code.wipe()
    await side.uploaded.follow()
    assert await store.code.digests() == {made.digest}
    assert await store.code.code(made.digest) == ONE


async def test_without_the_store_the_code_on_disk_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that knows a definition and has its code needs nobody."""
    store = MemoryStore()
    await put(store, ONE)
    await side_of(tmp_path, store).uploaded.refresh()

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("redis: no answer in time")

    side = side_of(tmp_path, store)
    await side.view.read()
    for name in ("code", "digests", "put_code"):
        monkeypatch.setattr(store.code, name, away)
    await side.uploaded.follow()
    assert list(side.uploaded.functions) == ["up"]


async def test_a_file_goes_first_and_gives_back(tmp_path: Path) -> None:
    """A name that a file takes up is the file's; what the API made of it is there again when the file lets go."""
    store = MemoryStore()
    side = side_of(tmp_path, store)
    await put(store, ONE)
    await side.uploaded.refresh()
    files = side.files_settings
    own = HandlerFunction("up", "app.handler", "elsewhere")
    shadowing = replace(files, functions={"up": own}, function_parts={"up": {FunctionPart.CONCURRENCY: b"3"}})
    assert side.take(shadowing).listed_function("up") == own
    await side.reload(before=files)
    assert (await store.functions.functions()).reserved() == {"up": 3}
    assert side.take(files).listed_function("up") == side.uploaded.functions["up"]
    await side.reload(before=shadowing)
    table = await store.functions.functions()
    assert table.reserved() == {}
    assert table.document("up", FunctionPart.DEFINITION) == definition(ONE).encode()
