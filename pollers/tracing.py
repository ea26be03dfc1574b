"""What pollers need in order to be traced: a span for each attempt at a batch, or at an asynchronous event.

Without it, at no cost to speak of.

What traces are made with and where they go is the node's business (`node.tracing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from invocation.classify import Answer
    from model.async_event import NewEvent
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


class EventAttempt(Protocol):
    """One attempt at the event of an asynchronous invocation; a context manager, as `Attempt` is."""

    event: NewEvent  # what the function is to be invoked with, in the attempt's own trace context
    answer: Answer | None  # to be set before it is left

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End. Raises nothing, and never waits."""


class EventTracing(Protocol):
    """Traces the attempts at events of asynchronous invocations."""

    def event_attempt(self, event: NewEvent, number: int) -> EventAttempt:
        """Note that an event's function is about to be invoked, for the first time or again. Raises nothing."""


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


class UntracedEventAttempt:
    """An attempt at an event that nobody looks at: in the trace that its caller began."""

    __slots__ = ("answer", "event")

    def __init__(self, event: NewEvent) -> None:
        self.event = event
        self.answer: Answer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class NoTracing:
    """Traces nothing."""

    def attempt(self, invocation: Invocation, records: int) -> UntracedAttempt:  # noqa: ARG002 - nobody counts
        """Return an attempt that nobody looks at."""
        return UntracedAttempt(invocation)

    def event_attempt(self, event: NewEvent, number: int) -> UntracedEventAttempt:  # noqa: ARG002 - nobody counts
        """Return an attempt that nobody looks at."""
        return UntracedEventAttempt(event)


NO_TRACING = NoTracing()


def no_traces(mapping: EventSourceMapping) -> NoTracing:  # noqa: ARG001 - whatever the mapping
    """Trace no mapping."""
    return NO_TRACING
