"""The row of growth: what a record costs when the same load is spread over more shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.deliveries import Deliveries
from benchmarks.kafka import Kafka
from benchmarks.results import Figure, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.bench import Bench

_SHARDS = (1, 100, 1000)
_BATCH = 100


class Growth:
    """One node on the same backlog in 1, 100 and 1,000 partitions, in turn. `benchmarks.bench.Case`."""

    name = "growth"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure, and compare with the one shard, round by round."""
        options = bench.options
        counts = (1, 10) if options.quick else _SHARDS
        records = 5_000 if options.quick else int(Kafka.per_s * (options.seconds + 1))
        cases = {shards: Deliveries(Kafka(partitions=shards), _BATCH, filtered=False) for shards in counts}
        found: dict[int, list[float]] = {shards: [] for shards in counts}
        for number in range(options.rounds):
            for shards in counts if number % 2 == 0 else reversed(counts):
                case = cases[shards]
                sample = case.node(bench, case.source.backlog(bench, records))
                found[shards].append(sample.records_per_cpu_s)
                bench.say(f"{self.name}: {shards} shards: {sample.records_per_cpu_s:,.0f} records per CPU-second")
        first, *more = counts
        ratios = {
            shards: [many / one for one, many in zip(found[first], found[shards], strict=True)] for shards in more
        }
        yield Row(
            self.name,
            (
                Figure.of(f"records/CPU-s, {first} shard", "1/s", found[first]),
                *(Figure.of(f"{shards} shards to {first}", "", of) for shards, of in ratios.items()),
            ),
        )
