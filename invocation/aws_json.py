"""Signed calls of AWS services that speak the JSON protocol (`application/x-amz-json-1.1`, or 1.0): Kinesis, SQS.

Neither retries nor judges: what an answer means is the caller's. The SDK's own client is not used for calls that are
made several times a second for every shard: its parsing and hooks cost ten times what the call needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invocation.classify import Answer, Failure
    from invocation.signing import Signer
    from invocation.transport import OpenAnswer, Transport

_CONTENT_TYPE = "application/x-amz-json-"


class AwsError(msgspec.Struct, frozen=True):
    """An error as the service put it."""

    code: str  # such as ExpiredIteratorException
    message: str


class _Body(msgspec.Struct):
    type: str = msgspec.field(name="__type", default="")
    message: str = ""
    Message: str = ""


class AwsJson:
    """Calls of one service, of any Region."""

    def __init__(self, transport: Transport, signer: Signer, *, version: str = "1.1") -> None:
        self._transport = transport
        self._signer = signer
        self._content_type = _CONTENT_TYPE + version
        self._urls: dict[str, tuple[URL, str]] = {}

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """Make one call; `operation` is the value of X-Amz-Target.

        Raises `RefusedError` without credentials or with broken settings, `UnavailableError` while there are none.
        """
        url, headers = await self._prepare(region, operation, body)
        return await self._transport.post(url, body, headers, timeout_s=timeout_s, max_answer_bytes=max_answer_bytes)

    async def open(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> OpenAnswer | Answer | Failure:
        """Make one call whose good answer is read as it comes; another one is read at once. Raises as `call`."""
        url, headers = await self._prepare(region, operation, body)
        return await self._transport.open(url, body, headers, timeout_s=timeout_s, max_answer_bytes=max_answer_bytes)

    async def _prepare(self, region: str, operation: str, body: bytes) -> tuple[URL, Mapping[str, str]]:
        """Find out where a call goes, and sign it."""
        endpoint = await self._signer.endpoint(region)
        known = self._urls.get(region)
        if known is None or known[1] != endpoint.url:
            known = self._urls[region] = (URL(f"{endpoint.url}/", encoded=True), endpoint.url)
        headers: Mapping[str, str] = {"X-Amz-Target": operation, "Content-Type": self._content_type}
        return known[0], await self._signer.sign(f"{endpoint.url}/", endpoint.region, headers, body)


def aws_error(answer: Answer) -> AwsError:
    """Read an answer that is not 200. Its code may stand in a header or the body, with a namespace or a URL."""
    try:
        body = msgspec.json.decode(answer.body, type=_Body)
    except msgspec.DecodeError:
        body = _Body()
    named = body.type or answer.headers.get("x-amzn-ErrorType", "")
    code = named.rpartition("#")[2].partition(":")[0]
    return AwsError(code or f"HTTP {answer.status}", body.message or body.Message)
