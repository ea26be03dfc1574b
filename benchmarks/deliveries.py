"""The rows of deliveries: what a node uses to bring records from a source to a function, against the source's floor.

One case is a source with a batch size, with or without a filter that keeps one record in ten. Node and floor take turns
at the same backlog, so what disturbs the machine disturbs both; the backlog outlasts the measurement, so both are bound
by their CPU. Latency is another measurement, at a modest rate. A source says by `DeliverySource` where its
records are; nothing here knows one.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from benchmarks.arrivals import ArrivalLog
from benchmarks.results import Figure, Row, percentile
from benchmarks.sampling import ratios, take, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.bench import Bench, Sink
    from benchmarks.processes import Child
    from benchmarks.sampling import Sample

_SETTLE_S = 1.0  # of a latency measurement, not counted
_ARRIVE_S = 15.0


@dataclass(frozen=True, slots=True)
class Feed:
    """A place in the source that holds records, or will."""

    mapping: Mapping[str, object]  # what a mapping says of it
    floor: Sequence[str]  # what the floor script is told of it
    records: int = 0
    env: Mapping[str, str] | None = None  # what every process is told that has to do with it


class DeliverySource(Protocol):
    """A source as these rows need it."""

    name: str
    floor_module: str
    plain_module: str | None  # a plain client's loop to compare with too; takes what the floor script takes
    load_module: str
    mark: str  # what every record of an event has once
    pattern: str  # keeps one in ten
    kept: str  # what the floor script is told to keep
    kept_one_in: int
    per_s: int  # records that no subject can exceed in a second: sizes the backlog
    batches: Sequence[int]  # the batch sizes measured

    def backlog(self, bench: Bench, records: int) -> Feed:
        """Return a place that holds this many records at least; the same one to all who ask."""

    def empty(self, bench: Bench) -> Feed:
        """Return a new place without records."""

    def load(self, bench: Bench, feed: Feed, *, records: int, rate: float) -> Sequence[str]:
        """Return the arguments that make the load module send records that all pass the filter, at a rate."""


def node_mapping(source: DeliverySource, feed: Feed, batch: int, *, filtered: bool) -> dict[str, object]:
    """Return what a node is told."""
    filters = {"FilterCriteria": {"Filters": [{"Pattern": source.pattern}]}} if filtered else {}
    return {**feed.mapping, "BatchSize": batch, **filters}


def reader_arguments(source: DeliverySource, feed: Feed, url: str, batch: int, *, filtered: bool) -> list[str]:
    """Return what the floor script, the plain client and every peer are told: `benchmarks.command_line`."""
    keep = ["--keep", source.kept] if filtered else []
    return [*feed.floor, "--url", url, "--batch", str(batch), *keep]


def read_for_one(source: DeliverySource, *, filtered: bool) -> int:
    """Return how many records are read for one that the function is given."""
    return source.kept_one_in if filtered else 1


@dataclass(frozen=True, slots=True)
class Deliveries:
    """One case: `benchmarks.bench.Case`."""

    source: DeliverySource
    batch: int
    filtered: bool

    @classmethod
    def cases(cls, source: DeliverySource) -> list[Deliveries]:
        """Return a source's cases; they share its backlog."""
        return [cls(source, batch, filtered) for batch in source.batches for filtered in (False, True)]

    @property
    def name(self) -> str:
        """The case's name."""
        return f"{self.source.name}-{self.batch}{'-filter' if self.filtered else ''}"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure node and floor in turn, then the latency of each."""
        options = bench.options
        records = 5_000 if options.quick else int(self.source.per_s * (options.seconds + 1))
        feed = self.source.backlog(bench, records)
        nodes: list[Sample] = []
        floors: list[Sample] = []
        plains: list[Sample] = []
        subjects: dict[str, tuple[list[Sample], Callable[[], Sample]]] = {
            "floor": (floors, lambda: self._script(bench, feed, self.source.floor_module)),
            "node": (nodes, lambda: self._node(bench, feed)),
        }
        if (plain := self.source.plain_module) is not None:
            subjects["plain"] = plains, lambda: self._script(bench, feed, plain)
        for number in range(options.rounds):
            for subject in list(subjects) if number % 2 == 0 else reversed(subjects):
                samples, measure = subjects[subject]
                last = measure()
                samples.append(last)
                bench.say(f"{self.name} {subject}: {last.told()}")
        # A quick run times arrivals once for each source: the other cases go the same way.
        timed = not options.quick or (self.batch, self.filtered) == (self.source.batches[0], False)
        latencies = self._latency_figures(bench) if timed else ()
        return [
            Row(
                self.name,
                (
                    Figure.of("records/CPU-s", "1/s", [one.records_per_cpu_s for one in nodes]),
                    Figure.of("floor's", "1/s", [one.records_per_cpu_s for one in floors]),
                    Figure.of("ratio", "", ratios(nodes, floors)),
                    *([Figure.of("times plain", "", ratios(nodes, plains))] if plains else []),
                    Figure.of("records/s", "1/s", [one.records_per_s for one in nodes]),
                    Figure.of("a request", "", [one.records_per_request for one in nodes]),
                    Figure.of("peak", "MB", [one.peak_mb for one in nodes]),
                    *latencies,
                ),
            )
        ]

    def _mapping(self, feed: Feed) -> dict[str, object]:
        return node_mapping(self.source, feed, self.batch, filtered=self.filtered)

    def _floor_arguments(self, feed: Feed, url: str) -> list[str]:
        return reader_arguments(self.source, feed, url, self.batch, filtered=self.filtered)

    def _node(self, bench: Bench, feed: Feed) -> Sample:
        with (
            bench.redis() as redis,
            bench.sink(mark=self.source.mark) as sink,
            bench.node(self._mapping(feed), redis=redis, sink=sink.url, env=feed.env) as node,
        ):
            sample = self._sample(bench, feed, sink, node.child)
            node.child.end(signal.SIGKILL)  # the Redis goes too; nobody takes over
            return sample

    def _script(self, bench: Bench, feed: Feed, module: str) -> Sample:
        with (
            bench.sink(mark=self.source.mark) as sink,
            bench.child(module, self._floor_arguments(feed, sink.url), measured=True, env=feed.env) as script,
        ):
            sample = self._sample(bench, feed, sink, script)
            script.end(signal.SIGKILL)
            return sample

    def _sample(self, bench: Bench, feed: Feed, sink: Sink, subject: Child) -> Sample:
        share = read_for_one(self.source, filtered=self.filtered)
        return take(bench, subject, sink, name=self.name, total=feed.records // share, share=share)

    # Latency

    def _latency_figures(self, bench: Bench) -> tuple[Figure, ...]:
        latencies, floor_latencies = self._node_latencies(bench), self._floor_latencies(bench)
        return (
            Figure.of("p50", "ms", [percentile(latencies, 0.5)]),
            Figure.of("p99", "ms", [percentile(latencies, 0.99)]),
            Figure.of("floor's p99", "ms", [percentile(floor_latencies, 0.99)]),
        )

    def _node_latencies(self, bench: Bench) -> list[float]:
        feed = self.source.empty(bench)
        mapping = {**self._mapping(feed), "MaximumBatchingWindowInSeconds": 0}
        with (
            bench.redis() as redis,
            bench.sink(log=True, mark=self.source.mark) as sink,
            bench.node(mapping, redis=redis, sink=sink.url, env=feed.env) as node,
        ):
            wait_for(lambda: bool(node.held()) and node.ready(), "a ready node")
            return self._latencies(bench, feed, sink)

    def _floor_latencies(self, bench: Bench) -> list[float]:
        feed = self.source.empty(bench)
        with bench.sink(log=True, mark=self.source.mark) as sink:
            arguments = self._floor_arguments(feed, sink.url)
            with bench.child(self.source.floor_module, arguments, measured=True, env=feed.env) as floor:
                log = floor.log
                wait_for(lambda: log is not None and b"ready" in log.read_bytes(), "a ready floor script")
                found = self._latencies(bench, feed, sink)
                floor.end(signal.SIGKILL)
                return found

    def _latencies(self, bench: Bench, feed: Feed, sink: Sink) -> list[float]:
        options = bench.options
        seconds = 1.0 if options.quick else max(10.0, options.seconds)
        settle_s = 0.0 if options.quick else _SETTLE_S
        records = int(options.rate * (seconds + settle_s))
        arguments = self.source.load(bench, feed, records=records, rate=options.rate)
        with bench.child(self.source.load_module, arguments, measured=False, env=feed.env) as load:
            load.finish(seconds + 60)
        wait_for(lambda: sink.counts().records >= records, f"{records} records", within_s=_ARRIVE_S)
        arrivals = ArrivalLog(sink.log).all()
        settled_us = min(sent for one in arrivals for _, sent in one.records) + settle_s * 1_000_000
        return [(one.at_us - sent) / 1000 for one in arrivals for _, sent in one.records if sent >= settled_us]
