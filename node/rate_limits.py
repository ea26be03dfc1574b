"""Requests a second, by caller: what is beyond them is answered with AWS's throttling, which AWS's clients retry.

A caller is a token, an access key, or where nobody has to prove himself an address. Failed proofs are limited by
address before they are looked at, so that nobody tries many; a token, or the id of an access key, that got in from
there before is still looked at, so that one behind a proxy does not lock the others out. Probes and metrics are never
limited, invocations only where it is set: they have limits of concurrency.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from collections import Counter, OrderedDict
from enum import StrEnum
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from controlplane.lambda_errors import refused
from invocation.forwarding import PATH as FROM_NODES
from node.guard import CALLER, INVOKING, OPEN_PATHS, READING, error_response, of_lambda_api
from node.signature import SCHEME, Refusal, read_claim
from node.token_buckets import MOST_CALLERS, TokenBuckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiohttp.typedefs import Handler, Middleware
    from prometheus_client.metrics_core import Metric

    from config.settings import RateLimitSettings

BURST_S = 10.0
"""A caller who was quiet may do so many seconds' worth at once."""

_TOO_MANY = 429
_METRICS = "/metrics"
_BEARER = re.compile(r"bearer\s", re.IGNORECASE)


class Kind(StrEnum):
    """What is limited by itself."""

    READ = "read"
    CHANGE = "change"
    INVOKE = "invoke"
    LOGIN = "login"  # failed ones


class RateLimits(Collector):
    """The buckets, and the metric of what was refused. A rate of 0 is no limit. `clock` is monotonic, in seconds."""

    def __init__(self, settings: RateLimitSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        rates = {
            Kind.READ: settings.reads,
            Kind.CHANGE: settings.changes,
            Kind.INVOKE: settings.invokes,
            Kind.LOGIN: settings.failed_logins,
        }
        self._buckets = {kind: TokenBuckets(rate, max(1.0, rate * BURST_S)) for kind, rate in rates.items() if rate}
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()  # who got in, and from where
        self.refused: Counter[Kind] = Counter()

    def middleware(self) -> Middleware:
        """Return what limits callers who were let in: it comes behind `node.guard`."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            kind = kind_of(request.method, request.path)
            buckets = None if kind is None else self._buckets.get(kind)
            if kind is None or buckets is None:
                return await handler(request)
            wait_s = buckets.take(request.get(CALLER) or address_of(request), self._clock())
            return self._refuse(kind, wait_s, request) if wait_s else await handler(request)

        return middleware

    def login_refused(self, request: web.Request) -> web.Response | None:
        """Refuse a proof from an address of which too many have failed, unless the same has got in from there."""
        buckets = self._buckets.get(Kind.LOGIN)
        if buckets is None:
            return None
        address = address_of(request)
        wait_s = buckets.wait_s(address, self._clock())
        if not wait_s or (address, identity(request.headers.get(hdrs.AUTHORIZATION, ""))) in self._known:
            return None
        return self._refuse(Kind.LOGIN, wait_s, request)

    def login_failed(self, request: web.Request) -> None:
        """Count a failed proof."""
        buckets = self._buckets.get(Kind.LOGIN)
        if buckets is not None:
            buckets.spend(address_of(request), self._clock())

    def logged_in(self, request: web.Request) -> None:
        """Remember who got in, and from where."""
        if Kind.LOGIN not in self._buckets:
            return
        who = (address_of(request), identity(request.headers.get(hdrs.AUTHORIZATION, "")))
        self._known[who] = None
        self._known.move_to_end(who)
        if len(self._known) > MOST_CALLERS:
            self._known.popitem(last=False)

    def _refuse(self, kind: Kind, wait_s: float, request: web.Request) -> web.Response:
        self.refused[kind] += 1
        return throttled(wait_s, lambda_api=of_lambda_api(request.path))

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the counts, of every kind from the start."""
        throttles = CounterMetricFamily(
            "esm_api_throttles", "Requests refused because their caller sends too many a second.", labels=["kind"]
        )
        for kind in Kind:
            throttles.add_metric([str(kind)], self.refused[kind])
        return (throttles,)


def kind_of(method: str, path: str) -> Kind | None:
    """Return what a request counts as; None: it is never limited."""
    if path in OPEN_PATHS or path == _METRICS or path.startswith(FROM_NODES):
        return None
    if INVOKING.match(path):
        return Kind.INVOKE
    return Kind.READ if method in READING else Kind.CHANGE


def throttled(wait_s: float, *, lambda_api: bool) -> web.Response:
    """Return AWS's answer to too many requests (Lambda API reference, TooManyRequestsException)."""
    error = refused("TooManyRequestsException", "Rate exceeded")
    body: dict[str, str] = {"message": str(error)}
    if lambda_api:
        body = {**error.document, "Reason": "CallerRateLimitExceeded"}
    return error_response(_TOO_MANY, body, aws=error.type, wait_s=wait_s)


def address_of(request: web.Request) -> str:
    """Return what stands for the other side: its address, of IPv6 the network, which one customer has as a whole."""
    remote = request.remote or ""
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def identity(authorization: str) -> str:
    """Return what stands for who a request says it is from: the access key, or a digest of anything else."""
    if authorization.startswith(SCHEME):
        claim = read_claim(authorization)
        if not isinstance(claim, Refusal):
            return claim.access_key
    return hashlib.sha256(
        _BEARER.sub("", authorization, count=1).strip().encode("utf-8", "surrogateescape")
    ).hexdigest()
