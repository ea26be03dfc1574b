"""The adapter of OpenTelemetry: a span for each attempt at a batch, or an asynchronous event, sent by a thread.

Nothing here holds up a delivery: what is full drops spans, what fails is told once and counted. Only this module
imports OpenTelemetry, and only `node.tracing` imports this module. The process-wide tracer provider is left alone, so
that no library begins to trace because a node does.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
from importlib.metadata import entry_points, version
from random import getrandbits
from typing import TYPE_CHECKING, Protocol, Self

import msgspec
import structlog
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from invocation.headers import trace_id
from invocation.trace_context import read_xray, xray_header
from node.trace_attributes import (
    attempt_attributes,
    ending,
    event_attributes,
    event_ending,
    mapping_attributes,
    span_name,
)
from node.tracing import TracesUnavailableError
from pollers.trace_contexts import record_contexts
from pollers.tracing import UntracedAttempt, UntracedEventAttempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

    from invocation.classify import Answer
    from invocation.trace_context import TraceContext
    from model.async_event import NewEvent
    from model.invocation import Invocation
    from model.mapping import EventSourceMapping
    from model.outcome import Outcome
    from node.trace_attributes import Attributes, Ending
    from node.tracing import SpanCounts
    from pollers.tracing import Attempt, EventAttempt

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_EXPORTERS = "opentelemetry_traces_exporter"
_WORDS = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
_ROOT = Context()  # spans begin here: batches have producers to be linked to, and no parent


def start(exporters: Sequence[str], environ: Mapping[str, str], *, node: str, counts: SpanCounts) -> Spans:
    """Begin to send spans to exporters, by the names of their entry points. Raises `TracesUnavailableError`."""
    resource = {"service.instance.id": node, "service.version": version("esmd")}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        resource["service.name"] = "esmd"
    ids, words = BatchIds(), LastWords()
    try:
        made = [WatchedExporter(_exporter(name), counts, words) for name in exporters]
        provider = TracerProvider(resource=Resource.create(resource), id_generator=ids, shutdown_on_exit=False)
        for exporter in made:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    except TracesUnavailableError:
        raise
    except Exception as exc:  # exporters are plug-ins and read their own settings
        raise TracesUnavailableError(f"{type(exc).__name__}: {exc}") from exc
    words.begin()
    return Spans(provider, ids, counts, words)


def _exporter(name: str) -> SpanExporter:
    found = next(iter(entry_points(group=_EXPORTERS, name=name)), None)
    if found is None:
        raise TracesUnavailableError(f"no exporter {name} is installed")
    made = found.load()()
    if not isinstance(made, SpanExporter):
        raise TracesUnavailableError(f"{name} exports no spans")
    return made


class BatchIds(IdGenerator):
    """Ids of spans. The trace of the next span is `next_trace`: all attempts at a batch share one."""

    def __init__(self) -> None:
        self.next_trace = 0

    def generate_trace_id(self) -> int:
        """Return the trace of the span that begins."""
        return self.next_trace

    def generate_span_id(self) -> int:
        """Return an id of no other span."""
        return getrandbits(64) or 1


class LastWords(logging.Handler):
    """Keeps the exporters' log lines to itself, down to the last: they repeat with each batch of spans."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def begin(self) -> None:
        """Take the lines from now on. What was said of settings before went where all lines go."""
        for name in _WORDS:
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        with contextlib.suppress(Exception):  # a plug-in's arguments need not fit its template
            self.text = record.getMessage()[:500]

    def end(self) -> None:
        """Let later lines go where all others go."""
        for name in _WORDS:
            logging.getLogger(name).removeHandler(self)
            logging.getLogger(name).propagate = True


