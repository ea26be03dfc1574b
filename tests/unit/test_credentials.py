"""Who may use the HTTP surface: tokens, read-only tokens, signed requests; and who changed what."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from structlog.testing import capture_logs

from config.settings import AuthSettings, RateLimitSettings
from invocation.frontend import Room
from model.errors import RefusedError, UnavailableError
from model.secret import SecretText
from node.credentials import Access, BearerTokens, SignedRequests
from node.guard import audit, guard
from node.rate_limits import RateLimits
from tests.support.web_server import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from node.guard import Credentials as Method
    from node.guard import Logins

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI"
INVOKE = "/2015-03-31/functions/f/invocations"


@asynccontextmanager
async def surface(methods: Sequence[Method], logins: Logins | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve an application that says back what it got, behind the guard."""

    async def echo(request: web.Request) -> web.Response:
        if request.path == "/missing":
            raise web.HTTPNotFound
        return web.Response(body=await request.read())

    app = web.Application(middlewares=[guard(methods, logins=logins), audit], client_max_size=1024)
    app.router.add_route("*", "/{path:.*}", echo)
    async with served(app, handle_signals=False) as url, aiohttp.ClientSession(url) as client:
        yield client


async def ask(
    client: aiohttp.ClientSession, method: str, path: str, *, token: str | None = None, body: bytes = b""
) -> tuple[int, str]:
    """Send a request; return the answer's status and AWS's name of the error."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with client.request(method, path, headers=headers, data=body) as answer:
        return answer.status, answer.headers.get("X-Amzn-ErrorType", "")


async def ask_signed(
    client: aiohttp.ClientSession,
    path: str,
    body: bytes,
    *,
    key: str = KEY,
    secret: str = SECRET,
    sent: bytes | None = None,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str, bytes]:
    """Send a request signed as boto3 signs; return status, error and body of the answer."""
    url = str(client._base_url).rstrip("/") + path
    request = AWSRequest(method, url, data=body)
    SigV4Auth(Credentials(key, secret), "lambda", "us-east-1").add_auth(request)
    told = {**dict(request.headers), **(headers or {})}
    data = (body if sent is None else sent) or None
    async with client.request(method, path, headers=told, data=data) as answer:
        return answer.status, answer.headers.get("X-Amzn-ErrorType", ""), await answer.read()


async def test_a_signed_request_is_let_in_with_its_body() -> None:
    """What the signature was checked with is what the handler reads."""
    async with surface([SignedRequests({KEY: SECRET})]) as client:
        assert await ask_signed(client, INVOKE, b'{"a": 1}') == (200, "", b'{"a": 1}')
        assert (await ask_signed(client, INVOKE, b""))[0] == 200


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"key": "AKIDOTHER"}, 403, "UnrecognizedClientException"),
        ({"secret": "guess"}, 403, "InvalidSignatureException"),
        ({"sent": b'{"a": 2}'}, 403, "InvalidSignatureException"),
    ],
)
async def test_a_request_signed_otherwise_is_refused_in_aws_s_words(
    options: dict[str, str], status: int, error: str
) -> None:
    """So that clients say what they always say."""
    async with surface([SignedRequests({KEY: SECRET})]) as client:
        found = await ask_signed(client, INVOKE, b'{"a": 1}', **options)  # type: ignore[arg-type]
    assert found[:2] == (status, error)


async def test_an_old_signature_and_a_large_body_are_refused() -> None:
    """Before, and instead of, reading all of it."""
    late = SignedRequests({KEY: SECRET}, now=lambda: datetime.now(UTC) + timedelta(minutes=6))
    async with surface([late]) as client:
        assert (await ask_signed(client, INVOKE, b"{}"))[:2] == (403, "InvalidSignatureException")
    async with surface([SignedRequests({KEY: SECRET})]) as client:
        assert (await ask_signed(client, INVOKE, b"x" * 2000))[:2] == (413, "RequestTooLargeException")


async def test_signed_bodies_are_read_as_far_as_there_is_room() -> None:
    """Together, before anybody's secret has been seen; what was read makes room again."""
    methods = [SignedRequests({KEY: SECRET}, room=Room(size=100))]
    async with surface(methods) as client:
        for _ in range(2):
            assert (await ask_signed(client, INVOKE, b"x" * 60))[0] == 200
        assert (await ask_signed(client, INVOKE, b"x" * 200))[:2] == (429, "TooManyRequestsException")
        arrived = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"x" * 59
            await arrived.wait()
            yield b"x"

        url = str(client._base_url).rstrip("/") + INVOKE
        request = AWSRequest("POST", url, data=b"x" * 60)
        SigV4Auth(Credentials(KEY, SECRET), "lambda", "us-east-1").add_auth(request)
        headers = {**dict(request.headers), "Content-Length": "60"}
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(client.post(INVOKE, headers=headers, data=slowly()))
            while (await ask_signed(client, INVOKE, b"x" * 60))[0] == 200:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0)
            arrived.set()
        assert sending.result().status == 200
        sending.result().release()


