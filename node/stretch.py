"""The latest values of something that is looked at again and again, for rates over a stretch of time. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")


class Sample(NamedTuple, Generic[Value]):
    """A value and when it was seen, in seconds of any steady clock."""

    at: float
    value: Value


class Stretch(Generic[Value]):
    """Keeps what was seen in the last `keep_s` seconds, and the one before, so that the whole of them is covered."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._samples: deque[Sample[Value]] = deque()

    def add(self, at: float, value: Value) -> None:
        """Take in the next value."""
        samples = self._samples
        samples.append(Sample(at, value))
        while len(samples) > 2 and samples[1].at <= at - self._keep_s:  # noqa: PLR2004 - a stretch has two ends
            samples.popleft()

    def ends(self, within_s: float | None = None) -> tuple[Sample[Value], Sample[Value]] | None:
        """Return the first and the last value, of what is kept or of the last `within_s` seconds alone.

        None: there are not two, or they were seen at one moment.
        """
        if not self._samples:
            return None
        last = self._samples[-1]
        first = next(one for one in self._samples if within_s is None or one.at >= last.at - within_s)
        return (first, last) if first.at < last.at else None

    @property
    def first(self) -> Value:
        """The oldest value that is kept. Raises IndexError when there is none."""
        return self._samples[0].value
