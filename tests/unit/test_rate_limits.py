"""How often callers may ask: `node.rate_limits` behind `node.guard`, and AWS's own client against it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import boto3
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from botocore.config import Config
from botocore.exceptions import ClientError

from config.load import load
from config.settings import RateLimitSettings
from node.credentials import BearerTokens, SignedRequests
from node.rate_limits import Kind, RateLimits, address_of, identity, kind_of
from tests.support.bare_surface import bare_node
from tests.support.lambda_client import lambda_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MAPPINGS = "/2015-03-31/event-source-mappings"
INVOKE = "/2015-03-31/functions/f/invocations"
TOKENS = BearerTokens(["good", "other"])


class Clock:
    """Stands still until it is moved."""

    now = 50.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@asynccontextmanager
async def served(limits: RateLimits, *credentials: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve a surface with these limits, whose other paths all answer `{}`."""

    async def empty(_request: web.Request) -> web.Response:
        return web.json_response({"EventSourceMappings": []})

    routes = [web.route("*", "/{path:.*}", empty)]
    async with (
        bare_node(routes, credentials=credentials, limits=limits) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        yield client


async def ask(client: aiohttp.ClientSession, method: str, path: str, token: str | None = None) -> int:
    """Return an answer's status."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with client.request(method, path, headers=headers) as answer:
        return answer.status


def limits(clock: Clock | None = None, **rates: float) -> RateLimits:
    """Return limits of which only those named hold. A tenth a second is one at a time."""
    none: dict[str, float] = dict.fromkeys(("reads", "changes", "invokes", "failed_logins"), 0.0)
    return RateLimits(RateLimitSettings(**{**none, **rates}), clock=clock or Clock())


async def test_reading_and_changing_are_limited_by_themselves() -> None:
    """With AWS's answer and a time to wait; after it the caller is served again."""
    clock = Clock()
    them = limits(clock, reads=0.1, changes=0.2)
    async with served(them) as client:
        assert await ask(client, "GET", MAPPINGS) == 200
        async with client.get(MAPPINGS) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "10")
            assert answer.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
            assert await answer.json() == {
                "Type": "User",
                "message": "Rate exceeded",
                "Reason": "CallerRateLimitExceeded",
            }
        assert [await ask(client, "POST", MAPPINGS) for _ in range(3)] == [200, 200, 429]
        async with client.get("/esmd/v1/status") as answer:
            assert (answer.status, await answer.json()) == (429, {"message": "Rate exceeded"})
        clock.now += 10
        assert await ask(client, "GET", MAPPINGS) == 200
    assert them.refused == {Kind.READ: 2, Kind.CHANGE: 1}


async def test_probes_metrics_and_invocations_are_never_limited() -> None:
    """Unless invocations are."""
    async with served(limits(reads=0.1, changes=0.1)) as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert [await ask(client, "GET", path) for _ in range(5)] == [200] * 5
        for method, path in (("POST", INVOKE), ("GET", "/functions/f/url/a"), ("POST", "/functions/f/url")):
            assert [await ask(client, method, path) for _ in range(5)] == [200] * 5
    async with served(limits(invokes=0.1)) as client:
        assert [await ask(client, "POST", INVOKE) for _ in range(2)] == [200, 429]
        assert await ask(client, "POST", "/esmd/v1/environments/f/invocations") == 200


async def test_each_token_has_its_own_limit() -> None:
    """Whoever proves himself is known by that, and not by the address that others have, too."""
    async with served(limits(reads=0.1), TOKENS) as client:
        assert [await ask(client, "GET", MAPPINGS, "good") for _ in range(2)] == [200, 429]
        assert [await ask(client, "GET", MAPPINGS, "other") for _ in range(2)] == [200, 429]


async def test_failed_proofs_are_limited_by_address() -> None:
    """Then nothing is looked at any more, also not a right one, unless it has been right from there before."""
    clock = Clock()
    them = limits(clock, failed_logins=0.3)
    async with served(them, TOKENS, SignedRequests({"AK": "secret"})) as client:
        assert await ask(client, "GET", MAPPINGS, "good") == 200
        assert [await ask(client, "GET", MAPPINGS, f"guess {n}") for n in range(5)] == [401, 401, 401, 429, 429]
        assert await ask(client, "GET", MAPPINGS, "other") == 429
        assert await ask(client, "GET", MAPPINGS, "good") == 200
        assert await ask(client, "GET", "/healthz") == 200
        assert await ask(client, "GET", "/esmd/v1/status") == 401  # proves nothing, and so guesses nothing
        clock.now += 1 / 0.3
        assert await ask(client, "GET", MAPPINGS, "other") == 200
        assert await ask(client, "GET", MAPPINGS, "guess") == 401
        assert await ask(client, "GET", MAPPINGS, "guess") == 429
    assert them.refused[Kind.LOGIN] == 4


