"""What came of asynchronous invocations on this node, by function: plain numbers, read by a scrape."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pollers.counters import DurationHistogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.async_event import Condition


@dataclass(slots=True)
class AsyncCounters:
    """The counts of one function, in AWS's sense of each metric (AsyncEventsReceived, AsyncEventAge…)."""

    received: int = 0  # events accepted by this node
    ages: DurationHistogram = field(default_factory=DurationHistogram)  # from being accepted to each invocation
    invocations: Counter[str] = field(default_factory=Counter)  # by `AttemptResult`
    results: Counter[Condition] = field(default_factory=Counter)  # events that were over
    dropped: int = 0  # over without success, and nobody was told: no destination, or none that took it
    destination_errors: int = 0  # deliveries to destinations that failed
    dead_letter_errors: int = 0  # the same, to dead-letter queues and topics


class AsyncMeters:
    """The counts of all functions that had events on this node since it started."""

    def __init__(self) -> None:
        self._functions: dict[str, AsyncCounters] = {}

    def of(self, function: str) -> AsyncCounters:
        """Return a function's counts."""
        found = self._functions.get(function)
        if found is None:
            found = self._functions[function] = AsyncCounters()
        return found

    def received(self, function: str) -> None:
        """Count an event that this node accepted."""
        self.of(function).received += 1

    def __iter__(self) -> Iterator[tuple[str, AsyncCounters]]:
        return iter(sorted(self._functions.items()))
