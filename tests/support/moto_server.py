"""moto's server: SNS, S3 and other AWS services in one Python process, for tests. Everything lives in its memory.

It is what `embedded.aws` starts beside a node: calls of Kinesis and SQS are served one at a time. Closed shards never
end in it, and FIFO queues forget their order when a visibility timeout is over (`node.embedded_aws` has the list), so
those are judged on better servers (`elasticmq`, `kinesis_local`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Self

from node.embedded_aws import load
from tests.support.server_process import ServerProcess
from tests.support.servers import free_ports, responds

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"
_ROOT = Path(__file__).parents[2]


class MotoServer:
    """One server, as a context manager. `kill` and `start` lose everything but the address."""

    def __init__(self) -> None:
        self._home: Path | None = None
        self._process: ServerProcess | None = None
        self._port = 0

    @property
    def endpoint_url(self) -> str:
        """What clients take as `endpoint_url` of any service."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it serves. Raises `ServerFailedError`."""
        if self._home is None or self._process is None:
            self._home = Path(tempfile.mkdtemp(prefix="esmd-moto-"))
            self._process = ServerProcess("moto", self._home)
            [self._port] = free_ports(1)
        self._process.start(
            [sys.executable, "-m", "tests.support.moto_server", str(self._port)],
            serves=lambda: responds(self._port, "/moto-api/data.json"),
            env={**os.environ, "MOTO_ACCOUNT_ID": ACCOUNT_ID},
            cwd=_ROOT,
        )

    def kill(self) -> None:
        """End the server at once, keeping its address for `start`."""
        if self._process is not None:
            self._process.end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server and remove its files."""
        self.kill()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
        self._home = self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    """Run as a program: serve on a port until killed."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
        load(listening).serve_forever()


if __name__ == "__main__":
    main()
