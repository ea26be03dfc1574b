"""Kafka's rows: batches of 100 and of 1,000, with and without a filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.deliveries import Feed
from benchmarks.load_kafka import KEPT, KEPT_ONE_IN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench


class Kafka:
    """`benchmarks.deliveries.DeliverySource`."""

    name = "kafka"
    floor_module = "benchmarks.floor_kafka"
    plain_module: str | None = "benchmarks.peers.confluent_kafka.loop"
    load_module = "benchmarks.load_kafka"
    mark = '"offset":'
    pattern = f'{{"value": {{"type": ["{KEPT}"]}}}}'
    kept = KEPT
    kept_one_in = KEPT_ONE_IN
    per_s = 300_000
    batches: Sequence[int] = (100, 1000)

    def __init__(self, *, partitions: int = 16) -> None:
        self._partitions = partitions
        self._backlog: Feed | None = None

    def backlog(self, bench: Bench, records: int) -> Feed:
        """Fill a topic, or return the one that is full already."""
        if self._backlog is None or self._backlog.records < records:
            feed = self.empty(bench)
            bench.say(f"sending a backlog of {records:,} records")
            arguments = [*feed.floor[:4], "--records", str(records), "--partitions", str(self._partitions)]
            with bench.child(self.load_module, arguments, measured=False) as load:
                load.finish(300)
            self._backlog = Feed(feed.mapping, feed.floor, records)
        return self._backlog

    def empty(self, bench: Bench) -> Feed:
        """Make a topic."""
        topic = bench.kafka.new_topic(self._partitions, prefix="bench")
        servers = bench.kafka.bootstrap_servers
        return Feed(mapping_of(servers, topic), ["--servers", servers, "--topic", topic])

    def load(self, bench: Bench, feed: Feed, *, records: int, rate: float) -> Sequence[str]:  # noqa: ARG002  # one broker
        """Send only what the filter keeps, so that each record is one to time."""
        pace = ["--rate", str(rate), "--kept-one-in", "1"]
        return [*feed.floor, "--records", str(records), "--partitions", str(self._partitions), *pace]


def mapping_of(servers: str, topic: str) -> dict[str, object]:
    """Return what a mapping says of a topic."""
    return {
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [servers]}},
        "Topics": [topic],
        "StartingPosition": "TRIM_HORIZON",
    }
