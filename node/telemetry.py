"""Prometheus metrics, with the names of the contract (section 6), made when a scrape asks.

Nothing is registered or counted through `prometheus_client` while records flow: the collector reads plain counters
(`pollers.counters`), the leasing service and the watchdog.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from leasing.held import Reason
from model.progress import CircuitState
from pollers.counters import DURATION_BOUNDS_S, Counters, MeterLabels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from model.ids import MappingId, ShardKey
    from node.health import LeasingFacts
    from node.watchdog import LoopLag
    from pollers.counters import DurationHistogram, Meters

LABELS = MeterLabels._fields

COUNTS = {
    "polled": ("esm_polled_event_count", "Records read from the source."),
    "filtered_out": ("esm_filtered_out_event_count", "Records removed by the mapping's filters."),
    "invoked": ("esm_invoked_event_count", "Records handed to the function; a retried record counts again."),
    "failed_invoke": ("esm_failed_invoke_event_count", "Records of invocations that failed, wholly or in part."),
    "missed_firings": ("esm_missed_firings", "Firings of a schedule that nobody gets, after an outage."),
    "dropped": ("esm_dropped_event_count", "Records given up without reaching a destination."),
    "on_failure_destination_delivered": (
        "esm_on_failure_destination_delivered_event_count",
        "Records handed to the on-failure destination.",
    ),
    "on_failure_destination_delivery_errors": (
        "esm_on_failure_destination_delivery_error_count",
        "Failed attempts to hand records to the on-failure destination.",
    ),
    "deleted": ("esm_deleted_event_count", "Messages deleted from the queue after processing."),
    "committed": ("esm_committed_event_count", "Sum of the steps of committed offsets."),
    "redriven": ("esm_redriven_event_count", "Failed records that the function took in a redrive."),
    "replayed": ("esm_replayed_event_count", "Records that a function took in a replay."),
    "throttles": ("esm_throttles", "Invocations that the target had no room for."),
}
"""The counter of each field of `Counters`; the exposition adds `_total` to the names."""

FOLLOWERS = ("esm_console_followers", "Consoles that look at this node.")
"""The gauge of those who follow the node's events: its name and what it is."""

_CIRCUIT_STATES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}


class Exposition(NamedTuple):
    """A scrape's answer."""

    content_type: str
    body: bytes


class NodeCollector(Collector):
    """Reads the node's own numbers at each scrape. `labels` tells a mapping's labels by its id, if known.

    `known` tells those of all mappings: of one that no node holds anything of, all nodes must say so.
    """

    def __init__(
        self,
        meters: Meters,
        *,
        leasing: LeasingFacts,
        loop_lag: LoopLag,
        labels: Callable[[MappingId], MeterLabels | None],
        known: Callable[[], Iterable[MeterLabels]] = tuple,
    ) -> None:
        self._meters = meters
        self._known = known
        self._leasing = leasing
        self._loop_lag = loop_lag
        self._labels = labels

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return every metric of the node."""
        meters = list(self._meters)
        for field, (name, text) in COUNTS.items():
            counter = CounterMetricFamily(name, text, labels=LABELS)
            for labels, counters in meters:
                counter.add_metric(labels, getattr(counters, field))
            yield counter
        durations = HistogramMetricFamily(
            "esm_invocation_duration_seconds", "Time from sending a batch to its outcome.", labels=LABELS
        )
        for labels, counters in meters:
            durations.add_metric(labels, *cumulative(counters.durations))
        yield durations
        yield from _shards(meters)
        yield from _circuits(meters)
        yield from self._leases()
        lag = "The event loop's largest delay of the last seconds."
        yield GaugeMetricFamily("esm_event_loop_lag_seconds", lag, value=self._loop_lag.recent_max_s)

    def _leases(self) -> Iterable[Metric]:
        held = dict.fromkeys([*self._known(), *(labels for labels, _ in self._meters)], 0)
        for labels in map(self._labels_of, self._leasing.held):
            held[labels] = held.get(labels, 0) + 1
        gauge = GaugeMetricFamily("esm_leases_held", "Leases this node holds, trackers included.", labels=LABELS)
        for labels, count in held.items():
            gauge.add_metric(labels, count)
        yield gauge
        yield _transitions(self._leasing.transitions)

    def _labels_of(self, key: ShardKey) -> MeterLabels:
        return self._labels(key.mapping) or MeterLabels(key.mapping, "")


class Telemetry:
    """The node's registry. Others may add collectors of their own to `registry`."""

    def __init__(self, collector: Collector) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(collector)
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a number that is asked for at each scrape."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def exposition(self, accept: str = "") -> Exposition:
        """Return all metrics in the format asked for by an Accept header."""
        encode, content_type = choose_encoder(accept)
        return Exposition(content_type, encode(self.registry))


