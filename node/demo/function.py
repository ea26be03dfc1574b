"""The demo's functions where there are no sandboxes: an HTTP server in a process (`python -m node.demo.function`).

`archive` takes whole batches, the others answer with partial batch responses. What happens to calls is `behaviour`'s.
The process notes when each record arrived for good and reports counts and latencies to its parent as
lines of JSON on standard output; it ends when its standard input closes or its parent is gone, however that died.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from node.demo.handlers import events
from node.demo.handlers.behaviour import Answer, Behaviour
from node.demo.latency import Latencies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.demo.handlers.events import Seen

REPORT_S = 0.1
_STOP_S = 1.0
_LARGEST_EVENT_BYTES = 8 * 1024 * 1024


class Tally(msgspec.Struct):
    """What one mapping's calls came to since the start."""

    calls: int = 0
    records: int = 0  # taken for good
    errors: int = 0  # calls that failed, wholly or in part
    turned_away: int = 0  # calls answered 429
    retries: int = 0  # calls that were not the first for their records
    latency: dict[int, int] = msgspec.field(default_factory=dict)  # from produced to invoked, as `Latencies.counts`


class Report(msgspec.Struct):
    """A line to the parent: where the functions are and what they saw, by mapping."""

    url: str
    first_time_s: float | None = None  # epoch seconds: when the first record was taken
    tallies: dict[str, Tally] = msgspec.field(default_factory=dict)


class Functions:
    """The endpoints and what they remember."""

    def __init__(self) -> None:
        self.report = Report("")
        self._behaviours = {
            "billing": Behaviour(partial_responses=True),
            "archive": Behaviour(partial_responses=False),
            "pages": Behaviour(partial_responses=True, seed=2),
            "mailer": Behaviour(partial_responses=True, seed=3),
            "tidy": Behaviour(partial_responses=False, bursts=False),
        }

    def application(self) -> web.Application:
        """Build the HTTP application."""
        app = web.Application(client_max_size=_LARGEST_EVENT_BYTES)
        app.router.add_post("/{function}", self._invoke)
        return app

    async def _invoke(self, request: web.Request) -> web.Response:
        arrived_s = time.time()
        behaviour = self._behaviours.get(request.match_info["function"])
        if behaviour is None:
            raise web.HTTPNotFound
        records = events.records(await request.read())
        attempt = int(request.headers.get("X-Esmd-Attempt", "1"))
        attempt = max([attempt, *[record.receives for record in records]])  # a queue makes its retries itself
        tally = self.report.tallies.setdefault(request.headers.get("X-Esmd-Mapping", "?"), Tally())
        tally.calls += 1
        tally.retries += attempt > 1
        answer = behaviour.answer(attempt=attempt, now=time.monotonic())
        if answer is Answer.TURN_AWAY:
            tally.turned_away += 1
            return web.json_response({"message": "Rate exceeded"}, status=429)
        await asyncio.sleep(behaviour.work_s(len(records)))
        if answer is Answer.FAIL:
            tally.errors += 1
            document = {"errorType": "DatabaseError", "errorMessage": "deadlock detected, please retry"}
            return web.json_response(document, status=500)
        failed = []
        if answer is Answer.FAIL_ONE:
            tally.errors += 1
            failed.append(records.pop())
        self._take(tally, records, arrived_s)
        return web.json_response({"batchItemFailures": [{"itemIdentifier": record.identifier} for record in failed]})

    def _take(self, tally: Tally, records: Sequence[Seen], arrived_s: float) -> None:
        if not records:
            return
        if self.report.first_time_s is None:
            self.report.first_time_s = time.time()
        tally.records += len(records)
        latencies = Latencies()
        latencies.counts = tally.latency
        for record in records:
            latencies.add(arrived_s * 1000 - record.timestamp_ms)


async def _serve(parent: int) -> None:
    loop = asyncio.get_running_loop()
    orphaned = asyncio.Event()

    def stdin_readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            orphaned.set()

    loop.add_reader(sys.stdin.fileno(), stdin_readable)
    functions = Functions()
    runner = web.AppRunner(functions.application(), access_log=None, shutdown_timeout=_STOP_S, keepalive_timeout=75)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        functions.report.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        said = b""
        while os.getppid() == parent:
            line = msgspec.json.encode(functions.report) + b"\n"
            if line != said:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                said = line
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_S):
                    await orphaned.wait()
                    return
    finally:
        await runner.cleanup()


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(description="The functions of esmd's demo; end with their standard input.")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end when this is no longer the parent")
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(_serve(parser.parse_args().parent))
    os._exit(0)  # a parent that is gone takes no last line


if __name__ == "__main__":
    main()
