"""A poller's batch that runs on another node when the poller's node loses the shard's lease.

Three nodes on one Redis: `poller` holds the topic's only partition and has no room for the function, `room` polls
nothing and runs it, `heir` takes the partition over.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from tests.support.kafka_load import keyed, load
from tests.support.node_process import LIMIT_S, NodeProcess, eventually, kafka_mapping
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from node.embedded_redis import EmbeddedRedis
    from tests.support.embedded_broker import EmbeddedBroker

CODE = """
import os, time

def mark(folder, word, token, offset):
    open(f"{folder}/{word}-{token}-{offset}-{os.getpid()}", "w").close()

def handler(event, context):
    folder = os.environ["FOLDER"]
    token = context.client_context.custom["X-Esmd-Fencing-Token"]
    offsets = [record["offset"] for records in event["records"].values() for record in records]
    for offset in offsets:
        mark(folder, "began", token, offset)
    while not (os.path.exists(f"{folder}/go-{token}") or os.path.exists(f"{folder}/go")):
        time.sleep(0.01)
    for offset in offsets:
        mark(folder, "done", token, offset)

def block(event, context):
    while not os.path.exists(os.environ["FOLDER"] + "/go"):
        time.sleep(0.01)
"""
RECORDS, BATCH = 10, 5
TTL_S = 6
ENDLESS_S = 600  # beyond what anybody here waits for: only who cancels a call ends it in time


class Marks:
    """What the function has left in its folder: the records it began or finished, by fencing token and process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, word: str) -> list[tuple[int, int, int]]:
        """Return token, offset and process of each record that has `began`, or is `done`."""
        found = [path.name.split("-") for path in self._folder.glob(f"{word}-*")]
        return sorted((int(token), int(offset), int(pid)) for _, token, offset, pid in found)

    def tokens(self, word: str) -> list[int]:
        """Return the tokens under which records began, or were done, oldest first."""
        return sorted({token for token, _, _ in self.of(word)})

    def offsets(self, word: str, token: int | None = None) -> list[int]:
        """Return which records; of one token, or of any."""
        return sorted({offset for of, offset, _ in self.of(word) if token in (None, of)})

    def pids(self, token: int) -> list[int]:
        """Return the processes of a token's calls."""
        return sorted({pid for of, _, pid in self.of("began") if of == token})

    def go(self, token: int | None = None) -> None:
        """Let the calls of a token end, or all."""
        (self._folder / ("go" if token is None else f"go-{token}")).touch()


class Fleet:
    """The nodes, and what the function has done."""

    def __init__(self, folder: Path, redis_url: str, pollers_redis_url: str, document: dict[str, Any]) -> None:
        self.marks = Marks(folder)
        document = {"leasing": {"ttl": TTL_S}, **document}

        def node(name: str, environments: int, *arguments: str) -> NodeProcess:
            redis = {"url": pollers_redis_url if name == "poller" else redis_url}
            own = {"redis": redis, "sandboxes": {"environments": environments}}
            return NodeProcess(folder, {**document, **own}, name=name, arguments=arguments)

        self.poller, self.heir = node("poller", 1), node("heir", 2)
        self.room = node("room", 2, "--role", "frontend")
        self.nodes = [self.poller, self.room, self.heir]

    async def offered(self) -> None:
        """Wait until the poller's node sees what the node `room` has."""
        name = self.room.find("node.started")[0]["node"]

        async def there() -> bool:
            nodes = (await self.poller.status())["nodes"]
            return any(one["id"].startswith(name) and one["environments"] for one in nodes)

        await eventually(there, "the node has told what room it has")

    async def forwarded(self) -> int:
        """Wait until the first batch runs on the node `room` for the poller; return its fencing token."""
        began = self.marks
        await eventually(
            lambda: began.offsets("began") == list(range(BATCH)),
            lambda: f"the first batch runs: {began.of('began')}\n{self.poller.tail()}\n{self.room.tail()}",
        )
        (token,), (pid,) = began.tokens("began"), began.pids(began.tokens("began")[0])
        assert self.room.pid in [process.pid for process in psutil.Process(pid).parents()]
        return token

    async def checkpoint(self) -> Any:
        """Return how far the partition is finished in the store: `room` holds no shard, so it has nothing fresher."""
        (shard,) = (await self.room.mapping())["shards"]
        return shard["checkpoint"]

    async def finished(self, node: NodeProcess) -> None:
        """Wait until every record is delivered and saved, and the ledger balances."""
        mapping: dict[str, Any] = {}

        async def all_is() -> bool:
            nonlocal mapping
            mapping = await node.mapping()
            (shard,), ledger = mapping["shards"], mapping["ledger"]
            return (shard["checkpoint"], ledger["delivered"], ledger["in_flight"]) == (str(RECORDS), RECORDS, 0)

        await eventually(all_is, lambda: f"everything is delivered: {mapping}\n{node.tail()}")
        assert mapping["ledger"]["balanced"]
        assert mapping["ledger"]["polled"] == RECORDS
        assert self.marks.offsets("done") == list(range(RECORDS))


