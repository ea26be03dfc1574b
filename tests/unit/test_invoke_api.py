"""The Invoke operation over HTTP, on functions under the test's control: `node.invoke_api`, `invocation.frontend`."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Settings
from invocation.accepting import Acceptor
from invocation.classify import Answer, Failure, FailureKind, TargetKind
from invocation.frontend import FrontEnd, Room
from invocation.invoke_request import MAX_EVENT_BYTES
from invocation.invoking import InvocationResult, NotInvoked, Request
from invocation.local_target import LocalTarget
from invocation.settings import HandlerFunction, RieFunction, UrlFunction
from model.errors import RefusedError, StoreUnavailableError
from node.invoke_api import InvokeApi
from node.invoke_metrics import InvokeMeters
from statemgr.memory_store import MemoryStore
from tests.support.bare_surface import bare_node
from tests.support.node_process import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from invocation.client import RemoteTarget
    from invocation.settings import FunctionSettings
    from model.invocation import Invocation
    from model.outcome import Outcome

PATH = "/2015-03-31/functions/{}/invocations"
LOCAL = HandlerFunction("local", "app.handler", "code")
FUNCTIONS: dict[str, FunctionSettings] = {
    "local": LOCAL,
    "url": UrlFunction("url", "http://127.0.0.1:1"),
    "rie": RieFunction("rie", ("http://127.0.0.1:1",)),
    "odd": UrlFunction("odd", "http://127.0.0.1:1"),
}


class Functions:
    """Runs functions: answers with the event, once `go` is set."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.go = asyncio.Event()
        self.go.set()
        self.begun = asyncio.Event()
        self.ended = 0
        self.broken = False

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Answer."""
        assert function is LOCAL
        self.requests.append(request)
        self.begun.set()
        await self.go.wait()
        self.ended += 1
        if self.broken:
            raise ZeroDivisionError
        return InvocationResult(request.event, None, b"log", 0.1)

    def target(self, function: FunctionSettings) -> RemoteTarget | LocalTarget:
        """Return what calls a function."""
        if function.name == "odd":
            raise RefusedError("cannot be called from here")
        if isinstance(function, HandlerFunction):
            return LocalTarget(function, self)
        return Elsewhere(TargetKind.RIE if function.name == "rie" else TargetKind.URL)


class Elsewhere:
    """A function that is away; the emulator's container has an invocation already."""

    def __init__(self, kind: TargetKind) -> None:
        self.kind = kind
        self.full = kind is TargetKind.RIE

    async def call(self, event: bytes, headers: Mapping[str, str]) -> Answer | Failure:
        """Answer."""
        del event, headers
        return Failure(FailureKind.REFUSED)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Nobody asks for that here."""
        raise AssertionError(invocation)


class Rig:
    """A served front end."""

    def __init__(
        self, functions: Functions, room: Room, client: aiohttp.ClientSession, port: int, received: list[str]
    ) -> None:
        self.functions = functions
        self.room = room
        self.client = client
        self.port = port
        self.received = received

    async def invoke(self, function: str = "local", body: Any = b"1", **headers: str) -> tuple[int, str, Any]:
        """Return status, type of error and document of an answer."""
        named = {f"X-Amz-{name.replace('_', '-')}": text for name, text in headers.items()}
        async with self.client.post(PATH.format(function), data=body, headers=named) as answer:
            assert answer.headers["x-amzn-RequestId"]
            return answer.status, answer.headers.get("x-amzn-ErrorType", ""), json.loads(await answer.read() or b"null")

    async def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own, and return what comes until the other side closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def served(
    *, room: Room | None = None, body_limit_s: float = 30.0, store: MemoryStore | None = None, max_bytes: int = 1000
) -> AsyncIterator[Rig]:
    """Serve the front end."""
    functions, room = Functions(), room or Room()
    settings = Settings(functions=FUNCTIONS)
    received: list[str] = []
    acceptor = None if store is None else Acceptor(store, received=received.append, max_bytes=lambda: max_bytes)
    api = InvokeApi(
        FrontEnd(lambda: settings, functions.target, acceptor), room, InvokeMeters(), body_limit_s=body_limit_s
    )
    async with (
        bare_node(api.routes()) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        yield Rig(functions, room, client, address.port, received)
    assert (room.calls, room.size) == (0, 0)


async def test_what_a_function_is_told() -> None:
    """Event, request id, client context and trace; the answer names request and trace."""
    async with served() as rig:
        headers = {"X-Amzn-Trace-Id": "Root=1-2-3", "X-Amz-Client-Context": "e30="}
        async with rig.client.post(PATH.format("local"), data=b'{"a":1}', headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b'{"a":1}')
            assert answer.content_type == "application/json"
            assert answer.headers["X-Amzn-Trace-Id"] == "Root=1-2-3"
            told = Request(b'{"a":1}', answer.headers["x-amzn-RequestId"], "{}", "Root=1-2-3")
        assert rig.functions.requests == [told]


async def test_functions_that_cannot_be_called() -> None:
    """One that is away, one whose containers are taken, one whose settings do not work here, one that breaks us."""
    async with served() as rig:
        assert (await rig.invoke("url"))[:2] == (502, "ResourceNotReadyException")
        status, error_type, document = await rig.invoke("rie")
        assert (status, error_type) == (429, "TooManyRequestsException")
        assert document["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert (await rig.invoke("odd"))[2] == {"Type": "Service", "Message": "cannot be called from here"}
        rig.functions.broken = True
        status, error_type, document = await rig.invoke()
        assert (status, error_type) == (500, "ServiceException")
        assert "ZeroDivision" not in document["Message"]


async def test_no_more_is_taken_on_than_there_is_room_for() -> None:
    """In number and in bytes; an event of unknown length counts as the largest."""
    async with served(room=Room(calls=2, size=MAX_EVENT_BYTES)) as rig, asyncio.TaskGroup() as tasks:

        async def pieces() -> AsyncIterator[bytes]:
            yield b"1"

        rig.functions.go.clear()
        tasks.create_task(rig.invoke())
        await rig.functions.begun.wait()
        status, error_type, document = await rig.invoke(body=pieces())
        assert (status, error_type) == (429, "TooManyRequestsException")
        assert document == {
            "Type": "User",
            "message": "Rate Exceeded.",
            "Reason": "ConcurrentInvocationLimitExceeded",
        }
        rig.functions.begun.clear()
        tasks.create_task(rig.invoke())
        await rig.functions.begun.wait()
        assert (await rig.invoke())[0] == 429
        rig.functions.go.set()
    assert rig.functions.ended == 2


async def test_a_stopping_node_ends_what_it_has_and_takes_on_nothing() -> None:
    """Callers are told to ask another node."""
    async with served() as rig, asyncio.TaskGroup() as tasks:
        rig.functions.go.clear()
        running = tasks.create_task(rig.invoke())
        await rig.functions.begun.wait()
        draining = tasks.create_task(rig.room.drain(60.0))
        await eventually(lambda: rig.room.closed, "the room is closed")
        assert (await rig.invoke())[2] == {"Type": "Service", "Message": "the node is stopping"}
        assert not draining.done()
        rig.functions.go.set()
        assert (await running)[0] == 200
        await draining


async def test_draining_has_an_end() -> None:
    """What takes longer is left to its fate."""
    room = Room()
    assert room.enter(1)
    await room.drain(0.01)
    room.leave(1)


async def test_a_caller_who_goes_away() -> None:
    """The function is run to its end; one whose event is not complete is not run."""
    async with served() as rig:
        rig.functions.go.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(_request(b"1"))
        await rig.functions.begun.wait()
        writer.close()
        await writer.wait_closed()
        rig.functions.go.set()
        await eventually(lambda: not rig.room.calls, "the room is empty")
        assert rig.functions.ended == 1
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(_request(b"1", length=2))
        await eventually(lambda: rig.room.calls, "the request has begun")
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: not rig.room.calls, "the room is empty")
        assert rig.functions.ended == 1


async def test_an_event_that_does_not_come() -> None:
    """Its caller is told so, and its room is free again."""
    async with served(body_limit_s=0.05) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(_request(b"1", length=2))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"RequestTimeoutException" in head
        writer.close()
    assert rig.functions.requests == []


async def test_a_compressed_event() -> None:
    """It is taken, and its real size counts."""
    async with served() as rig:
        for body, status in ((b"[1]", 200), (b" " * (MAX_EVENT_BYTES + 1), 413)):
            headers = {"Content-Encoding": "gzip"}
            async with rig.client.post(PATH.format("local"), data=gzip.compress(body), headers=headers) as answer:
                assert answer.status == status


@pytest.mark.parametrize("path", ["%FF", "a%2Fb", "%00", "a%0D%0Ab", "local%3A%24LATEST%3A", "..", "%2e%2e"])
async def test_odd_names(path: str) -> None:
    """They are refused, or not found."""
    async with served() as rig:
        answer = await rig.raw(_request(b"1", path=PATH.format(path)))
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))


def _request(body: bytes, *, path: str = PATH.format("local"), length: int | None = None, more: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
    return f"{head}{len(body) if length is None else length}\r\n".encode() + more + b"\r\n" + body


HEADERS = ("X-Amz-Invocation-Type", "X-Amz-Log-Type", "X-Amz-Client-Context", "X-Amzn-Trace-Id", "Content-Encoding")


def test_nothing_breaks_it() -> None:
    """Whatever bytes stand in path, query, headers and body, the answer comes, and is no error of ours."""

    @settings(max_examples=150, deadline=None, database=None)
    @given(
        st.binary(max_size=30).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw)),
        st.none() | st.binary(max_size=20).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw)),
        st.dictionaries(st.sampled_from(HEADERS), st.binary(max_size=30).filter(lambda raw: not {10, 13} & {*raw})),
        st.binary(max_size=40),
    )
    def breaks_nothing(name: str, qualifier: str | None, headers: dict[str, bytes], body: bytes) -> None:
        for function in (name, "local"):
            path = PATH.format(function) + ("" if qualifier is None else f"?Qualifier={qualifier}")
            more = b"".join(key.encode() + b": " + headers[key] + b"\r\n" for key in headers)
            answer = runner.run(asyncio.wait_for(rig.raw(_request(body, path=path, more=more)), 10.0))
            assert answer[9:12] in {b"200", b"204", b"400", b"404", b"413", b"415"}, answer

    with asyncio.Runner() as runner:
        serving_it = served()
        rig = runner.run(serving_it.__aenter__())
        try:
            breaks_nothing()
        finally:
            runner.run(serving_it.__aexit__(None, None, None))


async def test_an_asynchronous_invocation_is_kept() -> None:
    """It is answered with 202 and nothing else once it is in the queue; the function is not run for it."""
    store = MemoryStore()
    async with served(store=store) as rig:
        assert await rig.invoke(body=b'{"a": 1}', Invocation_Type="Event") == (202, "", None)
        assert rig.received == ["local"]
        assert rig.functions.requests == []
    assert (await store.events.depth()).events == 1


async def test_an_asynchronous_invocation_that_cannot_be_kept_is_refused() -> None:
    """With AWS's throttle where too much waits already, with an error of the service where the store is away."""
    async with served(store=MemoryStore(), max_bytes=500) as rig:
        assert (await rig.invoke(Invocation_Type="Event"))[0] == 202
        status, error_type, document = await rig.invoke(Invocation_Type="Event")
        assert (status, error_type, document["Reason"]) == (
            429,
            "TooManyRequestsException",
            "ConcurrentInvocationLimitExceeded",
        )
        assert rig.received == ["local"]

    class Away(MemoryStore):
        @property
        def events(self) -> Any:
            raise StoreUnavailableError("gone")

        @events.setter
        def events(self, _queue: object) -> None: ...

    async with served(store=Away()) as rig:
        assert (await rig.invoke(Invocation_Type="Event"))[:2] == (500, "ServiceException")
        assert rig.received == []


