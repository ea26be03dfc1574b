"""Sandboxes of a fleet: what one node has no room for runs on another, and what happens when that goes away."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.support.node_process import NodeProcess, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

CODE = """
import os, time

def mark(event, context, word):
    open(f"{event['folder']}/{word}-{os.getpid()}-{context.aws_request_id}", "w").close()

def handler(event, context):
    mark(event, context, "began")
    while "until" in event and not os.path.exists(event["until"]):
        time.sleep(0.01)
    mark(event, context, "done")
    return context.aws_request_id
"""
TOKEN = "a-token-of-an-operator"


class Fleet:
    """Nodes with one function `work` and room for so many environments each."""

    def __init__(self, nodes: Sequence[NodeProcess], folder: Path, headers: Mapping[str, str]) -> None:
        self.nodes = nodes
        self.folder = folder
        self._headers = headers

    async def invoke(self, node: int = 0, **event: object) -> tuple[int, str | None, Any]:
        """Invoke the function through a node; return status, function error and document."""
        url = f"http://{self.nodes[node].address}/2015-03-31/functions/work/invocations"
        body = {"folder": str(self.folder), **event}
        async with (
            aiohttp.ClientSession(headers=self._headers) as client,
            client.post(url, json=body) as came,
        ):
            return came.status, came.headers.get("X-Amz-Function-Error"), await came.json()

    def invoking(self, tasks: asyncio.TaskGroup, times: int) -> list[asyncio.Task[tuple[int, str | None, Any]]]:
        """Begin invocations through the first node, which last until `go`; they are under way when it has come back."""
        return [tasks.create_task(self.invoke(until=str(self.folder / "go"))) for _ in range(times)]

    def go(self) -> None:
        """Let them end."""
        (self.folder / "go").touch()

    def runs(self, word: str = "began") -> list[str]:
        """Return in which processes it has begun, or is done."""
        return [path.name.split("-")[1] for path in self.folder.glob(f"{word}-*")]

    async def began(self, times: int) -> None:
        """Wait until so many invocations run."""
        await eventually(
            lambda: len(self.runs()) >= times,
            lambda: f"{times} run: {self.runs()}\n" + "\n".join(one.tail() for one in self.nodes),
        )

    async def offered(self, *nodes: int) -> None:
        """Wait until the first node sees what these have to offer."""
        names = {self._name(node) for node in nodes}

        async def there() -> bool:
            code, text = await self.nodes[0].get("/esmd/v1/status", self._headers)
            assert code == 200, text
            return names <= {one["id"].rpartition("-")[0] for one in json.loads(text)["nodes"] if one["environments"]}

        await eventually(there, "the nodes offer what they have")

    async def metric(self, name: str, node: int = 0) -> float:
        """Return a metric of a node; 0 when there is none."""
        _, text = await self.nodes[node].get("/metrics", self._headers)
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(found[0]) if found else 0.0

    async def forwarded(self, result: str = "ok") -> float:
        """Return how many invocations the first node has sent to others."""
        return await self.metric(f'esm_forwarded_invocations_total{{function="work",result="{result}"}}')

    def _name(self, node: int) -> str:
        started: str = self.nodes[node].find("node.started")[0]["node"]
        return started


async def cut_off(call: Awaitable[object]) -> None:
    """Wait for a call whose node dies."""
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await call


@asynccontextmanager
async def fleet(folder: Path, redis_url: str, *room: int, auth: bool = False, **more: Any) -> AsyncIterator[Fleet]:
    """Run nodes with so much room on one Redis."""
    code = folder / "code"
    code.mkdir()
    (code / "app.py").write_text(CODE)
    document = {
        "redis": {"url": redis_url},
        "leasing": {"ttl": 3},
        "functions": {"work": {"handler": "app.handler", "code": str(code), "timeout": 30}},
        **({"auth": {"tokens": [TOKEN]}} if auth else {}),
        **more,
    }
    nodes = [
        NodeProcess(folder, {**document, "sandboxes": {"environments": count}}, name=f"node{number}")
        for number, count in enumerate(room)
    ]
    made = Fleet(nodes, folder, {"Authorization": f"Bearer {TOKEN}"} if auth else {})
    try:
        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(node.start())
        await made.offered(*range(len(nodes)))
        yield made
        for node in nodes:
            if node.running:
                assert await node.stop() == 0, node.tail()
    finally:
        for node in nodes:
            if node.running:
                node.kill()


async def test_a_burst_through_one_node_spreads(open_folder: Path, redis_url: str) -> None:
    """What exceeds a node's room runs on the others until all are full; the next one is throttled as ever."""
    async with fleet(open_folder, redis_url, 1, 2, 3) as made, asyncio.TaskGroup() as tasks:
        calls = made.invoking(tasks, 6)
        await made.began(6)
        assert len(set(made.runs())) == 6
        status, _, refusal = await made.invoke()
        assert (status, refusal["Reason"]) == (429, "ConcurrentInvocationLimitExceeded")
        running = 'esm_function_concurrency{function="work"}'
        assert [await made.metric(running, node) for node in range(3)] == [6, 0, 0]
        for call in calls[:2]:  # one of them at least runs elsewhere, and goes on like the other
            call.cancel()
        made.go()
        answers = [await call for call in calls[2:]]
        assert [answer[0] for answer in answers] == [200] * 4
        assert len({answer[2] for answer in answers}) == 4
        await eventually(lambda: len(made.runs("done")) == 6, "all come to their end")
        assert await made.forwarded() == 5