async def test_awss_client_waits_and_tries_again() -> None:
    """It takes the answer for throttling; without retries it raises the exception of the operation."""
    clock = Clock()
    them = limits(clock, reads=1.0)
    async with served(them) as client:
        url = str(client._base_url)
        once = await asyncio.to_thread(lambda_client, url)
        for _ in range(10):
            await asyncio.to_thread(once.list_event_source_mappings)
        with pytest.raises(once.exceptions.TooManyRequestsException) as caught:
            await asyncio.to_thread(once.list_event_source_mappings)
        assert caught.value.response["Reason"] == "CallerRateLimitExceeded"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        patient = await asyncio.to_thread(
            lambda: boto3.client(
                "lambda",
                endpoint_url=url,
                region_name="us-east-1",
                config=Config(retries={"mode": "standard", "total_max_attempts": 2}),
                **keys,
            )
        )
        with pytest.raises(ClientError) as late:
            await asyncio.to_thread(patient.list_event_source_mappings)
        assert late.value.response["ResponseMetadata"]["RetryAttempts"] == 1
        once.close()
        patient.close()


def test_what_a_request_counts_as() -> None:
    """By method and path."""
    assert kind_of("GET", "/metrics") is None
    assert kind_of("POST", "/esmd/v1/environments/f/invocations") is None
    assert kind_of("HEAD", "/console") is Kind.READ
    assert kind_of("DELETE", MAPPINGS + "/x") is Kind.CHANGE
    assert kind_of("PUT", "/2017-10-31/functions/f/concurrency") is Kind.CHANGE
    assert kind_of("DELETE", "/functions/f/url") is Kind.INVOKE


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not an address", "not an address"),
    ],
)
def test_a_network_of_ipv6_is_one_caller(remote: str, address: str) -> None:
    """A customer has all of its addresses."""
    assert address_of(make_mocked_request("GET", "/").clone(remote=remote)) == address


def test_an_identity_is_the_key_or_a_digest_of_the_token() -> None:
    """However the scheme is spelled; no token is kept as it is."""
    signed = f"AWS4-HMAC-SHA256 Credential=AK/20260101/r/lambda/aws4_request, SignedHeaders=host, Signature={'0' * 64}"
    assert identity(signed) == "AK"
    assert identity("Bearer t0ken") == identity("bearer  t0ken ") != identity("Bearer other")
    assert "t0ken" not in identity("Bearer t0ken")
    assert identity("AWS4-HMAC-SHA256 nonsense") != identity("AWS4-HMAC-SHA256 other")


def test_every_kind_is_in_the_metric_from_the_start() -> None:
    """So that a rate of it is known before the first refusal."""
    (family,) = limits(reads=1).collect()
    assert {sample.labels["kind"]: sample.value for sample in family.samples} == dict.fromkeys(map(str, Kind), 0)
    assert family.samples[0].name == "esm_api_throttles_total"


def test_who_got_in_is_remembered_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first."""
    monkeypatch.setattr("node.rate_limits.MOST_CALLERS", 20)
    them = limits(failed_logins=1)
    for number in range(50):
        headers = {"Authorization": f"Bearer {number}"}
        them.logged_in(make_mocked_request("GET", "/", headers=headers).clone(remote="192.0.2.1"))
    assert [who for _, who in them._known] == [identity(f"Bearer {number}") for number in range(30, 50)]


def test_limits_are_settings(tmp_path: Path) -> None:
    """In sections that are there already; what is not said has its default."""
    file = tmp_path / "esmd.yaml"
    file.write_text(
        'control_plane: {rate_limits: {changes: 2.5, invokes: 1000}}\nauth: {tokens: ["t"], failed_logins: 0}\n'
    )
    assert load([file], environ={}).rate_limits == RateLimitSettings(100, 2.5, 1000, 0)
    file.write_text("{}\n")
    assert load([file], environ={}).rate_limits == RateLimitSettings()
