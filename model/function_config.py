"""What the API, or a node's files, say of a function besides where it is: its concurrency, its asynchronous invocations."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_RETRY_ATTEMPTS = 2
"""Retries of an asynchronous invocation at most, and by default (spec section 6.3)."""

MIN_EVENT_AGE_S, MAX_EVENT_AGE_S = 60, 21_600
"""How long an asynchronous event may be kept; the longest is the default (spec section 6.3)."""


@dataclass(frozen=True, slots=True)
class EventInvokeConfig:
    """How asynchronous invocations of a function are tried, and who is told of what came of them (spec section 6.3).

    Destinations are ARNs of SQS, SNS, S3, another function, or `kafka://` topics as in mappings.
    """

    maximum_retry_attempts: int = MAX_RETRY_ATTEMPTS
    maximum_event_age_s: int = MAX_EVENT_AGE_S
    on_success: str | None = None
    on_failure: str | None = None


@dataclass(frozen=True, slots=True)
class FunctionConfig:
    """What holds for a function in the whole fleet.

    `reserved_concurrency` None: it takes of what is not reserved; 0: nothing runs. `dead_letter` is the ARN of the
    function's dead-letter queue or topic.
    """

    reserved_concurrency: int | None = None
    event_invoke: EventInvokeConfig = field(default_factory=EventInvokeConfig)
    dead_letter: str | None = None
