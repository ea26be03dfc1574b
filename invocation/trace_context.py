"""Spans of others, as HTTP headers name them: W3C's `traceparent`, and X-Ray's header. Pure but for new traces."""

from __future__ import annotations

import re
import time
from random import getrandbits
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")
_NAMED_PARENT = re.compile(r";Parent=[0-9a-f]{16}")
_SAMPLED = 1


class TraceContext(NamedTuple):
    """A span of somebody else."""

    trace_id: int
    span_id: int
    sampled: bool

    @property
    def traceparent(self) -> str:
        """W3C's header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    @property
    def xray(self) -> str:
        """X-Ray's header."""
        return xray_header(self.traceparent)


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


def xray_header(traceparent: str) -> str:
    """Return a W3C trace context in the form that functions know from AWS."""
    _, trace, span, flags = traceparent.split("-")
    return f"Root=1-{trace[:8]}-{trace[8:]};Parent={span};Sampled={int(flags, 16) & _SAMPLED}"


def new_trace() -> str:
    """Return the X-Ray header of a trace that begins here, and is not sampled."""
    return with_span(f"Root=1-{int(time.time()):08x}-{getrandbits(96):024x};Sampled=0")


def without_span(trace: str) -> str:
    """Return an X-Ray header that names no span: there is none yet that anybody could be linked to."""
    return _NAMED_PARENT.sub("", trace)


def with_span(trace: str) -> str:
    """Return an X-Ray header that names a span, as functions are used to: a new one if it names none."""
    root, sampled, rest = trace.partition(";Sampled=")
    if "parent=" in trace.lower() or not sampled:
        return trace
    return f"{root};Parent={getrandbits(64) or 1:016x}{sampled}{rest}"


def _context(trace: str, span: str, *, sampled: bool) -> TraceContext | None:
    trace_id, span_id = int(trace, 16), int(span, 16)
    return TraceContext(trace_id, span_id, sampled) if trace_id and span_id else None
