"""ElasticMQ, an SQS server on the JVM, for tests, benchmarks and `make services`. Its queues live in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.java import Artifact, classpath, java_command
from tests.support.server_process import LocalServer
from tests.support.servers import responds

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server_process import ServerProcess

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


class ElasticMQ(LocalServer):
    """One server: its `endpoint_url` is that of SQS."""

    def __init__(self, *, heap_mb: int = 256) -> None:
        super().__init__("elasticmq")
        self._heap_mb = heap_mb

    def _run(self, process: ServerProcess, home: Path) -> None:
        jars = classpath(f"elasticmq-{VERSION}", _ARTIFACTS)
        configuration = _CONFIGURATION.format(port=self.port, region=REGION, account_id=ACCOUNT_ID)
        (home / "elasticmq.conf").write_text(configuration)
        (home / "logback.xml").write_text(_LOGGING)
        files = [f"-Dconfig.file={home}/elasticmq.conf", f"-Dlogback.configurationFile={home}/logback.xml"]
        command = [*java_command(_JAVA, self._heap_mb, jars, *files), "org.elasticmq.server.Main"]
        process.start(command, serves=lambda: responds(self.port, "/health"))
