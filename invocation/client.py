"""Targets: the functions that pollers can call, one class per way of calling (contract section 3).

A target makes the request, `invocation.transport` sends it and `invocation.classify` says what came of it. Retrying,
circuits and what a body means stay with the pollers. `Targets` is what a node keeps for all of them.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Protocol, Self, assert_never
from urllib.parse import quote

from yarl import URL

from invocation.aws_json import AwsJson
from invocation.classify import Answer, Failure, FailureKind, TargetKind, classify, head_decides
from invocation.container_pool import ContainerPool
from invocation.counted import CountedRunner, CountedTarget
from invocation.headers import OURS, invocation_headers
from invocation.local_target import LocalTarget
from invocation.settings import HandlerFunction, LambdaFunction, RieFunction, UrlFunction
from invocation.signing import AwsCredentials, AwsSigner, LocalSigner
from invocation.transport import Transport
from model.errors import EsmdError, RefusedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from invocation.counted import Counter
    from invocation.invoking import NotInvoked
    from invocation.local_target import FunctionRunner
    from invocation.settings import FunctionSettings
    from invocation.signing import Signer
    from model.invocation import Invocation
    from model.outcome import Outcome
    from model.secret import SecretResolver, SecretText

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MASKED_LENGTH = 4  # shorter values are in every text and no secret
_RESERVED = OURS | {"connection", "content-length", "expect", "keep-alive", "te", "transfer-encoding", "upgrade"}
_SYNCHRONOUS = {"X-Amz-Invocation-Type": "RequestResponse"}
_NOT_CONNECTED = frozenset({FailureKind.REFUSED, FailureKind.UNRESOLVED, FailureKind.TLS, FailureKind.CONNECT_TIMEOUT})


class InvokeTarget(Protocol):
    """What the pollers know as a `Target`."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back. Raises nothing but CancelledError."""


class RemoteTarget(InvokeTarget, Protocol):
    """A function elsewhere, of which the front end wants the whole answer."""

    kind: TargetKind

    @property
    def full(self) -> bool:
        """Whether a call would have to wait for others to end."""

    async def call(self, event: bytes, headers: Mapping[str, str]) -> Answer | Failure | NotInvoked:
        """Call the function once, with these headers besides the target's own. Raises nothing but CancelledError."""


class UrlTarget:
    """A plain HTTP endpoint."""

    kind = TargetKind.URL
    full = False

    def __init__(self, settings: UrlFunction, transport: Transport, resolver: SecretResolver) -> None:
        self._url, user_headers = _plain_url(settings.url, f"function {settings.name}")
        self._timeout_s = settings.timeout_s
        self._transport = transport
        self._resolver = resolver
        self._fixed: dict[str, str] = dict(user_headers)
        self._referring: list[tuple[str, SecretText]] = []  # resolved for each call: secrets rotate
        for name, text in settings.headers.items():
            if not _TOKEN.fullmatch(name) or name.lower() in _RESERVED:
                raise RefusedError(f"function {settings.name}: header {name!r} cannot be set")
            if text.references():
                self._referring.append((name, text))
            else:
                self._fixed[name] = _sendable(name, text.template)
        self._configured = {name.lower() for name in [*self._fixed, *settings.headers]}

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back."""
        return await _classified(self, invocation)

    async def call(self, event: bytes, headers: Mapping[str, str]) -> Answer | Failure:
        """Call the function once; configured headers go before others."""
        configured = self._fixed
        if self._referring:
            try:
                async with asyncio.timeout(self._timeout_s):
                    configured = await self._resolved()
            except (EsmdError, TimeoutError) as exc:
                return Failure(FailureKind.UNPREPARED, str(exc) or "secrets do not answer")
        sent = {name: value for name, value in headers.items() if name.lower() not in self._configured} | configured
        came = await self._transport.post(self._url, event, sent, timeout_s=self._timeout_s)
        if isinstance(came, Answer) and configured and head_decides(came.status, came.headers):
            came = _masked(came, configured)
        return came

    async def _resolved(self) -> dict[str, str]:
        found = {name: _sendable(name, await self._resolver.resolve(text)) for name, text in self._referring}
        return self._fixed | found


class LambdaTarget:
    """A function behind a Lambda-compatible Invoke API, or in AWS."""

    kind = TargetKind.LAMBDA
    full = False

    def __init__(self, settings: LambdaFunction, transport: Transport, signer: AwsSigner) -> None:
        self._path = f"/2015-03-31/functions/{quote(settings.function, safe='')}/invocations"
        self._region = _region(settings.function)
        self._endpoint = None if settings.endpoint is None else _endpoint(settings.endpoint, settings.name)
        self._url = None if self._endpoint is None else URL(self._endpoint + self._path, encoded=True)
        self._signer = signer if settings.signed or settings.endpoint is None else None
        self._timeout_s = settings.timeout_s
        self._transport = transport

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back."""
        return await _classified(self, invocation)

    async def call(self, event: bytes, headers: Mapping[str, str]) -> Answer | Failure:
        """Call the function once, signed where that is wanted."""
        sent = {**headers, **_SYNCHRONOUS}
        url = self._url
        if self._signer is not None:
            try:
                async with asyncio.timeout(self._timeout_s):
                    url, sent = await self._signed(self._signer, sent, event)
            except (EsmdError, TimeoutError) as exc:
                return Failure(FailureKind.UNPREPARED, str(exc) or "AWS credentials do not answer")
        if url is None:
            raise AssertionError("a target without endpoint signs")
        return await self._transport.post(url, event, sent, timeout_s=self._timeout_s)

    async def _signed(self, signer: AwsSigner, headers: dict[str, str], event: bytes) -> tuple[URL, dict[str, str]]:
        endpoint = await signer.endpoint(self._region)
        address = (self._endpoint or endpoint.url) + self._path
        return URL(address, encoded=True), await signer.sign(address, endpoint.region, headers, event)


