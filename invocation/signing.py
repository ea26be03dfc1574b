"""Requests to AWS: which endpoint, whose credentials, SigV4. The adapter around botocore's chain of settings.

Endpoint and Region come from where every AWS tool takes them (environment, profile, `AWS_ENDPOINT_URL_LAMBDA`, …).
Credentials are refreshed by aiobotocore without blocking the event loop. Sending is left to `invocation.transport`:
the pollers are the only retrier, so the SDK's own retries must stay out of the way.
"""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from model.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_THREAD_BYTES = 256 * 1024  # hashing more than this takes the event loop too long


class Endpoint(NamedTuple):
    """Where an AWS service is."""

    url: str  # without a slash at the end
    region: str


class Place(NamedTuple):
    """What a signature is good for."""

    service: str
    region: str
    url: str


class Signer(Protocol):
    """What calls need to know and have done: `AwsSigner`, or `LocalSigner` for a server of our own."""

    async def endpoint(self, region: str | None) -> Endpoint:
        """Find the service of a Region."""

    async def sign(self, url: str, region: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return `headers` with date and signature added."""


class AwsSigner:
    """Signs requests to one service, `lambda` or any other. botocore is loaded with the first use, in a thread."""

    def __init__(
        self, service: str, credentials: AwsCredentials, *, region: str | None = None, endpoint_url: str | None = None
    ) -> None:
        self._service = service
        self._credentials = credentials
        self._region = region
        self._endpoint_url = endpoint_url
        self._endpoints: dict[str | None, Endpoint] = {}
        self._finding = asyncio.Lock()

    async def endpoint(self, region: str | None) -> Endpoint:
        """Find the service of a Region, or of the configured one.

        Raises `RefusedError` when there is no Region or the SDK's configuration is broken.
        """
        if (found := self._endpoints.get(region)) is not None:
            return found
        async with self._finding:
            if (found := self._endpoints.get(region)) is None:  # others may have waited for the same
                found = self._endpoints[region] = await asyncio.to_thread(
                    _find_endpoint, self._service, region or self._region, self._endpoint_url
                )
        return found

    async def sign(self, url: str, region: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return `headers` with date and signature added.

        Raises `RefusedError` when there are no credentials, `UnavailableError` when they cannot be had now.
        """
        frozen = await self._credentials.frozen()
        place = Place(self._service, region, url)
        if len(body) > _THREAD_BYTES:
            return await asyncio.to_thread(_sign, frozen, place, headers, body)
        return _sign(frozen, place, headers, body)


class LocalSigner:
    """Signs for a server that we started ourselves and that takes any credentials.

    Neither the environment nor a profile is asked, so that no real credentials are used where none are needed.
    """

    def __init__(self, service: str, endpoint_url: str, *, region: str) -> None:
        self._service = service
        self._url = endpoint_url
        self._region = region
        self._loaded = False

    async def endpoint(self, region: str | None) -> Endpoint:
        """Return the server's address, which is the same for every Region."""
        if not self._loaded:
            await asyncio.to_thread(import_module, "botocore.auth")  # slow for the first time
            self._loaded = True
        return Endpoint(self._url, region or self._region)

    async def sign(self, url: str, region: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return `headers` with date and signature added."""
        return _sign(ANYBODY, Place(self._service, region, url), headers, body)


class Keys(NamedTuple):
    """Credentials, as botocore's signing reads them."""

    access_key: str
    secret_key: str
    token: str | None = None


ANYBODY = Keys("embedded", "embedded")


class AwsCredentials:
    """The SDK's chain of credentials, one for a node. Refreshed by aiobotocore when they are about to expire."""

    def __init__(self) -> None:
        self._credentials: Any = None
        self._loading = asyncio.Lock()

    async def frozen(self) -> Any:
        """Return the present credentials. Raises as `AwsSigner.sign`."""
        try:
            if self._credentials is None:
                async with self._loading:
                    if self._credentials is None:
                        session = await asyncio.to_thread(_new_session)
                        self._credentials = await session.get_credentials()
            if self._credentials is not None:
                return await self._credentials.get_frozen_credentials()
        except Exception as exc:
            # Providers run other people's code (STS, SSO, a process, files); their messages may quote what they read.
            raise UnavailableError(f"AWS credentials: {type(exc).__name__}") from exc
        raise RefusedError("no AWS credentials found")


def _new_session() -> Any:
    from aiobotocore.session import get_session  # noqa: PLC0415 slow to import; many nodes never call AWS

    return get_session()


def _find_endpoint(service: str, region: str | None, endpoint_url: str | None) -> Endpoint:
    """Let botocore decide, without any request."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 as above
    from botocore.session import get_session  # noqa: PLC0415 as above

    try:
        session = get_session()
        client = session.create_client(
            service,
            region_name=region or os.environ.get("AWS_REGION") or session.get_config_variable("region"),
            endpoint_url=endpoint_url,
            aws_access_key_id="unused",  # spares looking for credentials: this client calls nothing
            aws_secret_access_key="unused",  # noqa: S106 as above
        )
    except (BotoCoreError, ValueError) as exc:
        raise RefusedError(f"AWS settings: {exc}") from exc
    try:
        return Endpoint(client.meta.endpoint_url.rstrip("/"), client.meta.region_name)
    finally:
        client.close()


def _sign(credentials: Any, place: Place, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    from botocore.auth import SigV4Auth  # noqa: PLC0415 as above
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415 as above

    # Only what AWS reads is signed; a proxy may touch the rest.
    signed = {name: value for name, value in headers.items() if name.lower().startswith("x-amz-")}
    request = AWSRequest(method="POST", url=place.url, data=body, headers=signed)
    SigV4Auth(credentials, place.service, place.region).add_auth(request)
    return {**headers, **dict(request.headers.items())}
