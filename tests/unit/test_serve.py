"""The HTTP surface."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from controlplane.status import Status
from model.errors import StoreUnavailableError
from node.credentials import BearerTokens
from node.health import Readiness
from node.options import ListenAddress
from node.serve import CannotListenError, Surface, application, serving
from node.telemetry import Exposition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ANYWHERE = ListenAddress("127.0.0.1", 0)


class Node:
    """What the surface shows, under the test's control."""

    def __init__(self) -> None:
        self.is_alive = True
        self.readiness = Readiness()
        self.readings = 0
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    def alive(self) -> bool:
        """Whether the loop is not stuck."""
        return self.is_alive

    def ready(self) -> Readiness:
        """Return the readiness."""
        return self.readiness

    def metrics(self, accept: str) -> Exposition:
        """Return a scrape."""
        return Exposition("text/plain; version=1.0.0; charset=utf-8", f"# {accept}\n".encode())

    async def status(self) -> Status:
        """Read the status."""
        self.readings += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Status(node=str(self.readings), nodes=[], mappings=[])


@pytest.fixture
def node() -> Node:
    """Return a healthy node."""
    return Node()


@asynccontextmanager
async def served(node: Node, **surface: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the node; yield a client of it."""
    shown = Surface(alive=node.alive, ready=node.ready, metrics=node.metrics, status=node.status, **surface)
    async with serving(application(shown), ANYWHERE) as address, aiohttp.ClientSession(f"http://{address}") as client:
        yield client


async def test_probes(node: Node) -> None:
    """The probes answer 200 when all is well, else 503 with the reasons."""
    async with served(node) as client:
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"ready": True, "reasons": []})
        node.is_alive = False
        node.readiness = Readiness(("not a member of the fleet",))
        async with client.get("/healthz") as answer:
            assert answer.status == 503
        async with client.get("/readyz") as answer:
            assert answer.status == 503
            assert await answer.json() == {"ready": False, "reasons": ["not a member of the fleet"]}


async def test_metrics_are_in_the_format_asked_for(node: Node) -> None:
    """The Accept header reaches the exporter, its content type the client."""
    async with served(node) as client, client.get("/metrics", headers={"Accept": "text/x"}) as answer:
        assert await answer.text() == "# text/x\n"
        assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"


async def test_every_answer_has_safe_headers(node: Node) -> None:
    """Nothing is cached, framed or sniffed, and the server's version is not told."""
    async with served(node) as client:
        for path in ("/healthz", "/esmd/v1/status", "/nope"):
            async with client.get(path) as answer:
                assert answer.headers["Server"] == "esmd"
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_status_is_read_once_for_all_who_wait(node: Node) -> None:
    """Many callers at a time cost one more reading than the one under way, and none gets an old answer."""
    node.gate = asyncio.Event()
    async with served(node) as client, asyncio.TaskGroup() as tasks:

        async def ask() -> str:
            async with client.get("/esmd/v1/status") as answer:
                return str((await answer.json())["node"])

        first = tasks.create_task(ask())
        async with asyncio.timeout(10):
            while node.readings == 0:  # noqa: ASYNC110 - set by the fake, in the same loop
                await asyncio.sleep(0)
        others = [tasks.create_task(ask()) for _ in range(20)]
        async with client.get("/healthz"):  # the probe is not held up by those
            node.gate.set()
        await first
        answers = {await other for other in others}
    assert first.result() == "1"
    assert answers <= {"2", "3"}
    assert node.readings <= 3


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(StoreUnavailableError("Redis is away"), 503, "Redis is away"), (ValueError("inside"), 500, "internal error")],
)
async def test_errors_are_json_and_tell_no_internals(node: Node, error: Exception, status: int, said: str) -> None:
    """A store that is away is 503 with its message; a defect is 500 without any, and the next request works."""
    node.error = error
    async with served(node) as client:
        async with client.get("/esmd/v1/status") as answer:
            assert answer.status == status
            message = (await answer.json())["message"]
            assert said in message
            assert "inside" not in message
        node.error = None
        async with client.get("/esmd/v1/status") as answer:
            assert answer.status == 200


async def test_unknown_paths_and_methods_are_json_too(node: Node) -> None:
    """404 and 405 have the same form as every error."""
    async with served(node) as client:
        async with client.get("/nope") as answer:
            assert (answer.status, await answer.json()) == (404, {"message": "Not Found"})
        async with client.post("/metrics") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:9001"}, 200),
        ({"Host": "127.0.0.2"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": "[bad"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:9001", "Origin": "http://localhost:9001"}, 200),
        ({"Host": "localhost:9001", "Origin": "http://localhost:3000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
async def test_without_credentials_only_this_machines_programs_may_ask(
    node: Node, headers: dict[str, str], status: int
) -> None:
    """Web pages elsewhere cannot use a local browser to reach the node, whatever name they give it."""
    async with served(node) as client, client.get("/esmd/v1/status", headers=headers) as answer:
        assert answer.status == status
    assert node.readings == (status == 200)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic right", 401),
        ("Bearer right2", 401),
        ("Bearer right", 200),
        ("bearer  other ", 200),
    ],
)
async def test_with_tokens_everybody_must_show_one(node: Node, authorization: str | None, status: int) -> None:
    """Only a configured token opens the surface; the probes stay open; any Host will do."""
    headers = {"Host": "node.example"} | ({"Authorization": authorization} if authorization is not None else {})
    async with served(node, credentials=[BearerTokens(["right", "other"])]) as client:
        for path in ("/esmd/v1/status", "/metrics", "/nope"):
            async with client.get(path, headers=headers) as answer:
                assert answer.status == (404 if (path, status) == ("/nope", 200) else status)
                assert ("WWW-Authenticate" in answer.headers) == (status == 401)
        for path in ("/healthz", "/readyz"):
            async with client.get(path, headers={"Host": "node.example"}) as answer:
                assert answer.status == 200


def test_an_empty_token_is_no_token() -> None:
    """A configuration mistake does not open the surface to everybody."""
    with pytest.raises(ValueError, match="empty token"):
        BearerTokens(["right", ""])


async def test_other_parts_hang_in_behind_the_same_guard(node: Node) -> None:
    """Routes and applications of others are served, and protected, like the node's own."""

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello", headers={"Content-Security-Policy": "default-src 'self'"})

    console = web.Application()
    console.add_routes([web.get("/", hello)])
    routes = [web.get("/2015-03-31/event-source-mappings", hello)]
    async with served(node, apps={"/console": console}, routes=routes) as client:
        for path in ("/console/", "/2015-03-31/event-source-mappings"):
            async with client.get(path) as answer:
                assert await answer.text() == "hello"
                assert answer.headers["Content-Security-Policy"] == "default-src 'self'"
                assert answer.headers["Server"] == "esmd"
            async with client.get(path, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 403


async def test_an_address_in_use_is_an_error_that_says_so(node: Node) -> None:
    """Starting a second node on the same port fails with the address in the message, and leaves the first alone."""
    async with served(node) as client:
        port = client._base_url.port  # type: ignore[union-attr] # set in `served`
        assert port is not None
        shown = Surface(alive=node.alive, ready=node.ready, metrics=node.metrics, status=node.status)
        with pytest.raises(CannotListenError, match=f"{port}: another process does.*--listen"):
            async with serving(application(shown), ListenAddress("127.0.0.1", port)):
                pytest.fail("it listens")
        async with client.get("/healthz") as answer:
            assert answer.status == 200
