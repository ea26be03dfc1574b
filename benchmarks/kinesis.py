"""Kinesis's rows: batches of 100 and of 1,000, with and without a filter, beside the floor and a plain aioboto3 loop.

The backlog is served by `benchmarks.kinesis_pages`, so that readers are bound by their CPU; latencies are measured on
kinesis-local.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.deliveries import Feed
from benchmarks.kinesis_pages import ARN
from benchmarks.load_kafka import KEPT, KEPT_ONE_IN
from benchmarks.load_kinesis import client
from benchmarks.processes import BenchmarkFailedError
from tests.support.kinesis_local import REGION
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench


class Kinesis:
    """`benchmarks.deliveries.DeliverySource`."""

    name = "kinesis"
    floor_module = "benchmarks.floor_kinesis"
    plain_module: str | None = "benchmarks.peers.aioboto3_kinesis.loop"
    load_module = "benchmarks.load_kinesis"
    mark = '"kinesis":'
    pattern = f'{{"data": {{"type": ["{KEPT}"]}}}}'
    kept = KEPT
    kept_one_in = KEPT_ONE_IN
    per_s = 300_000
    batches: Sequence[int] = (100, 1000)

    def __init__(self, *, shards: int = 8, quiet: bool = False) -> None:
        self._shards = shards
        self._quiet = quiet  # an empty stream is only to be read
        self._backlog: Feed | None = None

    def backlog(self, bench: Bench, records: int) -> Feed:
        """Serve a stream, or return the one that is served already."""
        if self._backlog is None or self._backlog.records < records:
            bench.say(f"making a backlog of {records:,} records")
            self._backlog = self._pages(bench, records)
        return self._backlog

    def empty(self, bench: Bench) -> Feed:
        """Make a stream."""
        if self._quiet:
            return self._pages(bench, 0)
        name = unique_name("bench")
        kinesis = client(bench.kinesis, REGION)
        kinesis.create_stream(StreamName=name, ShardCount=self._shards)
        for _ in range(600):
            found = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
            if found["StreamStatus"] == "ACTIVE":
                return _feed(bench.kinesis, found["StreamARN"])
            time.sleep(0.05)
        raise BenchmarkFailedError(f"{name} does not become active")

    def load(self, bench: Bench, feed: Feed, *, records: int, rate: float) -> Sequence[str]:  # noqa: ARG002  # one server
        """Send only what the filter keeps, so that each record is one to time."""
        pace = ["--rate", str(rate), "--kept-one-in", "1"]
        return [*feed.floor, "--shards", str(self._shards), "--records", str(records), *pace]

    def _pages(self, bench: Bench, records: int) -> Feed:
        arguments = ["--shards", str(self._shards), "--records", str(records)]
        return _feed(bench.serve("benchmarks.kinesis_pages", arguments), ARN, records)


def _feed(endpoint: str, arn: str, records: int = 0) -> Feed:
    """Describe a stream on a server that takes any credentials."""
    return Feed(
        {"EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON"},
        ["--endpoint", endpoint, "--stream", arn],
        records,
        {
            "AWS_ENDPOINT_URL_KINESIS": endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
    )
