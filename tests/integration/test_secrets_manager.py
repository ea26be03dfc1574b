"""AWS Secrets Manager through the real SDK, against a local server that speaks its protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from config.secrets import AwsSecretsManager, Secrets
from model.errors import RefusedError, UnavailableError
from model.secret import SecretText
from tests.support.web_server import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ARN = "arn:aws:secretsmanager:eu-west-1:000000000000:secret:kafka-Ab12Cd"


class SecretsServer:
    """Answers GetSecretValue; remembers in which region it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, object]]] = {}
        self.scopes: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one call of the SDK."""
        assert request.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue"
        self.scopes.append(request.headers["Authorization"].split("Credential=")[1].split(",")[0])
        status, body = self.answers[json.loads(await request.read())["SecretId"]]
        return web.Response(status=status, body=json.dumps(body), content_type="application/x-amz-json-1.1")


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecretsServer]:
    """Run the server, and give the SDK credentials."""
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    found = SecretsServer()
    app = web.Application()
    app.router.add_post("/", found.handle)
    async with served(app) as found.url:
        yield found


async def _resolve(url: str) -> str:
    secrets = Secrets(environ={}, secrets_manager=AwsSecretsManager(endpoint_url=url))
    return await secrets.resolve(SecretText(f"${{secretsmanager:{ARN}}}"))


@pytest.mark.parametrize("answer", [{"SecretString": "hunter2"}, {"SecretBinary": "aHVudGVyMg=="}])
async def test_a_secret_is_read_in_the_region_of_its_arn(server: SecretsServer, answer: dict[str, object]) -> None:
    """Text and binary secrets come back as text, asked for where the ARN says."""
    server.answers[ARN] = (200, answer)
    assert await _resolve(server.url) == "hunter2"
    assert "/eu-west-1/secretsmanager/" in server.scopes[0]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "ResourceNotFoundException", RefusedError),
        (400, "AccessDeniedException", RefusedError),
        (400, "ThrottlingException", UnavailableError),
        (500, "InternalServiceError", UnavailableError),
    ],
)
async def test_refusals_and_troubles_are_told_apart(
    server: SecretsServer, status: int, code: str, error: type[Exception]
) -> None:
    """What will not change by waiting is refused; the rest is unavailable; both name the reference."""
    server.answers[ARN] = (status, {"__type": code, "message": "hunter2"})
    with pytest.raises(error) as caught:
        await _resolve(server.url)
    assert str(caught.value) == f"${{secretsmanager:{ARN}}}: Secrets Manager answered {code}"


async def test_a_server_that_is_away_is_unavailable(server: SecretsServer) -> None:
    """A refused connection names the reference and is worth another try."""
    del server
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await _resolve("http://127.0.0.1:9")
