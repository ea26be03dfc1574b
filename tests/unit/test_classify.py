"""Every row of contract section 3 and spec section 4.1: target kind, status, headers, body, transport failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from invocation.classify import MAX_RETRY_AFTER_S, MAX_TEXT, Answer, Failure, FailureKind, TargetKind, classify
from model.outcome import Delivered, FunctionFailed, NotReached, Throttled

LAMBDA, URL, RIE, LOCAL = TargetKind.LAMBDA, TargetKind.URL, TargetKind.RIE, TargetKind.LOCAL
ALL = tuple(TargetKind)
INVOKE_API = (LAMBDA, LOCAL, RIE)
FAILED = {"X-Amz-Function-Error": "Unhandled"}
RAISED = b'{"errorMessage": "no such order", "errorType": "KeyError", "requestId": "1", "stackTrace": []}'
TIMED_OUT = b"Task timed out after 3.00 seconds"
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC).timestamp()


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"null") -> Answer:
    """Make an answer whose header names have no case."""
    return Answer(status, CIMultiDict(headers or {}), body)


STATUSES = [
    # Contract section 3, first row: a Lambda-compatible endpoint and an ARN, and `rie` and `handler` "as Lambda".
    *[(kind, status, Delivered) for kind in ALL for status in (200, 201, 202, 204, 299)],
    *[(kind, 429, Throttled) for kind in ALL],
    *[(kind, status, NotReached) for kind in INVOKE_API for status in (500, 501, 502, 503, 504, 529, 599)],
    *[(kind, status, NotReached) for kind in INVOKE_API for status in (401, 402, 405, 406, 418, 422, 425, 451)],
    # Spec section 4.1, service errors, and 6.2, every status of the table there.
    *[(kind, status, NotReached) for kind in INVOKE_API for status in (408, 410)],
    *[(kind, status, NotReached) for kind in INVOKE_API for status in (400, 403, 404, 409, 413, 415)],
    # Contract section 3, second row.
    *[(URL, status, FunctionFailed) for status in (400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 451, 499, 500)],
    *[(URL, status, NotReached) for status in (408, 425, 502, 503, 504)],
    # Where the contract is silent: other 5xx come from what stands before the function; redirects are not followed.
    *[(URL, status, NotReached) for status in (501, 505, 507, 520, 529, 530)],
    *[(kind, status, NotReached) for kind in ALL for status in (100, 301, 302, 304, 307, 308, 600)],
]


HEADERS: tuple[dict[str, str], ...] = ({}, {"Retry-After": "3"}, FAILED, {**FAILED, "Retry-After": "3"})
BODIES = (b"", b"null", b'{"orders": 3}', b"<html>", RAISED, TIMED_OUT)


@pytest.mark.parametrize(("kind", "status", "expected"), STATUSES)
def test_every_row(kind: TargetKind, status: int, expected: type) -> None:
    """Status, headers and body mean what the tables say for the kind of target, and the outcome carries the status."""
    for headers, body in product(HEADERS, BODIES):
        outcome = classify(kind, answer(status, headers, body), now=NOW)
        declared = "X-Amz-Function-Error" in headers  # contract section 3: present, for every kind
        hidden = kind is RIE and status != 429 and body in (RAISED, TIMED_OUT)  # spec section 6.2, the note
        assert type(outcome) is (FunctionFailed if declared or hidden else expected), (headers, body)
        assert outcome.status == status
        if isinstance(outcome, Throttled | NotReached):
            assert outcome.retry_after_s == (3.0 if headers else None)
        if isinstance(outcome, NotReached):
            refused = {400, 413, 415} if kind in (LAMBDA, LOCAL) else {413, 415}
            assert outcome.batch_refused is (status in refused)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 502, 503])
@pytest.mark.parametrize("value", ["Unhandled", "Handled", "", "anything"])
def test_a_declared_function_error_counts_whatever_the_status(kind: TargetKind, status: int, value: str) -> None:
    """X-Amz-Function-Error present means function error; only its presence is tested."""
    outcome = classify(kind, answer(status, {"x-amz-function-error": value}, RAISED))
    assert outcome == FunctionFailed(
        "KeyError: no such order", "Handled" if value == "Handled" else "Unhandled", status, None
    )


FAILURES = [
    (FailureKind.REFUSED, NotReached),
    (FailureKind.UNRESOLVED, NotReached),
    (FailureKind.TLS, NotReached),
    (FailureKind.CONNECT_TIMEOUT, NotReached),
    (FailureKind.UNPREPARED, NotReached),
    (FailureKind.TIMEOUT_BEFORE_SENT, NotReached),
    (FailureKind.LOST_BEFORE_SENT, NotReached),
    (FailureKind.TIMEOUT_AFTER_SENT, FunctionFailed),
    (FailureKind.LOST_AFTER_SENT, FunctionFailed),
    (FailureKind.CUT_SHORT, FunctionFailed),
    (FailureKind.GARBAGE, FunctionFailed),
    (FailureKind.TOO_LARGE, FunctionFailed),
]


def test_every_failure_kind_has_a_row() -> None:
    """No kind of transport failure is left out of the table."""
    assert {kind for kind, _ in FAILURES} == set(FailureKind)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("failure", "expected"), FAILURES)
def test_a_failure_counts_only_if_the_function_may_have_run(
    kind: TargetKind, failure: FailureKind, expected: type
) -> None:
    """A transport failure is a function error once the event was sent, and not reached before, on every target."""
    outcome = classify(kind, Failure(failure, "the detail"))
    assert type(outcome) is expected
    assert isinstance(outcome, FunctionFailed | NotReached)
    assert outcome.error == f"{failure.value}: the detail"


def test_delivered_keeps_what_later_steps_need() -> None:
    """The body of a success is kept as it came, with the executed version of an Invoke API."""
    body = b'{"batchItemFailures": []}'
    came = answer(200, {"X-Amz-Executed-Version": "$LATEST"}, body)
    assert classify(LAMBDA, came) == Delivered(body, 200, "$LATEST")
    assert classify(RIE, came) == Delivered(body, 200, "$LATEST")
    assert classify(URL, came) == Delivered(body, 200, None)


def test_function_error_keeps_the_executed_version() -> None:
    """Destination documents name the version that failed."""
    came = answer(200, {**FAILED, "X-Amz-Executed-Version": "7"}, RAISED)
    assert classify(LAMBDA, came) == FunctionFailed("KeyError: no such order", "Unhandled", 200, "7")


EMULATOR_ERRORS = [
    (RAISED, "KeyError: no such order"),
    (b'{"errorType":"Error","errorMessage":"boom","trace":["at x"]}', "Error: boom"),
    (b'{"errorMessage":"2024-05-01T12:00:00Z 1 Task timed out after 3.00 seconds"}', None),
    (b'{"errorMessage":"boom","stackTrace":[]}', "boom"),
    (b'{"errorMessage":null,"errorType":"Runtime.ExitError"}', "Runtime.ExitError"),
    (b'{"errorMessage":""}', "Unhandled"),
    (b"Task timed out after 3.00 seconds", "Sandbox.Timedout: Task timed out after 3.00 seconds"),
    (b'"Task timed out after 300.00 seconds"\n', "Sandbox.Timedout: Task timed out after 300.00 seconds"),
    (b"2024-05-01 abc Task timed out after 1 seconds", None),
]


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize(("body", "error"), EMULATOR_ERRORS)
def test_emulator_hides_errors_in_the_body(status: int, body: bytes, error: str | None) -> None:
    """The emulator's error documents and time-out texts are function errors, with 200 and with a crash's 502."""
    outcome = classify(RIE, answer(status, None, body))
    assert isinstance(outcome, FunctionFailed)
    assert error is None or outcome.error == error
    assert outcome.function_error == "Unhandled"


INNOCENT = [
    b"null",
    b"",
    b'{"batchItemFailures": []}',
    b'{"errorMessage": "kept for the audit", "orders": 3}',
    b'{"errorType": "none"}',
    b'["errorMessage", "errorType"]',
    b'{"nested": {"errorMessage": "x", "errorType": "y"}}',
    b'{"errorMessage": "x", "errorType": ',
    b'"the log says: Task timed out after 3.00 seconds, but not here"',
    b'{"text": "Task timed out after 3.00 seconds"}',
    b"[" * 5000 + b'"errorMessage"',
    b'{"a":' * 5000 + b'"errorMessage"',
    b"\xff\xfe errorMessage",
]


@pytest.mark.parametrize("body", INNOCENT)
def test_an_answer_that_only_looks_like_an_error_is_a_success(body: bytes) -> None:
    """A function may answer what it likes, as long as it is not an error document."""
    assert classify(RIE, answer(200, None, body)) == Delivered(body, 200, None)


@pytest.mark.parametrize("kind", [LAMBDA, LOCAL, URL])
@pytest.mark.parametrize("body", [body for body, _ in EMULATOR_ERRORS])
def test_only_the_emulator_hides_errors(kind: TargetKind, body: bytes) -> None:
    """For other targets a 200 without the header is a success, whatever the body says."""
    assert classify(kind, answer(200, None, body)) == Delivered(body, 200, None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"Retry-After": "Wed, 01 May 2024 12:00:20 GMT"}, 20.0),
        ({"Retry-After": "Wednesday, 01-May-24 12:00:20 GMT"}, 20.0),
        ({"Retry-After": "Wed May  1 12:00:20 2024"}, 20.0),
        ({"Retry-After": "Wed, 01 May 2024 12:00:20 GMT", "Date": "Wed, 01 May 2024 12:00:15 GMT"}, 5.0),
        ({"Retry-After": "Wed, 01 May 2024 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "Fri, 01 May 2054 11:00:00 GMT"}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "9" * 400}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "Wed, 01 Foo 2024 12:00:00 GMT"}, None),
    ],
)
@pytest.mark.parametrize(
    ("kind", "status"), [(LAMBDA, 429), (LOCAL, 429), (URL, 429), (URL, 503), (RIE, 503), (LAMBDA, 500)]
)
def test_retry_after(kind: TargetKind, status: int, headers: dict[str, str], expected: float | None) -> None:
    """Seconds and dates are read, by the server's own clock if it tells; nonsense is ignored and hours are capped."""
    outcome = classify(kind, answer(status, headers), now=NOW)
    assert isinstance(outcome, Throttled | NotReached)
    assert outcome.retry_after_s == expected


