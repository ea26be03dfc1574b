"""What is asked of a function in a sandbox, and what comes of it, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One invocation. `client_context` is JSON text, `trace` an X-Ray trace header."""

    event: bytes
    request_id: str
    client_context: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """The function was invoked. `payload` is its result, or with `function_error` an error document."""

    payload: bytes
    function_error: str | None
    log_tail: bytes
    duration_s: float
    init_s: float | None = None  # of a new environment
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class NotInvoked:
    """The function was not invoked, as an error of the Invoke API (spec section 6.2)."""

    status: int
    error_type: str
    message: str
    reason: str | None = None


TOO_MANY = "TooManyRequestsException"


def throttled(*, own_limit: bool) -> NotInvoked:
    """Return the answer of a function at its own limit, or of a node that has no room."""
    own, account = "ReservedFunctionConcurrentInvocationLimitExceeded", "ConcurrentInvocationLimitExceeded"
    return NotInvoked(429, TOO_MANY, "Rate Exceeded.", own if own_limit else account)


def out_of_service(why: str) -> NotInvoked:
    """Return the answer when it is the node that cannot."""
    return NotInvoked(500, "ServiceException", why)
