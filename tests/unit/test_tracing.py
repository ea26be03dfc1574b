"""Whether traces are made at all, and what a delivery sees of them."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.testing import capture_logs

import node.otel
from invocation.classify import Answer
from invocation.trace_context import TraceContext, new_trace, read_xray, without_span
from model.async_event import NewEvent
from model.mapping_rules import parse_mapping
from model.outcome import Delivered, FunctionFailed, PartlyFailed
from node.tracing import tracing, wanted_exporters
from pollers.tracing import NO_TRACING, UntracedAttempt
from tests.support.mapping_documents import document
from tests.support.node_process import eventually
from tests.support.targets import invocation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from model.outcome import Outcome
    from node.tracing import NodeTraces

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
MEMORY = {"OTEL_TRACES_EXPORTER": "memory"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        (ENDPOINT, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1/x"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console,otlp"}, ["otlp_proto_http", "console"]),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, []),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": ""}, ["otlp_proto_http"]),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, []),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, ["otlp_proto_http"]),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {
                **ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ["otlp_proto_http"],
        ),
    ],
)
def test_the_environment_decides_as_for_every_opentelemetry_program(
    environ: dict[str, str], expected: list[str]
) -> None:
    """An endpoint or an exporter turns traces on; OTEL_SDK_DISABLED and `none` turn them off."""
    assert expected == wanted_exporters(environ)


def test_a_node_needs_no_opentelemetry() -> None:
    """All of it loads without the extra, and with it the adapter is not loaded until traces are wanted."""
    missing = "import sys; sys.modules['opentelemetry'] = None; import node.wiring"
    unwanted = "import sys, node.wiring; sys.exit('node.otel' in sys.modules)"
    for code in (missing, unwanted):
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_without_the_extra_a_node_says_so_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning that says what to install; no spans, no metric."""
    monkeypatch.delitem(sys.modules, "node.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with capture_logs() as lines:
        async with tracing(ENDPOINT, node="n") as traces:
            assert traces.of(parse_mapping(document("S"))) is NO_TRACING
            assert list(traces.collect()) == []
    [line] = lines
    assert (line["event"], line["log_level"]) == ("traces.off", "warning")
    assert "pip install 'esmd[otel]'" in line["why"]


@pytest.mark.parametrize("name", ["zipkin", "broken"])
async def test_an_exporter_that_cannot_be_had_stops_no_node(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is not installed, or does not like its settings."""

    def refuse() -> None:
        raise ValueError("no such compression")

    plug_in(monkeypatch, broken=refuse)
    with capture_logs() as lines:
        async with tracing({"OTEL_TRACES_EXPORTER": name}, node="n") as traces:
            assert traces.of(parse_mapping(document("S"))) is NO_TRACING
    assert [line["event"] for line in lines] == ["traces.off"]


def plug_in(monkeypatch: pytest.MonkeyPatch, **makers: Any) -> None:
    """Have exporters by these names be installed."""

    class Plugged:
        def __init__(self, maker: Any) -> None:
            self._maker = maker

        def load(self) -> Any:
            return self._maker

    def entry_points(*, group: str, name: str) -> list[Plugged]:
        assert group == "opentelemetry_traces_exporter"
        return [Plugged(makers[name])] if name in makers else []

    monkeypatch.setattr(node.otel, "entry_points", entry_points)


class Exporter(InMemorySpanExporter):
    """Keeps spans, unless it is told to fail."""

    failing = False

    def export(self, spans: Any) -> SpanExportResult:
        """Keep, or fail."""
        return SpanExportResult.FAILURE if self.failing else super().export(spans)


@asynccontextmanager
async def traced(monkeypatch: pytest.MonkeyPatch, exporter: Exporter) -> AsyncIterator[NodeTraces]:
    """Trace into memory, and send after each span."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    plug_in(monkeypatch, memory=lambda: exporter)
    async with tracing(MEMORY, node="n") as traces:
        yield traces


async def test_a_span_is_handed_on_and_ends_with_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """All attempts at a batch share its trace; the function gets the context of the attempt's own span."""
    exporter, sent = Exporter(), []
    async with traced(monkeypatch, exporter) as traces:
        tracer = traces.of(parse_mapping(document("S")))
        outcomes: list[Outcome] = [FunctionFailed("boom"), PartlyFailed(frozenset({"x"})), Delivered()]
        for number, outcome in enumerate(outcomes, 1):
            with tracer.attempt(invocation(attempt=number), 3) as attempt:
                sent.append(attempt.invocation.traceparent)
                attempt.outcome = outcome
        with tracer.attempt(invocation(attempt=4), 3):
            pass
    spans = sorted(exporter.get_finished_spans(), key=lambda span: str((span.attributes or {})["esmd.attempt"]))
    assert [span.status.status_code for span in spans] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
        StatusCode.ERROR,
    ]
    contexts = [span.context for span in spans if span.context]
    assert sent == [f"00-{context.trace_id:032x}-{context.span_id:016x}-01" for context in contexts[:3]]
    assert len({context.trace_id for context in contexts}) == 1
    assert {span.resource.attributes["service.name"] for span in spans} == {"esmd"}
    [metric] = traces.collect()
    assert {sample.labels["result"]: sample.value for sample in metric.samples} == {"made": 4, "sent": 4, "failed": 0}


CALLER = TraceContext(7, 8, sampled=True)
EVENT = NewEvent("f", "f", "11111111-0000-4000-8000-000000000000", CALLER.xray, b"{}")


async def test_attempts_at_an_event_are_linked_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trace an event; the function gets the attempt's own context; a trace that began here links to nobody."""
    exporter = Exporter()
    async with traced(monkeypatch, exporter) as traces:
        failed = Answer(200, {"X-Amz-Function-Error": "Unhandled"}, b'{"errorMessage":"no"}')
        handed_on = []
        for number, answer in enumerate([failed, Answer(200, {}), None], 1):
            with traces.events.event_attempt(EVENT, number) as attempt:
                handed_on.append(attempt.event)
                attempt.answer = answer
        alone = dataclasses.replace(EVENT, request_id="r-2", trace=without_span(new_trace()))
        with traces.events.event_attempt(alone, 1) as attempt:
            attempt.answer = Answer(200, {})
        assert traces.counts.made == 4
    *spans, other = exporter.get_finished_spans()
    assert {span.name for span in spans} == {"process f"}
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR, StatusCode.UNSET, StatusCode.ERROR]
    for span, event in zip(spans, handed_on, strict=True):
        assert span.context is not None
        assert read_xray(event.trace) == TraceContext(span.context.trace_id, span.context.span_id, sampled=True)
        assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [(7, 8)]
        assert dataclasses.replace(event, trace=EVENT.trace) == EVENT
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    assert not other.links


