"""The row of idle shards: what a node costs that holds a thousand leases of partitions in which nothing happens."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from benchmarks.kafka import mapping_of
from benchmarks.results import Figure, Row
from benchmarks.sampling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.bench import Bench

_SHARDS = 1000
_FEW = 1
_SETTLE_S = 10.0


class IdleShards:
    """`benchmarks.bench.Case`."""

    name = "idle-1000-shards"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Hold a thousand shards, and one, and compare."""
        shards = 20 if bench.options.quick else _SHARDS
        one, many = self._measure(bench, _FEW), self._measure(bench, shards)
        per_shard_kb = (many[1] - one[1]) * 1024 / (shards - _FEW)
        return [
            Row(
                self.name,
                (
                    Figure.of("CPU", "%", [many[0]]),
                    Figure.of("CPU with 1 shard", "%", [one[0]]),
                    Figure.of("memory", "MB", [many[1]]),
                    Figure.of("memory with 1 shard", "MB", [one[1]]),
                    Figure.of("a shard", "kB", [per_shard_kb]),
                    Figure.of("start to ready", "s", [many[2]]),
                ),
            )
        ]

    def _measure(self, bench: Bench, shards: int) -> tuple[float, float, float]:
        """Return the CPU share in percent, the resident memory in MB, and the seconds until ready."""
        quick = bench.options.quick
        topic = bench.kafka.new_topic(shards, prefix="idle")
        with bench.redis() as redis, bench.sink() as sink:
            began = time.monotonic()
            with bench.node(mapping_of(bench.kafka.bootstrap_servers, topic), redis=redis, sink=sink.url) as node:
                wait_for(lambda: len(node.held()) >= shards and node.ready(), f"{shards} shards held", within_s=120)
                ready_s = time.monotonic() - began
                time.sleep(0.5 if quick else _SETTLE_S)
                before = node.child.usage()
                time.sleep(0.5 if quick else max(20.0, bench.options.seconds))
                used = node.child.usage().since(before)
                found = 100 * used.cpu_s / used.at, node.child.rss_mb(), ready_s
                bench.say(
                    f"{self.name}: {shards} shards: CPU {found[0]:.2f} %, {found[1]:.1f} MB, ready in {ready_s:.1f} s"
                )
                node.child.end(signal.SIGKILL)
                return found