def _shards(meters: Iterable[tuple[MeterLabels, Counters]]) -> Iterable[Metric]:
    """Return what is summed up over the shards held here; what no shard knows is left out rather than 0."""
    parked = GaugeMetricFamily("esm_parked_event_count", "Records parked now.", labels=LABELS)
    age = GaugeMetricFamily("esm_iterator_age_seconds", "Age of the oldest unfinished record.", labels=LABELS)
    offset_lag = GaugeMetricFamily(
        "esm_offset_lag", "Records between the last finished one and the end.", labels=LABELS
    )
    imbalance = GaugeMetricFamily("esm_ledger_imbalance", "Records unaccounted for: 0 unless defect.", labels=LABELS)
    loss = GaugeMetricFamily(
        "esm_retention_loss_seconds", "Forecast: until the source deletes unfinished records.", labels=LABELS
    )
    for labels, counters in meters:
        views = [probe() for probe in counters.probes.values()]
        ages = [view.report.lag_s for view in views if view.report.lag_s is not None]
        lags = [view.report.lag_records for view in views if view.report.lag_records is not None]
        parked.add_metric(labels, sum(view.ledger.parked for view in views))
        imbalance.add_metric(labels, sum(abs(view.ledger.imbalance) for view in views))
        if ages:
            age.add_metric(labels, max(ages))
        if lags:
            offset_lag.add_metric(labels, sum(lags))
        losses = [view.report.loss_in_s for view in views if view.report.loss_in_s is not None]
        if losses:
            loss.add_metric(labels, min(losses))
    return parked, age, offset_lag, imbalance, loss


def _circuits(meters: Iterable[tuple[MeterLabels, Counters]]) -> Iterable[Metric]:
    """Return how the functions' circuits stand; of mappings not worked on here only the count of transitions."""
    state = GaugeMetricFamily(
        "esm_circuit_state", "Whether the function is called: 0 closed, 1 half-open, 2 open.", labels=LABELS
    )
    limit = GaugeMetricFamily(
        "esm_invocation_limit", "Batches that a function which throttles is given at once.", labels=LABELS
    )
    turns = CounterMetricFamily("esm_circuit_transitions", "Changes of the circuit's state.", labels=[*LABELS, "to"])
    for labels, counters in meters:
        if counters.circuit is not None:
            report = counters.circuit()
            state.add_metric(labels, _CIRCUIT_STATES[report.state])
            if report.limit is not None:
                limit.add_metric(labels, report.limit)
        for to in CircuitState:
            turns.add_metric([*labels, to], counters.circuit_transitions.get(to, 0))
    return state, limit, turns


def _transitions(by_reason: Mapping[str, int]) -> Metric:
    counter = CounterMetricFamily("esm_lease_transitions", "Leases gained and lost.", labels=["reason"])
    # Also those that were not yet: Prometheus sees no increase in a series that begins with 1.
    for reason in Reason:
        counter.add_metric([reason], by_reason.get(reason, 0))
    return counter


def cumulative(histogram: DurationHistogram) -> tuple[list[tuple[str, float]], float]:
    """Return buckets and sum in the form that Prometheus wants."""
    bounds = [*map(str, DURATION_BOUNDS_S), "+Inf"]
    totals = accumulate(histogram.buckets)
    return [(bound, float(total)) for bound, total in zip(bounds, totals, strict=True)], histogram.sum_s
