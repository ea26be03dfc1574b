"""How many events of each function a partition's holder may take now. Pure.

A function's line has a share of the partition's room, so that a slow function leaves some to others; within it what
`pollers.allowance` has learned from its throttles, so that a function that has no room is asked now and then only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pollers.allowance import Allowance

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 256
"""Events of a partition under way at once, on its holder."""

MOST_OF_A_LINE = 64
"""Of these, of one function."""


class _Line:
    __slots__ = ("allowance", "running")

    def __init__(self) -> None:
        self.allowance = Allowance()
        self.running = 0


class Lines:
    """The lines of one partition that something is known of. `now` is event-loop time."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self.running = 0

    @property
    def room(self) -> int:
        """How many more events may be taken, of all functions together."""
        return MOST - self.running

    def limits(self, now: float) -> Mapping[str, int]:
        """Return how many may be taken of each line that is known; of others `MOST_OF_A_LINE`."""
        return {
            name: int(max(0, min(MOST_OF_A_LINE - line.running, line.allowance.room(line.running, now))))
            for name, line in self._lines.items()
        }

    def due_at(self, now: float) -> float | None:
        """Return when a line that has no room may have some though nothing ends; None: never."""
        found = (line.allowance.due_at(line.running) for line in self._lines.values())
        return min((at for at in found if at is not None and at > now), default=None)

    def began(self, name: str, now: float) -> None:
        """Note that an event was taken."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
        line.running += 1
        line.allowance.began(now)
        self.running += 1

    def ended(self, name: str) -> None:
        """Note that an event is settled. A line of which there is nothing more to know is forgotten."""
        line = self._lines[name]
        line.running -= 1
        self.running -= 1
        if not line.running and not line.allowance.throttled_lately:
            del self._lines[name]

    def unused(self, name: str) -> None:
        """Note that an event that is under way was not handed to the function: it was over, or only to be told."""
        self._lines[name].allowance.unused()

    def took(self, name: str, took_s: float) -> None:
        """Note that the function took an event that is under way."""
        line = self._lines[name]
        line.allowance.took(line.running, took_s)

    def throttled(self, name: str, now: float) -> None:
        """Note that the function had no room, or was not reached, for an event that is under way."""
        line = self._lines[name]
        line.allowance.throttled(line.running - 1, now)
