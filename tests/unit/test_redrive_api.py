"""Redrives over HTTP: `node.mapping_api` and `node.redrive`, with the work itself replaced."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest

from controlplane.mappings import Desired, apply
from model.errors import EsmdError, RefusedError, UnavailableError
from model.mapping_rules import canonical_document, parse_mapping
from node.mapping_api import MappingApi
from node.redrive import Redrives
from node.runtimes import Catalogue
from statemgr.memory_store import MemoryStore
from tests.support.bare_surface import bare_node, unasked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from model.mapping import EventSourceMapping
    from node.redrive_parts import RedriveParts
    from node.replay import Replays
    from node.runtimes import Runtimes
    from node.seek import Seeks

DOCUMENT = {
    "Name": "orders",
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["h:1"]}},
    "Topics": ["orders"],
    "FunctionName": "f",
    "StartingPosition": "TRIM_HORIZON",
    "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}},
}
PATH = "/esmd/v1/mappings/orders/redrive"


class FakeJobs:
    """In place of the runtimes and parts: each redrive does what the test says."""

    def __init__(self) -> None:
        self.work: Callable[[Callable[[dict[str, Any]], Awaitable[None]], asyncio.Event], Awaitable[None]] | None = None
        self.stopped = asyncio.Event()


class ScriptedRedrives(Redrives):
    """Redrives whose jobs are scripted."""

    script: FakeJobs

    def prepare(self, name: str, request: Any) -> Any:
        """Replace the work of a redrive that was accepted."""
        running = super().prepare(name, request)
        running._job = self
        return running

    async def run(self, say: Callable[[dict[str, Any]], Awaitable[None]], stop: asyncio.Event) -> dict[str, Any]:
        """Do as scripted."""
        assert self.script.work is not None
        await self.script.work(say, stop)
        if stop.is_set():
            self.script.stopped.set()
        return {"delivered_records": 1}


@asynccontextmanager
async def served(script: FakeJobs) -> AsyncIterator[tuple[aiohttp.ClientSession, Redrives]]:
    """Serve redrives of one mapping; yield a client and them."""
    store = MemoryStore()
    catalogue = Catalogue(store)
    mapping: EventSourceMapping = parse_mapping(DOCUMENT)
    await apply(store, [Desired(mapping.id, mapping.name, canonical_document(DOCUMENT))])
    await catalogue.read()

    redrives = ScriptedRedrives(catalogue, cast("Runtimes", None), store, cast("RedriveParts", None), present=unasked)
    redrives.script = script
    api = MappingApi(explain=unasked, redrives=redrives, replays=cast("Replays", None), seeks=cast("Seeks", None))
    async with bare_node(api.routes()) as address, aiohttp.ClientSession(f"http://{address}") as client:
        yield client, redrives


async def lines(answer: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """Return the documents of an answer, heartbeats left out."""
    found = [json.loads(line) async for line in answer.content]
    return [line for line in found if line["event"] != "alive"]


async def test_what_happens_comes_as_it_happens() -> None:
    """One document a line, the last one an end with the counts."""
    script = FakeJobs()
    going_on = asyncio.Event()

    async def work(say: Any, _stop: asyncio.Event) -> None:
        await say({"event": "begin"})
        await going_on.wait()

    script.work = work
    async with served(script) as (client, _), client.post(PATH, json={"rate": 5}) as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        assert json.loads(await answer.content.readline()) == {"event": "begin"}
        going_on.set()
        (end,) = await lines(answer)
        assert (end["event"], end["stopped"], end["delivered_records"]) == ("end", False, 1)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/esmd/v1/mappings/nobody/redrive", "{}", 404, "no mapping nobody"),
        (PATH, "[", 400, "not a redrive"),
        (PATH, '{"form": "parked"}', 400, "unknown field `form`"),
        (PATH, '{"rate": 0}', 400, "rate"),
        (PATH, '{"from": "arn:aws:sns:us-east-1:1:t"}', 400, "an SNS topic keeps nothing"),
        (PATH, '{"from": "parked", "since_ms": 1}', 400, "for destinations"),
    ],
)
async def test_what_is_wrong_is_said_before_anything_begins(path: str, body: str, status: int, said: str) -> None:
    """As every error of the surface."""
    async with served(FakeJobs()) as (client, _), client.post(path, data=body) as answer:
        assert answer.status == status
        assert said in (await answer.json())["message"]


@pytest.mark.parametrize(
    ("error", "status", "unreachable"),
    [(RefusedError("denied"), 400, False), (UnavailableError("away"), 503, True), (ValueError("bug"), 500, False)],
)
async def test_an_error_is_a_status_before_the_first_line_and_a_line_after_it(
    error: Exception,
    status: int,
    unreachable: bool,  # noqa: FBT001 - a table
) -> None:
    """A defect tells no internals."""
    script = FakeJobs()
    begun = False

    async def work(say: Any, _stop: asyncio.Event) -> None:
        if begun:
            await say({"event": "begin"})
        raise error

    script.work = work
    said = str(error) if isinstance(error, EsmdError) else "internal error; the node's log has it"
    async with served(script) as (client, _):
        async with client.post(PATH) as answer:
            assert (answer.status, (await answer.json())["message"]) == (status, said)
        begun = True
        async with client.post(PATH) as answer:
            assert await lines(answer) == [
                {"event": "begin"},
                {"event": "error", "message": said, "unreachable": unreachable},
            ]


async def test_a_client_that_goes_stops_its_redrive_and_one_is_enough() -> None:
    """While it runs a second one is a conflict; afterwards there is room again, until the node stops."""
    script = FakeJobs()

    async def work(say: Any, stop: asyncio.Event) -> None:
        await say({"event": "begin"})
        await stop.wait()

    script.work = work
    async with served(script) as (client, redrives):
        async with client.post(PATH) as answer:
            await answer.content.readline()
            async with client.post(PATH) as second:
                assert second.status == 409
                assert "under way" in (await second.json())["message"]
        async with asyncio.timeout(10):
            await script.stopped.wait()
        async with client.post(PATH) as answer:
            await answer.content.readline()
            redrives.stop()
            (end,) = await lines(answer)
            assert end["stopped"] is True
        async with client.post(PATH) as answer:
            assert (answer.status, (await answer.json())["message"]) == (409, "this node is stopping; ask another one")