async def test_what_is_handed_on_is_accepted_by_a_full_queue() -> None:
    """Else a queue full of events whose results go to another function would never become less full."""
    store, received = MemoryStore(), list[str]()
    acceptor = Acceptor(store, received=received.append, max_bytes=lambda: 1000)

    async def accepted(function: str, *, bounded: bool = True) -> bool:
        event = b"x" * 300
        return await acceptor.accept(function, function, event, request_id="id", trace="", bounded=bounded) is None

    while await accepted("f"):
        pass
    assert await accepted("g", bounded=False)
    assert not await accepted("f")
    assert received[-1] == "g"


async def test_nobody_accepts_what_nobody_keeps() -> None:
    """A front end without a queue refuses asynchronous invocations."""
    async with served() as rig:
        assert (await rig.invoke(Invocation_Type="Event"))[:2] == (500, "ServiceException")


async def test_an_asynchronous_event_has_a_limit_of_its_own() -> None:
    """One byte beyond 1 MB is too large, though a synchronous one of that size is not."""
    large = b'"' + b"x" * (1024 * 1024 - 1) + b'"'
    async with served(store=MemoryStore(), max_bytes=10**8) as rig:
        statuses = [
            (await rig.invoke(body=BytesIO(body), Invocation_Type=kind))[0]
            for body, kind in ((large, "Event"), (large[:-2] + b'"', "Event"), (large, "DryRun"))
        ]
    assert statuses == [413, 202, 204]
