"""Functions of the Lambda API on real nodes, with boto3 alone: made, invoked, changed, mapped, run by a whole fleet."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import redis
from botocore.exceptions import ClientError

from tests.support.archives import archive, handler
from tests.support.aws_servers import CREDENTIALS, aws_client
from tests.support.definitions_rig import made
from tests.support.lambda_client import lambda_calls
from tests.support.node_process import NodeProcess, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from node.embedded_redis import EmbeddedRedis

PLANE = {"create_functions": True}
QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
SAYING = """
def handler(event, context):
    for record in event["Records"]:
        print({version!r} + record["body"])
"""


class Node:
    """A node and AWS's client of it."""

    def __init__(self, process: NodeProcess, client: Any) -> None:
        self.process = process
        self._client = client

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation, which blocks."""
        answer = await asyncio.to_thread(getattr(self._client, operation), **parameters)
        assert isinstance(answer, dict)
        return answer

    async def invoke(self, name: str = "up") -> Any:
        """Invoke a function; return what it says, or the type of the refusal."""
        try:
            answer = await self.call("invoke", FunctionName=name, Payload=b'"hello"')
        except ClientError as refusal:
            return refusal.response["Error"]["Code"]
        return json.loads(answer["Payload"].read())

    async def says(self, expected: Any, name: str = "up") -> None:
        """Wait until a function says so here."""

        async def there() -> bool:
            return bool(await self.invoke(name) == expected)

        await eventually(there, lambda: f"{name} says {expected}\n{self.process.tail()}")


@asynccontextmanager
async def node(folder: Path, redis_url: str, *, name: str = "node", **more: Any) -> AsyncIterator[Node]:
    """Start a node that takes code."""
    document = {"redis": {"url": redis_url}, "leasing": {"ttl": 3}, "control_plane": PLANE, **more}
    async with NodeProcess(folder, document, name=name) as process:
        await process.start()
        async with lambda_calls(f"http://{process.address}") as client:
            yield Node(process, client)


async def test_a_fleet_runs_what_one_node_was_sent(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    """The code comes with the definition, its changes, and its end; a node that starts later has it, too.

    When Redis loses everything, the nodes tell it again; without it they go on with what they have.
    """
    async with node(tmp_path, own_redis.url) as one, node(tmp_path, own_redis.url, name="two") as two:
        await one.call("create_function", **made(code=handler(1), Environment={"Variables": {"COLOUR": "red"}}))
        assert await one.invoke() == [1, "hello", "red"]
        await two.says([1, "hello", "red"])
        await two.call("update_function_code", FunctionName="up", ZipFile=handler(2))
        assert await two.invoke() == [2, "hello", "red"]
        await one.says([2, "hello", "red"])
        await one.call(
            "update_function_configuration", FunctionName="up", Environment={"Variables": {"COLOUR": "blue"}}
        )
        await two.says([2, "hello", "blue"])
        assert (await two.process.metrics())['esm_api_functions{state="ready"}'] == 1

        own_redis.kill()
        assert await one.invoke() == [2, "hello", "blue"]
        with pytest.raises(ClientError, match="ServiceException"):
            await two.call("create_function", **made("other"))
        own_redis.start()
        with redis.Redis.from_url(own_redis.url) as client:
            client.flushall()
        both, again = (one.process, two.process), "function.code_published_again"
        await eventually(lambda: any(process.find(again) for process in both), "one of them has told it the code")
        async with node(tmp_path, own_redis.url, name="three") as three:
            await three.says([2, "hello", "blue"])
        await one.call("delete_function", FunctionName="up")
        assert await one.invoke() == "ResourceNotFoundException"
        await two.says("ResourceNotFoundException")


async def test_a_mapping_delivers_to_such_a_function(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, delivering, new code from the next batch on, there after a restart; deleted and made again, it goes on."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def code(version: str) -> bytes:
        return archive({"app.py": SAYING.format(version=version)})

    async def sent(url: str, process: NodeProcess, body: str, *, expected: str) -> None:
        sqs = aws_client("sqs", url)
        address = (await asyncio.to_thread(sqs.create_queue, QueueName="orders"))["QueueUrl"]
        await asyncio.to_thread(sqs.send_message, QueueUrl=address, MessageBody=body)
        await process.logged("function.log", line=expected)

    more: dict[str, Any] = {"embedded": {"aws": {}}}
    async with node(tmp_path, redis_url, **more) as one:
        url = (await one.process.logged("embedded.aws"))["endpoint_url"]
        await asyncio.to_thread(aws_client("sqs", url).create_queue, QueueName="orders")
        await one.call("create_function", **made("writer", code("a")))
        mapping = await one.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="writer")
        assert mapping["FunctionArn"] == "arn:aws:lambda:us-east-1:000000000000:function:writer"
        await sent(url, one.process, "1", expected="a1")
        await one.call("update_function_code", FunctionName="writer", ZipFile=code("b"))
        await sent(url, one.process, "2", expected="b2")
        assert one.process.find("lease.released") == []  # the mapping went on undisturbed
        await one.call("delete_function", FunctionName="writer")
        await one.process.logged("worker.refused")
        await one.call("create_function", **made("writer", code("c")))
        await sent(url, one.process, "3", expected="c3")
        assert await one.process.stop() == 0
    async with node(tmp_path, redis_url, name="again", **more) as two:
        event = json.dumps({"Records": [{"body": "4"}]}).encode()
        await two.call("invoke", FunctionName="writer", Payload=event)
        await two.process.logged("function.log", line="c4")
        versions = [path.name for path in (two.process.data_dir / "functions/writer").iterdir() if path.is_dir()]
        assert versions == [sha256(code("c")).hexdigest()]
        await two.call("delete_event_source_mapping", UUID=mapping["UUID"])
        await two.call("delete_function", FunctionName="writer")
