"""Signature Version 4: what AWS's own signer signs is accepted, and nothing else."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from node.signature import Claim, Refusal, SignedRequest, forged, read_claim, stale

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NODE = "http://127.0.0.1:9001"


def signed(
    path: str = "/2015-03-31/functions/f/invocations",
    body: bytes = b"{}",
    *,
    method: str = "POST",
    service: str = "lambda",
    headers: dict[str, str] | None = None,
) -> tuple[Claim, SignedRequest]:
    """Sign a request as boto3 does; return what a server sees of it."""
    request = AWSRequest(method, f"{NODE}{path}", headers=headers or {}, data=body)
    SigV4Auth(Credentials("AKIDEXAMPLE", SECRET), service, "eu-central-1").add_auth(request)
    seen = {name.lower(): [value] for name, value in request.headers.items()} | {"host": [urlsplit(NODE).netloc]}
    claim = read_claim(request.headers["Authorization"])
    assert isinstance(claim, Claim)
    raw_path, _, query = path.partition("?")
    return claim, SignedRequest(method, raw_path, query, seen, hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize(
    "path",
    [
        "/2015-03-31/event-source-mappings",
        "/2015-03-31/event-source-mappings/",
        "/2015-03-31/event-source-mappings/?MaxItems=10&Marker=abc%3D%3D",
        "/2015-03-31/event-source-mappings/?b=2&a=1&a=0&c",
        "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Af/invocations?Qualifier=%24LATEST",
        "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Aevent-source-mapping%3Aabc?tagKeys=a%20b",
    ],
)
def test_what_aws_s_signer_signs_is_accepted(path: str) -> None:
    """With encoded paths and queries as AWS's clients send them."""
    claim, request = signed(path)
    assert stale(claim, request.headers, datetime.now(UTC)) is None
    assert forged(claim, request, SECRET) is None
    assert claim.access_key == "AKIDEXAMPLE"


@given(
    names=st.lists(
        st.text(min_size=1, max_size=12).filter(lambda text: text not in (".", "..")), min_size=1, max_size=3
    ),
    query=st.lists(st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=8)), max_size=3),
    body=st.binary(max_size=64),
)
def test_any_path_query_and_body(names: list[str], query: list[tuple[str, str]], body: bytes) -> None:
    """Encoded as a client must encode them for HTTP."""
    try:
        path = "/" + "/".join(quote(name, safe="~") for name in names)
        asked = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
    except UnicodeEncodeError:
        return  # a lone surrogate is no text that can be sent
    claim, request = signed(f"{path}?{asked}" if asked else path, body)
    assert forged(claim, request, SECRET) is None


def _with(request: SignedRequest, **headers: str) -> SignedRequest:
    return request._replace(headers={**request.headers, **{name: [value] for name, value in headers.items()}})


@pytest.mark.parametrize(
    "tampered",
    [
        lambda request: request._replace(method="DELETE"),
        lambda request: request._replace(path="/2015-03-31/functions/other/invocations"),
        lambda request: request._replace(query="Qualifier=1"),
        lambda request: request._replace(body_hash=hashlib.sha256(b"{ }").hexdigest()),
        lambda request: _with(request, host="evil.example"),
        lambda request: _with(request, **{"x-amz-invocation-type": "Event"}),
    ],
)
def test_what_was_changed_on_the_way_is_refused(tampered: Any) -> None:
    """Method, path, query, body and every signed header."""
    claim, request = signed(headers={"X-Amz-Invocation-Type": "RequestResponse"})
    refusal = forged(claim, tampered(request), SECRET)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "InvalidSignatureException"
    assert "does not match the signature you provided" in refusal.message


def test_another_secret_does_not_do() -> None:
    """Knowing a key's id is not enough."""
    claim, request = signed()
    assert forged(claim, request, SECRET + "x") is not None


def test_a_hash_that_is_not_the_body_s_is_refused() -> None:
    """Also where the client has signed it."""
    claim, request = signed(headers={"X-Amz-Content-SHA256": hashlib.sha256(b"other").hexdigest()})
    assert forged(claim, request, SECRET) is not None


def test_a_signature_is_good_for_five_minutes() -> None:
    """Before and after; AWS says by whose clock."""
    claim, request = signed()
    now = datetime.strptime(request.headers["x-amz-date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    for off in (timedelta(0), timedelta(minutes=5), -timedelta(minutes=5)):
        assert stale(claim, request.headers, now + off) is None
    late = stale(claim, request.headers, now + timedelta(minutes=5, seconds=1))
    early = stale(claim, request.headers, now - timedelta(minutes=5, seconds=1))
    assert late is not None
    assert late.message.startswith(f"Signature expired: {request.headers['x-amz-date'][0]} is now earlier than")
    assert early is not None
    assert early.message.startswith("Signature not yet current")


def test_a_signature_for_another_service_is_refused() -> None:
    """What was made for S3 does not open Lambda."""
    claim, request = signed(service="s3")
    refusal = stale(claim, request.headers, datetime.now(UTC))
    assert refusal is not None
    assert refusal.code == "InvalidSignatureException"


def test_a_request_must_sign_where_it_goes_and_when() -> None:
    """Else it could be sent elsewhere, or for ever."""
    claim, request = signed()
    for missing in ("host", "x-amz-date"):
        names = tuple(name for name in claim.signed_headers if name != missing)
        assert stale(claim._replace(signed_headers=names), request.headers, datetime.now(UTC)) is not None
    assert stale(claim, {"host": ["h"]}, datetime.now(UTC)) is not None


@pytest.mark.parametrize(
    "header",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host",
        "AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-1/lambda, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=0",
        "AWS4-ECDSA-P256-SHA256 Credential=AK/20260101/lambda/aws4_request, SignedHeaders=host, Signature=" + "0" * 64,
    ],
)
def test_half_a_signature_is_none(header: str) -> None:
    """It is refused without looking further."""
    found = read_claim(header)
    assert isinstance(found, Refusal)
    assert found.code == "IncompleteSignatureException"