class RieTarget:
    """Containers with the Runtime Interface Emulator, one invocation at a time each."""

    kind = TargetKind.RIE

    def __init__(self, settings: RieFunction, transport: Transport) -> None:
        path = "/2015-03-31/functions/function/invocations"
        if not settings.endpoints:
            raise RefusedError(f"function {settings.name}: rie needs at least one endpoint")
        urls = [URL(_endpoint(endpoint, settings.name) + path, encoded=True) for endpoint in settings.endpoints]
        self.pool = ContainerPool(list(dict.fromkeys(urls)))
        self._timeout_s = settings.timeout_s
        self._transport = transport

    @property
    def full(self) -> bool:
        """Whether every container has an invocation."""
        return self.pool.full

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back."""
        return await _classified(self, invocation)

    async def call(self, event: bytes, headers: Mapping[str, str]) -> Answer | Failure:
        """Call the function once, in the first container that takes the call."""
        sent = {**headers, **_SYNCHRONOUS}
        came: Answer | Failure = Failure(FailureKind.REFUSED)
        for _ in range(self.pool.size):
            came = await self._call(event, sent)
            if not (isinstance(came, Failure) and came.kind in _NOT_CONNECTED):
                break
        return came

    async def _call(self, event: bytes, headers: dict[str, str]) -> Answer | Failure:
        container = await self.pool.take()
        answered = False
        try:
            came = await self._transport.post(container, event, headers, timeout_s=self._timeout_s)
            answered = isinstance(came, Answer)
            return came
        finally:
            # Without an answer, also after a cancellation, the container may still be busy with this invocation.
            self.pool.give_back(container, alive=answered)


async def _classified(target: UrlTarget | LambdaTarget | RieTarget, invocation: Invocation) -> Outcome:
    headers = invocation_headers(invocation, xray=target.kind is not TargetKind.URL)
    came = await target.call(invocation.event, headers)
    return classify(target.kind, came, now=time.time())


class Targets:
    """All targets of a node, over one set of connections. Use as an async context manager.

    `counter` holds their invocations against the limits of their functions; without it there are none.
    """

    def __init__(
        self,
        resolver: SecretResolver,
        *,
        region: str | None = None,
        aws_endpoint_url: str | None = None,
        embedded_aws: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        runner: FunctionRunner | None = None,
        counter: Counter | None = None,
    ) -> None:
        self._runner = CountedRunner(runner, counter) if runner is not None and counter is not None else runner
        self._counter = counter
        self._resolver = resolver
        self._transport = Transport(ssl_context=ssl_context)
        self._credentials = AwsCredentials()
        self._region = region
        self._aws_endpoint_url = aws_endpoint_url
        self._embedded_aws = embedded_aws  # the address of a server of this node; it runs no functions
        self._signer = self._signer_of("lambda")
        self._pools: list[ContainerPool[URL]] = []

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails. Safe to call twice."""
        for pool in self._pools:
            pool.close()
        await self._transport.aclose()

    def aws(self, service: str, *, version: str = "1.1") -> AwsJson:
        """Return calls of another AWS service, over the same connections and under the same credentials."""
        signer: Signer = self._signer_of(service)
        if self._embedded_aws is not None:
            signer = LocalSigner(service, self._embedded_aws, region=self._region or "us-east-1")
        return AwsJson(self._transport, signer, version=version)

    def _signer_of(self, service: str) -> AwsSigner:
        return AwsSigner(service, self._credentials, region=self._region, endpoint_url=self._aws_endpoint_url)

    def make(self, settings: FunctionSettings) -> RemoteTarget | LocalTarget:
        """Make the target for a function, whose invocations count. Raises as `make_target`."""
        target = make_target(settings, self._transport, self._resolver, self._signer, self._runner)
        if isinstance(target, LocalTarget):
            return target  # its runner counts
        if isinstance(target, RieTarget):
            self._pools.append(target.pool)
        return target if self._counter is None else CountedTarget(target, settings.name, self._counter)


