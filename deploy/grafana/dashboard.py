"""Print the Grafana dashboard: `python deploy/grafana/dashboard.py > deploy/grafana/esmd.json`.

Rows go from what users feel (are records getting old?) to why. Needs Grafana 10 or later and a Prometheus data source.
"""

from __future__ import annotations

import json
import sys
from itertools import count
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF = '{mapping=~"$mapping"}'
RATE = "[$__rate_interval]"
WIDTH = 24
_LOW = 4
_NUMBERS, _GRAPHS = 6, 3  # beside each other


def per_second(metric: str, by: str = "mapping", matching: str = OF) -> str:
    """Return the rate of a counter over all nodes."""
    return f"sum by ({by}) (rate({metric}{matching}{RATE}))"


def worst(metric: str, how: str = "max") -> str:
    """Return the worst of what the nodes tell."""
    return f"{how} by (mapping) ({metric}{OF})"


def quantile(q: float, metric: str, by: str, matching: str) -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({q}, {per_second(f'{metric}_bucket', f'{by}, le', matching)})"


def graph(title: str, unit: str, *queries: tuple[str, str], about: str = "", stacked: bool = False) -> dict[str, Any]:
    """Return a panel of time series; each query with its legend."""
    custom = {
        "fillOpacity": 10,
        "lineWidth": 1,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none"},
    }
    return {
        "type": "timeseries",
        "title": title,
        "description": about,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": _targets(queries),
    }


