"""A node with functions of each kind, and AWS's own client of it, for tests of the Invoke operation."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.support.lambda_client import lambda_calls
from tests.support.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

CODE = """
import base64, json, os, time

def handler(event, context):
    if event == "raise":
        raise ValueError("no good")
    if isinstance(event, dict) and "wait_for" in event:
        open(event["mark"], "w").close()
        while not os.path.exists(event["wait_for"]):
            time.sleep(0.01)
        open(event["mark"] + "-done", "w").close()
        return "waited"
    if isinstance(event, dict) and "size" in event:
        return "x" * event["size"]
    print("a line of the function")
    custom = context.client_context.custom if context.client_context else None
    return {"event": event, "id": context.aws_request_id, "custom": custom, "trace": os.environ["_X_AMZN_TRACE_ID"]}
"""


class InvokeRig:
    """The node and its client."""

    def __init__(self, node: NodeProcess, client: Any) -> None:
        self.node = node
        self.url = f"http://{node.address}"
        self.client = client

    async def invoke(self, function: str, event: Any = None, **more: Any) -> dict[str, Any]:
        """Invoke; the payload is read into `Payload`."""
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        answer = await asyncio.to_thread(self.client.invoke, FunctionName=function, Payload=payload, **more)
        assert isinstance(answer, dict)
        answer["Payload"] = answer["Payload"].read()
        return answer


@asynccontextmanager
async def invoke_rig(
    folder: Path,
    redis_url: str,
    functions: Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    **more: Any,
) -> AsyncIterator[InvokeRig]:
    """Run a node with the Python function `local`, one at a time, and others; drain it at the end."""
    code = folder / "code"
    code.mkdir()
    (code / "app.py").write_text(CODE)
    local = {"handler": "app.handler", "code": str(code), "timeout": 30, "concurrency": 1}
    document = {"redis": {"url": redis_url}, "functions": {"local": local, **functions}, **more}
    async with NodeProcess(folder, document, env=env, arguments=arguments) as node:
        await node.start()
        async with lambda_calls(f"http://{node.address}") as client:
            yield InvokeRig(node, client)
            assert await node.stop() == 0
