"""Apache Kafka for tests, benchmarks and `make services`: one node in KRaft mode, as a process of this one.

`KafkaProcess` is the process: start, stop, kill, restart on the same ports and data. What one does *with* a broker
(topics, group offsets) is `tests.support.kafka_admin`. All of it is synchronous: from async code go through
`asyncio.to_thread`, or the loop under test stands still meanwhile.

On request (`secure=True`) two more listeners want authentication: SASL over TLS (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512)
and TLS with client certificates; there `READER` may do everything and `STRANGER` is known but may do nothing.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.certificates import CertificateAuthority
from tests.support.java import Artifact, classpath, java_command
from tests.support.server_process import ServerProcess
from tests.support.servers import ServerFailedError, free_ports

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "4.3.1"
READER, STRANGER = "reader", "stranger"
PASSWORDS = {READER: "reader-secret", STRANGER: "stranger-secret"}
KEY_PASSWORD = "key-secret"

_JAVA = 17
_ARTIFACTS = (
    Artifact("org.apache.kafka", "kafka_2.13", VERSION),
    Artifact("org.apache.kafka", "kafka-tools", VERSION, without=["org.apache.kafka:connect-runtime"]),
    Artifact("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
)
_FORMAT_S = 60.0
_PORT_TRIES = 3
_CLUSTER_ID = "ZXNtZC10ZXN0cy1jbHVzdA"
_LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
"""


def kafka_command(heap_mb: int, logging: Path) -> list[str]:
    """Start of a command line for one of Kafka's Java programs. Raises `ServerUnavailableError`."""
    jars = classpath(f"kafka-{VERSION}", _ARTIFACTS)
    return java_command(_JAVA, heap_mb, jars, f"-Dlog4j2.configurationFile={logging}")


def write_logging(directory: Path) -> Path:
    """Write the logging configuration of Kafka's Java programs: warnings only."""
    path = directory / "log4j2.properties"
    path.write_text(_LOGGING)
    return path


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """What a client of the secured listeners needs; the names of users and their passwords are constants above."""

    sasl_servers: str
    mutual_tls_servers: str
    authority_pem: str
    reader_certificate_pem: str
    reader_key_pem: str
    reader_encrypted_key_pem: str  # with KEY_PASSWORD
    stranger_certificate_pem: str
    stranger_key_pem: str


class KafkaProcess:
    """One broker that is also its own controller. Use it as a context manager, or `start` and `stop` it."""

    def __init__(self, *, secure: bool = False, settings: Mapping[str, str] | None = None, heap_mb: int = 512) -> None:
        self._secure = secure
        self._settings = dict(settings or {})
        self._heap_mb = heap_mb
        self._home: Path | None = None
        self._process: ServerProcess | None = None
        self._ports: list[int] = []
        self._security: KafkaSecurity | None = None

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of the listener without authentication; the same before and after a restart."""
        return self._address(0)

    @property
    def security(self) -> KafkaSecurity:
        """What clients of the secured listeners need."""
        assert self._security is not None, "start with secure=True"
        return self._security

    @property
    def pid(self) -> int:
        """The running broker's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start the broker and wait until it serves clients. Raises `ServerUnavailableError`, `ServerFailedError`."""
        if self._home is not None:
            self._run()
            return
        for left in reversed(range(_PORT_TRIES)):
            home = self._home = Path(tempfile.mkdtemp(prefix="esmd-kafka-"))
            self._process = ServerProcess("Kafka", home)
            try:
                self._format(home)
                self._run()
            except BaseException as exc:
                self.stop()
                if left == 0 or "Address already in use" not in str(exc):
                    raise
            else:
                return

    def stop(self) -> None:
        """End the broker and remove its data."""
        self.kill()  # nobody will read the data again
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
        self._home = self._process = None

    def kill(self) -> None:
        """End the broker like a power cut, keeping its ports and data for `start`."""
        if self._process is not None:
            self._process.end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End the broker in an orderly way, keeping its ports and data for `start`."""
        if self._process is not None:
            self._process.end(signal.SIGTERM)

    def restart(self) -> None:
        """Shut the broker down and start it again on the same ports and data."""
        self.shut_down()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _address(self, listener: int) -> str:
        assert self._ports, "not started"
        return f"127.0.0.1:{self._ports[listener]}"

    def _format(self, home: Path) -> None:
        """Choose ports and write configuration and storage."""
        self._ports = free_ports(4 if self._secure else 2)
        settings = self._listeners() | _SETTINGS | {"log.dirs": str(home / "data")}
        if self._secure:
            settings |= self._secured(home)
        settings |= self._settings
        (home / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = [*kafka_command(256, write_logging(home)), "kafka.tools.StorageTool", "format"]
        command += ["-t", _CLUSTER_ID, "-c", str(home / "server.properties")]
        if self._secure:
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                for name, password in PASSWORDS.items():
                    command += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FORMAT_S)
        if done.returncode != 0:
            raise ServerFailedError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    def _listeners(self) -> dict[str, str]:
        names = ["PLAINTEXT", "CONTROLLER", "SASL_SSL", "SSL"][: len(self._ports)]
        listeners = {name: f"{name}://{self._address(index)}" for index, name in enumerate(names)}
        return {
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(url for name, url in listeners.items() if name != "CONTROLLER"),
            "controller.quorum.voters": f"1@{self._address(1)}",
        }

    def _secured(self, home: Path) -> dict[str, str]:
        """Make certificates and return the settings of the listeners that want authentication."""
        authority = CertificateAuthority()
        server, reader, stranger = (authority.issue(name) for name in ("127.0.0.1", READER, STRANGER))
        (home / "authority.pem").write_text(authority.certificate_pem)
        self._security = KafkaSecurity(
            sasl_servers=self._address(2),
            mutual_tls_servers=self._address(3),
            authority_pem=authority.certificate_pem,
            reader_certificate_pem=reader.certificate_pem,
            reader_key_pem=reader.key_pem(),
            reader_encrypted_key_pem=reader.key_pem(KEY_PASSWORD),
            stranger_certificate_pem=stranger.certificate_pem,
            stranger_key_pem=stranger.key_pem(),
        )
        modules = "org.apache.kafka.common.security"
        users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
        sasl, tls = "listener.name.sasl_ssl", "listener.name.ssl"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(server.write(home / "server.pem")),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(home / "authority.pem"),
            f"{tls}.ssl.client.auth": "required",
            f"{sasl}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{sasl}.plain.sasl.jaas.config": f"{modules}.plain.PlainLoginModule required {users};",
            f"{sasl}.scram-sha-256.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
            f"{sasl}.scram-sha-512.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{READER};User:CN={READER}",
        }

    def _run(self) -> None:
        assert self._home is not None
        assert self._process is not None
        command = [*kafka_command(self._heap_mb, self._home / "log4j2.properties"), "kafka.Kafka"]
        self._process.start([*command, str(self._home / "server.properties")], serves=self._answers)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._ports[0]), timeout=1).close()
            client = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
            return bool(client.list_topics(timeout=2).brokers)
        except (OSError, KafkaException):
            return False


_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
    "auto.create.topics.enable": "false",
    # One node carries the internal topics alone.
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill the broker may register anew only when its former self has expired (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "8388608",
}
