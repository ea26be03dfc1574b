"""A function over HTTP that adds up the numbers of a tumbling window's records in the window's state, and the truth.

Records carry `KEY:NUMBER`, as `tests.support.kinesis_fleet.Producer` writes them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from tests.support.web_server import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from tests.support.kinesis_streams import Stream

_FAILED = {"X-Amz-Function-Error": "Unhandled"}


class Window(NamedTuple):
    """A window of a shard."""

    shard: str
    start_s: int  # epoch


class Sums(NamedTuple):
    """What the records of a window come to."""

    records: int = 0
    total: int = 0

    def plus(self, numbers: Iterable[int]) -> Sums:
        """Return the sums with some more."""
        more = list(numbers)
        return Sums(self.records + len(more), self.total + sum(more))


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation that the function took."""

    window: Window
    token: int
    batch: str
    before: Sums  # by the state in the event; zeros for an empty one
    fresh: bool  # the state in the event was empty
    after: Sums  # by the state in the answer
    numbers: tuple[int, ...]
    final: bool
    began: float
    ended: float


@dataclass
class WindowTarget:
    """The function: takes its time, and fails by seed."""

    seconds: float = 0.0
    fail: float = 0.0
    calls: list[Call] = field(default_factory=list)
    failed: int = 0
    running: int = 0
    url: str = ""
    _random: Random = field(default_factory=lambda: Random(11))

    @property
    def counted(self) -> int:
        """Count the records in the calls that were taken, repeats included."""
        return sum(len(call.numbers) for call in self.calls)

    def finals(self) -> dict[Window, Sums]:
        """Return what each window came to in the end. A final call that was made twice must say the same."""
        found: dict[Window, Sums] = {}
        for call in self.calls:
            if call.final:
                assert found.setdefault(call.window, call.before) == call.before, f"{call.window} ended in two ways"
        return found

    async def _handle(self, request: web.Request) -> web.Response:
        event = json.loads(await request.read())
        began = time.time()
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if self._random.random() < self.fail:
            self.failed += 1
            return web.json_response({"errorType": "Planted", "errorMessage": "by seed"}, headers=_FAILED)
        numbers = _numbers(event)
        state: dict[str, Any] = event["state"]
        before = Sums(**state)
        after = before.plus(numbers)
        start_s, end_s = (int(datetime.fromisoformat(event["window"][end]).timestamp()) for end in ("start", "end"))
        assert start_s < end_s
        assert event["isWindowTerminatedEarly"] is False
        token, batch = int(request.headers["X-Esmd-Fencing-Token"]), request.headers["X-Esmd-Batch-Id"]
        window, final = Window(event["shardId"], start_s), event["isFinalInvokeForWindow"]
        ended = time.time()
        self.calls.append(Call(window, token, batch, before, not state, after, numbers, final, began, ended))
        return web.json_response({"state": after._asdict()})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[WindowTarget]:
        """Serve on a free port."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_post("/", self._handle)
        async with served(app, handler_cancellation=False, shutdown_timeout=1) as url:
            self.url = f"{url}/"
            yield self


def _numbers(event: Mapping[str, Any]) -> tuple[int, ...]:
    datas = (base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"])
    return tuple(int(data.partition(":")[2]) for data in datas)


def truth(stream: Stream, length_s: int) -> dict[Window, Sums]:
    """Return what each window holds, read from the stream itself: all that ended and, per open shard, the last. Blocks.

    A record with a time before the window that has begun counts in that one.
    """
    found: dict[Window, Sums] = defaultdict(Sums)
    for shard in stream.shards():
        start_s = 0
        for arrival_s, data in stream.read(shard["ShardId"]):
            start_s = max(start_s, int(arrival_s) // length_s * length_s)
            number = int(data.partition(b":")[2])
            found[Window(shard["ShardId"], start_s)] = found[Window(shard["ShardId"], start_s)].plus([number])
    return dict(found)
