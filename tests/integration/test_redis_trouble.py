"""Real nodes while Redis is there and yet of no use: failed over, full, read-only, or a second older than it was."""

from __future__ import annotations

import asyncio
import shutil
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
import redis

from node.embedded_redis import EmbeddedRedis
from tests.support.figures import measured
from tests.support.kafka_fleet import BATCH, PARTITIONS, TTL_S, working_fleet
from tests.support.node_process import eventually
from tests.support.redis_servers import redis_behind_sentinel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kafka_fleet import Fleet
    from tests.support.node_process import NodeProcess

REPEATED = 2 * BATCH * PARTITIONS
"""At most, when leases end unsaved: of each partition the batch with the function and the one before it."""


def idle_s(fleet: Fleet, after: float) -> float:
    """Return the longest time without an invocation since a moment."""
    started = [after, *sorted(one.started for one in fleet.target.invoked() if one.started > after)]
    return max(later - earlier for earlier, later in pairwise(started))


@pytest.mark.slow
async def test_a_replica_that_is_promoted_serves_the_fleet(embedded_kafka: EmbeddedBroker, tmp_path: Path) -> None:
    """When the primary dies, nodes go on with the replica that Sentinel promotes; nothing is lost or out of order."""
    async with (
        redis_behind_sentinel(tmp_path) as sentinel,
        working_fleet(embedded_kafka, sentinel.url, tmp_path) as fleet,
    ):
        killed_at = time.time()
        sentinel.primary.kill()
        verdict = await fleet.finished()
        with redis.Redis(port=sentinel.replica.port or 0, decode_responses=True) as client:
            assert client.role()[0] == "master"
        for node in fleet.nodes:
            await node.ready()
        measured(duplicates=verdict.duplicates, longest_idle_s=round(idle_s(fleet, killed_at), 2))
        assert verdict.duplicates <= REPEATED


class Refusal(NamedTuple):
    """How Redis is made to take no writes, how that ends, and what it then answers."""

    command: tuple[str, ...]
    undo: tuple[str, ...]
    reason: str


FULL = Refusal(("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "OOM")
READ_ONLY = Refusal(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "read only replica")


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [FULL, READ_ONLY], ids=["full", "read-only"])
async def test_a_redis_that_takes_no_writes_stops_the_work_in_time(
    embedded_kafka: EmbeddedBroker, own_redis: EmbeddedRedis, tmp_path: Path, refusal: Refusal
) -> None:
    """Leases cannot be renewed, so work stops before they end; the log and /readyz say why; then it goes on."""
    async with working_fleet(embedded_kafka, own_redis.url, tmp_path) as fleet:
        with redis.Redis.from_url(own_redis.url) as client:
            began = time.time()
            client.execute_command(*refusal.command)
            for node in fleet.nodes:
                await node.logged("member.lost", reason="term_ended")
                await eventually(partial(_says, node, refusal.reason), f"{refusal.reason} in /readyz")
                assert refusal.reason in node.find("member.not_renewed")[-1]["error"]
            await asyncio.sleep(max(0.0, began + TTL_S + 0.5 - time.time()))  # the span in which nobody may work
            ended = time.time()
            client.execute_command(*refusal.undo)
        verdict = await fleet.finished()
        assert not [one for one in fleet.target.invoked() if began + TTL_S < one.started < ended]
        assert verdict.duplicates <= REPEATED
        measured(duplicates=verdict.duplicates)


async def _says(node: NodeProcess, reason: str) -> bool:
    code, text = await node.get("/readyz")
    return code == 503 and reason in text


@pytest.mark.slow
async def test_a_redis_that_comes_back_a_second_older_loses_nothing(
    embedded_kafka: EmbeddedBroker, tmp_path: Path
) -> None:
    """The last second of checkpoints is gone, and a node with it, as after a power cut: some repeats, and no loss."""
    with EmbeddedRedis(tmp_path / "redis", port=0) as server:
        async with working_fleet(embedded_kafka, server.url, tmp_path) as fleet:
            await asyncio.to_thread(_copy_log, tmp_path / "redis", tmp_path / "copy")
            before = fleet.target.delivered()
            await asyncio.sleep(1)  # the second that will be lost
            server.kill()
            fleet.nodes[1].kill()
            second = fleet.target.delivered() - before
            await asyncio.to_thread(_copy_log, tmp_path / "copy", tmp_path / "redis")
            server.start()
            await fleet.nodes[1].start(ready=False)
            verdict = await fleet.finished()
            measured(duplicates=verdict.duplicates, delivered_in_the_second=second)
            assert 0 < verdict.duplicates <= second + REPEATED


def _copy_log(source: Path, target: Path) -> None:
    """Copy the append-only file as it is now, in the place of another; Redis 7 has a folder of them."""
    target.mkdir(exist_ok=True)
    for old in target.glob("appendonly*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for one in source.glob("appendonly*"):
        if one.is_dir():
            shutil.copytree(one, target / one.name)
        else:
            shutil.copy(one, target)
