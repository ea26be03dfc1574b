"""What each alert of deploy/prometheus fires for, and what it does not, in the notation of promtool's unit tests.

A sample a minute. `NEW` stands for scrapes at which a series was not there yet: its node had not started, or had
nothing of the mapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NEW = "_x20"
_MAPPING = {"mapping": "orders"}
_FUNCTION = {"function": "bill"}


@dataclass(frozen=True)
class Case:
    """Series that an alert fires for at a minute, with the summary it then has; and series it is quiet for."""

    alert: str
    labels: Mapping[str, str]
    summary: str
    fires: Mapping[str, str]
    quiet: Mapping[str, str]
    minute: int = 25

    @classmethod
    def of_one(
        cls,
        alert: str,
        labels: Mapping[str, str],
        summary: str,
        series: str,
        *,
        fires: str,
        quiet: str,
        minute: int = 25,
    ) -> Case:
        """Return the case of one series: values that the alert fires for, and values that it is quiet for."""
        return cls(alert, labels, summary, {series: fires}, {series: quiet}, minute)

    def tests(self, rule: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the two tests."""
        description = rule["annotations"]["description"]
        for name, value in self.labels.items():
            description = description.replace(f"{{{{ $labels.{name} }}}}", value)
        firing = {
            "exp_labels": {**self.labels, **rule["labels"]},
            "exp_annotations": {"summary": self.summary, "description": description},
        }
        return [self._test(self.fires, [firing]), self._test(self.quiet, [])]

    def _test(self, series: Mapping[str, str], alerts: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [
                {"eval_time": f"{self.minute}m", "alertname": self.alert, "exp_alerts": alerts},
            ],
        }


def _of(metric: str, *, instance: str = "a", **labels: str) -> str:
    """Return a series of a mapping."""
    return _series(metric, instance=instance, mapping="orders", source="kafka", **labels)


def _series(metric: str, **labels: str) -> str:
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


