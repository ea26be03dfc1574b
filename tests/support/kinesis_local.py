"""kinesis-local, a Kinesis server on Node.js that splits and merges shards, for tests and `make services`.

It comes from npm into the cache. It must be started in its package's directory, listens on every interface unless told
otherwise by a preloaded script (it has no option for that), and keeps its streams in memory.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Self

from tests.support.server_process import ServerProcess
from tests.support.servers import cached, fetch, free_ports, program, responds

VERSION = "0.6.2"
REGION = "us-east-1"

_INSTALL = "install Node.js 18 or later with npm (apt-get install nodejs npm)"
_LOOPBACK_ONLY = """\
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  if (first !== null && typeof first === "object" && "port" in first) first = { ...first, host: "127.0.0.1" };
  else if (typeof first === "number" && typeof rest[0] === "string") rest[0] = "127.0.0.1";
  else if (typeof first === "number") rest.unshift("127.0.0.1");
  return listen.call(this, first, ...rest);
};
"""


def _package() -> Path:
    """Find or fetch the package. Raises `ServerUnavailableError`."""
    name = f"kinesis-local@{VERSION}"

    def install(home: Path) -> None:
        npm = program("npm", _INSTALL)
        fetch([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home), name], name)

    return cached(f"kinesis-local-{VERSION}", name, install) / "node_modules" / "kinesis-local"


class KinesisLocal:
    """One server, as a context manager. `kill` and `start` lose the streams but keep the address."""

    def __init__(self, *, shard_limit: int = 2000) -> None:
        self._shard_limit = shard_limit
        self._home: Path | None = None
        self._process: ServerProcess | None = None
        self._ports: list[int] = []

    @property
    def endpoint_url(self) -> str:
        """What clients take as `endpoint_url` of Kinesis."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it serves. Raises `ServerUnavailableError`, `ServerFailedError`."""
        node, package = program("node", _INSTALL), _package()
        if self._home is None or self._process is None:
            self._home = Path(tempfile.mkdtemp(prefix="esmd-kinesis-"))
            self._process = ServerProcess("kinesis-local", self._home)
            self._ports = free_ports(2)
            (self._home / "loopback.js").write_text(_LOOPBACK_ONLY)
        plain, tls = self._ports
        variables = {
            "KINESIS_MOCK_PLAIN_PORT": str(plain),
            "KINESIS_MOCK_TLS_PORT": str(tls),
            "SHARD_LIMIT": str(self._shard_limit),
            "AWS_REGION": REGION,
            "LOG_LEVEL": "ERROR",
        }
        self._process.start(
            [node, "--require", str(self._home / "loopback.js"), "main.js"],
            serves=lambda: responds(plain, "/healthcheck"),
            env={**os.environ, **variables},
            cwd=package,
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
