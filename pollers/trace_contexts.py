"""The trace contexts that producers put into their records, found in the event that the function gets. Pure.

W3C's `traceparent` in Kafka headers and SQS message attributes, X-Ray's header in the SQS system attribute
`AWSTraceHeader`. Kinesis records carry nothing of the kind. They are looked for only in batches whose span is recorded,
and in the event's text: to decode it would cost several times as much.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from model.mapping import SourceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_CONTEXTS = 128
"""The most contexts taken from one batch: OpenTelemetry's default limit of links a span."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")
_SAMPLED = 1
_BACKSLASH = ord("\\")


class TraceContext(NamedTuple):
    """A span of somebody else."""

    trace_id: int
    span_id: int
    sampled: bool


def record_contexts(kind: SourceKind, event: bytes) -> list[TraceContext]:
    """Return the contexts in the records of an event, each once, `MOST_CONTEXTS` at most."""
    contexts: dict[TraceContext, None] = {}
    for pattern, read in _CARRIERS.get(kind, ()):
        for value in _values(pattern, event):
            context = read(value)
            if context is not None:
                contexts[context] = None
                if len(contexts) == MOST_CONTEXTS:
                    return list(contexts)
    return list(contexts)


def _values(pattern: re.Pattern[bytes], event: bytes) -> Iterator[bytes]:
    """Find what is under a name, each value once.

    Inside of a JSON string the quotes around a name would be escaped, so whatever matches is the event's own.
    """
    seen: set[bytes] = set()
    for found in pattern.finditer(event):
        value = found[1]
        if value not in seen and event[found.start() - 1] != _BACKSLASH:
            seen.add(value)
            yield value


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


def _read_bytes(signed: bytes) -> TraceContext | None:
    """Read a header's value as Kafka events have it: signed numbers."""
    return read_traceparent(bytes([int(byte) & 0xFF for byte in signed.split(b",") if byte]).decode("latin-1"))


_CARRIERS: dict[SourceKind, list[tuple[re.Pattern[bytes], Callable[[bytes], TraceContext | None]]]] = {
    SourceKind.KAFKA: [(re.compile(rb'"traceparent":\[([-\d,]*)\]'), _read_bytes)],
    SourceKind.SQS: [
        (re.compile(rb'"AWSTraceHeader":"([^"\\]*)"'), lambda text: read_xray(text.decode())),
        (
            re.compile(rb'"traceparent":\{[^{}]*"stringValue":"([^"\\]*)"'),
            lambda text: read_traceparent(text.decode()),
        ),
    ],
}
