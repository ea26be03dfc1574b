"""What an Invoke request asks for, read from its path, query, headers and body (spec sections 6.1, 6.2).

Pure but for the traces that begin here. Every refusal is in AWS's words.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from invocation.invoking import NotInvoked
from invocation.trace_context import TraceContext, new_trace, read_traceparent, read_xray
from model.async_event import MAX_EVENT_BYTES as MAX_ASYNC_BYTES
from model.rules.parameters import FUNCTION

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EVENT_BYTES = 6 * 1024 * 1024
"""The largest event of a synchronous invocation (spec section 6.1)."""

_MAX_CONTEXT = 3583
_NAME_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_\.]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
_NAME = re.compile(_NAME_PATTERN, re.ASCII)
_LONGEST_NAME = 170
_QUALIFIER_PATTERN = r"(|[a-zA-Z0-9$_-]+)"
_QUALIFIER = re.compile(_QUALIFIER_PATTERN)
_LONGEST_QUALIFIER = 128
_TRACE = re.compile(r"[\x21-\x7e]{1,512}")
_INVOCATION_TYPES = ("RequestResponse", "Event", "DryRun")
_LOG_TYPES = ("None", "Tail")
_EVENT_DECODER = msgspec.json.Decoder(msgspec.Raw)
_NO_EVENT = b"{}"


@dataclass(frozen=True, slots=True)
class InvokeHead:
    """All of a request but its event."""

    function: str  # NAME, NAME:QUALIFIER, or an ARN in part or whole
    qualified: bool
    dry_run: bool
    later: bool  # asynchronous
    tail: bool
    context: str | None  # base64, as it came
    context_json: str | None  # one line of ASCII
    trace: str  # an X-Ray trace header
    caller: TraceContext | None = None  # the caller's span, if that is what `trace` names
    begun: bool = False  # `trace` begins here


def read_head(name: str, qualifier: str | None, headers: Mapping[str, str]) -> InvokeHead | NotInvoked:
    """Read everything but the body. `headers` looks names up whatever their case."""
    invocation_type = headers.get("X-Amz-Invocation-Type") or "RequestResponse"
    log_type = headers.get("X-Amz-Log-Type") or "None"
    own = _qualifier_of(name)
    if problem := _problem(name, qualifier, invocation_type, log_type):
        return problem
    if qualifier and own and qualifier != own:
        return _wrong("The derived qualifier from the function name does not match the specified qualifier.")
    context = headers.get("X-Amz-Client-Context") or None
    context_json = None if context is None else _context(context)
    if context is not None and context_json is None:
        why = "Client context must be a valid Base64-encoded JSON object."
        return NotInvoked(400, "InvalidRequestContentException", why)
    trace, caller, begun = _trace(headers)
    return InvokeHead(
        f"{name}:{qualifier}" if qualifier and not own else name,
        qualified=bool(qualifier or own),
        dry_run=invocation_type == "DryRun",
        later=invocation_type == "Event",
        tail=log_type == "Tail",
        context=context,
        context_json=context_json,
        trace=trace,
        caller=caller,
        begun=begun,
    )


def _trace(headers: Mapping[str, str]) -> tuple[str, TraceContext | None, bool]:
    """Return the X-Ray header, the span it names, and whether its trace begins here. AWS's header goes before W3C's."""
    given = headers.get("X-Amzn-Trace-Id", "")
    if _TRACE.fullmatch(given):
        return given, read_xray(given), False
    caller = read_traceparent(headers.get("traceparent", ""))
    return (new_trace(), None, True) if caller is None else (caller.xray, caller, False)


def _problem(name: str, qualifier: str | None, invocation_type: str, log_type: str) -> NotInvoked | None:
    """Return what AWS's validation would say first."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        return _invalid("functionName", name, _pattern_or_length(_NAME_PATTERN, _LONGEST_NAME, name))
    if qualifier is not None and (not _QUALIFIER.fullmatch(qualifier) or len(qualifier) > _LONGEST_QUALIFIER):
        return _invalid("qualifier", qualifier, _pattern_or_length(_QUALIFIER_PATTERN, _LONGEST_QUALIFIER, qualifier))
    if invocation_type not in _INVOCATION_TYPES:
        return _invalid("invocationType", invocation_type, _one_of(_INVOCATION_TYPES))
    if log_type not in _LOG_TYPES:
        return _invalid("logType", log_type, _one_of(_LOG_TYPES))
    return None


def read_event(body: bytes) -> bytes | NotInvoked:
    """Return the event, for which a body of nothing means an empty object, or why there is none in the body."""
    if not body:
        return _NO_EVENT
    try:
        if not body.isascii():
            body.decode()
        _EVENT_DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        why = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        return NotInvoked(400, "InvalidRequestContentException", f"Could not parse request body into json: {why}")
    return body


def largest(head: InvokeHead) -> int:
    """Return the largest event, in bytes (spec section 6.1)."""
    return MAX_ASYNC_BYTES if head.later else MAX_EVENT_BYTES


def too_large(most: int = MAX_EVENT_BYTES) -> NotInvoked:
    """Return the answer to an event beyond the limit."""
    why = f"Request must be smaller than {most} bytes for the InvokeFunction operation"
    return NotInvoked(413, "RequestTooLargeException", why)


def not_found(arn: str) -> NotInvoked:
    """Return the answer for a function that is not there, by its qualified ARN."""
    return NotInvoked(404, "ResourceNotFoundException", f"Function not found: {arn}")


def _qualifier_of(name: str) -> str | None:
    found = FUNCTION.fullmatch(name)
    return None if found is None else found["qualifier"]


def _context(text: str) -> str | None:
    """Return a client context as JSON that fits a header, None for what is none."""
    if len(text) > _MAX_CONTEXT:
        return None
    try:
        found: dict[str, Any] = msgspec.json.decode(b64decode(text, validate=True), type=dict[str, Any])
        return json.dumps(found)
    except (msgspec.DecodeError, UnicodeError, RecursionError, binascii.Error, ValueError):
        return None


def _wrong(why: str) -> NotInvoked:
    return NotInvoked(400, "InvalidParameterValueException", why)


def _invalid(what: str, value: str, constraint: str) -> NotInvoked:
    shown = value.encode(errors="replace").decode()
    message = f"1 validation error detected: Value '{shown}' at '{what}' failed to satisfy constraint: {constraint}"
    return NotInvoked(400, "ValidationException", message)


def _pattern_or_length(pattern: str, longest: int, value: str) -> str:
    if len(value) > longest:
        return f"Member must have length less than or equal to {longest}"
    return f"Member must satisfy regular expression pattern: {pattern}"


def _one_of(values: tuple[str, ...]) -> str:
    return f"Member must satisfy enum value set: [{', '.join(values)}]"
