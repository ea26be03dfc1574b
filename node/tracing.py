"""Whether this node makes traces, and where they go: as the environment says to every OpenTelemetry program.

OpenTelemetry itself is an extra, `pip install 'esmd[otel]'`. `node.otel` alone imports it, once traces are wanted.
"""

from __future__ import annotations

import asyncio
import importlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from pollers.tracing import NO_TRACING, no_traces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from pollers.tracing import EventTracing, Traces

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FLUSH_S = 3.0
"""How long a node that has drained waits for its last spans to be sent."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracesUnavailableError(Exception):
    """Traces cannot be made; the message says why."""


class Sending(Protocol):
    """Spans on their way: `node.otel.Spans`."""

    @property
    def traces(self) -> Traces:
        """What makes them, of mappings."""

    @property
    def events(self) -> EventTracing:
        """What makes them, of asynchronous invocations."""

    async def finish(self, limit_s: float) -> None:
        """Send what is still here, within so long, and end. Raises nothing but CancelledError."""


@dataclass(slots=True)
class SpanCounts:
    """What became of spans that are recorded. Sent and failed count for each exporter, if there are several."""

    made: int = 0
    sent: int = 0
    failed: int = 0  # not taken by the collector


@dataclass(frozen=True, slots=True, eq=False)
class NodeTraces(Collector):
    """What traces mappings and asynchronous invocations, and the metric that counts spans."""

    of: Traces = no_traces
    events: EventTracing = NO_TRACING
    counts: SpanCounts = field(default_factory=SpanCounts)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the counts; nothing where no traces are made."""
        if self.of is no_traces:
            return ()
        spans = CounterMetricFamily("esm_spans", "Recorded spans, by what became of them.", labels=["result"])
        for result in ("made", "sent", "failed"):
            spans.add_metric([result], getattr(self.counts, result))
        return (spans,)


def wanted_exporters(environ: Mapping[str, str]) -> list[str]:
    """Return the exporters that are asked for, as packages name theirs (`opentelemetry_traces_exporter`).

    Without `OTEL_TRACES_EXPORTER` an endpoint has to be named: nobody wants a node to look for a collector that nobody
    has spoken of.
    """
    if _setting(environ, "OTEL_SDK_DISABLED").lower() == "true":
        return []
    default = "otlp" if any(_setting(environ, name) for name in _ENDPOINTS) else ""
    named = (name.strip() for name in (_setting(environ, "OTEL_TRACES_EXPORTER") or default).split(","))
    grpc = next(filter(None, (_setting(environ, name) for name in _PROTOCOLS)), "") == "grpc"
    otlp = "otlp_proto_grpc" if grpc else "otlp_proto_http"
    return list(dict.fromkeys(otlp if name == "otlp" else name for name in named if name not in ("", "none")))


@asynccontextmanager
async def tracing(environ: Mapping[str, str], *, node: str) -> AsyncIterator[NodeTraces]:
    """Give what traces this node, if the environment asks for that. A node works also where traces cannot be made.

    At the end spans that are still here are sent, within `FLUSH_S`; after a cancellation nothing is waited for.
    """
    exporters = wanted_exporters(environ)
    if not exporters:
        yield NodeTraces()
        return
    counts = SpanCounts()
    try:
        # Slow for the first time: it imports and reads what is installed.
        sending = await asyncio.to_thread(_start, exporters, environ, node, counts)
    except TracesUnavailableError as exc:
        log.warning("traces.off", why=str(exc))
        yield NodeTraces()
        return
    log.info("traces.on", exporters=exporters)
    limit_s = FLUSH_S
    try:
        yield NodeTraces(sending.traces, sending.events, counts)
    except asyncio.CancelledError:
        limit_s = 0.0  # a second signal: stop at once
        raise
    finally:
        await sending.finish(limit_s)


def _start(exporters: Sequence[str], environ: Mapping[str, str], node: str, counts: SpanCounts) -> Sending:
    try:
        otel = importlib.import_module("node.otel")
    except ModuleNotFoundError as exc:
        if not (exc.name or "").startswith("opentelemetry"):
            raise
        raise TracesUnavailableError("OpenTelemetry is not installed: pip install 'esmd[otel]'") from exc
    started: Sending = otel.start(exporters, environ, node=node, counts=counts)
    return started


def _setting(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()
