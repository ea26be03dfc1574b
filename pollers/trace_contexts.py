"""The trace contexts that producers put into their records, found in the event that the function gets. Pure.

W3C's `traceparent` in Kafka headers and SQS message attributes, X-Ray's header in the SQS system attribute
`AWSTraceHeader`. Kinesis records carry nothing of the kind. They are looked for only in batches whose span is recorded,
and in the event's text: to decode it would cost several times as much.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invocation.trace_context import read_traceparent, read_xray
from model.mapping import SourceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from invocation.trace_context import TraceContext

MOST_CONTEXTS = 128
"""The most contexts taken from one batch: OpenTelemetry's default limit of links a span."""

_BACKSLASH = ord("\\")


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
