"""The page of metrics: asked of the collectors that a node registers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily

from config.settings import Settings
from docs.making.words import code, grid, head
from leasing.held import Reason
from model.progress import CircuitState
from node.async_queue import AsyncCollector
from node.function_side import FunctionSide
from node.invoke_metrics import InvokeMeters, Result
from node.placement import Placement
from node.rate_limits import Kind, RateLimits
from node.sandboxing import SandboxCollector
from node.telemetry import FOLLOWERS, LABELS, NodeCollector
from node.tracing import NodeTraces
from node.watchdog import LoopLag
from pollers.async_counters import AsyncMeters
from pollers.counters import Meters
from statemgr.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric

SUFFIXES = {"counter": "_total"}
"""What the exposition adds to a family's name, but for the series of histograms and summaries."""

VALUES: Mapping[tuple[str, str], Iterable[str]] = {
    ("esm_lease_transitions_total", "reason"): Reason,
    ("esm_circuit_transitions_total", "to"): CircuitState,
    ("esm_frontend_invocations_total", "result"): Result,
    ("esm_api_throttles_total", "kind"): Kind,
}
"""What a label may be, where it is one of a few words."""

_INTRODUCTION = """
What a node tells at `/metrics`, in Prometheus's format. AWS's names where AWS has the metric. `mapping` is the
mapping's name, `source` the kind of its source. Sums over nodes are the fleet's, but for gauges that each node tells
of itself. [Operations](../operations.md#what-to-watch) says what to alert on, and `deploy/` has rules and a
dashboard.

A histogram NAME has the series `NAME_bucket`, `NAME_sum` and `NAME_count`, a summary the last two. Metrics of
functions are there from their first invocation on, but for `esm_function_reserved_concurrency`. `process_…` and
`python_…` are those of Prometheus's Python client.
"""

_GROUPS = {
    "Mappings": "with the labels `mapping` and `source`, and those that are named.",
    "Functions": "of all kinds, called by pollers, over the API, by schedules or by URL.",
    "The node": "",
}


def page() -> str:
    """Return the page."""
    found = sorted(families(), key=name_of)
    parts = [head(__name__, "Metrics"), _INTRODUCTION]
    for group, about in _GROUPS.items():
        rows = [_row(family) for family in found if _group(family) == group]
        parts += [f"\n## {group}\n\n", f"{about[:1].upper()}{about[1:]}\n\n" if about else ""]
        parts.append(grid(("Metric", "Type", "Labels", "What it is"), rows))
    return "".join(parts)


def families() -> list[Metric]:
    """Return every family that a node may tell, without values."""
    workers: Any = SimpleNamespace(counts=dict, counters={})
    leasing: Any = SimpleNamespace(held=(), transitions={})
    idle: Any = SimpleNamespace(placing=SimpleNamespace(forwarded={}))
    traces: Any = object()
    found: list[Metric] = [GaugeMetricFamily(*FOLLOWERS)]
    for collector in (
        NodeCollector(Meters(), leasing=leasing, loop_lag=LoopLag(), labels=lambda _mapping: None),
        SandboxCollector(workers),
        InvokeMeters(),
        FunctionSide(Settings(), MemoryStore()),
        AsyncCollector(AsyncMeters()),
        NodeTraces(of=traces),
        RateLimits(Settings().rate_limits),
    ):
        found += collector.collect()
    return [*found, *Placement.collect(idle)]


def name_of(family: Metric) -> str:
    """Return a family's name as it is asked for."""
    return family.name + SUFFIXES.get(family.type, "")


def _labels(family: Metric) -> tuple[str, ...]:
    return tuple(getattr(family, "_labelnames", ()))


def _group(family: Metric) -> str:
    if set(LABELS) <= set(_labels(family)):
        return "Mappings"
    return "Functions" if "function" in _labels(family) else "The node"


def _row(family: Metric) -> tuple[str, str, str, str]:
    name = name_of(family)
    labels = []
    for label in _labels(family):
        if label in LABELS:
            continue
        values = VALUES.get((name, label))
        labels.append(code(label) + ("" if values is None else f" ({', '.join(values)})"))
    return code(name), family.type, ", ".join(labels), family.documentation
