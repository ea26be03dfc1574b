"""The rows of idle shards: what a node costs that holds many leases of shards in which nothing happens."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from benchmarks.kafka import Kafka
from benchmarks.kinesis import Kinesis
from benchmarks.results import Figure, Row
from benchmarks.sampling import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.bench import Bench
    from benchmarks.deliveries import Feed

_FEW = 1
_SETTLE_S = 10.0


class _Places(Protocol):
    def empty(self, bench: Bench) -> Feed:
        """Return a new place without records."""


class _Found(NamedTuple):
    cpu_ms: float  # in a second
    memory_mb: float
    ready_s: float


class IdleShards:
    """Holds many shards, and one, and compares. `benchmarks.bench.Case`."""

    def __init__(self, name: str, places: Callable[[int], _Places], shards: int) -> None:
        self.name = f"idle-{name}"
        self._places = places
        self._shards = shards

    @classmethod
    def cases(cls) -> tuple[IdleShards, IdleShards]:
        """Return Kafka's, whose brokers hold back empty answers, and Kinesis's, asked once a second for each shard."""
        return cls("kafka", lambda shards: Kafka(partitions=shards), 1000), cls("kinesis", _quiet_stream, 200)

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure."""
        shards = 20 if bench.options.quick else self._shards
        one, many = self._measure(bench, _FEW), self._measure(bench, shards)
        more = shards - _FEW
        return [
            Row(
                self.name,
                (
                    Figure.of(f"CPU, {shards} shards", "%", [many.cpu_ms / 10]),
                    Figure.of("with 1", "%", [one.cpu_ms / 10]),
                    Figure.of("a shard, in a second", "ms", [(many.cpu_ms - one.cpu_ms) / more]),
                    Figure.of("memory", "MB", [many.memory_mb]),
                    Figure.of("memory with 1", "MB", [one.memory_mb]),
                    Figure.of("memory of a shard", "kB", [(many.memory_mb - one.memory_mb) * 1024 / more]),
                    Figure.of("start to ready", "s", [many.ready_s]),
                ),
            )
        ]

    def _measure(self, bench: Bench, shards: int) -> _Found:
        quick = bench.options.quick
        feed = self._places(shards).empty(bench)
        with bench.redis() as redis, bench.sink() as sink:
            began = time.monotonic()
            with bench.node(feed.mapping, redis=redis, sink=sink.url, env=feed.env) as node:
                wait_for(lambda: len(node.held()) >= shards and node.ready(), f"{shards} shards held", within_s=120)
                ready_s = time.monotonic() - began
                time.sleep(0.5 if quick else _SETTLE_S)
                before = node.child.usage()
                time.sleep(0.5 if quick else max(20.0, bench.options.seconds))
                used = node.child.usage().since(before)
                found = _Found(1000 * used.cpu_s / used.at, node.child.rss_mb(), ready_s)
                bench.say(
                    f"{self.name}: {shards} shards: CPU {found.cpu_ms:.1f} ms a second, {found.memory_mb:.1f} MB, "
                    f"ready in {ready_s:.1f} s"
                )
                node.child.end(signal.SIGKILL)
                return found


def _quiet_stream(shards: int) -> Kinesis:
    return Kinesis(shards=shards, quiet=True)
