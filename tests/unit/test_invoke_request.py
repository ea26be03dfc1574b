"""What an Invoke request asks for: `invocation.invoke_request`, spec sections 6.1 and 6.2."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from invocation.invoke_request import InvokeHead, largest, read_event, read_head, too_large
from invocation.invoking import NotInvoked
from invocation.trace_context import TraceContext


def head(name: str = "f", qualifier: str | None = None, **headers: str) -> InvokeHead | NotInvoked:
    """Read a head; `log_type` stands for X-Amz-Log-Type."""
    return read_head(name, qualifier, CIMultiDict({f"X-Amz-{key.replace('_', '-')}": headers[key] for key in headers}))


def read(name: str = "f", qualifier: str | None = None, **headers: str) -> InvokeHead:
    """Read a head that is as it should be."""
    found = head(name, qualifier, **headers)
    assert isinstance(found, InvokeHead), found
    return found


def test_what_nobody_says_is_the_default() -> None:
    """Synchronous, without a log, in a trace that begins here."""
    found = read()
    assert (found.function, found.qualified, found.dry_run, found.tail, found.context) == (
        "f",
        False,
        False,
        False,
        None,
    )
    assert found.trace.startswith("Root=1-")


@pytest.mark.parametrize(
    ("name", "qualifier", "function"),
    [
        ("f", "live", "f:live"),
        ("f", "$LATEST", "f:$LATEST"),
        ("f:live", "live", "f:live"),
        ("f", "", "f"),
        ("arn:aws:lambda:us-east-1:000000000000:function:f", "2", "arn:aws:lambda:us-east-1:000000000000:function:f:2"),
        ("000000000000:function:f", None, "000000000000:function:f"),
        ("function:f", "2", "function:f:2"),
    ],
)
def test_names_and_qualifiers(name: str, qualifier: str | None, function: str) -> None:
    """A qualifier stands in the name, beside it, or in both."""
    found = read(name, qualifier)
    assert (found.function, found.qualified) == (function, function != name or name.endswith("live"))


@pytest.mark.parametrize(
    ("arguments", "headers", "error_type", "text"),
    [
        (("f g",), {}, "ValidationException", "Value 'f g' at 'functionName' failed to satisfy constraint"),
        (("f" * 171,), {}, "ValidationException", "length less than or equal to 170"),
        (("f\udcff",), {}, "ValidationException", "Value 'f?' at 'functionName'"),
        (("f", "a b"), {}, "ValidationException", "at 'qualifier'"),
        (("f", "a" * 129), {}, "ValidationException", "length less than or equal to 128"),
        (("f:1", "2"), {}, "InvalidParameterValueException", "does not match the specified qualifier"),
        (("f",), {"invocation_type": "Later"}, "ValidationException", "[RequestResponse, Event, DryRun]"),
        (("f",), {"log_type": "All"}, "ValidationException", "[None, Tail]"),
        (("f",), {"client_context": "e30"}, "InvalidRequestContentException", "valid Base64-encoded JSON object"),
        (("f",), {"client_context": "W10="}, "InvalidRequestContentException", "valid Base64-encoded JSON object"),
        (("f",), {"client_context": "A" * 3584}, "InvalidRequestContentException", "valid Base64-encoded JSON object"),
    ],
)
def test_refusals(arguments: Any, headers: dict[str, str], error_type: str, text: str) -> None:
    """They are AWS's, and of status 400."""
    found = head(*arguments, **headers)
    assert isinstance(found, NotInvoked)
    assert (found.status, found.error_type) == (400, error_type)
    assert text in found.message
    json.dumps(found.message).encode()
    found.message.encode()


def test_a_client_context_fits_a_header() -> None:
    """It is one line of ASCII, and says the same."""
    context = {"custom": {"käse": "a\r\nX-Evil: 1"}}
    found = read(client_context=b64encode(json.dumps(context, indent=1, ensure_ascii=False).encode()).decode())
    assert found.context_json is not None
    assert found.context_json.isascii()
    assert found.context_json.isprintable()
    assert json.loads(found.context_json) == context


