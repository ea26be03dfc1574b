"""Who is calling: bearer tokens and signed requests, as `auth` of the configuration has them (contract section 4).

What they are compared with is read again every minute, so that secrets in files or in Secrets Manager can be rotated
without a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog
from aiohttp import hdrs, web

from invocation.forwarding import PATH
from invocation.frontend import Room
from model.errors import EsmdError, RefusedError
from node.admission import body_of, body_room
from node.signature import SCHEME, UNKNOWN_KEY, Refusal, SignedRequest, forged, read_claim, stale

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from config.settings import AuthSettings
    from model.secret import SecretResolver

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_AGAIN_S = 60.0
_THREAD_BYTES = 256 * 1024  # hashing more than this takes the event loop too long
_TOO_MANY = Refusal("TooManyRequestsException", "Rate Exceeded.")
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")


class Caller(NamedTuple):
    """Who has proved himself. `name` may be logged."""

    name: str
    read_only: bool = False


class BearerTokens:
    """`Authorization: Bearer TOKEN` with one of the configured tokens.

    A configured token may be `sha256:HEX` instead, its SHA-256 in hexadecimal, so that no file holds the token itself.
    """

    def __init__(self, tokens: Iterable[str] = (), *, read_only: Iterable[str] = ()) -> None:
        self.replace(tokens, read_only=read_only)

    def replace(self, tokens: Iterable[str], *, read_only: Iterable[str] = ()) -> None:
        """Take other tokens from now on. Raises ValueError for an empty one, which would let everybody in."""
        self._known = [(_kept(token), False) for token in tokens] + [(_kept(token), True) for token in read_only]

    def claimed(self, request: web.Request) -> bool:
        """Whether the request shows a token."""
        return request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")[0].lower() == "bearer"

    async def caller(self, request: web.Request) -> Caller | Refusal | None:
        """Compare with every token, in a time that tells nothing about any of them. None: it is none of them."""
        presented = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")[2].strip()
        digest = _digest(presented)
        matches = [read_only for known, read_only in self._known if hmac.compare_digest(digest, known)]
        # The first bytes of a digest tell tokens apart and do not help to guess one.
        return Caller(f"token {digest.hex()[:8]}", read_only=all(matches)) if matches else None


class SignedRequests:
    """Requests signed by an AWS SDK with one of the configured access keys.

    Any Region is fine: the keys are this node's own. A body is read only when everything else is in order, and there is
    `room` for it: whoever knows the id of a key needs no secret to come so far.
    """

    def __init__(
        self,
        keys: Mapping[str, str] | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        room: Room | None = None,
    ) -> None:
        self._now = now
        self._room = room or Room()
        self.replace(keys or {})

    def replace(self, keys: Mapping[str, str]) -> None:
        """Take other keys from now on. Raises ValueError for an empty secret."""
        if not all(keys.values()):
            raise ValueError("an empty secret key would let everybody in")
        self._keys = dict(keys)

    def claimed(self, request: web.Request) -> bool:
        """Whether the request is signed."""
        return request.headers.get(hdrs.AUTHORIZATION, "").startswith(SCHEME)

    async def caller(self, request: web.Request) -> Caller | Refusal | None:
        """Check the signature. The request's body is in memory then, and `request.read()` returns it."""
        claim = read_claim(request.headers.get(hdrs.AUTHORIZATION, ""))
        if isinstance(claim, Refusal):
            return claim
        headers = {name.lower(): request.headers.getall(name) for name in request.headers}
        if (refusal := stale(claim, headers, self._now())) is not None:
            return refusal
        secret = self._keys.get(claim.access_key)
        if secret is None:
            return UNKNOWN_KEY
        most = request.client_max_size
        size = min(most, body_room(request, most))
        if not self._room.enter(size):
            return _TOO_MANY
        try:
            body = await _body(request)
        finally:
            self._room.leave(size)
        if isinstance(body, Refusal):
            return body
        body_hash = await asyncio.to_thread(_hexdigest, body) if len(body) > _THREAD_BYTES else _hexdigest(body)
        path, _, query = request.raw_path.partition("?")
        signed = SignedRequest(request.method, path, query, headers, body_hash)
        return forged(claim, signed, secret) or Caller(f"access key {claim.access_key}")


class FleetNodes:
    """Other nodes of the fleet, which run functions here: by the secret that all have from the store.

    It is good for that alone, and no other credential is good for it. `secret` returns it, and reads it again if asked
    to: a store that forgot it has another one.
    """

    def __init__(self, secret: Callable[..., Awaitable[str | None]]) -> None:
        self._secret = secret

    def claimed(self, request: web.Request) -> bool:
        """Whether the request is for nodes."""
        return request.path.startswith(PATH)

    async def caller(self, request: web.Request) -> Caller | Refusal | None:
        """Compare with the secret, in a time that tells nothing about it."""
        scheme, _, presented = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        for renew in (False, True):
            secret = await self._secret(renew=renew)
            same = secret is not None and hmac.compare_digest(_digest(presented), _digest(secret))
            if same and scheme.lower() == "bearer":
                return Caller("node")
        return None


class Access:
    """All of a node's credentials, kept up to date. `methods` is empty without `auth`."""

    def __init__(self, settings: AuthSettings | None, resolver: SecretResolver) -> None:
        self._settings = settings
        self._resolver = resolver
        self._tokens, self._keys = BearerTokens(), SignedRequests()
        self.methods: tuple[BearerTokens | SignedRequests, ...] = (self._tokens, self._keys) if settings else ()

    async def read(self) -> None:
        """Look up what the configuration refers to. Raises `RefusedError`, `UnavailableError`."""
        if self._settings is None:
            return
        resolve = self._resolver.resolve
        tokens = [await resolve(token) for token in self._settings.tokens]
        read_only = [await resolve(token) for token in self._settings.read_only_tokens]
        keys = {key: await resolve(secret) for key, secret in self._settings.access_keys.items()}
        try:
            self._tokens.replace(tokens, read_only=read_only)
            self._keys.replace(keys)
        except ValueError as exc:
            raise RefusedError(f"auth: {exc}") from exc

    async def run(self) -> None:
        """Look again every minute until cancelled. Without an answer the last one stands."""
        failing = False
        while self._settings is not None:
            await asyncio.sleep(_AGAIN_S)
            try:
                await self.read()
            except EsmdError as exc:
                if not failing:
                    log.warning("auth.not_read", error=str(exc), why="the credentials read before stand")
                failing = True
            else:
                failing = False


async def _body(request: web.Request) -> bytes | Refusal:
    try:
        return await body_of(request)
    except web.HTTPRequestEntityTooLarge:
        return Refusal("RequestTooLargeException", "the request is larger than this node takes")


def _kept(token: str) -> bytes:
    if not token:
        raise ValueError("an empty token would let everybody in")
    hashed = _HASHED.fullmatch(token)
    return bytes.fromhex(hashed[1]) if hashed else _digest(token)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _hexdigest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
