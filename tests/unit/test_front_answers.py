"""How the front end answers: `invocation.front_answers`, spec sections 6.1 and 6.2."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from invocation.classify import Answer, Failure, FailureKind, TargetKind
from invocation.front_answers import error_answer, local_answer, remote_answer
from invocation.invoking import InvocationResult, NotInvoked, out_of_service, throttled


def remote(kind: TargetKind, came: Answer | Failure) -> Answer:
    """Answer for a function elsewhere."""
    return remote_answer(kind, came, timeout_s=3.0, request_id="id")


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Make an answer; `function_error` stands for Function-Error."""
    return Answer(status, CIMultiDict({key.replace("_", "-"): headers[key] for key in headers}), body)


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (
            throttled(own_limit=False),
            {"Type": "User", "message": "Rate Exceeded.", "Reason": "ConcurrentInvocationLimitExceeded"},
        ),
        (NotInvoked(404, "ResourceNotFoundException", "m"), {"Type": "User", "Message": "m"}),
        (out_of_service("m"), {"Type": "Service", "Message": "m"}),
        (NotInvoked(502, "ResourceNotReadyException", "m"), {"Type": "Service", "Message": "m"}),
        (NotInvoked(413, "RequestTooLargeException", "m"), {"Type": "User", "message": "m"}),
    ],
)
def test_errors_have_the_form_of_their_type(error: NotInvoked, body: dict[str, str]) -> None:
    """The text is under `message`, or `Message` where AWS has it so."""
    came = error_answer(error)
    assert (came.status, came.headers["x-amzn-ErrorType"], json.loads(came.body)) == (
        error.status,
        error.error_type,
        body,
    )


def test_a_log_is_told_to_who_asks() -> None:
    """In base64; nobody else gets it."""
    result = InvocationResult(b"1", "Unhandled", b"log", 0.1)
    assert local_answer(result, tail=True).headers == {
        "X-Amz-Executed-Version": "$LATEST",
        "X-Amz-Function-Error": "Unhandled",
        "X-Amz-Log-Result": "bG9n",
    }
    assert "X-Amz-Log-Result" not in local_answer(result).headers


TIMED_OUT = {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: id Error: Task timed out after 3.00 seconds"}
FAILURES: list[tuple[TargetKind, Answer | Failure, Any]] = [
    (TargetKind.URL, Failure(FailureKind.TIMEOUT_AFTER_SENT), TIMED_OUT),
    (TargetKind.RIE, answer(200, b"Task timed out after 3.00 seconds"), TIMED_OUT),
    (
        TargetKind.LAMBDA,
        Failure(FailureKind.TOO_LARGE),
        {
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        },
    ),
    (
        TargetKind.URL,
        Failure(FailureKind.CUT_SHORT),
        {"errorType": "Function.Unknown", "errorMessage": "RequestId: id Error: answer cut short"},
    ),
    (TargetKind.URL, answer(500, b'{"errorMessage":"m"}'), {"errorMessage": "m"}),
    (
        TargetKind.URL,
        answer(500, b"[1]"),
        {"errorType": "Function.Unknown", "errorMessage": "RequestId: id Error: HTTP 500 Internal Server Error"},
    ),
    (TargetKind.URL, answer(200, b"[1]", X_Amz_Function_Error="Handled"), [1]),
    (
        TargetKind.URL,
        answer(200, b"<p>", X_Amz_Function_Error="any"),
        {"errorType": "Function.Unknown", "errorMessage": "RequestId: id Error: HTTP 200 OK"},
    ),
]


@pytest.mark.parametrize(("kind", "came", "document"), FAILURES)
def test_a_failed_function_has_an_error_document(kind: TargetKind, came: Answer | Failure, document: Any) -> None:
    """Its own, where there is one, else one in AWS's words; the status is 200."""
    found = remote(kind, came)
    assert found.status == 200
    assert found.headers["X-Amz-Function-Error"] in {"Handled", "Unhandled"}
    assert json.loads(found.body) == document


@pytest.mark.parametrize("kind", list(TargetKind))
def test_a_function_that_is_not_reached(kind: TargetKind) -> None:
    """The caller may try again: nothing ran."""
    found = remote(kind, Failure(FailureKind.REFUSED))
    assert (found.status, found.headers["x-amzn-ErrorType"]) == (502, "ResourceNotReadyException")
    assert json.loads(found.body)["Message"] == "the function could not be reached: connection refused"


def test_a_function_without_room_says_when_to_come_again() -> None:
    """In whole seconds, as it said itself."""
    found = remote(TargetKind.URL, answer(429, Retry_After="7"))
    assert (found.status, found.headers["Retry-After"]) == (429, "7")
    away = remote(TargetKind.URL, answer(503, Retry_After="1"))
    assert (away.status, away.headers["Retry-After"]) == (502, "1")


def test_the_invoke_api_is_handed_on() -> None:
    """Status, body and its own headers; no others, and none that could not be sent."""
    came = answer(429, b"{}", X_Amzn_ErrorType="TooManyRequestsException", Set_Cookie="a", X_Amz_Log_Result="\udcff")
    assert remote(TargetKind.LAMBDA, came) == Answer(429, {"x-amzn-ErrorType": "TooManyRequestsException"}, b"{}")
    odd = remote(TargetKind.LAMBDA, answer(200, b"1", X_Amz_Function_Error="\udcff"))
    assert odd.headers == {"X-Amz-Function-Error": "Unhandled"}
    assert remote(TargetKind.LAMBDA, answer(301)).status == 502


def test_no_result_is_null() -> None:
    """As in AWS."""
    assert remote(TargetKind.URL, answer(204)) == Answer(200, {"X-Amz-Executed-Version": "$LATEST"}, b"null")
