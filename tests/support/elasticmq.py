"""ElasticMQ, an SQS server on the JVM, for tests, benchmarks and `make services`. Its queues live in memory."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Self

from tests.support.java import Artifact, classpath, java_command
from tests.support.server_process import ServerProcess
from tests.support.servers import free_ports, responds

VERSION = "1.7.1"
ACCOUNT_ID = "000000000000"
REGION = "us-east-1"

_JAVA = 11
_ARTIFACTS = (Artifact("org.elasticmq", "elasticmq-server_2.13", VERSION),)
_CONFIGURATION = """\
include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "127.0.0.1", sqs-limits = strict }}
rest-stats {{ enabled = false }}
aws {{ region = {region}, accountId = "{account_id}" }}
"""
_LOGGING = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %p %c: %m%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""


class ElasticMQ:
    """One server, as a context manager. `kill` and `start` lose the queues but keep the address."""

    def __init__(self, *, heap_mb: int = 256) -> None:
        self._heap_mb = heap_mb
        self._home: Path | None = None
        self._process: ServerProcess | None = None
        self._port = 0

    @property
    def endpoint_url(self) -> str:
        """What clients take as `endpoint_url` of SQS."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it serves. Raises `ServerUnavailableError`, `ServerFailedError`."""
        jars = classpath(f"elasticmq-{VERSION}", _ARTIFACTS)
        if self._home is None or self._process is None:
            self._home = Path(tempfile.mkdtemp(prefix="esmd-elasticmq-"))
            self._process = ServerProcess("ElasticMQ", self._home)
            [self._port] = free_ports(1)
            configuration = _CONFIGURATION.format(port=self._port, region=REGION, account_id=ACCOUNT_ID)
            (self._home / "elasticmq.conf").write_text(configuration)
            (self._home / "logback.xml").write_text(_LOGGING)
        files = [f"-Dconfig.file={self._home}/elasticmq.conf", f"-Dlogback.configurationFile={self._home}/logback.xml"]
        command = [*java_command(_JAVA, self._heap_mb, jars, *files), "org.elasticmq.server.Main"]
        self._process.start(command, serves=lambda: responds(self._port, "/health"))

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
