"""kinesis-local, a Kinesis server on Node.js that splits and merges shards, for tests and `make services`.

It comes from npm into the cache. It must be started in its package's directory, listens on every interface unless told
otherwise by a preloaded script (it has no option for that), and keeps its streams in memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.server_process import LocalServer
from tests.support.servers import cached, fetch, program, responds

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server_process import ServerProcess

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


class KinesisLocal(LocalServer):
    """One server: its `endpoint_url` is that of Kinesis."""

    def __init__(self, *, shard_limit: int = 2000) -> None:
        super().__init__("kinesis-local", ports=2)
        self._shard_limit = shard_limit

    def _run(self, process: ServerProcess, home: Path) -> None:
        node, package = program("node", _INSTALL), _package()
        (home / "loopback.js").write_text(_LOOPBACK_ONLY)
        plain, tls = self._ports
        variables = {
            "KINESIS_MOCK_PLAIN_PORT": str(plain),
            "KINESIS_MOCK_TLS_PORT": str(tls),
            "SHARD_LIMIT": str(self._shard_limit),
            "AWS_REGION": REGION,
            "LOG_LEVEL": "ERROR",
        }
        process.start(
            [node, "--require", str(home / "loopback.js"), "main.js"],
            serves=lambda: responds(plain, "/healthcheck"),
            env={**os.environ, **variables},
            cwd=package,
        )
