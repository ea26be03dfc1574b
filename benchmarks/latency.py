"""The row of latency: from a record's acknowledgement by Kafka to its arrival at the function, node beside floor.

Both read the same topic at the same time, each to a sink of its own, so whatever disturbs the machine disturbs both,
and each record is compared with itself. They share the measured CPU: one waits while the other works on the same
record, which is part of the difference. The acknowledgement is noted by the sender when it hears of it: a reader that
is told at the same moment may be faster, then a latency is below zero.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.arrivals import ArrivalLog
from benchmarks.kafka import Kafka
from benchmarks.results import Figure, Row, percentile
from benchmarks.sampling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from benchmarks.bench import Bench

_BATCH = 100
_SETTLE = 0.1  # of the records, at the beginning, not counted
_ARRIVE_S = 15.0
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Latency:
    """One node and the floor script on one topic. `benchmarks.bench.Case`."""

    name = "latency-kafka"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure so many rounds, and compare record by record."""
        found: dict[str, list[float]] = {}
        for _ in range(bench.options.rounds):
            node, floor = self._measure(bench)
            beyond = {record: node[record] - floor[record] for record in node.keys() & floor.keys()}
            for of, latencies in (("", node), ("floor's ", floor), ("beyond it ", beyond)):
                for name, share in _SHARES.items():
                    found.setdefault(f"{of}{name}", []).append(percentile(list(latencies.values()), share))
            bench.say(f"{self.name}: " + ", ".join(f"{name} {values[-1]:.2f} ms" for name, values in found.items()))
        yield Row(self.name, tuple(Figure.of(name, "ms", values) for name, values in found.items()))

    def _measure(self, bench: Bench) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Return the latencies of node and floor in ms, by record."""
        options, source = bench.options, Kafka()
        feed = source.empty(bench)
        mapping = {**feed.mapping, "BatchSize": _BATCH, "MaximumBatchingWindowInSeconds": 0}
        seconds = 1.0 if options.quick else max(10.0, options.seconds)
        records = int(options.rate * seconds)
        acks = bench.path("acks")
        with (
            bench.redis() as redis,
            bench.sink(log=True) as sink,
            bench.sink(log=True) as floor_sink,
            bench.node(mapping, redis=redis, sink=sink.url) as node,
            bench.child(
                source.floor_module,
                [*feed.floor, "--url", floor_sink.url, "--batch", str(_BATCH)],
                measured=True,
            ) as floor,
        ):
            log = floor.log
            wait_for(lambda: bool(node.held()) and node.ready(), "a ready node")
            wait_for(lambda: log is not None and b"ready" in log.read_bytes(), "a ready floor script")
            arguments = [*source.load(bench, feed, records=records, rate=options.rate), "--acks", str(acks)]
            with bench.child(source.load_module, arguments, measured=False) as load:
                load.finish(seconds + 60)
            sinks = (sink, floor_sink)
            wait_for(lambda: min(one.counts().records for one in sinks) >= records, "all", within_s=_ARRIVE_S)
            timed = acknowledged(acks, feed.floor[3])
            found = latencies(timed, sink.log), latencies(timed, floor_sink.log)
            for child in (node.child, floor):
                child.end(signal.SIGKILL)
            return found


def acknowledged(acks: Path, topic: str) -> dict[str, int]:
    """Return when records were acknowledged, epoch µs, but for the first ones."""
    lines: list[Any] = [msgspec.json.decode(line) for line in acks.read_bytes().splitlines()]
    lines.sort(key=lambda line: line[2])
    return {f"{topic}-{partition}/{offset}": at_us for partition, offset, at_us in lines[int(len(lines) * _SETTLE) :]}


def latencies(timed: Mapping[str, int], log: Path | None) -> dict[str, float]:
    """Return how long after its acknowledgement each record arrived first, in ms."""
    found: dict[str, float] = {}
    for arrival in ArrivalLog(log).all():
        for place, _ in arrival.records:
            at_us = timed.get(place)
            if at_us is not None:
                found.setdefault(place, (arrival.at_us - at_us) / 1000)
    return found
