"""The trace contexts that producers put into their records, found in the event that the function gets. Pure.

W3C's `traceparent` in Kafka headers and SQS message attributes, X-Ray's header in the SQS system attribute
`AWSTraceHeader`. Kinesis records carry nothing of the kind. Looking for them costs a decoding of the event, so it is
done only for batches whose span is recorded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from model.mapping import SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_CONTEXTS = 128
"""The most contexts taken from one batch: OpenTelemetry's default limit of links a span."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")
_SAMPLED = 1


class TraceContext(NamedTuple):
    """A span of somebody else."""

    trace_id: int
    span_id: int
    sampled: bool


class _KafkaRecord(msgspec.Struct):
    headers: list[dict[str, list[int]]] = []


class _KafkaEvent(msgspec.Struct):
    records: dict[str, list[_KafkaRecord]] = {}


class _Attribute(msgspec.Struct):
    stringValue: str | None = None  # noqa: N815  # AWS's names, here and below


class _SqsRecord(msgspec.Struct):
    attributes: dict[str, str] = {}
    messageAttributes: dict[str, _Attribute] = {}  # noqa: N815


class _SqsEvent(msgspec.Struct):
    Records: list[_SqsRecord] = []


_kafka_event = msgspec.json.Decoder(_KafkaEvent).decode
_sqs_event = msgspec.json.Decoder(_SqsEvent).decode


def record_contexts(kind: SourceKind, event: bytes) -> list[TraceContext]:
    """Return the contexts in the records of an event, each once, in order, `MOST_CONTEXTS` at most."""
    if kind is SourceKind.KAFKA and b'"traceparent"' in event:
        return _first_ones(_in_kafka(event))
    if kind is SourceKind.SQS and (b'"AWSTraceHeader"' in event or b'"traceparent"' in event):
        return _first_ones(_in_sqs(event))
    return []


def _first_ones(found: Iterable[TraceContext | None]) -> list[TraceContext]:
    contexts: dict[TraceContext, None] = {}
    for context in found:
        if context is not None:
            contexts[context] = None
            if len(contexts) == MOST_CONTEXTS:
                break
    return list(contexts)


def _in_kafka(event: bytes) -> Iterator[TraceContext | None]:
    for records in _kafka_event(event).records.values():
        for record in records:
            for header in record.headers:
                if (signed := header.get("traceparent")) is not None:
                    yield read_traceparent(bytes([byte & 0xFF for byte in signed]).decode("latin-1"))


def _in_sqs(event: bytes) -> Iterator[TraceContext | None]:
    for record in _sqs_event(event).Records:
        if (given := record.messageAttributes.get("traceparent")) is not None:
            yield read_traceparent(given.stringValue or "")
        elif (header := record.attributes.get("AWSTraceHeader")) is not None:
            yield read_xray(header)


def read_traceparent(text: str) -> TraceContext | None:
    """Read W3C's `traceparent` (Trace Context, section 3.2); None if it is not valid."""
    found = _TRACEPARENT.fullmatch(text.strip())
    # Versions to come may add fields, version 00 has none; ff is no version.
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    return _context(found[2], found[3], sampled=bool(int(found[4], 16) & _SAMPLED))


def read_xray(text: str) -> TraceContext | None:
    """Read an X-Ray trace header, `Root=1-…;Parent=…;Sampled=1` in any order; None unless it names a span."""
    fields = dict(part.strip().partition("=")[::2] for part in text.lower().split(";"))
    root, parent = _ROOT.fullmatch(fields.get("root", "")), fields.get("parent", "")
    if root is None or not _PARENT.fullmatch(parent):
        return None
    return _context(root[1] + root[2], parent, sampled=fields.get("sampled") == "1")


def _context(trace: str, span: str, *, sampled: bool) -> TraceContext | None:
    trace_id, span_id = int(trace, 16), int(span, 16)
    return TraceContext(trace_id, span_id, sampled) if trace_id and span_id else None
