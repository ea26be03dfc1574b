"""What pollers need in order to be traced: a span for each attempt at a batch. Without it, at no cost to speak of.

What traces are made with and where they go is the node's business (`node.tracing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from model.invocation import Invocation
    from model.mapping import EventSourceMapping
    from model.outcome import Outcome


class Attempt(Protocol):
    """One attempt at a batch, from right before the function is called until its answer is understood.

    A context manager. Left without an outcome, or by an exception, it was broken off.
    """

    invocation: Invocation  # what the function is to be called with
    outcome: Outcome | None  # to be set before it is left

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End. Raises nothing, and never waits."""


class Tracing(Protocol):
    """Traces the attempts of one mapping."""

    def attempt(self, invocation: Invocation, records: int) -> Attempt:
        """Note that a batch of so many records is about to be sent. Raises nothing, and never waits."""


class Traces(Protocol):
    """Traces the mappings of a node."""

    def __call__(self, mapping: EventSourceMapping) -> Tracing:
        """Return what traces a mapping."""


class UntracedAttempt:
    """An attempt that nobody looks at."""

    __slots__ = ("invocation", "outcome")

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self.outcome: Outcome | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class NoTracing:
    """Traces nothing."""

    def attempt(self, invocation: Invocation, records: int) -> UntracedAttempt:  # noqa: ARG002 - nobody counts
        """Return an attempt that nobody looks at."""
        return UntracedAttempt(invocation)


NO_TRACING = NoTracing()


def no_traces(mapping: EventSourceMapping) -> NoTracing:  # noqa: ARG001 - whatever the mapping
    """Trace no mapping."""
    return NO_TRACING
