"""What tests do with a running Apache Kafka besides reading and writing: topics, and group offsets as people see them.

`describe_group` runs Kafka's own `kafka-consumer-groups --describe` (its Java class) and reads what it prints.
Everything is synchronous; from async code use `asyncio.to_thread`.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.support.kafka import kafka_command, write_logging
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOOL = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
_COLUMNS = ["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"]
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class GroupOffset:
    """One line of `kafka-consumer-groups --describe`; what the tool prints as `-` is None."""

    topic: str
    partition: int
    current: int | None
    end: int | None
    lag: int | None


class KafkaAdmin:
    """A running broker, by its address."""

    fetch_max_wait_ms = 500  # long polls work here

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._client = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    def new_topic(self, partitions: int = 1, *, prefix: str = "topic", config: Mapping[str, str] | None = None) -> str:
        """Create a topic with a name no other test uses."""
        name = unique_name(prefix)
        self.create_topic(name, partitions, config=config)
        return name

    def create_topic(self, name: str, partitions: int, *, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until clients see it."""
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        self._finish(self._client.create_topics([topic], operation_timeout=_ANSWER_S))

    def add_partitions(self, name: str, total: int) -> None:
        """Let a topic grow to a number of partitions."""
        self._finish(self._client.create_partitions([NewPartitions(name, total)], operation_timeout=_ANSWER_S))

    def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        self._finish(self._client.delete_topics([name], operation_timeout=_ANSWER_S))

    def describe_group(self, group: str) -> list[GroupOffset]:
        """Return what `kafka-consumer-groups --describe` prints for a group, by topic and partition.

        Raises `LookupError` with the tool's words when there is no such group.
        """
        with tempfile.TemporaryDirectory() as working:
            command = [*kafka_command(128, write_logging(Path(working))), _TOOL]
            options = ["--bootstrap-server", self.bootstrap_servers, "--describe", "--group", group]
            done = subprocess.run(
                [*command, *options], capture_output=True, text=True, check=False, timeout=2 * _ANSWER_S
            )
        return parse_description(done.stdout, done.stderr)

    @staticmethod
    def _finish(futures: Mapping[str, Any]) -> None:
        for future in futures.values():
            future.result(_ANSWER_S)


def parse_description(printed: str, complaints: str) -> list[GroupOffset]:
    """Read the table that `kafka-consumer-groups --describe` prints."""

    def number(text: str) -> int | None:
        return None if text == "-" else int(text)

    lines = [line.split() for line in printed.splitlines()]
    headings = [index for index, words in enumerate(lines) if words[: len(_COLUMNS)] == _COLUMNS]
    if not headings:
        raise LookupError(f"{printed}{complaints}".strip())
    rows = [words for words in lines[headings[0] + 1 :] if len(words) >= len(_COLUMNS)]
    offsets = [GroupOffset(row[1], int(row[2]), number(row[3]), number(row[4]), number(row[5])) for row in rows]
    return sorted(offsets, key=lambda one: (one.topic, one.partition))