async def test_with_auth_nodes_prove_themselves(open_folder: Path, redis_url: str) -> None:
    """Nodes have a secret of their own for each other; an operator's token does not run functions on their path."""
    async with fleet(open_folder, redis_url, 1, 2, auth=True) as made, asyncio.TaskGroup() as tasks:
        calls = made.invoking(tasks, 3)
        await made.began(3)
        made.go()
        assert [(await call)[0] for call in calls] == [200] * 3
        assert await made.forwarded() == 2
        url = f"http://{made.nodes[1].address}/esmd/v1/environments/work/invocations"
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            assert (await client.post(url, data=b"x")).status == 401


async def test_a_node_that_dies_in_the_midst(open_folder: Path, redis_url: str) -> None:
    """What was sent there is a function error and runs nowhere else; what comes next runs on those that are left."""
    async with fleet(open_folder, redis_url, 1, 1) as made, asyncio.TaskGroup() as tasks:
        calls = made.invoking(tasks, 2)
        await made.began(2)
        made.nodes[1].kill()
        lost = await next(asyncio.as_completed(calls))
        assert lost[:2] == (200, "Unhandled")
        assert lost[2]["errorType"] == "Function.Unknown"
        assert "the node that ran the function was lost" in lost[2]["errorMessage"]
        assert len(made.runs()) == 2
        assert (await made.invoke())[0] == 429
        made.go()
        await eventually(lambda: all(call.done() for call in calls), "the other one ends")
        assert (await made.invoke())[:2] == (200, None)
        assert len(made.runs()) == 3
        assert await made.forwarded("lost") == 1


async def test_a_node_that_drains(open_folder: Path, redis_url: str) -> None:
    """It ends what it was given and takes nothing more."""
    async with fleet(open_folder, redis_url, 1, 2) as made, asyncio.TaskGroup() as tasks:
        calls = made.invoking(tasks, 2)
        await made.began(2)
        made.nodes[1].signal(signal.SIGTERM)
        await made.nodes[1].logged("member.draining")
        assert (await made.invoke())[0] == 429
        made.go()
        assert [(await call)[:2] for call in calls] == [(200, None)] * 2
        assert await made.nodes[1].ended() == 0


async def test_a_node_that_asked_and_died(open_folder: Path, redis_url: str) -> None:
    """What it had sent elsewhere is ended there: nobody waits for it, and others may have taken over."""
    async with fleet(open_folder, redis_url, 1, 1) as made:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(cut_off(made.invoke(until=str(open_folder / "go"))))
            await made.began(2)
            pids = [int(pid) for pid in made.runs()]
            made.nodes[0].kill()
            await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "both functions are ended")
        assert made.runs("done") == []