TEXTS = [
    (URL, 500, {}, b"<html>trace with secrets</html>", "HTTP 500 Internal Server Error"),
    (URL, 500, {}, RAISED, "HTTP 500: KeyError: no such order"),
    (URL, 418, {"X-Token": "planted"}, b"", "HTTP 418 I'm a Teapot"),
    (URL, 599, {}, b"", "HTTP 599"),
    (URL, 400, {"x-amzn-ErrorType": "NotOurs"}, b'{"message": "m"}', "HTTP 400 Bad Request"),
    (
        LAMBDA,
        429,
        {"x-amzn-ErrorType": "TooManyRequestsException"},
        b'{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}',
        (
            "HTTP 429 Too Many Requests: TooManyRequestsException: ReservedFunctionConcurrentInvocationLimitExceeded: "
            "Rate Exceeded."
        ),
    ),
    (
        LAMBDA,
        404,
        {"x-amzn-ErrorType": "ResourceNotFoundException:http://internal.amazon.com/"},
        b'{"Type":"User","Message":"Function not found: f"}',
        "HTTP 404 Not Found: ResourceNotFoundException: Function not found: f",
    ),
    (LAMBDA, 403, {"x-amzn-ErrorType": "not a type; x"}, b"\xff\xfe", "HTTP 403 Forbidden"),
    (LAMBDA, 200, FAILED, b'{"errorMessage": "a\\nb\\u0000c\\u001b[31m"}', "a b c [31m"),
    (LAMBDA, 200, FAILED, b"", "HTTP 200 OK"),
    (RIE, 400, {}, b"", "HTTP 400 Bad Request"),
]


