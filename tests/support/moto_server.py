"""moto's server: SNS, S3 and other AWS services in one Python process, for tests. Everything lives in its memory.

It is what `embedded.aws` starts beside a node: calls of Kinesis and SQS are served one at a time. Closed shards never
end in it, and FIFO queues forget their order when a visibility timeout is over (`node.embedded_aws` has the list), so
those are judged on better servers (`elasticmq`, `kinesis_local`).
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from node.embedded_aws import load
from tests.support.server_process import LocalServer
from tests.support.servers import responds

if TYPE_CHECKING:
    from tests.support.server_process import ServerProcess

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"
_ROOT = Path(__file__).parents[2]


class MotoServer(LocalServer):
    """One server: its `endpoint_url` is that of every service."""

    def __init__(self, *, account_id: str = ACCOUNT_ID) -> None:
        super().__init__("moto")
        self._account_id = account_id

    def _run(self, process: ServerProcess, home: Path) -> None:
        process.start(
            [sys.executable, "-m", "tests.support.moto_server", str(self.port)],
            serves=lambda: responds(self.port, "/moto-api/data.json"),
            env={**os.environ, "MOTO_ACCOUNT_ID": self._account_id},
            cwd=_ROOT,
        )


def main() -> None:
    """Run as a program: serve on a port until killed."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
        load(listening).serve_forever()


if __name__ == "__main__":
    main()
