"""What came of an invocation, as data. One value per row of spec section 4.1 and contract section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Delivered:
    """The function answered without an error. The body matters only with ReportBatchItemFailures."""

    body: bytes = b""
    status: int = 200
    executed_version: str | None = None


@dataclass(frozen=True, slots=True)
class PartlyFailed:
    """A valid partial batch response. `failed` holds the item identifiers, each of a record in the batch."""

    failed: frozenset[Any]
    status: int = 200
    executed_version: str | None = None


@dataclass(frozen=True, slots=True)
class FunctionFailed:
    """The function ran, or may have run, and failed. Consumes a retry attempt."""

    error: str  # error type and message for operators, at most a few hundred characters
    function_error: str | None = "Unhandled"  # None for an invalid partial batch response
    status: int = 200
    executed_version: str | None = None


@dataclass(frozen=True, slots=True)
class Throttled:
    """The target has no room now. Consumes nothing; polling pauses."""

    error: str
    retry_after_s: float | None = None
    status: int | None = 429


@dataclass(frozen=True, slots=True)
class NotReached:
    """The batch did not reach the function: refused, missing, denied, a service error. Consumes nothing."""

    error: str
    retry_after_s: float | None = None
    status: int | None = None
    batch_refused: bool = False  # the target answers, and takes other batches: it is this one that it refuses


Outcome = Delivered | PartlyFailed | FunctionFailed | Throttled | NotReached