class WatchedExporter(SpanExporter):
    """Counts what an exporter sends, and says once that it fails, and that it works again. Called in its thread."""

    def __init__(self, exporter: SpanExporter, counts: SpanCounts, words: LastWords) -> None:
        self._exporter = exporter
        self._counts = counts
        self._words = words
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Raises nothing."""
        try:
            result, error = self._exporter.export(spans), self._words.text
        except Exception as exc:  # noqa: BLE001 - a plug-in's
            result, error = SpanExportResult.FAILURE, f"{type(exc).__name__}: {exc}"
        if result is SpanExportResult.SUCCESS:
            self._counts.sent += len(spans)
            if self._lost:
                log.info("traces.sent_again", lost=self._lost)
            self._lost = 0
            return result
        if not self._lost:
            log.warning("traces.not_sent", error=error)
        self._counts.failed += len(spans)
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()


class Spans:
    """What makes and sends the spans of a node."""

    def __init__(self, provider: TracerProvider, ids: BatchIds, counts: SpanCounts, words: LastWords) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("esmd", version("esmd"))
        self._ids = ids
        self._counts = counts
        self._words = words
        self._failed = False

    def traces(self, mapping: EventSourceMapping) -> MappingSpans:
        """Return what traces a mapping."""
        return MappingSpans(mapping, self._begin, self._trouble)

    @property
    def events(self) -> EventSpans:
        """What traces asynchronous invocations."""
        return EventSpans(self._begin, self._trouble)

    def _begin(
        self, name: str, trace: str, attributes: Attributes, links: Callable[[], Iterable[TraceContext]]
    ) -> Span:
        """Begin a span in a trace of 32 hexadecimal digits. Links are looked for only if it is recorded."""
        self._ids.next_trace = int(trace, 16)
        span = self._tracer.start_span(name, _ROOT, SpanKind.CONSUMER, attributes)
        if span.is_recording():
            self._counts.made += 1
            for theirs in links():
                flags = TraceFlags(TraceFlags.SAMPLED if theirs.sampled else TraceFlags.DEFAULT)
                span.add_link(SpanContext(theirs.trace_id, theirs.span_id, is_remote=True, trace_flags=flags))
        return span

    def _trouble(self, exc: Exception) -> None:
        if not self._failed:
            log.error("traces.failed", exc_info=exc)
        self._failed = True

    async def finish(self, limit_s: float) -> None:
        """Send what is still here, within so long, and end."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(done.set)

        # Not in the loop's own threads: those are waited for when the loop is closed.
        threading.Thread(target=shut_down, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(limit_s):
                await done.wait()
        except TimeoutError:
            log.warning("traces.cut_off", after_s=limit_s)
        finally:
            self._words.end()


class Begin(Protocol):
    """Begins a span."""

    def __call__(
        self, name: str, trace: str, attributes: Attributes, links: Callable[[], Iterable[TraceContext]], /
    ) -> Span:
        """Return it."""


class MappingSpans:
    """Traces the attempts of one mapping."""

    def __init__(self, mapping: EventSourceMapping, begin: Begin, trouble: Callable[[Exception], None]) -> None:
        self._source = mapping.source
        self._name = span_name(mapping)
        self._attributes = mapping_attributes(mapping)
        self._begin = begin
        self._trouble = trouble

    def attempt(self, invocation: Invocation, records: int) -> Attempt:
        """Begin a span; where that fails, go on without one."""
        try:
            return self._begun(invocation, records)
        except Exception as exc:  # noqa: BLE001 - samplers are plug-ins, and a delivery does not fail for its trace
            self._trouble(exc)
            return UntracedAttempt(invocation)

    def _begun(self, invocation: Invocation, records: int) -> SpanAttempt:
        attributes = self._attributes | attempt_attributes(self._source, invocation, records)
        span = self._begin(
            self._name,
            trace_id(invocation.batch_id),
            attributes,
            lambda: record_contexts(self._source.kind, invocation.event),
        )
        return SpanAttempt(span, msgspec.structs.replace(invocation, traceparent=_traceparent(span)), self._trouble)


class EventSpans:
    """Traces the attempts at events of asynchronous invocations. All attempts at an event belong to one trace."""

    def __init__(self, begin: Begin, trouble: Callable[[Exception], None]) -> None:
        self._begin = begin
        self._trouble = trouble

    def event_attempt(self, event: NewEvent, number: int) -> EventAttempt:
        """Begin a span; where that fails, go on without one."""
        try:
            caller = read_xray(event.trace)
            span = self._begin(
                f"process {event.line}",
                trace_id(event.request_id),
                event_attributes(event, number),
                lambda: () if caller is None else (caller,),
            )
            own = xray_header(_traceparent(span))
            return SpanEventAttempt(span, dataclasses.replace(event, trace=own), self._trouble)
        except Exception as exc:  # noqa: BLE001 - as above
            self._trouble(exc)
            return UntracedEventAttempt(event)


def _traceparent(span: Span) -> str:
    own = span.get_span_context()
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def _end(span: Span, found: Ending) -> None:
    span.set_attributes(found.attributes)
    if found.error is not None:
        span.set_status(Status(StatusCode.ERROR, found.error))
    span.end()


class SpanAttempt:
    """An attempt with its span."""

    def __init__(self, span: Span, invocation: Invocation, trouble: Callable[[Exception], None]) -> None:
        self._span = span
        self._trouble = trouble
        self.invocation = invocation
        self.outcome: Outcome | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the span. An exception on its way is not the span's affair: it tells of an attempt without outcome."""
        try:
            _end(self._span, ending(self.outcome))
        except Exception as exc:  # noqa: BLE001 - as above
            self._trouble(exc)


class SpanEventAttempt:
    """An attempt at an event of an asynchronous invocation, with its span."""

    def __init__(self, span: Span, event: NewEvent, trouble: Callable[[Exception], None]) -> None:
        self._span = span
        self._trouble = trouble
        self.event = event
        self.answer: Answer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the span, as above."""
        try:
            _end(self._span, event_ending(self.answer))
        except Exception as exc:  # noqa: BLE001 - as above
            self._trouble(exc)
