"""Functions behind URLs over HTTP, on a function under the test's control: `node.url_api`."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from config.settings import Settings
from invocation.frontend import FrontEnd, Room
from invocation.invoke_request import MAX_EVENT_BYTES
from invocation.invoking import InvocationResult, NotInvoked, Request, throttled
from invocation.local_target import LocalTarget
from invocation.settings import HandlerFunction
from node.invoke_metrics import InvokeMeters
from node.url_api import FunctionUrls
from tests.support.bare_surface import bare_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OPEN = HandlerFunction("open", "app.handler", "code", http=True)
SHUT = HandlerFunction("shut", "app.handler", "code")
FAILED = InvocationResult(b'{"errorType":"E","errorMessage":"secret"}', "Unhandled", b"", 0.1)


@dataclass
class Functions:
    """Answers with `result`; None: with the event."""

    result: InvocationResult | NotInvoked | Exception | None = None
    requests: list[Request] = field(default_factory=list)

    async def invoke(self, _function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Answer."""
        self.requests.append(request)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result or InvocationResult(request.event, None, b"", 0.1)

    def returns(self, document: Any) -> None:
        """Have it return a document."""
        self.result = InvocationResult(json.dumps(document).encode(), None, b"", 0.1)


@dataclass
class Rig:
    """Served functions."""

    functions: Functions
    client: aiohttp.ClientSession
    meters: InvokeMeters
    room: Room

    async def ask(self, path: str, method: str = "GET", **more: Any) -> tuple[int, str, bytes]:
        """Return status, type and body of an answer."""
        async with self.client.request(method, path, allow_redirects=False, **more) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), await answer.read()

    def counted(self) -> dict[str, float]:
        """Return the counts of the function that has a URL, where there are any."""
        results, _ = self.meters.collect()
        return {sample.labels["result"]: sample.value for sample in results.samples if sample.value}


@asynccontextmanager
async def served(*, guarded: bool = False, body_limit_s: float = 30.0) -> AsyncIterator[Rig]:
    """Serve two functions, of which one has a URL."""
    functions, room, meters = Functions(), Room(), InvokeMeters()
    settings = Settings(functions={"open": OPEN, "shut": SHUT})

    def target(function: Any) -> LocalTarget:
        return LocalTarget(function, functions)

    front_end = FrontEnd(lambda: settings, target)
    api = FunctionUrls(front_end, room, meters, guarded=guarded, body_limit_s=body_limit_s)
    async with (
        bare_node(api.routes()) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        yield Rig(functions, client, meters, room)
    assert (room.calls, room.size) == (0, 0)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
async def test_any_method_reaches_the_function(method: str) -> None:
    """With what stands behind its URL, as it was written."""
    async with served() as rig:
        status, kind, body = await rig.ask("/functions/open/url/a%20b//c/?x=1&x=%2B", method)
        event = json.loads(body)
        assert (status, kind) == (200, "application/json")
        assert event["requestContext"]["http"]["method"] == method
        assert event["rawPath"] == "/a%20b//c/"
        assert event["queryStringParameters"]["x"].startswith("1,")
        (request,) = rig.functions.requests
        assert event["requestContext"]["requestId"] == request.request_id
        assert rig.counted() == {"ok": 1}


@pytest.mark.parametrize(("path", "raw"), [("/functions/open/url", "/"), ("/functions/open/url/", "/")])
async def test_the_url_itself_is_the_root(path: str, raw: str) -> None:
    """With a slash behind it or without."""
    async with served() as rig:
        assert json.loads((await rig.ask(path))[2])["rawPath"] == raw


async def test_a_structured_result_is_sent_as_it_says() -> None:
    """Status, several cookies, a binary body; HEAD gets no body."""
    async with served() as rig:
        rig.functions.returns(
            {
                "statusCode": 418,
                "headers": {"Content-Type": "image/png", "X-A": "1"},
                "cookies": ["a=1", "b=2"],
                "body": "iVBO",
                "isBase64Encoded": True,
            }
        )
        async with rig.client.get("/functions/open/url/") as answer:
            assert (answer.status, await answer.read(), answer.headers["X-A"]) == (418, b"\x89PN", "1")
            assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
            assert answer.headers["x-amzn-RequestId"]
            assert answer.headers["X-Amzn-Trace-Id"]
        assert await rig.ask("/functions/open/url/", "HEAD") == (418, "image/png", b"")


@pytest.mark.parametrize(
    ("result", "status", "body", "counted"),
    [
        (FAILED, 502, b"Internal Server Error", "error"),
        (InvocationResult(b'{"statusCode":"x"}', None, b"", 0.1), 502, b"Internal Server Error", "error"),
        (throttled(own_limit=True), 429, None, "throttled"),
        (NotInvoked(500, "ServiceException", "no sandbox"), 500, None, "failed"),
        (ZeroDivisionError(), 500, None, "failed"),
    ],
)
async def test_what_goes_wrong_has_awss_answer(result: Any, status: int, body: bytes | None, counted: str) -> None:
    """A failed function tells nobody why; throttles are 429; all of it is counted."""
    async with served() as rig:
        rig.functions.result = result
        answered, kind, said = await rig.ask("/functions/open/url/")
        assert answered == status
        assert b"secret" not in said
        assert b"ZeroDivision" not in said
        if body is None:
            assert kind == "application/json"
            assert json.loads(said)
        else:
            assert (kind, said) == ("text/plain", body)
        assert rig.counted() == {counted: 1}


@pytest.mark.parametrize("name", ["shut", "nobody", "a%20b"])
async def test_a_function_without_a_url_is_not_found(name: str) -> None:
    """Off unless `http: true`, and nothing tells which functions there are."""
    async with served() as rig:
        status, _, body = await rig.ask(f"/functions/{name}/url/")
        assert status == 404
        assert json.loads(body)["Message"].startswith("No function ")
        assert rig.functions.requests == []
        assert rig.counted() == {}


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"x" * (MAX_EVENT_BYTES + 1), "text/plain"), (b"\xff" * (MAX_EVENT_BYTES - 100_000), "image/png")],
)
async def test_a_request_that_makes_too_large_an_event_is_refused(body: bytes, kind: str) -> None:
    """413, also when it is base64 that makes it too large."""
    async with served() as rig:
        status, _, _ = await rig.ask("/functions/open/url/", "POST", data=BytesIO(body), headers={"Content-Type": kind})
        assert status == 413
        assert rig.functions.requests == []


async def test_the_nodes_own_token_is_not_for_functions() -> None:
    """Where the node wants one, Authorization is its own."""
    headers = {"Authorization": "Bearer secret"}
    async with served(guarded=True) as rig:
        assert b"secret" not in (await rig.ask("/functions/open/url/", headers=headers))[2]
    async with served() as rig:
        assert b"secret" in (await rig.ask("/functions/open/url/", headers=headers))[2]


async def test_a_node_that_stops_or_is_full_takes_nothing_on() -> None:
    """500 while it drains, 429 without room."""
    async with served() as rig:
        for _ in range(1000):
            assert rig.room.enter(0)
        assert (await rig.ask("/functions/open/url/"))[0] == 429
        for _ in range(1000):
            rig.room.leave(0)
        rig.room.closed = True
        assert (await rig.ask("/functions/open/url/"))[0] == 500
        rig.room.closed = False
