"""Trace contexts in records: what is one, where it is found, and how X-Ray's and W3C's forms stand to each other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from invocation.headers import invocation_headers
from invocation.trace_context import (
    TraceContext,
    new_trace,
    read_traceparent,
    read_xray,
    with_span,
    without_span,
    xray_header,
)
from model.mapping import SourceKind
from pollers.trace_contexts import MOST_CONTEXTS, record_contexts
from tests.support.targets import invocation

TRACE, SPAN = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
CONTEXT = TraceContext(int(TRACE, 16), int(SPAN, 16), sampled=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", CONTEXT),
        (f"00-{TRACE}-{SPAN}-00", CONTEXT._replace(sampled=False)),
        (f"00-{TRACE}-{SPAN}-03", CONTEXT),  # the second flag: a random trace id
        (f" 00-{TRACE}-{SPAN}-01\n", CONTEXT),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", CONTEXT),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_w3c_says(text: str, expected: TraceContext | None) -> None:
    """Whatever is not valid is ignored, and so is what later versions add."""
    assert expected == read_traceparent(text)


ROOT = f"1-{TRACE[:8]}-{TRACE[8:]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Root={ROOT};Parent={SPAN};Sampled=1", CONTEXT),
        (f"Sampled=0; Parent={SPAN.upper()}; Root={ROOT}", CONTEXT._replace(sampled=False)),
        (f"Self=1-00000001-{'1' * 24};Root={ROOT};Parent={SPAN};Sampled=1;Lineage=a:0", CONTEXT),
        (f"Root={ROOT};Parent={SPAN};Sampled=?", CONTEXT._replace(sampled=False)),
        (f"Root={ROOT}", None),  # no span to link to
        (f"Root={ROOT};Parent={'0' * 16}", None),
        (f"Root=2-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN}", None),
        ("no header", None),
    ],
)
def test_an_xray_header_is_read_in_any_order(text: str, expected: TraceContext | None) -> None:
    """Only one that names a span is a context."""
    assert expected == read_xray(text)


def test_a_trace_that_begins_with_an_event_has_a_span_with_each_attempt() -> None:
    """Until then there is none to be linked to; what others have named is left alone."""
    trace = new_trace()
    kept = without_span(trace)
    assert (read_xray(kept), kept.count(";")) == (None, 1)
    attempts = {with_span(kept) for _ in range(3)}
    contexts = [read_xray(one) for one in (trace, *attempts)]
    assert len({context.span_id for context in contexts if context}) == 4
    assert len({context.trace_id for context in contexts if context}) == 1
    for named in (trace, "Root=1-2-3", f"Root={ROOT};Parent={SPAN};Sampled=1", "what it likes"):
        assert with_span(named) == named


def test_both_forms_say_the_same() -> None:
    """What is sent to functions as X-Ray's header is read back as the W3C context that it was made of."""
    for flags in ("00", "01"):
        text = f"00-{TRACE}-{SPAN}-{flags}"
        context = read_traceparent(text)
        assert context is not None
        assert read_xray(xray_header(text)) == read_xray(context.xray) == context
        assert context.traceparent == text


@pytest.mark.parametrize("xray", [False, True])
def test_a_span_is_told_in_aws_form_where_functions_are_called_so(*, xray: bool) -> None:
    """And only for an attempt that has a span: what nobody records is no context to join."""
    context = f"00-{TRACE}-{SPAN}-01"
    headers = invocation_headers(msgspec.structs.replace(invocation(), traceparent=context), xray=xray)
    assert headers["traceparent"] == context
    assert headers.get("X-Amzn-Trace-Id") == (f"Root={ROOT};Parent={SPAN};Sampled=1" if xray else None)
    assert "X-Amzn-Trace-Id" not in invocation_headers(invocation(), xray=xray)


def kafka_event(*headers: list[dict[str, list[int]]]) -> bytes:
    """Make an event of records with these headers."""
    records = [{"topic": "t", "offset": at, "headers": given, "value": "e30="} for at, given in enumerate(headers)]
    return (
        json.dumps({"eventSource": "aws:kafka", "records": {"t-0": records}})
        .replace(": ", ":")
        .replace(", ", ",")
        .encode()
    )


def text_header(name: str, text: str) -> dict[str, list[int]]:
    """Make a header as Kafka events have it."""
    return {name: list(memoryview(text.encode()).cast("b"))}


def test_kafka_headers_are_looked_through() -> None:
    """Each context counts once; headers that are none do no harm, whatever bytes they hold."""
    here = text_header("traceparent", f"00-{TRACE}-{SPAN}-01")
    other = text_header("traceparent", f"00-{TRACE}-{'1' * 16}-00")
    odd = {"traceparent": [-1, -128, 0]}
    event = kafka_event([here], [text_header("a", "b"), here], [], [odd], [other])
    assert record_contexts(SourceKind.KAFKA, event) == [CONTEXT, (CONTEXT.trace_id, 0x1111111111111111, False)]
    assert record_contexts(SourceKind.KAFKA, kafka_event([text_header("a", "b")])) == []


def test_no_more_contexts_are_taken_than_a_span_may_have_links() -> None:
    """A batch of ten thousand records has no span of ten thousand links."""
    headers = [[text_header("traceparent", f"00-{TRACE}-{at + 1:016x}-01")] for at in range(300)]
    found = record_contexts(SourceKind.KAFKA, kafka_event(*headers))
    assert [context.span_id for context in found] == list(range(1, MOST_CONTEXTS + 1))


def sqs_event(*records: dict[str, Any]) -> bytes:
    """Make an event of messages."""
    return (
        json.dumps({"Records": [{"body": "{}", **record} for record in records]})
        .replace(": ", ":")
        .replace(", ", ",")
        .encode()
    )


def test_sqs_attributes_are_looked_through() -> None:
    """X-Ray's system attribute, and OpenTelemetry's message attribute; both, where a message has both."""
    xray = {"attributes": {"AWSTraceHeader": f"Root={ROOT};Parent={SPAN};Sampled=1"}}
    w3c = {"messageAttributes": {"traceparent": {"stringValue": f"00-{TRACE}-{'2' * 16}-01", "dataType": "String"}}}
    binary = {"messageAttributes": {"traceparent": {"binaryValue": "AA==", "dataType": "Binary"}}}
    found = record_contexts(SourceKind.SQS, sqs_event(xray, {**xray, **w3c}, binary, {}))
    assert found == [CONTEXT, (CONTEXT.trace_id, 0x2222222222222222, True)]


def test_what_producers_write_into_their_data_is_no_context() -> None:
    """Bodies and names that look like a carrier are text, and its quotes escaped."""
    text = f"00-{TRACE}-{SPAN}-01"
    body = json.dumps({"attributes": {"AWSTraceHeader": f"Root={ROOT};Parent={SPAN}"}}).replace(": ", ":")
    named = {"messageAttributes": {'x"traceparent': {"stringValue": text, "dataType": "String"}}}
    assert record_contexts(SourceKind.SQS, sqs_event({"body": body}, named)) == []
    assert record_contexts(SourceKind.KAFKA, kafka_event([text_header('x"traceparent', text)])) == []


@pytest.mark.parametrize("kind", [SourceKind.KINESIS, SourceKind.SCHEDULE])
def test_other_sources_carry_no_contexts(kind: SourceKind) -> None:
    """What looks like one in their events is the producer's own data."""
    assert record_contexts(kind, kafka_event([text_header("traceparent", f"00-{TRACE}-{SPAN}-01")])) == []