@pytest.mark.parametrize(("kind", "status", "headers", "body", "text"), TEXTS)
def test_texts_for_operators(kind: TargetKind, status: int, headers: dict[str, str], body: bytes, text: str) -> None:
    """Texts say what is known in one line, from error documents and statuses, not from headers or pages."""
    outcome = classify(kind, answer(status, headers, body))
    assert not isinstance(outcome, Delivered)
    assert outcome.error == text


@given(
    st.sampled_from(ALL),
    st.integers(100, 999),
    st.dictionaries(
        st.sampled_from(["X-Amz-Function-Error", "Retry-After", "Date", "x-amzn-ErrorType", "X-Amz-Executed-Version"]),
        st.text(max_size=40),
    ),
    st.one_of(
        st.binary(max_size=200),
        st.fixed_dictionaries(
            {},
            optional={k: st.one_of(st.none(), st.text(), st.lists(st.integers())) for k in ("errorMessage", "message")},
        ).map(lambda document: json.dumps(document).encode()),
    ),
)
def test_nothing_a_server_says_upsets_the_classification(
    kind: TargetKind, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Any answer has an outcome, whose text is one short printable line and whose pause is bounded."""
    outcome = classify(kind, answer(status, headers, body), now=NOW)
    if isinstance(outcome, Delivered):
        assert 200 <= status < 300
        return
    assert outcome.error.isprintable()
    assert 0 < len(outcome.error) <= MAX_TEXT
    if not isinstance(outcome, FunctionFailed):
        assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s <= MAX_RETRY_AFTER_S
