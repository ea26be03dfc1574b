"""The metrics of a node."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from leasing.held import Reason
from model.ids import TRACKER, MappingId, NodeId, ShardId, ShardKey
from model.progress import CircuitReport, CircuitState, Ledger, ShardReport
from node.telemetry import NodeCollector, Telemetry
from node.watchdog import LoopLag
from pollers.counters import DURATION_BOUNDS_S, MeterLabels, Meters, ShardView

ORDERS = MappingId("0b1c")
FIRST, SECOND = (ShardKey(ORDERS, ShardId(f"orders-{number}")) for number in range(2))


@dataclass
class Leasing:
    """Leasing as it stands."""

    node: NodeId | None = None
    held: tuple[ShardKey, ...] = ()
    awaited: int = 0
    balanced: bool = True
    transitions: dict[str, int] = field(default_factory=dict)
    last_error: str | None = None


class Bench:
    """A node's numbers and what a scrape makes of them."""

    def __init__(self) -> None:
        self.meters = Meters()
        self.leasing = Leasing()
        self.lag = LoopLag()
        names = {ORDERS: MeterLabels("orders", "kafka")}
        collector = NodeCollector(self.meters, leasing=self.leasing, loop_lag=self.lag, labels=names.get)
        self.telemetry = Telemetry(collector)

    def scrape(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return sample name, then label values, then value, through the text format."""
        text = self.telemetry.exposition().body.decode()
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
        return found


@pytest.fixture
def bench() -> Bench:
    """Return a node that has done nothing."""
    return Bench()


def test_every_counter_has_its_contract_name_and_labels(bench: Bench) -> None:
    """Each count comes out under AWS's name in Prometheus form, by mapping and source."""
    counters = bench.meters.of("orders", "kafka")
    counters.polled, counters.filtered_out, counters.invoked, counters.failed_invoke = 1, 2, 3, 4
    counters.dropped, counters.on_failure_destination_delivered, counters.deleted = 5, 6, 7
    counters.committed, counters.throttles = 8, 9
    counters.probes[FIRST] = lambda: ShardView(ShardReport(), Ledger(polled=10, parked=10))
    scraped = bench.scrape()
    names = [
        "esm_polled_event_count_total",
        "esm_filtered_out_event_count_total",
        "esm_invoked_event_count_total",
        "esm_failed_invoke_event_count_total",
        "esm_dropped_event_count_total",
        "esm_on_failure_destination_delivered_event_count_total",
        "esm_deleted_event_count_total",
        "esm_committed_event_count_total",
        "esm_throttles_total",
        "esm_parked_event_count",
    ]
    assert [scraped[name] for name in names] == [{("orders", "kafka"): value} for value in range(1, 11)]
    text = bench.telemetry.exposition().body.decode()
    assert 'esm_polled_event_count_total{mapping="orders",source="kafka"} 1.0' in text


def test_durations_are_a_cumulative_histogram(bench: Bench) -> None:
    """Buckets add up to the count, the sum is in seconds."""
    durations = bench.meters.of("orders", "kafka").durations
    for seconds in (0.0005, 0.2, 0.2, 900.0):
        durations.observe(seconds)
    scraped = bench.scrape()
    buckets = {labels[0]: value for labels, value in scraped["esm_invocation_duration_seconds_bucket"].items()}
    assert len(buckets) == len(DURATION_BOUNDS_S) + 1
    assert (buckets["0.001"], buckets["0.1"], buckets["0.25"], buckets["300.0"], buckets["+Inf"]) == (1, 1, 3, 3, 4)
    assert scraped["esm_invocation_duration_seconds_count"] == {("orders", "kafka"): 4}
    assert scraped["esm_invocation_duration_seconds_sum"][("orders", "kafka")] == pytest.approx(900.4005)


def test_lag_and_imbalance_come_from_the_shards_held_now(bench: Bench) -> None:
    """Age is the oldest shard's, offset lag and imbalance add up; a shard given up is gone from all of them."""
    probes = bench.meters.of("orders", "kafka").probes
    one, other = (
        ShardReport(lag_s=2.5, lag_records=10, loss_in_s=900),
        ShardReport(lag_s=0.5, lag_records=7, loss_in_s=70),
    )
    probes[FIRST] = lambda: ShardView(one, Ledger(polled=5, delivered=3))
    probes[SECOND] = lambda: ShardView(other, Ledger(polled=5, delivered=6))
    scraped = bench.scrape()
    orders = ("orders", "kafka")
    assert scraped["esm_iterator_age_seconds"] == {orders: 2.5}
    assert scraped["esm_offset_lag"] == {orders: 17}
    assert scraped["esm_retention_loss_seconds"] == {orders: 70}
    assert scraped["esm_ledger_imbalance"] == {orders: 3}
    probes.clear()
    scraped = bench.scrape()
    assert "esm_offset_lag" not in scraped
    assert "esm_iterator_age_seconds" not in scraped
    assert "esm_retention_loss_seconds" not in scraped
    assert scraped["esm_ledger_imbalance"] == {orders: 0}


def test_circuits_are_shown_while_a_mapping_is_worked_on(bench: Bench) -> None:
    """State and limit of each function; transitions go on being counted when the mapping has gone elsewhere."""
    counters, idle = bench.meters.of("orders", "kafka"), bench.meters.of("idle", "sqs")
    report = CircuitReport()
    counters.circuit = lambda: report
    counters.circuit_transitions = {CircuitState.OPEN: 3, CircuitState.HALF_OPEN: 2}
    assert idle.circuit is None
    for report, state in (
        (CircuitReport(), 0),
        (CircuitReport(CircuitState.HALF_OPEN, 1, 2, "refused"), 1),
        (CircuitReport(CircuitState.OPEN, 1, 2, "refused", 7), 2),
    ):
        scraped = bench.scrape()
        assert scraped["esm_circuit_state"] == {("orders", "kafka"): state}
        assert scraped.get("esm_invocation_limit", {}) == ({} if report.limit is None else {("orders", "kafka"): 7})
    assert scraped["esm_circuit_transitions_total"] == {
        (*mapping, to): count
        for mapping, counts in ((("orders", "kafka"), (0, 2, 3)), (("idle", "sqs"), (0, 0, 0)))
        for to, count in zip(("closed", "half_open", "open"), counts, strict=True)
    }
    counters.circuit = None
    scraped = bench.scrape()
    assert "esm_circuit_state" not in scraped
    assert scraped["esm_circuit_transitions_total"][("orders", "kafka", "open")] == 3


def test_leases_and_loop_lag(bench: Bench) -> None:
    """Leases are counted by mapping, transitions by reason, the loop's lag at its recent worst."""
    bench.meters.of("idle", "sqs")
    bench.leasing.held = (FIRST, ShardKey(ORDERS, TRACKER), ShardKey(MappingId("unknown"), TRACKER))
    bench.leasing.transitions = {"acquired": 3, "taken": 1}
    bench.lag.observe(0.25, now=0)
    scraped = bench.scrape()
    held = {("orders", "kafka"): 2, ("unknown", ""): 1, ("idle", "sqs"): 0}
    assert scraped["esm_leases_held"] == held
    counted = scraped["esm_lease_transitions_total"]
    assert {labels: count for labels, count in counted.items() if count} == {("acquired",): 3, ("taken",): 1}
    assert set(counted) == {(reason,) for reason in Reason}  # from 0 on, so that the first one is an increase
    assert scraped["esm_event_loop_lag_seconds"] == {(): 0.25}


def test_names_of_mappings_are_escaped(bench: Bench) -> None:
    """A mapping's name cannot break the format."""
    bench.meters.of('a"b\n', "kafka").polled = 1
    assert bench.scrape()["esm_polled_event_count_total"] == {('a"b\n', "kafka"): 1}


def test_openmetrics_is_answered_to_those_who_ask(bench: Bench) -> None:
    """The format follows the Accept header."""
    exposition = bench.telemetry.exposition("application/openmetrics-text; version=1.0.0")
    assert exposition.content_type.startswith("application/openmetrics-text")
    assert exposition.body.endswith(b"# EOF\n")
    assert bench.telemetry.exposition("").content_type.startswith("text/plain")


def test_of_a_mapping_that_nobody_holds_every_node_says_so() -> None:
    """Also a node that never worked on it: else nobody would, once those that did are gone."""
    known = [MeterLabels("orders", "kafka")]
    collector = NodeCollector(
        Meters(), leasing=Leasing(), loop_lag=LoopLag(), labels=lambda _mapping: None, known=lambda: known
    )
    (held,) = [family for family in collector.collect() if family.name == "esm_leases_held"]
    assert [(sample.labels["mapping"], sample.value) for sample in held.samples] == [("orders", 0)]
