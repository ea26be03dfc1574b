"""The rows of take-over: how long a killed node's shards stand still, and what is delivered twice."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.arrivals import ArrivalLog
from benchmarks.kafka import mapping_of
from benchmarks.processes import BenchmarkFailedError
from benchmarks.results import Figure, Row
from benchmarks.sampling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.bench import Bench, NodeUnderTest
    from benchmarks.sink import Arrival

_PARTITIONS = 16


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Two nodes share a topic under load; one is killed. `benchmarks.bench.Case`."""

    ttl_s: int

    @property
    def name(self) -> str:
        """The case's name."""
        return f"take-over-ttl-{self.ttl_s}"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Kill a node in each round."""
        rounds = 1 if bench.options.quick else min(3, bench.options.rounds)
        found = [self._round(bench) for _ in range(rounds)]
        return [
            Row(
                self.name,
                (
                    Figure.of("all shards again after", "s", [last for last, _, _ in found]),
                    Figure.of("duplicates", "", [float(twice) for _, twice, _ in found]),
                    Figure.of("lost", "", [float(lost) for _, _, lost in found]),
                ),
            )
        ]

    def _round(self, bench: Bench) -> tuple[float, int, int]:
        """Return seconds from the kill until the last shard was delivered from again, duplicates, and losses."""
        topic = bench.kafka.new_topic(_PARTITIONS, prefix="take-over")
        servers = bench.kafka.bootstrap_servers
        mapping = {**mapping_of(servers, topic), "MaximumBatchingWindowInSeconds": 0}
        rate = bench.options.rate
        records = int(rate * (self.ttl_s + 7))
        with contextlib.ExitStack() as running:
            redis = running.enter_context(bench.redis())
            sink = running.enter_context(bench.sink(log=True))
            nodes = [
                running.enter_context(bench.node(mapping, redis=redis, sink=sink.url, name=topic, ttl_s=self.ttl_s))
                for _ in range(2)
            ]
            wait_for(lambda: _shared(nodes), "two nodes that share the partitions")
            load = ["--servers", servers, "--topic", topic, "--records", str(records)]
            load += ["--partitions", str(_PARTITIONS), "--rate", str(rate)]
            sending = running.enter_context(bench.child("benchmarks.load_kafka", load, measured=False))
            wait_for(lambda: sink.counts().records >= 2 * rate, "records that flow")
            victim = f"-{nodes[0].child.pid}-"  # in the middle of its id
            theirs = [shard for shard, owner in nodes[1].held().items() if victim in owner]
            if not theirs:
                raise BenchmarkFailedError("the node to be killed holds nothing")
            killed_us = time.time_ns() // 1000
            nodes[0].child.end(signal.SIGKILL)
            wait_for(lambda: sending.process.poll() is not None, "the end of the load", within_s=self.ttl_s + 60)
            log = ArrivalLog(sink.log)
            wait_for(lambda: len(seen(log.all())) >= records, "every record", within_s=30)
            arrivals = log.all()
        again_s = [_again_s(arrivals, shard, killed_us) for shard in theirs]
        records_seen = seen(arrivals)
        twice = sum(records_seen.values()) - len(records_seen)
        bench.say(
            f"{self.name}: {len(theirs)} shards again after {min(again_s):.2f} to {max(again_s):.2f} s, {twice} twice"
        )
        return max(again_s), twice, records - len(records_seen)


def seen(arrivals: Iterable[Arrival]) -> Counter[str]:
    """Count how often each record arrived."""
    return Counter(place for one in arrivals for place, _ in one.records)


def _again_s(arrivals: Iterable[Arrival], shard: str, killed_us: int) -> float:
    """Return when the shard's next holder first delivered: its fencing token is a higher one."""
    ours = [one for one in arrivals if one.shard.endswith(f"/{shard}")]
    before = max((one.token for one in ours if one.at_us <= killed_us), default=0)
    after = [one.at_us for one in ours if one.token > before and one.at_us > killed_us]
    if not after:
        raise BenchmarkFailedError(f"{shard} was not delivered from again")
    return (min(after) - killed_us) / 1_000_000


def _shared(nodes: list[NodeUnderTest]) -> bool:
    owners = Counter(nodes[0].held().values())
    return len(owners) == 2 and sum(owners.values()) == _PARTITIONS and max(owners.values()) == _PARTITIONS // 2
