"""What a caller is told when a function did not answer, and the log's lines (spec sections 6.1 and 8). Pure."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import msgspec

RESPONSE_TOO_LARGE = (
    "Function.ResponseSizeTooLarge",
    "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
)
TRUNCATED_RESPONSE = ("Runtime.TruncatedResponse", "The response ended before its end")


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function did not complete in time."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Exited:
    """The runtime ended; `code` is its exit status, or a negative signal number."""

    code: int


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The sandbox used more memory than its function has."""


class Unstartable(StrEnum):
    """What kept a runtime from being started: its value is the error type."""

    COMMAND = "Runtime.InvalidEntrypoint"
    FOLDER = "Runtime.InvalidWorkingDir"
    SANDBOX = "Sandbox.Failure"


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The runtime could not be started."""

    kind: Unstartable
    why: str


Ending = TimedOut | Exited | OutOfMemory | NotStarted
"""How a runtime came to its end before it had answered."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An ending in words: the type and message that callers see, and what the REPORT line adds."""

    error_type: str
    message: str
    status: str  # for the REPORT line and metrics


def explain(ending: Ending, request_id: str) -> Ended:
    """Say what an ending means to the caller."""
    match ending:
        case TimedOut(after_s):
            message = f"RequestId: {request_id} Error: Task timed out after {after_s:.2f} seconds"
            return Ended("Sandbox.Timedout", message, "Status: timeout")
        case OutOfMemory():
            # AWS tells the caller of the signal, and only the log of the reason.
            message = f"RequestId: {request_id} Error: Runtime exited with error: signal: killed"
            return Ended("Runtime.ExitError", message, "Status: error\tError Type: Runtime.OutOfMemory")
        case Exited(code):
            message = f"RequestId: {request_id} Error: {_exit_text(code)}"
            return Ended("Runtime.ExitError", message, "Status: error\tError Type: Runtime.ExitError")
        case NotStarted(kind, why):
            message = f"RequestId: {request_id} Error: {why}"
            return Ended(kind.value, message, f"Status: error\tError Type: {kind.value}")
        case _:
            assert_never(ending)


def _exit_text(code: int) -> str:
    if code == 0:
        return "Runtime exited without providing a reason"
    if code > 0:
        return f"Runtime exited with error: exit status {code}"
    names = {signal.SIGKILL: "killed", signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"Runtime exited with error: signal: {-code}"
    described = names.get(number) or (signal.strsignal(number) or str(-code)).lower()
    return f"Runtime exited with error: signal: {described}"


def failure_document(error_type: str, message: str, request_id: str | None) -> bytes:
    """Return an error document. One about a single invocation names it in the message."""
    named = f"RequestId: {request_id} Error: {message}"
    text = message if request_id is None or message.startswith("RequestId: ") else named
    return msgspec.json.encode({"errorType": error_type, "errorMessage": text})


def start_line(request_id: str, version: str) -> str:
    """Return the log's first line of an invocation."""
    return f"START RequestId: {request_id} Version: {version}"


def end_line(request_id: str) -> str:
    """Return the line after the function's own."""
    return f"END RequestId: {request_id}"


def report_line(
    request_id: str, *, duration_s: float, memory_mb: int, used_mb: int, init_s: float | None, status: str | None
) -> str:
    """Return the log's last line of an invocation. `init_s` is told at the first one alone."""
    parts = [
        f"REPORT RequestId: {request_id}",
        f"Duration: {duration_s * 1000:.2f} ms",
        f"Billed Duration: {math.ceil((duration_s + (init_s or 0.0)) * 1000)} ms",
        f"Memory Size: {memory_mb} MB",
        f"Max Memory Used: {min(used_mb, memory_mb)} MB",
    ]
    if init_s is not None:
        parts.append(f"Init Duration: {init_s * 1000:.2f} ms")
    if status is not None:
        parts.append(status)
    return "\t".join(parts)


def init_report_line(*, init_s: float, status: str) -> str:
    """Return the log's line about a failed initialisation; the next invocation repeats it."""
    return f"INIT_REPORT Init Duration: {init_s * 1000:.2f} ms\tPhase: init\t{status}"