async def test_an_event_goes_on_without_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no traces, or making them fails: then in its caller's trace."""
    monkeypatch.setattr(node.otel, "event_attributes", None)  # cannot be called
    with capture_logs() as lines:
        async with traced(monkeypatch, Exporter()) as broken, tracing({}, node="n") as off:
            for traces in (broken, off):
                with traces.events.event_attempt(EVENT, 1) as attempt:
                    attempt.answer = Answer(200, {})
                assert attempt.event is EVENT
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["traces.failed"]


async def test_what_is_not_sampled_is_handed_on_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that traces too follows the decision, and no event is looked through."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setattr(node.otel, "record_contexts", None)
    exporter = Exporter()
    async with traced(monkeypatch, exporter) as traces:
        with traces.of(parse_mapping(document("S"))).attempt(invocation(), 1) as attempt:
            attempt.outcome = Delivered()
    assert (attempt.invocation.traceparent or "").endswith("-00")
    assert exporter.get_finished_spans() == ()
    assert traces.counts.made == 0


async def test_a_broken_tracer_fails_no_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once; the batch goes on without a span."""
    monkeypatch.setattr(node.otel, "record_contexts", None)  # cannot be called
    with capture_logs() as lines:
        async with traced(monkeypatch, Exporter()) as traces:
            tracer = traces.of(parse_mapping(document("S")))
            attempts = [tracer.attempt(invocation(), 1) for _ in range(3)]
    assert {type(attempt) for attempt in attempts} == {UntracedAttempt}
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["traces.failed"]


async def test_an_exporter_that_fails_is_told_of_once_and_again_when_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many spans it takes; each is counted."""
    exporter = Exporter()
    exporter.failing = True
    with capture_logs() as lines:
        async with traced(monkeypatch, exporter) as traces:
            tracer, counts = traces.of(parse_mapping(document("S"))), traces.counts

            async def deliver(until: tuple[int, int]) -> None:
                with tracer.attempt(invocation(), 1) as attempt:
                    attempt.outcome = Delivered()
                await eventually(lambda: (counts.failed, counts.sent) == until, f"{until} failed and sent")

            await deliver((1, 0))
            await deliver((2, 0))
            exporter.failing = False
            await deliver((2, 1))
    said = [line for line in lines if line["event"] != "traces.on"]
    assert [(line["event"], line["log_level"]) for line in said] == [
        ("traces.not_sent", "warning"),
        ("traces.sent_again", "info"),
    ]
    assert said[1]["lost"] == 2


@pytest.mark.parametrize(("flush_s", "cancelled"), [(0.2, False), (60.0, True)])
async def test_the_end_does_not_wait_for_a_collector_that_hangs(
    monkeypatch: pytest.MonkeyPatch, flush_s: float, *, cancelled: bool
) -> None:
    """A node that has drained waits for so long; one that is to stop at once does not; both say that spans are lost."""
    let_go = threading.Event()

    class Hanging(Exporter):
        def export(self, spans: Any) -> SpanExportResult:
            let_go.wait(60)
            return super().export(spans)

    monkeypatch.setattr("node.tracing.FLUSH_S", flush_s)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    with capture_logs() as lines, suppress(asyncio.CancelledError):
        async with traced(monkeypatch, Hanging()) as traces:
            with traces.of(parse_mapping(document("S"))).attempt(invocation(), 1) as attempt:
                attempt.outcome = Delivered()
            if cancelled:
                raise asyncio.CancelledError
    took_s = loop.time() - began_at
    let_go.set()
    assert took_s < 5
    assert lines[-1]["event"] == "traces.cut_off"
