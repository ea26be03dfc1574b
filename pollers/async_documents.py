"""What destinations and dead-letter queues are told of asynchronous invocations (spec section 6.3). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from model.async_event import Condition
from pollers.failure_document import encoded, moment, timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.async_event import NewEvent, Result

_VERSION = "1.0"
_MESSAGE_BYTES = 1024  # of a dead letter's error message
_NOT_FOR_SQS = dict.fromkeys(code for code in range(0x20) if code not in (0x9, 0xA, 0xD))


def qualified(function_arn: str) -> str:
    """Return a function's ARN with a qualifier: the documents' always have one."""
    unqualified_parts = 7
    return f"{function_arn}:$LATEST" if function_arn.count(":") < unqualified_parts else function_arn


def document(event: NewEvent, result: Result, function_arn: str, *, max_bytes: int | None = None) -> bytes:
    """Return the invocation record.

    What has more than `max_bytes` goes without the response's payload, then without the request's too (ours: the record
    is worth more than nothing).
    """
    whole = _encode(event, result, function_arn, request=True, response=True)
    if max_bytes is None or len(whole) <= max_bytes:
        return whole
    without = _encode(event, result, function_arn, request=True, response=False)
    return without if len(without) <= max_bytes else _encode(event, result, function_arn, request=False, response=False)


def _encode(event: NewEvent, result: Result, function_arn: str, *, request: bool, response: bool) -> bytes:
    told: dict[str, Any] = {
        "version": _VERSION,
        "timestamp": timestamp(result.at_ms),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": qualified(function_arn),
            "condition": str(result.condition),
            "approximateInvokeCount": result.invocations,
        },
        "requestPayload": msgspec.Raw(event.payload) if request else None,
    }
    last = result.response
    if last is not None and result.condition is not Condition.ZERO_RESERVED_CONCURRENCY:
        context: dict[str, Any] = {"statusCode": last.status, "executedVersion": last.executed_version}
        if last.function_error is not None:
            context["functionError"] = last.function_error
        told["responseContext"] = context
        told["responsePayload"] = _json(last.payload) if response else None
    return encoded(told)


def object_key(result: Result, function_name: str) -> str:
    """Return the name of the object in a bucket."""
    at = moment(result.at_ms)
    return f"aws/lambda/async/{function_name}/{at:%Y/%m/%d}/{at:%Y-%m-%dT%H.%M.%S}-{result.id}"


def dead_letter_attributes(event: NewEvent, result: Result) -> Mapping[str, Mapping[str, str]]:
    """Return the attributes of a dead letter, whose body is the event unchanged. In the form of SQS and SNS."""
    last = result.response
    return {
        "RequestID": {"DataType": "String", "StringValue": event.request_id},
        "ErrorCode": {"DataType": "Number", "StringValue": str(last.status if last is not None else _TOO_MANY)},
        "ErrorMessage": {"DataType": "String", "StringValue": _error_message(result)},
    }


_TOO_MANY = 429  # there was no answer: the function had no room until the event was too old, or has none at all


def _error_message(result: Result) -> str:
    """Return the first kilobyte of the function's error message, or else the condition: nothing would be refused."""
    text = ""
    payload = None if result.response is None else result.response.payload
    if payload is not None:
        try:
            found = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        message = found.get("errorMessage") if isinstance(found, dict) else None
        text = message if isinstance(message, str) else ""
    text = text.translate(_NOT_FOR_SQS).replace("\ufffe", "").replace("\uffff", "")
    return text.encode(errors="replace")[:_MESSAGE_BYTES].decode(errors="ignore") or str(result.condition)


def _json(payload: bytes | None) -> Any:
    """Return a payload for the document; what is not JSON, as a `url` may answer, as its text."""
    if payload is None:
        return None
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
        payload.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload.decode(errors="replace")
    return msgspec.Raw(payload)