async def test_room_is_needed_for_bodies_alone_and_for_what_they_unpack_to() -> None:
    """A reader of AWS's clients brings none; a compressed one may become as large as any."""
    async with surface([SignedRequests({KEY: SECRET}, room=Room(size=0))]) as client:
        assert (await ask_signed(client, "/2015-03-31/functions", b"", method="GET"))[0] == 200
    small = gzip.compress(b"x" * 1000)
    async with surface([SignedRequests({KEY: SECRET}, room=Room(size=100))]) as client:
        found = await ask_signed(client, INVOKE, small, headers={"Content-Encoding": "gzip"})
        assert len(small) < 100
        assert found[:2] == (429, "TooManyRequestsException")


async def test_a_signed_body_that_does_not_come_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up as any other, and is no failed proof."""
    monkeypatch.setattr("node.admission.BODY_LIMIT_S", 0.1)
    arrived = asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await arrived.wait()
        yield b"x"

    limits = RateLimits(RateLimitSettings(failed_logins=0.1))
    async with surface([SignedRequests({KEY: SECRET})], limits) as client:
        url = str(client._base_url).rstrip("/") + INVOKE
        request = AWSRequest("POST", url, data=b"xx")
        SigV4Auth(Credentials(KEY, SECRET), "lambda", "us-east-1").add_auth(request)
        headers = {**dict(request.headers), "Content-Length": "2"}
        for _ in range(2):  # one failed proof more would be too many
            async with client.post(INVOKE, headers=headers, data=never()) as answer:
                assert answer.status == 408
        arrived.set()


async def test_who_shows_nothing_is_told_what_is_missing() -> None:
    """Clients of the Lambda API in AWS's words, others in ours."""
    async with surface([BearerTokens(["right"]), SignedRequests({KEY: SECRET})]) as client:
        assert await ask(client, "POST", INVOKE) == (403, "MissingAuthenticationTokenException")
        assert await ask(client, "GET", "/metrics") == (401, "")
        assert await ask(client, "GET", "/metrics", token="wrong") == (401, "")
        assert await ask(client, "GET", "/metrics", token="right") == (200, "")
        assert (await ask_signed(client, INVOKE, b"{}"))[0] == 200


async def test_a_read_only_token_reads_and_does_nothing_else() -> None:
    """It neither changes anything nor calls a function, whatever the method."""
    async with surface([BearerTokens(["all"], read_only=["look"])]) as client:
        for method, path, status in (
            ("GET", "/metrics", 200),
            ("GET", "/2015-03-31/event-source-mappings/", 200),
            ("POST", "/esmd/v1/apply", 403),
            ("DELETE", "/2015-03-31/event-source-mappings/x", 403),
            ("POST", INVOKE, 403),
            ("GET", "/functions/f/url/", 403),
        ):
            assert (await ask(client, method, path, token="look"))[0] == status, (method, path)
            assert (await ask(client, method, path, token="all"))[0] == 200


