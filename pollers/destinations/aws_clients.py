"""The SDK's clients for destinations in AWS, and to read them again: one per node, service and Region.

Credentials, endpoints (`AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_SQS`…), retries and proxies are the SDK's business, as
everywhere in AWS's tools; `aws.endpoint_url` of the configuration goes over its endpoints. What the SDK's errors mean
to us is said here, once.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any, NamedTuple, Self

import structlog

from invocation.signing import ANYBODY
from model.errors import RefusedError, UnavailableError

log = structlog.get_logger(__name__)

_CONNECT_S = 5.0
_READ_S = 20.0
_CLOSE_S = 5.0
_TOO_MANY = 429
_REFUSED = range(400, 500)
_PASSING = frozenset({
    "ExpiredToken", "ExpiredTokenException", "KMS.ThrottlingException", "KmsThrottled", "OverLimit",
    "RequestLimitExceeded", "RequestThrottled", "RequestTimeTooSkewed", "RequestTimeout", "SlowDown", "Throttled",
    "Throttling", "ThrottlingException", "TooManyRequestsException",
})  # fmt: skip
"""Codes that come with a 4xx status and yet pass by themselves."""

_NOT_THERE = frozenset({"NoSuchKey", "NotFound"})


class NotThereError(RefusedError):
    """What was to be read or moved does not exist."""


class Arn(NamedTuple):
    """The parts of an ARN that say where something is. Empty for S3: region and account."""

    service: str
    region: str
    account: str
    name: str

    @classmethod
    def parse(cls, arn: str) -> Arn:
        """Read an ARN that the mapping's rules have checked."""
        _, _, service, region, account, name = arn.split(":", 5)
        return cls(service, region, account, name)


class AwsClients:
    """The clients of one node, as a context manager. `embedded`: the endpoint is ours and takes any credentials."""

    def __init__(self, *, region: str, endpoint_url: str | None = None, embedded: bool = False) -> None:
        self._region = region
        self._endpoint_url = endpoint_url
        self._keys = {}
        if embedded:
            self._keys = {"aws_access_key_id": ANYBODY.access_key, "aws_secret_access_key": ANYBODY.secret_key}
        self._clients: dict[tuple[str, str], Any] = {}
        self._stack = AsyncExitStack()
        self._making = asyncio.Lock()
        self._session: Any = None

    async def call(self, service: str, operation: str, what: str, *, region: str = "", **parameters: object) -> Any:
        """Call one operation, in the configured Region unless another one is given; return the answer.

        Where that has a `Body`, it is read to its end.

        Raises `RefusedError` for what will not change by waiting, else `UnavailableError`; both name `what`.
        """
        errors = await _errors()
        try:
            client = await self._client(service, region or self._region)
            answer = await getattr(client, operation)(**parameters)
            if "Body" in answer:
                answer["Body"] = await answer["Body"].read()
        except errors.ClientError as exc:
            raise _translated(exc, what) from exc
        except errors.NoCredentialsError as exc:
            await self.close()  # whoever adds some need not restart the node
            raise RefusedError(f"{what}: no AWS credentials found") from exc
        except (errors.ParamValidationError, errors.NoRegionError, errors.ProfileNotFound, ValueError) as exc:
            await self.close()
            raise RefusedError(f"{what}: {exc}") from exc
        except (errors.BotoCoreError, OSError) as exc:
            # The texts of credential providers may quote what they read.
            raise UnavailableError(f"{what} cannot be reached ({type(exc).__name__})") from exc
        return answer

    async def endpoint(self, service: str, *, region: str) -> str:
        """Return the URL that calls go to, without a slash at the end. Raises `RefusedError`."""
        errors = await _errors()
        try:
            url: str = (await self._client(service, region)).meta.endpoint_url
        except (errors.BotoCoreError, ValueError) as exc:
            raise RefusedError(f"AWS settings: {exc}") from exc
        return url.rstrip("/")

    async def close(self) -> None:
        """Close every connection. Never raises. Whoever calls later gets new ones."""
        stack, self._stack = self._stack, AsyncExitStack()
        self._clients, self._session = {}, None
        try:
            async with asyncio.timeout(_CLOSE_S):
                await stack.aclose()
        except (TimeoutError, OSError) as exc:
            log.debug("aws.close_failed", error=str(exc))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _client(self, service: str, region: str) -> Any:
        async with self._making:
            client = self._clients.get((service, region))
            if client is None:
                if self._session is None:
                    self._session = await asyncio.to_thread(_new_session)
                making = self._session.client(
                    service,
                    region_name=region,
                    endpoint_url=self._endpoint_url,
                    config=self._config(service),
                    **self._keys,
                )
                client = self._clients[service, region] = await self._stack.enter_async_context(making)
            return client

    def _config(self, service: str) -> Any:
        from aiobotocore.config import AioConfig  # noqa: PLC0415 as botocore's errors

        variables = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
        elsewhere = self._endpoint_url is not None or any(os.environ.get(name) for name in variables)
        # Emulators have no host name for each bucket.
        style = {"s3": {"addressing_style": "path"}} if service == "s3" and elsewhere else {}
        return AioConfig(connect_timeout=_CONNECT_S, read_timeout=_READ_S, **style)


def _translated(exc: Any, what: str) -> RefusedError | UnavailableError:
    error = exc.response.get("Error", {})
    code = str(error.get("Code", "unknown error"))
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    text = f"{what}: {code}: {error.get('Message', '')}".removesuffix(": ")
    if code in _NOT_THERE:
        return NotThereError(text)
    refused = status in _REFUSED and status != _TOO_MANY and code not in _PASSING
    return RefusedError(text) if refused else UnavailableError(text)


async def _errors() -> Any:
    """Load botocore's errors. Slow for the first time, and many nodes never call AWS."""
    return await asyncio.to_thread(import_module, "botocore.exceptions")


def _new_session() -> Any:
    import aioboto3  # noqa: PLC0415 as botocore's errors

    return aioboto3.Session()