def make_target(
    settings: FunctionSettings,
    transport: Transport,
    resolver: SecretResolver,
    signer: AwsSigner,
    runner: FunctionRunner | None = None,
) -> UrlTarget | LambdaTarget | RieTarget | LocalTarget:
    """Make the target for a function. Raises `RefusedError`, fit for validation, when the settings cannot work."""
    match settings:
        case UrlFunction():
            return UrlTarget(settings, transport, resolver)
        case LambdaFunction():
            return LambdaTarget(settings, transport, signer)
        case RieFunction():
            return RieTarget(settings, transport)
        case HandlerFunction():
            if runner is None:
                raise RefusedError(f"function {settings.name}: functions with `handler` run in sandboxes of a node")
            return LocalTarget(settings, runner)
        case _:
            assert_never(settings)


def _plain_url(text: str, owner: str) -> tuple[URL, dict[str, str]]:
    """Check a URL and move a user and password in it to a header. Never repeats the URL: it may hold a secret."""
    try:
        url = URL(text)
        usable = url.scheme in {"http", "https"} and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise RefusedError(f"{owner}: not an http or https URL")
    if url.raw_user is None and url.raw_password is None:
        return url, {}
    credentials = b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
    return url.with_user(None), {"Authorization": f"Basic {credentials}"}


def _endpoint(text: str, name: str) -> str:
    url, headers = _plain_url(text, f"function {name}: endpoint")
    if headers or url.query_string or url.fragment:
        raise RefusedError(f"function {name}: an endpoint is scheme, host, port and path only")
    return str(url).rstrip("/")


def _region(function: str) -> str | None:
    """Return the Region of an ARN."""
    parts = function.split(":")
    return (parts[3] or None) if len(parts) > 6 and parts[0] == "arn" else None  # noqa: PLR2004 fields of a function ARN


def _sendable(name: str, value: str) -> str:
    value = value.strip()  # a secret read from a file often ends with a newline
    if _UNSENDABLE.search(value):
        raise RefusedError(f"header {name}: the value has control characters")
    return value


def _masked(answer: Answer, configured: dict[str, str]) -> Answer:
    """Take the values of configured headers out of a body whose text will be shown."""
    body = answer.body
    for value in configured.values():
        for secret in (value, value.rpartition(" ")[2]):  # also without the scheme: `Bearer …`
            if len(secret) >= _MASKED_LENGTH:
                body = body.replace(secret.encode(), b"***")
    return Answer(answer.status, answer.headers, body)
