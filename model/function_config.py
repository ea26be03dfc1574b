"""What API and files say of a function besides where it is: its concurrency, its asynchronous invocations.

The store keeps it in parts, each a JSON document of its own, so that what changes one part does not touch another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

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


class FunctionPart(StrEnum):
    """What is stored, and changed, by itself."""

    CONCURRENCY = "concurrency"  # a whole number
    EVENT_INVOKE = "event_invoke"  # an object with AWS's names: only what was given
    DEAD_LETTER = "dead_letter"  # an ARN
    DEFINITION = "definition"  # a function that the API made: `model.function_definition`


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One part as the store keeps it: JSON, None where somebody took it away.

    `applied` marks what a file asked for last, so that a change by the API outlasts the next reading of the same file.
    """

    document: bytes | None
    applied: str = ""
    modified_time: float = 0.0  # epoch seconds, by the store's clock


FunctionParts = dict[FunctionPart, StoredPart]


@dataclass(frozen=True, slots=True)
class FunctionTable:
    """The parts of all functions, by name. The revision changes with each of them, and is never again what it was."""

    revision: int = 0
    functions: Mapping[str, FunctionParts] = field(default_factory=dict)

    def document(self, function: str, part: FunctionPart) -> bytes | None:
        """Return what is said in one part of a function; None: nothing."""
        stored = self.functions.get(function, {}).get(part)
        return None if stored is None else stored.document

    def reserved(self) -> dict[str, int]:
        """Return the concurrency that is reserved for each function that has any."""
        found = ((name, self.document(name, FunctionPart.CONCURRENCY)) for name in self.functions)
        return {name: msgspec.json.decode(document, type=int) for name, document in found if document is not None}

    def config(self, function: str) -> FunctionConfig:
        """Return all that is said of a function, with the defaults for the rest."""
        concurrency = self.document(function, FunctionPart.CONCURRENCY)
        events = self.document(function, FunctionPart.EVENT_INVOKE)
        dead_letter = self.document(function, FunctionPart.DEAD_LETTER)
        return FunctionConfig(
            None if concurrency is None else msgspec.json.decode(concurrency, type=int),
            EventInvokeConfig() if events is None else event_invoke_config(events),
            None if dead_letter is None else msgspec.json.decode(dead_letter, type=str),
        )


class _End(msgspec.Struct):
    Destination: str = ""


class _Ends(msgspec.Struct):
    OnSuccess: _End = msgspec.field(default_factory=_End)
    OnFailure: _End = msgspec.field(default_factory=_End)


class _EventInvoke(msgspec.Struct):
    MaximumRetryAttempts: int = MAX_RETRY_ATTEMPTS
    MaximumEventAgeInSeconds: int = MAX_EVENT_AGE_S
    DestinationConfig: _Ends = msgspec.field(default_factory=_Ends)


_read_event_invoke = msgspec.json.Decoder(_EventInvoke)


def event_invoke_config(document: bytes) -> EventInvokeConfig:
    """Return what a stored document of asynchronous invocation says."""
    said = _read_event_invoke.decode(document)
    ends = said.DestinationConfig
    return EventInvokeConfig(
        said.MaximumRetryAttempts,
        said.MaximumEventAgeInSeconds,
        ends.OnSuccess.Destination or None,
        ends.OnFailure.Destination or None,
    )
