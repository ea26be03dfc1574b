"""Nodes as users run them, on a real stream: processes of the daemon that come and go."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.support.node_process import NodeProcess, url_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.aws_servers import AwsServer


class Nodes:
    """Nodes of one fleet, which come and go."""

    def __init__(self, folder: Path, server: AwsServer, document: dict[str, Any]) -> None:
        self._folder = folder
        self._server = server
        self._document = document
        self.started: list[NodeProcess] = []

    async def start(self) -> NodeProcess:
        """Start one more."""
        name = f"node-{len(self.started)}"
        node = NodeProcess(self._folder, self._document, name=name, env=self._server.environment())
        self.started.append(node)
        await node.start()
        return node

    async def end(self) -> None:
        """End those that are left; none of them may have found its books wrong."""
        for node in self.started:
            if node.running:
                assert await node.stop() == 0
            assert not node.find("ledger.imbalance"), node.tail()

    def tails(self) -> str:
        """Return the last words of all."""
        return "\n".join(f"{node.name}:\n{node.tail()}" for node in self.started)


@asynccontextmanager
async def kinesis_nodes(
    server: AwsServer, source_arn: str, function_url: str, redis_url: str, folder: Path, **mapping: Any
) -> AsyncIterator[Nodes]:
    """Make a fleet that reads a stream, or as its consumer; `mapping`: more properties of its mapping `clicks`."""
    document = {
        "redis": {"url": redis_url},
        "leasing": {"ttl": 3},
        "aws": server.section(),
        "functions": url_target(function_url),
        "event_source_mappings": [
            {
                "Name": "clicks",
                "EventSourceArn": source_arn,
                "FunctionName": "f",
                "StartingPosition": "TRIM_HORIZON",
                **mapping,
            }
        ],
    }
    nodes = Nodes(folder, server, document)
    try:
        yield nodes
        await nodes.end()
    finally:
        for node in nodes.started:
            await node.__aexit__()