def test_asynchronous_invocations_have_a_limit_of_their_own() -> None:
    """1 MB instead of 6 MB, and they are told apart from dry runs."""
    later, now = read(invocation_type="Event"), read()
    assert (later.later, later.dry_run, now.later) == (True, False, False)
    assert (largest(later), largest(now)) == (1024 * 1024, 6 * 1024 * 1024)
    assert "smaller than 1048576 bytes" in too_large(largest(later)).message


@pytest.mark.parametrize("trace", ["", "a b", "a\udcff", "x" * 513])
def test_a_trace_that_no_header_carries_is_replaced(trace: str) -> None:
    """One that is fit goes on."""
    assert read_head("f", None, CIMultiDict({"X-Amzn-Trace-Id": "Root=1-2-3"})).trace == "Root=1-2-3"  # type: ignore[union-attr]
    found = read_head("f", None, CIMultiDict({"X-Amzn-Trace-Id": trace}))
    assert isinstance(found, InvokeHead)
    assert found.trace.startswith("Root=1-")
    assert (found.begun, found.caller) == (True, None)  # its span is nobody's


W3C = f"00-{1:032x}-{2:016x}-01"
XRAY = f"Root=1-{0:08x}-{3:024x};Parent={4:016x};Sampled=0"


@pytest.mark.parametrize(
    ("headers", "trace", "caller"),
    [
        ({"traceparent": W3C}, f"Root=1-{0:08x}-{1:024x};Parent={2:016x};Sampled=1", TraceContext(1, 2, sampled=True)),
        ({"X-Amzn-Trace-Id": XRAY}, XRAY, TraceContext(3, 4, sampled=False)),
        ({"X-Amzn-Trace-Id": XRAY, "traceparent": W3C}, XRAY, TraceContext(3, 4, sampled=False)),
        ({"X-Amzn-Trace-Id": "Root=1-2-3", "traceparent": W3C}, "Root=1-2-3", None),
        ({"X-Amzn-Trace-Id": "no header", "traceparent": W3C}, None, TraceContext(1, 2, sampled=True)),
    ],
)
def test_the_callers_span(headers: dict[str, str], trace: str | None, caller: TraceContext) -> None:
    """In AWS's header, else in W3C's; what names no span goes on as it is."""
    found = read_head("f", None, CIMultiDict(headers))
    assert isinstance(found, InvokeHead)
    assert (found.caller, found.begun) == (caller, False)
    assert trace is None or found.trace == trace


@pytest.mark.parametrize("body", [b"{}", b" [1, 2] ", b'"\xc3\xa4"', b"null", b"1e3"])
def test_events(body: bytes) -> None:
    """Any JSON is an event, as it came."""
    assert read_event(body) is body


def test_no_event_is_an_empty_one() -> None:
    """As AWS has it."""
    assert read_event(b"") == b"{}"


@pytest.mark.parametrize(
    "body", [b"{", b"NaN", b'"\xff"', b'"\xed\xa0\x80"', b"1 2", b"[" * 5000 + b"]" * 5000, b"\xef\xbb\xbf{}"]
)
def test_bodies_that_are_no_json(body: bytes) -> None:
    """They are refused before any function sees them."""
    found = read_event(body)
    assert isinstance(found, NotInvoked)
    assert (found.status, found.error_type) == (400, "InvalidRequestContentException")
    assert found.message.startswith("Could not parse request body into json: ")


@given(st.text(max_size=200), st.none() | st.text(max_size=140), st.text(max_size=50), st.text(max_size=90))
def test_nothing_breaks_it(name: str, qualifier: str | None, text: str, context: str) -> None:
    """Whatever is asked for is understood or refused, in words that can be sent."""
    headers = {"X-Amz-Invocation-Type": text, "X-Amz-Log-Type": text, "X-Amz-Client-Context": context}
    for given_headers in (headers, {"X-Amz-Client-Context": context, "X-Amzn-Trace-Id": text}):
        found = read_head(name, qualifier, CIMultiDict(given_headers))
        if isinstance(found, NotInvoked):
            assert found.status == 400
            found.message.encode()


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: json.dumps(text).encode()))
def test_what_is_taken_can_be_read(body: bytes) -> None:
    """An event that is handed to a function is JSON for Python's own reader too."""
    event = read_event(body)
    if isinstance(event, bytes):
        json.loads(event)
