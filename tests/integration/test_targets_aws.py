"""Signed invocations: endpoint, Region and credentials as every AWS tool takes them, checked by a second signer."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

import pytest

from invocation.client import Targets
from invocation.settings import LambdaFunction
from model.outcome import Delivered, NotReached
from tests.support.scripted_http import Received, ScriptedServer
from tests.support.targets import Secrets, invocation

if TYPE_CHECKING:
    from pathlib import Path

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:thumbs:live"
SECRET = "planted-secret-key"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Give the SDK an environment of its own, with credentials and nothing else."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-1")
    return monkeypatch


def signature(request: Received, region: str) -> str:
    """Sign a received request again, by the book (Signature Version 4)."""
    authorization = request.headers["authorization"]
    found = re.fullmatch(
        rf"AWS4-HMAC-SHA256 Credential=AKID/(\d{{8}})/{region}/lambda/aws4_request, SignedHeaders=(\S+), Signature=\w+",
        authorization,
    )
    assert found is not None, authorization
    day, names = found[1], found[2].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    canonical = "\n".join(
        [
            request.method,
            request.path.replace("%", "%25"),
            "",
            *[f"{name}:{request.headers[name]}" for name in names],
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/lambda/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, digest])
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, "lambda", "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


@pytest.mark.parametrize("event", [b"{}", b"x" * 1_000_000], ids=["small", "hashed in a thread"])
async def test_an_arn_is_invoked_in_its_region(aws: pytest.MonkeyPatch, event: bytes) -> None:
    """The request goes to the endpoint of the environment, signed for the Region of the ARN."""
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        aws.setenv("AWS_ENDPOINT_URL_LAMBDA", server.url)
        target = targets.make(LambdaFunction("thumbs", ARN))
        for _ in range(2):
            assert await target.invoke(invocation(event)) == Delivered(b"null")
    for request in server.requests:
        assert request.path == f"/2015-03-31/functions/{ARN.replace(':', '%3A')}/invocations"
        assert request.headers["authorization"].endswith("Signature=" + signature(request, "eu-central-1"))
        assert request.headers["x-amz-security-token"] == "token-1"
        assert request.headers["x-esmd-mapping"] == "orders"
        assert SECRET not in str(request.headers)


async def test_region_and_endpoint_of_the_settings(aws: pytest.MonkeyPatch) -> None:
    """A bare name is invoked in the configured Region or that of the environment, at the configured endpoint."""
    async with ScriptedServer() as server:
        async with Targets(Secrets(), region="us-west-2", aws_endpoint_url=server.url + "/") as targets:
            assert await targets.make(LambdaFunction("f", "f")).invoke(invocation()) == Delivered(b"null")
        aws.setenv("AWS_REGION", "ap-south-1")
        async with Targets(Secrets()) as targets:
            signed = targets.make(LambdaFunction("f", "f:live", server.url, signed=True))
            assert await signed.invoke(invocation()) == Delivered(b"null")
    first, second = server.requests
    assert first.headers["authorization"].endswith(signature(first, "us-west-2"))
    assert second.headers["authorization"].endswith(signature(second, "ap-south-1"))
    assert second.path == "/2015-03-31/functions/f%3Alive/invocations"


async def test_without_region_nothing_is_reached() -> None:
    """A bare name without any Region is told as what it is."""
    async with Targets(Secrets()) as targets:
        outcome = await targets.make(LambdaFunction("f", "f")).invoke(invocation())
    assert outcome == NotReached("request could not be made: AWS settings: You must specify a region.")


async def test_without_credentials_nothing_is_sent(aws: pytest.MonkeyPatch) -> None:
    """No credentials: not reached, and tried anew with the next call."""
    async with ScriptedServer() as server, Targets(Secrets(), aws_endpoint_url=server.url) as targets:
        aws.delenv("AWS_ACCESS_KEY_ID")
        target = targets.make(LambdaFunction("f", ARN))
        outcome = await target.invoke(invocation())
        assert outcome == NotReached("request could not be made: no AWS credentials found")
        assert server.requests == []
        aws.setenv("AWS_ACCESS_KEY_ID", "AKID")
        assert await target.invoke(invocation()) == Delivered(b"null")


async def test_a_broken_credential_process_tells_no_more_than_its_kind(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a credential provider prints may be secret; only the kind of its failure is told."""
    aws.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "config").write_text("[default]\ncredential_process = sh -c 'echo planted >&2; exit 1'\n")
    async with Targets(Secrets(), aws_endpoint_url="http://127.0.0.1:9") as targets:
        outcome = await targets.make(LambdaFunction("f", ARN)).invoke(invocation())
    assert outcome == NotReached("request could not be made: AWS credentials: CredentialRetrievalError")