def alive(pids: list[int]) -> list[int]:
    """Return which of these processes there are."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def block(node: NodeProcess) -> None:
    """Use up the only place in the node's sandboxes, until everything may go."""
    url = f"http://{node.address}/2015-03-31/functions/block/invocations"
    async with aiohttp.ClientSession() as client, client.post(url, json={}) as came:
        assert came.status == 200


@asynccontextmanager
async def fleet(
    folder: Path, redis_url: str, broker: EmbeddedBroker, *, pollers_redis_url: str | None = None
) -> AsyncIterator[Fleet]:
    """Run the fleet up to where the poller's first batch is under way on the node `room`.

    `pollers_redis_url`: the poller's own way to the Redis.
    """
    code = folder / "code"
    code.mkdir()
    (code / "app.py").write_text(CODE)
    topic = broker.new_topic(1, prefix="placed")
    shared = {"code": str(code), "timeout": ENDLESS_S, "environment": {"FOLDER": str(folder)}}
    mapping = kafka_mapping(broker.bootstrap_servers, topic, FunctionName="work", BatchSize=BATCH)
    document = {
        "functions": {"work": {"handler": "app.handler", **shared}, "block": {"handler": "app.block", **shared}},
        "event_source_mappings": [mapping],
    }
    made = Fleet(folder, redis_url, pollers_redis_url or redis_url, document)
    try:
        await made.poller.start()
        await made.room.start()
        async with asyncio.TaskGroup() as tasks:
            blocking = tasks.create_task(block(made.poller))
            await made.offered()
            records = keyed(topic, 1, RECORDS, lambda n: json.dumps({"n": n}).encode())
            await asyncio.to_thread(load, broker.bootstrap_servers, records)
            yield made
            blocking.cancel()
        for node in made.nodes:
            if node.running:
                assert await node.stop() == 0, node.tail()
    finally:
        for node in made.nodes:
            if node.running:
                node.signal(signal.SIGCONT)
                node.kill()


@pytest.mark.parametrize("ends", ["before", "never"])
async def test_a_poller_that_is_stopped_for_too_long(
    open_folder: Path, redis_url: str, embedded_kafka: EmbeddedBroker, ends: str
) -> None:
    """Its shard is another's by the time it wakes up, and the next holder delivers all.

    An answer that waits for the poller is of no account, and a call that still runs for it elsewhere is ended there.
    """
    async with fleet(open_folder, redis_url, embedded_kafka) as made:
        stale = await made.forwarded()
        await made.heir.start()
        before = await made.checkpoint()
        made.poller.signal(signal.SIGSTOP)
        try:
            await eventually(lambda: len(made.marks.tokens("began")) == 2, "the next holder calls the function")
            if ends == "before":
                made.marks.go(stale)
                await eventually(lambda: made.marks.offsets("done", stale) == list(range(BATCH)), "the first call ends")
        finally:
            made.poller.signal(signal.SIGCONT)
        await made.poller.logged("member.lost")
        fresh = made.marks.tokens("began")[-1]
        assert fresh > stale
        if ends == "never":
            await eventually(lambda: not alive(made.marks.pids(stale)), "the first call is ended")
            assert made.marks.offsets("done") == []
        await made.poller.ready()
        assert made.marks.tokens("began") == [stale, fresh]
        assert await made.checkpoint() == before
        made.marks.go()
        await made.finished(made.heir)
        assert made.marks.offsets("done", fresh) == list(range(RECORDS))


async def test_a_checkpoint_that_arrives_late(
    open_folder: Path, own_redis: EmbeddedRedis, embedded_kafka: EmbeddedBroker
) -> None:
    """The store refuses it: the shard has another holder by then, who is at work on the same records."""
    port = urlsplit(own_redis.url).port
    assert port is not None
    relay = Relay(port, b":progress:")
    async with (
        relay.serving() as way,
        fleet(open_folder, own_redis.url, embedded_kafka, pollers_redis_url=f"redis://127.0.0.1:{way}/0") as made,
    ):
        stale = await made.forwarded()
        await made.heir.start()
        before = await made.checkpoint()
        relay.hold()
        made.marks.go(stale)
        async with asyncio.timeout(LIMIT_S):
            await relay.caught.wait()
        assert made.marks.offsets("done", stale) == list(range(BATCH))
        await eventually(lambda: len(made.marks.tokens("began")) == 2, "the next holder calls the function")
        relay.release()
        async with asyncio.timeout(LIMIT_S):
            await relay.answered.wait()
        assert await made.checkpoint() == before
        made.marks.go()
        await made.finished(made.heir)


async def test_a_poller_whose_redis_is_silent(
    open_folder: Path, own_redis: EmbeddedRedis, embedded_kafka: EmbeddedBroker
) -> None:
    """When it can no longer trust its lease the call on the other node is ended; all comes again once Redis is back."""
    assert own_redis.pid is not None
    async with fleet(open_folder, own_redis.url, embedded_kafka) as made:
        stale = await made.forwarded()
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: not alive(made.marks.pids(stale)), "the call is ended")
            await made.poller.logged("member.lost", reason="term_ended")
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        assert made.marks.offsets("done") == []
        made.marks.go()
        await made.finished(made.poller)
        assert stale not in made.marks.tokens("done")
