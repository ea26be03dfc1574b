"""Makes one of the demo's AWS sources and produces events to it, and holds back while too much is undelivered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from invocation.aws_json import AwsJson, aws_error
from invocation.classify import Answer
from invocation.signing import LocalSigner
from invocation.transport import Transport
from model.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.demo.aws_feeds import Call

_CALL_S = 15.0  # the first one waits until the services are loaded
_ANSWER_BYTES = 1024 * 1024
_OK = 200


class Feed(Protocol):
    """A source's calls."""

    service: str
    version: str  # of the JSON protocol
    arn: str
    every_s: float  # between calls
    most_per_call: int  # events
    most_behind: int  # undelivered events, beyond which nothing is produced

    def creation(self) -> Call:
        """Make the source."""

    def put(self, events: int, now_time: str) -> Call:
        """Put the next events; `now_time` is ISO 8601."""


class AwsProducer:
    """Sends a feed's events until told to stop, one call at a time."""

    def __init__(self, feed: Feed, *, rate: int) -> None:
        self._feed = feed
        self._region = feed.arn.split(":")[3]
        self._rate = rate
        self._stopping = asyncio.Event()
        self.produced = 0

    def stop(self) -> None:
        """Produce no more."""
        self._stopping.set()

    async def create(self, endpoint_url: str) -> None:
        """Make the source. Raises `UnavailableError`."""
        async with Transport() as transport:
            await self._call(self._calls(transport, endpoint_url), self._feed.creation())

    async def run(self, endpoint_url: str, *, behind: Callable[[], int]) -> None:
        """Produce until stopped; all is in the source then. Raises `UnavailableError`."""
        loop, feed = asyncio.get_running_loop(), self._feed
        async with Transport() as transport:
            calls = self._calls(transport, endpoint_url)
            produced_to = loop.time()
            while not self._stopping.is_set():
                now = loop.time()
                due = min(int((now - produced_to) * self._rate), feed.most_per_call)
                # A pause of the loop must not make all that it cost come at once.
                produced_to = max(produced_to + due / self._rate, now - 1 / self._rate - feed.every_s)
                if due and behind() < feed.most_behind:
                    await self._call(calls, feed.put(due, datetime.now(UTC).isoformat(timespec="milliseconds")))
                    self.produced += due
                try:
                    async with asyncio.timeout(feed.every_s):
                        await self._stopping.wait()
                except TimeoutError:
                    continue

    def _calls(self, transport: Transport, endpoint_url: str) -> AwsJson:
        signer = LocalSigner(self._feed.service, endpoint_url, region=self._region)
        return AwsJson(transport, signer, version=self._feed.version)

    async def _call(self, calls: AwsJson, call: Call) -> None:
        body = msgspec.json.encode(call.request)
        came = await calls.call(self._region, call.operation, body, timeout_s=_CALL_S, max_answer_bytes=_ANSWER_BYTES)
        what = f"embedded AWS services: {call.operation}"
        if not isinstance(came, Answer):
            raise UnavailableError(f"{what}: {came.kind.name.lower()}")
        if came.status != _OK:
            error = aws_error(came)
            raise UnavailableError(f"{what}: {error.code}: {error.message}")
