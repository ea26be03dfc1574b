"""The request headers that tell a target which batch it gets, and under which lease (contract section 3). Pure.

A value is the text as it is, with everything that a header cannot carry (spaces, control characters, anything beyond
ASCII) percent-encoded as UTF-8; `%` itself is encoded too, so that decoding gives the text back.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from random import getrandbits
from typing import TYPE_CHECKING
from urllib.parse import quote

from invocation.trace_context import xray_header

if TYPE_CHECKING:
    from model.invocation import Invocation

_PLAIN = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
OURS = frozenset(
    {
        "x-esmd-mapping",
        "x-esmd-shard",
        "x-esmd-fencing-token",
        "x-esmd-batch-id",
        "x-esmd-attempt",
        "traceparent",
    }
)
"""Names of the headers made here, in lower case."""


@lru_cache(maxsize=4096)
def header_value(text: str) -> str:
    """Return the text in the form it has in a header."""
    return quote(text, safe=_PLAIN)


def trace_id(batch_id: str) -> str:
    """Return the trace that all attempts at a batch belong to, whichever node makes them: 32 hexadecimal digits."""
    return blake2b(batch_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def traceparent(batch_id: str) -> str:
    """Return a W3C trace context: one trace per batch, one span per attempt, marked as sampled."""
    return f"00-{trace_id(batch_id)}-{getrandbits(64) or 1:016x}-01"


def invocation_headers(invocation: Invocation, *, xray: bool = False) -> dict[str, str]:
    """Return the headers for one attempt. The trace context is that of its span, if it has one.

    `xray`: where functions are called as in AWS, a span's context goes along in AWS's form too.
    """
    headers = {
        "X-Esmd-Mapping": header_value(invocation.mapping),
        "X-Esmd-Shard": header_value(str(invocation.shard)),
        "X-Esmd-Fencing-Token": str(invocation.token),
        "X-Esmd-Batch-Id": header_value(invocation.batch_id),
        "X-Esmd-Attempt": str(invocation.attempt),
        "traceparent": invocation.traceparent or traceparent(invocation.batch_id),
    }
    if xray and invocation.traceparent is not None:
        headers["X-Amzn-Trace-Id"] = xray_header(invocation.traceparent)
    return headers