CASES = [
    Case.of_one(
        "EsmdLedgerImbalance",
        _MAPPING,
        "orders: 3 records are unaccounted for",
        _of("esm_ledger_imbalance"),
        fires="0x20 3x20",
        quiet="0x24 3x20",  # not for a minute yet
    ),
    Case(
        "EsmdRecordsLostSoon",
        _MAPPING,
        "orders: the source deletes unfinished records in 30m 0s",
        {
            _of("esm_retention_loss_seconds"): "7200x20 1800x20",
            _of("esm_retention_loss_seconds", instance="b"): "9e9x40",
        },
        {_of("esm_retention_loss_seconds"): "7200x40"},
    ),
    Case(
        "EsmdMappingWithoutHolder",
        _MAPPING,
        "orders: no node holds anything of it",
        {_of("esm_leases_held"): "3x20 0x20", _of("esm_leases_held", instance="b"): "0x40"},
        {_of("esm_leases_held"): "3x20 0x20", _of("esm_leases_held", instance="b"): "0x20 3x20"},  # handed over
    ),
    Case(
        "EsmdNodesAway",
        {},
        "No node of esmd is scraped",
        {_series("esm_event_loop_lag_seconds", instance="a"): "0x15"},
        {_series("esm_event_loop_lag_seconds", instance="b"): "0x40"},
    ),
    Case(
        "EsmdLeasesLost",
        {"reason": "term_ended"},
        "Leases ended without a hand-over: term_ended",
        {_series("esm_lease_transitions_total", reason="term_ended"): "0x20 1x20"},  # the first one, too
        {
            _series("esm_lease_transitions_total", reason="released"): "0x20 9x20",
            _series("esm_lease_transitions_total", reason="taken"): "4x40",
        },
    ),
    Case.of_one(
        "EsmdHandOversTimeOut",
        {},
        "Shards did not become quiet in time when they moved",
        _series("esm_lease_transitions_total", reason="drain_timeout"),
        fires="0x20 1x20",
        quiet="2x40",
    ),
    Case(
        "EsmdEventLoopSlow",
        {},
        "A node's event loop is 2.5s late",
        {
            _series("esm_event_loop_lag_seconds", instance="a"): "2.5x40",
            _series("esm_event_loop_lag_seconds", instance="b"): "0x40",
        },
        {_series("esm_event_loop_lag_seconds", instance="a"): "0x22 2.5x1 0x20"},
    ),
    Case(
        "EsmdRecordsAging",
        _MAPPING,
        "orders: the oldest unfinished record is 10m 0s old",
        {_of("esm_iterator_age_seconds"): "600x40", _of("esm_iterator_age_seconds", instance="b"): "1x40"},
        {_of("esm_iterator_age_seconds"): "600x22 1x20"},
    ),
    Case.of_one(
        "EsmdCircuitOpen",
        _MAPPING,
        "orders: its function is not reached",
        _of("esm_circuit_state"),
        fires="2 2 1 2 2 1 2x30",  # half open at times
        quiet="2x20 0x20",
    ),
    Case(
        "EsmdFunctionFails",
        _MAPPING,
        "orders: 75% of the records handed to the function fail",
        {
            _of("esm_failed_invoke_event_count_total"): "0+75x40",
            _of("esm_invoked_event_count_total"): "0+100x40",
        },
        {
            _of("esm_failed_invoke_event_count_total"): "0+40x40",
            _of("esm_invoked_event_count_total"): "0+100x40",
        },
    ),
    Case.of_one(
        "EsmdKeysParked",
        _MAPPING,
        "orders: 12 records of failing keys are parked",
        _of("esm_parked_event_count"),
        fires="12x40",
        quiet="12x20 0 12x20",  # others each time
        minute=35,
    ),
    Case(
        "EsmdRecordsDropped",
        _MAPPING,
        "orders: 7 records were given up and not kept",
        {
            _of("esm_dropped_event_count_total"): f"{NEW} 7x20",
            _of("esm_dropped_event_count_total", instance="b"): "0x40",
        },
        {
            _of("esm_dropped_event_count_total"): "7x40",
            _of("esm_dropped_event_count_total", instance="b"): f"{NEW} 0x20",
        },
    ),
    Case.of_one(
        "EsmdFiringsMissed",
        _MAPPING,
        "orders: 2 firings of the schedule came to nothing",
        _of("esm_missed_firings_total"),
        fires=f"{NEW} 2x20",  # the first thing a node does after an outage
        quiet="2x40",
    ),
    Case.of_one(
        "EsmdRecordsAtDestination",
        _MAPPING,
        "orders: 5 records went to the on-failure destination",
        _of("esm_on_failure_destination_delivered_event_count_total"),
        fires=f"{NEW} 5x20",
        quiet="5x40",
    ),
    Case.of_one(
        "EsmdDestinationRefuses",
        _MAPPING,
        "orders: its on-failure destination does not take what fails",
        _of("esm_on_failure_destination_delivery_error_count_total"),
        fires="0+1x40",
        quiet="0x20 1x20",  # once
        minute=35,
    ),
    Case.of_one(
        "EsmdAsyncEventsDropped",
        _FUNCTION,
        "bill: 1 asynchronous invocations failed and are kept nowhere",
        _series("esm_async_events_dropped_total", function="bill", instance="a"),
        fires=f"{NEW} 1x20",
        quiet=f"{NEW} 0x20",
    ),
    Case(
        "EsmdAsyncDestinationRefuses",
        _FUNCTION,
        "bill: a destination or dead-letter queue of its asynchronous invocations takes nothing",
        {
            _series("esm_async_destination_delivery_failures_total", function="bill"): "0x40",
            _series("esm_async_dead_letter_errors_total", function="bill"): "0+1x40",
        },
        {
            _series("esm_async_destination_delivery_failures_total", function="bill"): "3x40",
            _series("esm_async_dead_letter_errors_total", function="bill"): "0x40",
        },
    ),
    Case.of_one(
        "EsmdFunctionDoesNotStart",
        _FUNCTION,
        "bill: its execution environments fail while they start",
        _series("esm_failed_inits_total", function="bill"),
        fires="0+1x40",
        quiet="0 1x40",
    ),
    Case.of_one(
        "EsmdFunctionThrottled",
        _FUNCTION,
        "bill: invocations are throttled",
        _series("esm_function_throttles_total", function="bill"),
        fires="0+3x40",
        quiet="0+3x4 12x40",  # a burst
    ),
    Case(
        "EsmdConcurrencyUsedUp",
        {**_FUNCTION, "reason": "ReservedFunctionConcurrentInvocationLimitExceeded"},
        "bill: invocations are throttled for the fleet's limit",
        {
            _series(
                "esm_concurrency_throttles_total",
                function="bill",
                reason="ReservedFunctionConcurrentInvocationLimitExceeded",
            ): "0+3x40"
        },
        {
            _series(
                "esm_concurrency_throttles_total", function="bill", reason="ConcurrentInvocationLimitExceeded"
            ): "5x40"
        },
    ),
    Case(
        "EsmdConcurrencyNearlyUsedUp",
        _FUNCTION,
        "bill: 95% of its reserved concurrency is in use",
        {
            _series("esm_function_concurrency", function="bill", instance="a"): "10x40",
            _series("esm_function_concurrency", function="bill", instance="b"): "9x40",
            _series("esm_function_reserved_concurrency", function="bill", instance="a"): "20x40",
            _series("esm_function_reserved_concurrency", function="bill", instance="b"): "20x40",
        },
        {
            _series("esm_function_concurrency", function="bill", instance="a"): "18x40",
            _series("esm_function_concurrency", function="free", instance="a"): "99x40",  # nothing is reserved for it
            _series("esm_function_reserved_concurrency", function="bill", instance="a"): "20x40",
        },
    ),
    Case.of_one(
        "EsmdConcurrencyShared",
        {},
        "Concurrency is limited by fixed shares of the nodes",
        _series("esm_concurrency_fallback", instance="a"),
        fires="0x20 1x20",
        quiet="1x20 0x20",
    ),
    Case(
        "EsmdFunctionCodeMissing",
        {"instance": "a"},
        "a: 2 functions of the API are not as they were changed last",
        {_series("esm_api_functions", state="failed", instance="a"): "2x40"},
        {
            _series("esm_api_functions", state="failed", instance="a"): "0x40",
            _series("esm_api_functions", state="ready", instance="a"): "2x40",
        },
    ),
]