def number(title: str, unit: str, query: str, *, bad: float | None = None, about: str = "") -> dict[str, Any]:
    """Return a panel with one number, red from `bad` on."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if bad is not None:
        steps.append({"color": "red", "value": bad})
    return {
        "type": "stat",
        "title": title,
        "description": about,
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
        "targets": _targets([(query, "")]),
    }


def _targets(queries: Any) -> list[dict[str, Any]]:
    return [
        {"datasource": SOURCE, "expr": expression, "legendFormat": legend, "refId": chr(ord("A") + place)}
        for place, (expression, legend) in enumerate(queries)
    ]


ROWS: list[tuple[str, int, list[dict[str, Any]]]] = [
    (
        "Now",
        _LOW,
        [
            number("Oldest unfinished record", "s", f"max(esm_iterator_age_seconds{OF})", bad=300),
            number("Records a second", "cps", f"sum(rate(esm_polled_event_count_total{OF}{RATE}))"),
            number(
                "Invocation p99",
                "s",
                f"histogram_quantile(0.99, sum by (le) (rate(esm_invocation_duration_seconds_bucket{OF}{RATE})))",
            ),
            number(
                "Parked",
                "short",
                f"sum(esm_parked_event_count{OF})",
                bad=1,
                about="Records of failing keys, tried again by themselves.",
            ),
            number(
                "Circuits not closed",
                "short",
                f"count(max by (mapping) (esm_circuit_state{OF}) >= 1) or vector(0)",
                bad=1,
            ),
            number("Unaccounted", "short", f"sum(esm_ledger_imbalance{OF})", bad=1, about="Not 0: a defect of esmd."),
        ],
    ),
    (
        "Flow",
        8,
        [
            graph("Age of the oldest unfinished record", "s", (worst("esm_iterator_age_seconds"), "{{mapping}}")),
            graph(
                "Records behind",
                "short",
                (f"sum by (mapping) (esm_offset_lag{OF})", "{{mapping}}"),
                about="Kafka only.",
            ),
            graph(
                "Time until records are lost to retention",
                "s",
                (worst("esm_retention_loss_seconds", "min"), "{{mapping}}"),
                about="A forecast; there only while records are getting older.",
            ),
            graph("Polled", "cps", (per_second("esm_polled_event_count_total"), "{{mapping}}"), stacked=True),
            graph(
                "Filtered out", "cps", (per_second("esm_filtered_out_event_count_total"), "{{mapping}}"), stacked=True
            ),
            graph(
                "Handed to functions", "cps", (per_second("esm_invoked_event_count_total"), "{{mapping}}"), stacked=True
            ),
        ],
    ),
    (
        "Functions",
        8,
        [
            graph(
                "Invocation duration",
                "s",
                (quantile(0.5, "esm_invocation_duration_seconds", "mapping", OF), "{{mapping}} p50"),
                (quantile(0.99, "esm_invocation_duration_seconds", "mapping", OF), "{{mapping}} p99"),
            ),
            graph(
                "Records of failed invocations",
                "cps",
                (per_second("esm_failed_invoke_event_count_total"), "{{mapping}}"),
            ),
            graph("Throttled invocations", "cps", (per_second("esm_throttles_total"), "{{mapping}}")),
            graph(
                "Circuit", "short", (worst("esm_circuit_state"), "{{mapping}}"), about="0 closed, 1 half-open, 2 open."
            ),
            graph(
                "Batches at once allowed",
                "short",
                (worst("esm_invocation_limit", "min"), "{{mapping}}"),
                about="There only while a function throttles.",
            ),
            graph("Parked records", "short", (f"sum by (mapping) (esm_parked_event_count{OF})", "{{mapping}}")),
        ],
    ),
    (
        "Given up",
        8,
        [
            graph("Dropped", "cps", (per_second("esm_dropped_event_count_total"), "{{mapping}}")),
            graph(
                "To the on-failure destination",
                "cps",
                (per_second("esm_on_failure_destination_delivered_event_count_total"), "{{mapping}}"),
            ),
            graph(
                "Refused by the destination",
                "cps",
                (per_second("esm_on_failure_destination_delivery_error_count_total"), "{{mapping}}"),
            ),
        ],
    ),
    (
        "Nodes",
        8,
        [
            graph("Leases held", "short", ("sum by (instance) (esm_leases_held)", "{{instance}}"), stacked=True),
            graph(
                "Leases gained and lost", "cps", (per_second("esm_lease_transitions_total", "reason", ""), "{{reason}}")
            ),
            graph("Event loop lag", "s", ("max by (instance) (esm_event_loop_lag_seconds)", "{{instance}}")),
            graph(
                "CPU",
                "percentunit",
                (f"rate(process_cpu_seconds_total{RATE}) and on (instance) esm_event_loop_lag_seconds", "{{instance}}"),
            ),
            graph(
                "Memory",
                "bytes",
                ("process_resident_memory_bytes and on (instance) esm_event_loop_lag_seconds", "{{instance}}"),
            ),
            graph(
                "Offsets committed",
                "cps",
                (per_second("esm_committed_event_count_total"), "{{mapping}}"),
                about="Kafka only.",
            ),
        ],
    ),
    (
        "Functions that nodes run",
        8,
        [
            graph(
                "Environments",
                "short",
                ("sum by (function, state) (esm_environments)", "{{function}} {{state}}"),
                stacked=True,
            ),
            graph("Cold starts", "cps", (per_second("esm_cold_starts_total", "function", ""), "{{function}}")),
            graph(
                "Resets",
                "cps",
                (per_second("esm_environment_resets_total", "function, reason", ""), "{{function}} {{reason}}"),
            ),
            graph(
                "Invoke API",
                "reqps",
                (per_second("esm_frontend_invocations_total", "function, result", ""), "{{function}} {{result}}"),
            ),
            graph(
                "Invoke API, p99",
                "s",
                (quantile(0.99, "esm_frontend_duration_seconds", "function", ""), "{{function}}"),
            ),
            graph("Throttled", "cps", (per_second("esm_function_throttles_total", "function", ""), "{{function}}")),
        ],
    ),
    (
        "Asynchronous invocations",
        8,
        [
            graph(
                "Received, and over",
                "reqps",
                (per_second("esm_async_events_received_total", "function", ""), "{{function}} received"),
                (per_second("esm_async_events_over_total", "function, condition", ""), "{{function}} {{condition}}"),
            ),
            graph(
                "Attempts",
                "reqps",
                (per_second("esm_async_invocations_total", "function, result", ""), "{{function}} {{result}}"),
            ),
            graph(
                "Age at an attempt, p99",
                "s",
                (quantile(0.99, "esm_async_event_age_seconds", "function", ""), "{{function}}"),
            ),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    panels: list[dict[str, Any]] = []
    ids, y = count(1), 0
    for title, height, members in ROWS:
        panels.append(
            {"id": next(ids), "type": "row", "title": title, "collapsed": False, "gridPos": _place(0, y, WIDTH, 1)}
        )
        y += 1
        across = min(len(members), _NUMBERS if height == _LOW else _GRAPHS)
        width = WIDTH // across
        for place, panel in enumerate(members):
            at = _place(place % across * width, y + place // across * height, width, height)
            panels.append({"id": next(ids), "datasource": SOURCE, "gridPos": at, **panel})
        y += -(-len(members) // across) * height
    return {
        "uid": "esmd",
        "title": "esmd",
        "tags": ["esmd"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                {
                    "name": "mapping",
                    "type": "query",
                    "label": "Mapping",
                    "datasource": SOURCE,
                    "query": {"query": "label_values(esm_polled_event_count_total, mapping)", "refId": "mapping"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "current": {"text": "All", "value": "$__all"},
                    "sort": 1,
                },
            ]
        },
        "panels": panels,
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
