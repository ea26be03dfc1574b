"""Kinesis's rows: batches of 100 and of 1,000, with and without a filter, beside the floor and a plain aioboto3 loop.

Here the server costs more CPU than any reader, so a reader waits for it now and then; what is compared is the CPU time
of the reading process for each record.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.deliveries import Deliveries, Feed, wait_for
from benchmarks.load_kafka import KEPT, KEPT_ONE_IN
from benchmarks.load_kinesis import client
from benchmarks.processes import BenchmarkFailedError
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench

_SHARDS = 8


class Kinesis:
    """`benchmarks.deliveries.DeliverySource`."""

    name = "kinesis"
    floor_module = "benchmarks.floor_kinesis"
    plain_module: str | None = "benchmarks.plain_kinesis"
    load_module = "benchmarks.load_kinesis"
    mark = '"sequenceNumber":'
    pattern = f'{{"data": {{"type": ["{KEPT}"]}}}}'
    kept = KEPT
    kept_one_in = KEPT_ONE_IN
    per_s = 60_000

    def __init__(self) -> None:
        self._backlog: Feed | None = None

    def backlog(self, bench: Bench, records: int) -> Feed:
        """Fill a stream, or return the one that is full already."""
        if self._backlog is None or self._backlog.records < records:
            feed = self.empty(bench)
            bench.say(f"sending a backlog of {records:,} records")
            arguments = [*_load(feed), "--records", str(records)]
            with bench.child(self.load_module, arguments, measured=False) as load:
                wait_for(lambda: load.process.poll() is not None, "the backlog", within_s=300)
                if load.process.returncode:
                    raise BenchmarkFailedError(f"{self.load_module} ended with {load.process.returncode}")
            self._backlog = Feed(feed.mapping, feed.floor, records)
        return self._backlog

    def empty(self, bench: Bench) -> Feed:
        """Make a stream."""
        name = unique_name("bench")
        kinesis = client(bench.kinesis)
        kinesis.create_stream(StreamName=name, ShardCount=_SHARDS)
        for _ in range(600):
            found = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
            if found["StreamStatus"] == "ACTIVE":
                break
            time.sleep(0.05)
        else:
            raise BenchmarkFailedError(f"{name} does not become active")
        arn: str = found["StreamARN"]
        mapping = {"EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON"}
        return Feed(mapping, ["--endpoint", bench.kinesis, "--stream", arn])

    def load(self, bench: Bench, feed: Feed, *, records: int, rate: float) -> Sequence[str]:  # noqa: ARG002  # one server
        """Send only what the filter keeps, so that each record is one to time."""
        return [*_load(feed), "--records", str(records), "--rate", str(rate), "--kept-one-in", "1"]


def _load(feed: Feed) -> list[str]:
    """Return what the load is told of a stream: its name instead of the ARN."""
    *endpoint, _, arn = feed.floor
    return [*endpoint, "--stream", arn.rpartition("/")[2], "--shards", str(_SHARDS)]


def cases() -> list[Deliveries]:
    """Return Kinesis's cases; they share one backlog."""
    source = Kinesis()
    return [Deliveries(source, batch, filtered) for batch in (100, 1000) for filtered in (False, True)]
