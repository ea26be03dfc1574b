"""The row of growth: what a record costs when the same load is spread over more shards.

All shards are being read before the load begins, so that opening them, which is another row's, does not count.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from benchmarks.kafka import Kafka
from benchmarks.results import Figure, Row
from benchmarks.sampling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.bench import Bench

_SHARDS = (1, 100, 1000)
_BATCH = 100
_FROM, _TO = 0.05, 0.95  # of the load, what is measured
_LIMIT_S = 120.0


class Growth:
    """One node under the same load in 1, 100 and 1,000 partitions, in turn. `benchmarks.bench.Case`."""

    name = "growth"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure, and compare with the one shard, round by round."""
        options = bench.options
        counts = (1, 10) if options.quick else _SHARDS
        records = 5_000 if options.quick else int(Kafka.per_s * options.seconds)
        found: dict[int, list[float]] = {shards: [] for shards in counts}
        batches: dict[int, list[float]] = {shards: [] for shards in counts}
        for number in range(options.rounds):
            for shards in counts if number % 2 == 0 else reversed(counts):
                per_cpu_s, a_request = self._measure(bench, shards, records)
                found[shards].append(per_cpu_s)
                batches[shards].append(a_request)
                bench.say(
                    f"{self.name}: {shards} shards: {per_cpu_s:,.0f} records per CPU-second, {a_request:.1f} a request"
                )
        first, *more = counts
        ratios = {
            shards: [many / one for one, many in zip(found[first], found[shards], strict=True)] for shards in more
        }
        yield Row(
            self.name,
            (
                Figure.of(f"records/CPU-s, {first} shard", "1/s", found[first]),
                *(Figure.of(f"{shards} shards to {first}", "", of) for shards, of in ratios.items()),
                *(Figure.of(f"a request, {shards}", "", batches[shards]) for shards in more),
            ),
        )

    def _measure(self, bench: Bench, shards: int, records: int) -> tuple[float, float]:
        """Return the records that a node brings in a second of its CPU, and those in a request."""
        source = Kafka(partitions=shards)
        feed = source.empty(bench)
        mapping = {**feed.mapping, "BatchSize": _BATCH}
        with (
            bench.redis() as redis,
            bench.sink() as sink,
            bench.node(mapping, redis=redis, sink=sink.url) as node,
        ):
            wait_for(lambda: len(node.held()) >= shards and node.ready(), f"{shards} shards", within_s=_LIMIT_S)
            load = [*feed.floor, "--records", str(records), "--partitions", str(shards)]
            first = 0 if bench.options.quick else records * _FROM  # so few may all come between two looks
            before, begun = node.child.usage(), sink.counts()
            with bench.child(source.load_module, load, measured=False) as sending:
                if first:
                    wait_for(lambda: sink.counts().records >= first, "the load", within_s=_LIMIT_S)
                    before, begun = node.child.usage(), sink.counts()
                wait_for(lambda: sink.counts().records >= records * _TO, "all of the load", within_s=_LIMIT_S)
                used, ended = node.child.usage().since(before), sink.counts()
                sending.finish(_LIMIT_S)
            node.child.end(signal.SIGKILL)
            arrived = ended.records - begun.records
            return arrived / max(used.cpu_s, 0.01), arrived / max(1, ended.requests - begun.requests)
