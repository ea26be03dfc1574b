"""What a mapping did on this node, counted in plain integers.

The loops add to attributes; nobody formats, locks or looks anything up by label while records flow. `node.telemetry`
reads everything when a scrape asks and gives it the names of the contract; `controlplane.status` asks the probes what
a shard is doing right now.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.ids import ShardKey
    from model.progress import CircuitReport, CircuitState, Ledger, ShardReport

DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds, inclusive, of the histogram's buckets; one more takes what is longer (a function may take 900 s)."""


class DurationHistogram(msgspec.Struct):
    """How long invocations took. Buckets are not cumulative here; the exporter adds them up."""

    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one invocation."""
        self.buckets[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    @property
    def count(self) -> int:
        """How many invocations were counted."""
        return sum(self.buckets)


class ShardView(NamedTuple):
    """One shard as its holder sees it now."""

    report: ShardReport
    ledger: Ledger


class ShardProbe(Protocol):
    """Answers at once, from memory: called for every shard at every scrape."""

    def __call__(self) -> ShardView:
        """Return the shard's present view, ages counted up to now."""


class CircuitProbe(Protocol):
    """Answers at once, from memory."""

    def __call__(self) -> CircuitReport:
        """Return how the circuit of the mapping's function stands."""


class Counters(msgspec.Struct):
    """One mapping's counts on this node since the process started, in AWS's sense of each metric (spec section 9)."""

    polled: int = 0
    filtered_out: int = 0
    invoked: int = 0  # records handed to the function; a retried record counts again, also after a throttle
    failed_invoke: int = 0  # records of failed invocations, whole batches also for partial failures
    dropped: int = 0
    on_failure_destination_delivered: int = 0
    on_failure_destination_delivery_errors: int = 0  # attempts
    deleted: int = 0  # SQS: messages deleted after processing
    committed: int = 0  # Kafka: sum of the committed offsets' steps
    throttles: int = 0  # invocations
    missed_firings: int = 0  # of a schedule: that nobody gets
    redriven: int = 0  # records that the function took in a redrive from a destination
    replayed: int = 0  # records that a function took in a replay
    durations: DurationHistogram = msgspec.field(default_factory=DurationHistogram)
    probes: dict[ShardKey, ShardProbe] = msgspec.field(default_factory=dict)  # of the shards held here
    circuit: CircuitProbe | None = None  # of the function, while the mapping is worked on here
    circuit_transitions: dict[CircuitState, int] = msgspec.field(default_factory=dict)  # by the state they led to

    @contextmanager
    def probed(self, key: ShardKey, probe: ShardProbe) -> Iterator[None]:
        """Have a shard shown by `probe` while the body runs."""
        self.probes[key] = probe
        try:
            yield
        finally:
            self.probes.pop(key, None)


class MeterLabels(NamedTuple):
    """The labels of every metric of a mapping."""

    mapping: str  # its name
    source: str  # `model.mapping.SourceKind`


class Meters:
    """The counters of all mappings this node works on, or worked on since it started."""

    def __init__(self) -> None:
        self._counters: dict[MeterLabels, Counters] = {}

    def of(self, mapping: str, source: str) -> Counters:
        """Return the mapping's counters, always the same ones, so that they go on after a hand-over and back."""
        labels = MeterLabels(mapping, source)
        counters = self._counters.get(labels)
        if counters is None:
            counters = self._counters[labels] = Counters()
        return counters

    def forget(self, mapping: str) -> None:
        """Drop a deleted mapping's counters."""
        for labels in [labels for labels in self._counters if labels.mapping == mapping]:
            del self._counters[labels]

    def view(self, key: ShardKey) -> ShardView | None:
        """Return what a shard held here is doing now; None when it is not held here."""
        for counters in self._counters.values():
            probe = counters.probes.get(key)
            if probe is not None:
                return probe()
        return None

    def __iter__(self) -> Iterator[tuple[MeterLabels, Counters]]:
        return iter(list(self._counters.items()))
