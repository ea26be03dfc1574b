"""`esmd explain`, and the path of the HTTP surface behind it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest

from controlplane.explain import read_explanation
from model.errors import StoreUnavailableError
from model.mapping import MappingState
from model.progress import Blocking, ParkedKey, ShardReport, ShardState, Succession, Tenure, WaitsFor
from node import cli
from node.mapping_api import MappingApi
from statemgr.memory_store import MemoryStore
from statemgr.scaling import Allotment
from tests.support.bare_surface import bare_node
from tests.support.fake_node import fake_node
from tests.support.fleet_values import ANN, ORDERS, shard, take, track, update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from node.redrive import Redrives
    from node.replay import Replays
    from node.seek import Seeks
    from tests.support.fake_node import FakeNode

NOW_S = 1_790_000_000.0
REPORT = ShardReport(
    ShardState.RETRYING,
    lag_records=1200,
    lag_s=310.0,
    last_error="\x1b[2Jhandler said [red]no[/red]",
    loss_in_s=18_000.0,
    error_time=NOW_S - 20,
    waits_for=WaitsFor.FUNCTION,
    blocking=Blocking("4711", "k-1", 10, 12, 13, 14, NOW_S - 300, NOW_S + 40, 2),
    tenures=(
        Tenure(1, "old-1", NOW_S - 9000, Succession.FIRST),
        Tenure(2, "ann-1", NOW_S - 60, Succession.HOLDER_LOST),
    ),
    parked_keys=(ParkedKey("k-2", 3, 300, NOW_S - 120, 4, "bo\x07om"),),
)


async def troubled_store() -> MemoryStore:
    """Return a store with a mapping that has something to tell of every kind."""
    store = MemoryStore(lambda: NOW_S)
    tracker = await track(store, shards=1)
    await store.set_mapping_state(ORDERS, MappingState.ENABLED, "USER_INITIATED", tracker=tracker)
    report = ShardReport(ShardState.READING)
    await store.save([update(tracker, report=report, state=Allotment(8, 120).encode())])
    await store.save([update(await take(store, ANN, shard(0)), "4710", report=REPORT)])
    return store


@pytest.fixture
async def document() -> dict[str, Any]:
    """Return the document as the node sends it."""
    async with served(await troubled_store()) as client, client.get("/esmd/v1/mappings/orders/explain") as answer:
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found


@asynccontextmanager
async def served(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve a store's explanations; yield a client of it."""
    redrives = cast("Redrives", None)  # not asked for
    seeks, replays = cast("Seeks", None), cast("Replays", None)  # same
    api = MappingApi(
        explain=lambda name: read_explanation(store, ANN, name, now_s=NOW_S),
        redrives=redrives,
        replays=replays,
        seeks=seeks,
    )

    async with bare_node(api.routes()) as address, aiohttp.ClientSession(f"http://{address}") as client:
        yield client


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    """Serve on loopback, with ESMD_URL pointing there."""
    monkeypatch.delenv("ESMD_TOKEN", raising=False)
    with fake_node() as server:
        monkeypatch.setenv("ESMD_URL", server.url)
        yield server


async def test_the_surface_explains_a_mapping_by_name_or_id(document: dict[str, Any]) -> None:
    """Also a name with a slash is one segment of the path; an unknown one is 404 with those there are."""
    assert document["shards"][0]["blocking"]["record"] == "4711"
    async with served(await troubled_store()) as client:
        async with client.get(f"/esmd/v1/mappings/{ORDERS}/explain") as answer:
            assert await answer.json() == document
        async with client.get("/esmd/v1/mappings/no%2Fbody/explain") as answer:
            assert answer.status == 404
            assert (await answer.json())["message"] == "no mapping no/body; the fleet has: orders"


async def test_a_store_that_is_away_is_said_to_be() -> None:
    """503 with the reason, as everywhere."""
    store = await troubled_store()

    async def mappings() -> Any:
        raise StoreUnavailableError("Redis is away")

    store.mappings = mappings  # type: ignore[method-assign]
    async with served(store) as client, client.get("/esmd/v1/mappings/orders/explain") as answer:
        assert (answer.status, (await answer.json())["message"]) == (503, "Redis is away")


def test_json_is_the_nodes_document(
    node: FakeNode, document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """--json prints what the node says, and the mapping's name is quoted in the path."""
    node.answer = (200, json.dumps(document).encode())
    assert cli.run(["explain", "no/body", "--json"]) == 0
    output = capsys.readouterr()
    assert (json.loads(output.out), output.err) == (document, "")
    assert node.path == "/esmd/v1/mappings/no%2Fbody/explain"


def test_people_see_everything_that_matters(
    node: FakeNode, document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Facts first, and what they come to in plain words at the end; no text can act on the terminal."""
    node.answer = (200, json.dumps(document).encode())
    assert cli.run(["explain", "orders"]) == 0
    text = capsys.readouterr().out
    for shown in (
        "USER_INITIATED",
        "backlog 120",
        "orders-0  retrying, waits for the function",
        "4710",
        "1,200 records, oldest 5 min old",
        "5 h, if it goes on like this",
        "record 4711 of key k-1, in a batch of 10, and 2 more elsewhere",
        "12 function errors, 13 invocations, 14 setbacks",
        "in 40 s",
        "[red]no[/red] (20 s ago)",
        "ann-1 since 1 min, token 2, holder lost",
        "old-1 since 2 h, token 1, first",
        "k-2, 3 records for 2 min, 4 errors",
    ):
        assert shown in text, shown
    assert "nothing is lost before 5 h" in text.splitlines()[-2]
    assert text.splitlines()[-1].startswith("Key k-2 is parked")
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ((404, b'{"message": "no mapping x; the fleet has: orders"}'), 1, "esmd: no mapping x; the fleet has: orders"),
        ((404, b'{"message": "Not Found"}'), 1, "Is it an esmd node?"),
        ((200, b'{"name": 1}'), 1, "another version"),
        ((503, b'{"message": "Redis is away"}'), 3, "Redis is away"),
    ],
)
def test_an_answer_that_is_no_explanation_is_said_in_one_line(
    node: FakeNode, answer: tuple[int, bytes], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the contract's exit status."""
    node.answer = answer
    assert cli.run(["explain", "x"]) == status
    output = capsys.readouterr()
    assert said in output.err
    assert len(output.err.splitlines()) == 1
