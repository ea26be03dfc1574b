"""The console of a node that does nothing, over whatever a test has it show."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from controlplane.flows import Flow
from controlplane.status import (
    CircuitStatus,
    LedgerStatus,
    MappingStatus,
    NodeStatus,
    ParkedKeyStatus,
    ShardStatus,
    Status,
)
from node.console_api import ConsoleApi
from node.console_feed import View, Work
from node.credentials import BearerTokens
from pollers.counters import DURATION_BOUNDS_S
from tests.support.bare_surface import bare_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from node.console_feed import Feed
    from node.options import ListenAddress


class Fleet:
    """What there is to be read, under the test's control."""

    def __init__(self) -> None:
        self.readings = 0
        self.error: Exception | None = None

    async def read(self) -> View:
        """Return the next document, numbered by its time."""
        self.readings += 1
        if self.error is not None:
            raise self.error
        return View(self.readings, (1.0,), Status(node="ann-1", nodes=[], mappings=[]), {}, {})


@asynccontextmanager
async def served(feed: Feed, *tokens: str, read_only: str = "") -> AsyncIterator[ListenAddress]:
    """Serve the console, and a path that changes something; yield the address."""

    async def status() -> Status:
        return Status(node="ann-1", nodes=[], mappings=[])

    async def changed(_request: web.Request) -> web.Response:
        return web.json_response({"changed": True})

    console = ConsoleApi(feed)
    routes = [*console.routes(), web.post("/esmd/v1/change", changed)]
    credentials = [BearerTokens(tokens, read_only=filter(None, [read_only]))] if tokens else []
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(feed.run())
        async with bare_node(routes, status=status, credentials=credentials, public=console.public_paths) as address:
            yield address
        running.cancel()


class BusyFleet:
    """Four nodes, a stream of many shards of which some are in trouble, and a topic with parked keys."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._delivered = 0
        self._at_ms = 1_790_000_000_000.0

    async def read(self) -> View:
        """Return the next document, a second later than the last one by its clock."""
        self._at_ms += 1000
        self._delivered += 500
        clicks = _mapping("clicks", [_shard(f"shardId-{n:012d}", n) for n in range(self._shards)], self._delivered)
        parked = [ParkedKeyStatus(f"customer-{n}", 3, 300, 61.0, 4, "ValueError: <img src=x>") for n in range(2)]
        orders = _mapping("orders", [_shard("orders-0", 0, parked)], self._delivered, parked=6)
        mappings = [clicks, orders, _mapping("resting", [], 0, state="Disabled")]
        held = [shard.owner for mapping in mappings for shard in mapping.shards]
        nodes = [NodeStatus(f"node-{n}", ["pollers"], held.count(f"node-{n}"), 0.5, "zone-a") for n in range(4)]
        durations = [0] * (len(DURATION_BOUNDS_S) + 1)
        durations[3:6] = [self._delivered // 10, self._delivered // 5, self._delivered // 20]
        work = Work(invoked=self._delivered, failed=30, throttles=2, durations=durations, durations_sum_s=9.0)
        return View(
            self._at_ms,
            DURATION_BOUNDS_S,
            Status("node-1", nodes, mappings),
            {mapping.uuid: _flow(mapping.name) for mapping in mappings},
            {"clicks": work},
        )


def _flow(name: str) -> Flow:
    return Flow(
        kind="kinesis" if name == "clicks" else "kafka",
        source=name,
        arn=None,
        function="billing",
        filters=1,
        batch_size=100,
        window_s=1.0,
        lanes=4,
        tumbling_window_s=0,
        retries=None,
        bisect=False,
        partial_responses=True,
        parks=True,
        destination="arn:aws:sqs:us-east-1:000000000000:failed",
    )


def _mapping(
    name: str, shards: list[ShardStatus], delivered: int, *, parked: int = 0, state: str = "Enabled"
) -> MappingStatus:
    ledger = LedgerStatus(delivered + parked, delivered, 0, 0, 0, parked, 0, balanced=True)
    circuit = CircuitStatus("open", 12.0, 8.0, "503 Service Unavailable", None)
    if name != "clicks":
        circuit = CircuitStatus("closed", None, None, None, None)
    return MappingStatus(name, f"uuid-{name}", state, "OK", circuit, ledger, shards)


def _shard(name: str, number: int, parked: list[ParkedKeyStatus] | None = None) -> ShardStatus:
    state = {7: "retrying", 11: "failed", 13: "waiting", 17: "unowned"}.get(number % 50, "reading")
    return ShardStatus(
        id=name,
        owner=None if state == "unowned" else f"node-{number % 4}",
        fencing_token=1_790_000_000_000_000 + number,
        checkpoint=f"4965{number:020d}",
        lag_records=number * 3,
        lag_s=number * 0.2,
        loss_in_s=None,
        state=state,
        last_error="KeyError: 'customer'" if state in {"retrying", "failed"} else None,
        parked_keys=parked or [],
        remark=None,
    )
