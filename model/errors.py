"""Infrastructure errors, classed by what the caller should do.

A function that fails is no exception but an outcome (`model.outcome`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.ids import Position, ShardKey


class EsmdError(Exception):
    """Any error raised on purpose."""


class UnavailableError(EsmdError):
    """Something outside cannot be used now. Wait and try again; nothing was decided."""


class StoreUnavailableError(UnavailableError):
    """Redis did not answer, refused, or is not writable."""


class SourceUnavailableError(UnavailableError):
    """The event source did not answer or throttles."""


class RefusedError(EsmdError):
    """Something outside said no, and will say no again. Someone must act; keep the place meanwhile."""


class SourceRefusedError(RefusedError):
    """The event source refuses: no such topic, not authorised, wrong credentials.

    `result` is AWS's LastProcessingResult text for it where the specification has one (section 7.4).
    """

    def __init__(self, message: str, *, result: str | None = None) -> None:
        super().__init__(message)
        self.result = result or f"PROBLEM: {message}"


class MappingRefusedError(RefusedError):
    """The mapping must not be worked on as it is and as its source is: want none of its shards until that changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.result = f"PROBLEM: {message}"


class SourceRestartedError(EsmdError):
    """The shard's log began anew, before the place it was read to: recreated or truncated.

    Nothing before `position` can be read any more, and what was read of the former log is not what is there now.
    """

    def __init__(self, message: str, *, position: Position) -> None:
        super().__init__(message)
        self.position = position


class LeaseLostError(EsmdError):
    """The lease is gone or can no longer be trusted: stop at once and write nothing more."""

    def __init__(self, key: ShardKey, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key


class ConflictError(EsmdError):
    """A change was based on a state that is no longer current, or the name is taken."""


class NotFoundError(EsmdError):
    """No such mapping."""
