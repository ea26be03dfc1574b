"""Kafka for tests, as fixtures.

- `embedded_kafka`: the broker inside confluent-kafka, one per test session.
- `real_kafka`: Apache Kafka, one per session, started when first asked for; or the one at ESMD_TEST_KAFKA (as
  `make services` prints it). Without Java or Maven the test skips with the reason, and fails where CI=true.
- `kafka`: runs the test on both.
- `kafka_process`: a `KafkaProcess` of this session that tests may stop, kill and start; leave it running.
- `secure_kafka`: a `KafkaProcess` with SASL and mTLS listeners.

Both brokers offer `bootstrap_servers`, `new_topic(partitions)`, `create_topic(name, partitions)` and the
`fetch_max_wait_ms` a reader should use there. They are shared: use new topics and groups (`unique_name`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support import leash
from tests.support.embedded_broker import EmbeddedBroker
from tests.support.kafka import KafkaProcess
from tests.support.kafka_admin import KafkaAdmin
from tests.support.missing import skip_or_fail
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REAL = {"real_kafka", "kafka_process", "secure_kafka"}


class KafkaBroker(Protocol):
    """What both brokers offer."""

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`."""

    @property
    def fetch_max_wait_ms(self) -> int:
        """How long a reader may let a fetch wait."""

    def new_topic(self, partitions: int = 1, *, prefix: str = "topic") -> str:
        """Create a topic with a name no other test uses."""

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for the real broker, so that `-m 'not real_kafka'` leaves them out."""
    for item in items:
        if _REAL.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real_kafka)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """End the watcher process of the servers, if one was needed, with the session."""
    yield
    leash.close()


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[EmbeddedBroker]:
    """Start the broker inside confluent-kafka."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_process() -> Iterator[KafkaProcess]:
    """Start an Apache Kafka, to be stopped, killed and started."""
    process = KafkaProcess()
    try:
        process.start()
    except ServerUnavailableError as exc:
        skip_or_fail(exc)
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="session")
def real_kafka(request: pytest.FixtureRequest) -> KafkaAdmin:
    """Start or reuse Apache Kafka."""
    reused = os.environ.get("ESMD_TEST_KAFKA")
    return KafkaAdmin(reused or request.getfixturevalue("kafka_process").bootstrap_servers)


@pytest.fixture(scope="session")
def secure_kafka() -> Iterator[KafkaProcess]:
    """Start an Apache Kafka with listeners that want authentication."""
    process = KafkaProcess(secure=True)
    try:
        process.start()
    except ServerUnavailableError as exc:
        skip_or_fail(exc)
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real_kafka)])
def kafka(request: pytest.FixtureRequest) -> KafkaBroker:
    """Run the test on the embedded broker and on Apache Kafka."""
    broker: Any = request.getfixturevalue(f"{request.param}_kafka")
    assert isinstance(broker, EmbeddedBroker | KafkaAdmin)
    return broker