async def test_a_token_may_be_configured_as_its_hash() -> None:
    """Then no file holds it; the hash itself opens nothing."""
    kept = "sha256:" + hashlib.sha256(b"right").hexdigest()
    async with surface([BearerTokens([kept])]) as client:
        assert (await ask(client, "GET", "/metrics", token="right"))[0] == 200
        assert (await ask(client, "GET", "/metrics", token=kept))[0] == 401


async def test_changes_are_logged_with_who_asked() -> None:
    """Not what only reads or invokes; never the token."""
    with capture_logs() as lines:
        async with surface([BearerTokens(["secret-token"]), SignedRequests({KEY: SECRET})]) as client:
            await ask(client, "POST", "/esmd/v1/apply", token="secret-token")
            await ask(client, "DELETE", "/missing", token="secret-token")
            await ask(client, "GET", "/metrics", token="secret-token")
            await ask_signed(client, INVOKE, b"{}")
            await ask_signed(client, "/2015-03-31/event-source-mappings/", b"{}")
            await ask(client, "POST", "/esmd/v1/apply", token="wrong")
    digest = hashlib.sha256(b"secret-token").hexdigest()[:8]
    changes = [line for line in lines if line["event"] == "api.changed"]
    assert [(line["caller"], line["method"], line["path"], line["status"]) for line in changes] == [
        (f"token {digest}", "POST", "/esmd/v1/apply", 200),
        (f"token {digest}", "DELETE", "/missing", 404),
        (f"access key {KEY}", "POST", "/2015-03-31/event-source-mappings/", 200),
    ]
    assert "secret-token" not in repr(lines)


def test_an_empty_secret_is_none() -> None:
    """A configuration mistake does not open the surface to everybody."""
    with pytest.raises(ValueError, match="empty token"):
        BearerTokens(["right", ""])
    with pytest.raises(ValueError, match="empty token"):
        BearerTokens(read_only=[""])
    with pytest.raises(ValueError, match="empty secret key"):
        SignedRequests({KEY: ""})


class Vault:
    """A resolver whose secrets change, or are away."""

    def __init__(self, **known: str) -> None:
        self.known = known
        self.away = False

    async def resolve(self, text: SecretText) -> str:
        """See `SecretResolver`."""
        if self.away:
            raise UnavailableError("the vault does not answer")
        return self.known[text.template]


@pytest.mark.looptime
async def test_rotated_secrets_are_taken_up_without_a_restart() -> None:
    """Within a minute; while they cannot be had, those from before stand."""
    vault = Vault(t="old", r="look", k=SECRET)
    settings = AuthSettings((SecretText("t"),), (SecretText("r"),), {KEY: SecretText("k")})
    access = Access(settings, vault)
    await access.read()
    tokens = access.methods[0]
    assert isinstance(tokens, BearerTokens)

    def opens(token: str) -> bool:
        return any(known == hashlib.sha256(token.encode()).digest() for known, _ in tokens._known)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(access.run())
        assert opens("old")
        vault.known["t"], vault.away = "new", True
        with capture_logs() as lines:
            await asyncio.sleep(200)
        assert opens("old")
        assert [line["event"] for line in lines] == ["auth.not_read"], "told once"
        vault.away = False
        await asyncio.sleep(61)
        assert opens("new")
        assert not opens("old")
        vault.known["t"] = ""
        with capture_logs() as lines:
            await asyncio.sleep(61)
        assert opens("new")
        assert "empty token" in lines[0]["error"]
        running.cancel()


async def test_an_empty_secret_at_the_start_is_refused() -> None:
    """The node does not come up open."""
    with pytest.raises(RefusedError, match="empty token"):
        await Access(AuthSettings((SecretText("t"),)), Vault(t="")).read()
    nobody = Access(None, Vault())
    await nobody.read()
    await nobody.run()
    assert nobody.methods == ()
