"""The row of `--processes 2`: what a second process adds when each has the same share of a CPU.

A machine with few CPUs shares them with the broker, the sink and the benchmark, so two processes on two CPUs would
measure those. Here every process of the node has a quota instead (`benchmarks.quota`), small enough that the node's CPU
has room for both: one that is twice as large would bring twice as much.
"""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from benchmarks import quota
from benchmarks.processes import BenchmarkFailedError
from benchmarks.results import Figure, Row
from benchmarks.sampling import wait_for
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.bench import Bench, NodeUnderTest
    from benchmarks.deliveries import Feed
    from benchmarks.kafka import Kafka

_SHARE = 0.3  # of a CPU for each process
_BATCH = 100
_PARTITIONS = 16
_SETTLE_S = 2.0
_END_SHARE = 0.9  # of the backlog
_LIMIT_S = 90.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class _Sample:
    per_s: float
    per_cpu_s: float
    used: float  # of the quota


class TwoProcesses:
    """`benchmarks.bench.Case`."""

    name = "processes"

    def __init__(self, source: Kafka) -> None:
        self._source = source

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure one process and two, in turn."""
        options = bench.options
        records = 5_000 if options.quick else int(self._source.per_s * (options.seconds + 1))
        found: dict[int, list[_Sample]] = {1: [], 2: []}
        try:
            with quota.groups([unique_name("esmd-bench")], _SHARE):
                pass
        except quota.NoQuotaError as exc:
            yield Row(self.name, (), str(exc))
            return
        feed = self._source.backlog(bench, records)
        for number in range(options.rounds):
            for count in (1, 2) if number % 2 == 0 else (2, 1):
                sample = self._round(bench, feed, count)
                found[count].append(sample)
                bench.say(
                    f"{self.name}: {count} with {_SHARE:.0%} of a CPU each: {sample.per_s:,.0f}/s, "
                    f"{sample.per_cpu_s:,.0f} per CPU-second, {sample.used:.0%} of the quota used"
                )
        pairs = list(zip(found[1], found[2], strict=True))
        yield Row(
            self.name,
            (
                Figure.of("records/s, 1", "1/s", [one.per_s for one, _ in pairs]),
                Figure.of("records/s, 2", "1/s", [two.per_s for _, two in pairs]),
                Figure.of("2 to 1", "", [two.per_s / one.per_s for one, two in pairs]),
                Figure.of("2 to 1, a CPU-second", "", [two.per_cpu_s / one.per_cpu_s for one, two in pairs]),
                Figure.of("quota used, 1", "%", [100 * one.used for one, _ in pairs]),
                Figure.of("quota used, 2", "%", [100 * two.used for _, two in pairs]),
            ),
        )

    def _round(self, bench: Bench, feed: Feed, count: int) -> _Sample:
        names = [unique_name("esmd-bench") for _ in range(count)]
        mapping = {**feed.mapping, "BatchSize": _BATCH}
        with (
            quota.groups(names, _SHARE) as groups,
            bench.redis() as redis,
            bench.sink(mark=self._source.mark) as sink,
            bench.node(mapping, redis=redis, sink=sink.url, processes=count) as node,
        ):
            workers = _limited(node, groups)
            wait_for(lambda: _shared(node, count), f"{count} processes that share the partitions", within_s=_LIMIT_S)
            wait_for(lambda: sink.counts().records > 0, "records", within_s=_LIMIT_S)
            if not bench.options.quick:
                time.sleep(_SETTLE_S)
            begun, began, before = sink.counts(), time.monotonic(), _cpu_s(workers)
            ends_at = began + bench.options.seconds
            while time.monotonic() < ends_at and sink.counts().records < feed.records * _END_SHARE:
                time.sleep(_POLL_S)
            counts, took, used = sink.counts(), time.monotonic() - began, _cpu_s(workers) - before
            _end(node, workers)
        records = counts.records - begun.records
        if not records and not bench.options.quick:
            raise BenchmarkFailedError(f"{self.name}: no record in {took:g} s")
        return _Sample(max(records, 1) / took, max(records, 1) / max(used, 0.01), used / took / (_SHARE * count))


def _limited(node: NodeUnderTest, groups: list[Path]) -> list[psutil.Process]:
    """Return the processes that work, each in a group of its own from its beginning on."""
    if len(groups) == 1:
        quota.put(node.child.pid, groups[0])
        return [psutil.Process(node.child.pid)]
    parent = psutil.Process(node.child.pid)
    wait_for(lambda: node.child.usage().at > 0 and len(parent.children()) == len(groups), "its processes")
    found = parent.children()
    for child, group in zip(found, groups, strict=True):
        quota.put(child.pid, group)
    return found


def _shared(node: NodeUnderTest, count: int) -> bool:
    held = node.held()
    return node.ready() and len(held) == _PARTITIONS and len(set(held.values())) == count


def _cpu_s(workers: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (one.cpu_times() for one in workers))


def _end(node: NodeUnderTest, workers: list[psutil.Process]) -> None:
    """Kill everybody: the Redis goes too, nobody takes over. The parent first, who would start them again."""
    node.child.end(signal.SIGKILL)
    for one in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(workers, timeout=10)
