"""Error documents and log lines, word for word: `invocation.function_errors`, spec sections 6.1 and 8."""

from __future__ import annotations

import json

import pytest

from invocation.function_errors import (
    Exited,
    NotStarted,
    OutOfMemory,
    TimedOut,
    Unstartable,
    explain,
    failure_document,
    init_report_line,
    report_line,
)

ENDINGS = [
    (TimedOut(3.0), "Sandbox.Timedout", "Task timed out after 3.00 seconds", "Status: timeout"),
    (Exited(0), "Runtime.ExitError", "Runtime exited without providing a reason", "Runtime.ExitError"),
    (Exited(127), "Runtime.ExitError", "Runtime exited with error: exit status 127", "Runtime.ExitError"),
    (Exited(-9), "Runtime.ExitError", "Runtime exited with error: signal: killed", "Runtime.ExitError"),
    (Exited(-11), "Runtime.ExitError", "Runtime exited with error: signal: segmentation fault", "Runtime.ExitError"),
    (Exited(-99), "Runtime.ExitError", "Runtime exited with error: signal: 99", "Runtime.ExitError"),
    (OutOfMemory(), "Runtime.ExitError", "Runtime exited with error: signal: killed", "Runtime.OutOfMemory"),
    (NotStarted(Unstartable.COMMAND, "no"), "Runtime.InvalidEntrypoint", "no", "Runtime.InvalidEntrypoint"),
    (NotStarted(Unstartable.FOLDER, "no"), "Runtime.InvalidWorkingDir", "no", "Runtime.InvalidWorkingDir"),
]


@pytest.mark.parametrize(("ending", "error_type", "text", "status"), ENDINGS)
def test_an_ending_in_words(ending: TimedOut | Exited, error_type: str, text: str, status: str) -> None:
    """Type and message for the caller, status for the REPORT line."""
    ended = explain(ending, "the-id")
    assert (ended.error_type, ended.message) == (error_type, f"RequestId: the-id Error: {text}")
    assert ended.status.endswith(status)


def test_the_report_line_has_what_aws_reports() -> None:
    """Tab-separated; the initialisation and the status only where there is one."""
    assert report_line("id", duration_s=0.0123, memory_mb=128, used_mb=40, init_s=None, status=None) == (
        "REPORT RequestId: id\tDuration: 12.30 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB"
    )
    assert report_line("id", duration_s=1.0, memory_mb=128, used_mb=500, init_s=0.1, status="Status: timeout") == (
        "REPORT RequestId: id\tDuration: 1000.00 ms\tBilled Duration: 1100 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 128 MB\tInit Duration: 100.00 ms\tStatus: timeout"
    )
    assert init_report_line(init_s=10.0, status="Status: timeout") == (
        "INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout"
    )


def test_a_document_names_the_invocation_once() -> None:
    """In the message, unless it is there already or nothing of the invocation's."""
    assert json.loads(failure_document("T", "m", "id")) == {"errorType": "T", "errorMessage": "RequestId: id Error: m"}
    assert json.loads(failure_document("T", "m", None))["errorMessage"] == "m"
    assert json.loads(failure_document("T", "RequestId: id Error: m", "id"))["errorMessage"].count("RequestId") == 1
