"""What destinations and dead-letter queues are told, key by key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model.async_event import Condition, NewEvent, Response, Result
from pollers.async_documents import dead_letter_attributes, document, object_key

ARN = "arn:aws:lambda:us-east-2:123456789012:function:my-function"
EVENT = NewEvent(
    "my-function", "my-function", "e4b46cbf-b738-xmpl-8880-a18cdf61200e", "Root=1", b'{"ORDER_IDS": ["9e07"]}'
)
ERROR = b'{"errorMessage":"no order 9e07","errorType":"Error","requestId":"e4b4","stackTrace":[]}'
FAILED = Response(200, "$LATEST", "Unhandled", ERROR)
AT_MS = 1_573_755_365_568


def result(condition: Condition = Condition.RETRIES_EXHAUSTED, response: Response | None = FAILED) -> Result:
    """Return a result."""
    return Result(condition, AT_MS, 3, response, "0a1b2c3d-xmpl")


def told(one: Result, event: NewEvent = EVENT, **more: Any) -> dict[str, Any]:
    """Return the document read again."""
    found: dict[str, Any] = json.loads(document(event, one, ARN, **more))
    return found


def test_exhausted_retries() -> None:
    """The document of spec section 6.3, all of it."""
    assert told(result()) == {
        "version": "1.0",
        "timestamp": "2019-11-14T18:16:05.568Z",
        "requestContext": {
            "requestId": "e4b46cbf-b738-xmpl-8880-a18cdf61200e",
            "functionArn": f"{ARN}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"ORDER_IDS": ["9e07"]},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": json.loads(ERROR),
    }


def test_a_success_has_no_error() -> None:
    """There is no key `functionError`, not even an empty one."""
    found = told(result(Condition.SUCCESS, Response(200, "7", None, b'"ok"')))
    assert found["requestContext"]["condition"] == "Success"
    assert found["responseContext"] == {"statusCode": 200, "executedVersion": "7"}
    assert found["responsePayload"] == "ok"


def test_what_was_never_tried_has_no_response() -> None:
    """Neither context nor payload."""
    found = told(Result(Condition.ZERO_RESERVED_CONCURRENCY, AT_MS, 0, None, "id"))
    assert found["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert found["requestContext"]["approximateInvokeCount"] == 0
    assert list(found) == ["version", "timestamp", "requestContext", "requestPayload"]


def test_a_qualifier_stays() -> None:
    """The function's ARN always has one: the caller's, or $LATEST."""
    for arn, shown in ((ARN, f"{ARN}:$LATEST"), (f"{ARN}:live", f"{ARN}:live")):
        assert json.loads(document(EVENT, result(), arn))["requestContext"]["functionArn"] == shown


def test_payloads_are_embedded_as_they_came() -> None:
    """Numbers, escapes and order of keys do not change."""
    event = NewEvent("f", "f", "r", "t", b'{"b":1.10,"a":"\\u00e4","b2":12345678901234567890}')
    assert event.payload in document(event, result(), ARN)


def test_what_is_too_large_goes_without_payloads() -> None:
    """The response's first, then the request's too."""
    event = NewEvent("f", "f", "r", "t", json.dumps("x" * 400).encode())
    large = result(response=Response(200, "1", None, json.dumps("y" * 400).encode()))
    whole = len(document(event, large, ARN))
    assert told(large, event, max_bytes=whole)["responsePayload"] == "y" * 400
    without = told(large, event, max_bytes=whole - 1)
    assert (without["responsePayload"], without["requestPayload"]) == (None, "x" * 400)
    least = told(large, event, max_bytes=500)
    assert (least["responsePayload"], least["requestPayload"]) == (None, None)
    assert least["requestContext"]["requestId"] == "r"


@pytest.mark.parametrize("payload", [b"plain text", b"\xff", b"{,}"])
def test_a_response_that_is_no_json_is_told_as_text(payload: bytes) -> None:
    """As a `url` may answer."""
    found = told(result(response=Response(200, "1", None, payload)))
    assert found["responsePayload"] == payload.decode(errors="replace")


def test_the_name_of_an_object() -> None:
    """The key of spec section 6.3."""
    key = "aws/lambda/async/my-function/2019/11/14/2019-11-14T18.16.05-0a1b2c3d-xmpl"
    assert object_key(result(), "my-function") == key


def test_a_dead_letter() -> None:
    """Its attributes are the request id, the status and the function's message."""
    assert dead_letter_attributes(EVENT, result()) == {
        "RequestID": {"DataType": "String", "StringValue": EVENT.request_id},
        "ErrorCode": {"DataType": "Number", "StringValue": "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": "no order 9e07"},
    }


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (json.dumps({"errorMessage": "ü" * 600}).encode(), "ü" * 512),
        (json.dumps({"errorMessage": "a\u0000b\ufffe"}).encode(), "ab"),
        (json.dumps({"errorMessage": 7}).encode(), "RetriesExhausted"),
        (b"[1]", "RetriesExhausted"),
        (b"\xff", "RetriesExhausted"),
        (None, "RetriesExhausted"),
    ],
)
def test_the_message_of_a_dead_letter(payload: bytes | None, message: str) -> None:
    """The first kilobyte, of characters that a queue takes, and never nothing, which it refuses."""
    attributes = dead_letter_attributes(EVENT, result(response=Response(200, "1", "Unhandled", payload)))
    assert attributes["ErrorMessage"]["StringValue"] == message


def test_a_dead_letter_without_an_answer() -> None:
    """What was never taken has the status of a throttle."""
    one = Result(Condition.EVENT_AGE_EXCEEDED, AT_MS, 0, None, "id")
    attributes = dead_letter_attributes(EVENT, one)
    assert attributes["ErrorCode"]["StringValue"] == "429"
    assert attributes["ErrorMessage"]["StringValue"] == "EventAgeExceeded"
