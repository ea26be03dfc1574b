"""Signature Version 4, checked: the other side of what AWS's SDKs do with every request. Pure.

Source: AWS Identity and Access Management User Guide, "Create a signed AWS API request". Error names and texts are
those of AWS's own services, so that clients say what they always say.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEME = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=5)
"""How far a client's clock may be off."""

_SERVICE = "lambda"
_DATE_FORM = "%Y%m%dT%H%M%SZ"
_SHAPE = re.compile(
    rf"{SCHEME}\s+Credential=(?P<key>[^/,\s]+)/(?P<day>\d{{8}})/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_request\s*,"
    r"\s*SignedHeaders=(?P<headers>[a-z0-9;_.~-]+)\s*,\s*Signature=(?P<signature>[0-9a-f]{64})\s*"
)
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)


class Refusal(NamedTuple):
    """Why a request is not let in, in AWS's words."""

    code: str
    message: str


class Claim(NamedTuple):
    """Who a request says it is from, and with what proof."""

    access_key: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]  # in order
    signature: str


class SignedRequest(NamedTuple):
    """What a signature covers. Path and query as they came, undecoded; header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, Sequence[str]]
    body_hash: str  # SHA-256, hexadecimal


UNKNOWN_KEY = Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
MISSING = Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")


def read_claim(authorization: str) -> Claim | Refusal:
    """Read an Authorization header of this scheme."""
    found = _SHAPE.fullmatch(authorization.strip())
    if found is None:
        return Refusal("IncompleteSignatureException", f"Authorization header is not a complete {SCHEME} signature")
    return Claim(
        access_key=found["key"],
        day=found["day"],
        region=found["region"],
        service=found["service"],
        signed_headers=tuple(found["headers"].split(";")),
        signature=found["signature"],
    )


def stale(claim: Claim, headers: Mapping[str, Sequence[str]], now: datetime) -> Refusal | None:
    """Judge what can be judged without the body: scope, time, and that both are signed. None: go on."""
    said = headers.get("x-amz-date", [""])[0]
    try:
        signed_at = datetime.strptime(said, _DATE_FORM).replace(tzinfo=UTC)
    except ValueError:
        return Refusal(
            "IncompleteSignatureException", "Authorization header requires existence of an 'X-Amz-Date' header."
        )
    if not {"host", "x-amz-date"} <= set(claim.signed_headers):
        return Refusal("InvalidSignatureException", "'Host' and 'X-Amz-Date' must be signed.")
    if claim.service != _SERVICE or claim.day != said[:8]:
        return Refusal(
            "InvalidSignatureException", f"Credential should be scoped to {said[:8]} and to service: '{_SERVICE}'."
        )
    if signed_at < now - SKEW:
        return Refusal("InvalidSignatureException", f"Signature expired: {said} is now earlier than {_ago(now, -SKEW)}")
    if signed_at > now + SKEW:
        return Refusal(
            "InvalidSignatureException", f"Signature not yet current: {said} is still later than {_ago(now, SKEW)}"
        )
    return None


def forged(claim: Claim, request: SignedRequest, secret: str) -> Refusal | None:
    """Compute the signature anew and compare, in a time that tells nothing about it. None: it is right."""
    claimed_hash = request.headers.get("x-amz-content-sha256", [request.body_hash])[0]
    right = signature(claim, request, secret)
    if hmac.compare_digest(right, claim.signature) and hmac.compare_digest(
        claimed_hash.encode(), request.body_hash.encode()
    ):
        return None
    return Refusal("InvalidSignatureException", _MISMATCH)


def signature(claim: Claim, request: SignedRequest, secret: str) -> str:
    """Return the signature that a request should have, in hexadecimal."""
    scope = f"{claim.day}/{claim.region}/{claim.service}/aws4_request"
    date = request.headers.get("x-amz-date", [""])[0]
    canonical = hashlib.sha256(_canonical(claim, request).encode("utf-8", "surrogateescape")).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in (claim.day, claim.region, claim.service, "aws4_request"):
        key = _hmac(key, part)
    return _hmac(key, f"{SCHEME}\n{date}\n{scope}\n{canonical}").hex()


def _canonical(claim: Claim, request: SignedRequest) -> str:
    headers = "".join(
        f"{name}:{','.join(' '.join(value.split()) for value in request.headers.get(name, ()))}\n"
        for name in claim.signed_headers
    )
    return "\n".join(
        (
            request.method,
            _canonical_path(request.path),
            _canonical_query(request.query),
            headers,
            ";".join(claim.signed_headers),
            request.body_hash,
        )
    )


def _canonical_path(path: str) -> str:
    """Encode the path once more, as every service but S3 has it, after resolving dots and double slashes."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    resolved = "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")
    return quote(resolved, safe="/~")


def _canonical_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(
        f"{name}={value}" for name, value in sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    )


def _encoded(text: str) -> str:
    return quote(unquote(text, errors="surrogateescape"), safe="~", errors="surrogateescape")


def _ago(now: datetime, skew: timedelta) -> str:
    sign = "+" if skew > timedelta() else "-"
    return f"{(now + skew).strftime(_DATE_FORM)} ({now.strftime(_DATE_FORM)} {sign} 5 min.)"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
