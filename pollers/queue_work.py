"""The batches of one poller: those with the function, those that it did not take, and those parked. Pure.

Also when each free slot's last invocation ended, since batching windows are counted from there (spec section 2): after
a quiet spell a message goes at once, in steady traffic each slot gathers for a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.outcome import FunctionFailed, PartlyFailed
    from pollers.queue_ports import Message


@dataclass(slots=True, eq=False)
class Work:
    """A batch on its way, with the refusals it has met."""

    messages: list[Message]
    refusals: int = 0
    unreached: int = 0  # of these, the last ones in a row that were no throttles
    due_at: float = 0.0  # not before, while others are called (event-loop time)
    failures: int = 0  # function errors with this message alone, since its receive
    parked_at: float | None = None  # since when it is tried again here (event-loop time)
    error: str | None = None  # of the last function error

    def split(self, outcome: PartlyFailed) -> tuple[list[Message], list[Message]]:
        """Return the messages that failed, and those that were taken."""
        failed = [message for message in self.messages if message.record.item_id in outcome.failed]
        return failed, [message for message in self.messages if message.record.item_id not in outcome.failed]

    def failed(self, outcome: FunctionFailed) -> Work:
        """Note why it failed; returns the work itself."""
        self.error = outcome.error
        return self

    @property
    def size(self) -> int:
        """Bytes in an event."""
        return sum([message.size for message in self.messages])

    @property
    def oldest_ms(self) -> int:
        """When its oldest message was sent."""
        return min([message.record.arrival_ms for message in self.messages])


class Workload:
    """All batches of one poller. `now` is event-loop time."""

    def __init__(self) -> None:
        self._running: dict[Work, tuple[int, int]] = {}  # messages and oldest, as of the beginning
        self._paused: list[Work] = []
        self._parked: list[Work] = []
        self._ended_at: list[float] = []  # a heap: of the free slots
        self._peak = 0

    def __contains__(self, work: object) -> bool:
        return work in self._running or work in self._waiting

    @property
    def running(self) -> int:
        """Batches with the function."""
        return len(self._running)

    @property
    def paused(self) -> int:
        """Batches that wait for the function."""
        return len(self._paused)

    @property
    def busy(self) -> int:
        """Batches with the function, or waiting for it."""
        return len(self._running) + len(self._paused)

    @property
    def messages(self) -> int:
        """Messages in all batches, parked ones too."""
        return sum([count for count, _ in self._running.values()]) + sum([len(w.messages) for w in self._waiting])

    @property
    def parked(self) -> list[Work]:
        """Batches that failed and wait for their next try, and take no slot meanwhile."""
        return [work for work in self._waiting if work.parked_at is not None]

    @property
    def _waiting(self) -> list[Work]:
        return [*self._paused, *self._parked]

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest of them was sent."""
        times = [oldest_ms for _, oldest_ms in self._running.values()]
        return min([*times, *[work.oldest_ms for work in self._waiting]], default=None)

    def take_peak(self) -> int:
        """Return the most that were busy at once since this was asked last."""
        peak, self._peak = max(self._peak, self.busy), self.busy
        return peak

    def window_began_at(self, free: int, now: float) -> float:
        """When the next of `free` slots began to gather; slots that are new begin now."""
        ended_at = self._ended_at
        while len(ended_at) > max(1, free):
            heappop(ended_at)
        ended_at += [now] * (free - len(ended_at))
        heapify(ended_at)
        return ended_at[0] if ended_at else now

    def begin(self, work: Work) -> None:
        """Note a batch as with the function."""
        self._running[work] = (len(work.messages), work.oldest_ms)
        if self._ended_at:
            heappop(self._ended_at)
        self._peak = max(self._peak, self.busy)

    def end(self, work: Work, now: float) -> None:
        """Note that the function has answered."""
        del self._running[work]
        heappush(self._ended_at, now)

    def pause(self, work: Work, due_at: float) -> None:
        """Keep a batch that the function did not take, until it may try again."""
        work.refusals += 1
        work.due_at = due_at
        self._paused.append(work)

    def park(self, work: Work) -> None:
        """Keep a message that failed, until it is due."""
        self._parked.append(work)

    def take_due(self, now: float) -> Work | None:
        """Take the paused or parked batch whose turn it is, if any."""
        work = min(self._waiting, key=lambda work: work.due_at, default=None)
        if work is None or work.due_at > now:
            return None
        (self._paused if work in self._paused else self._parked).remove(work)
        return work

    def due_at(self) -> float | None:
        """When the next of them may try again."""
        return min((work.due_at for work in self._waiting), default=None)

    def hasten(self, now: float) -> None:
        """Let paused batches try now: the function is away for all of them, or came back."""
        for work in self._paused:
            work.due_at = min(work.due_at, now)

    def expire(self, gone: Callable[[Message], bool], *, whole_groups: bool) -> list[Message]:
        """Take out of waiting batches the messages that others can see again, and what is of their groups."""
        expired: list[Message] = []
        for work in self._waiting:
            dead = [message for message in work.messages if gone(message)]
            if whole_groups and dead:
                groups = {message.group for message in dead}
                dead = [message for message in work.messages if message.group in groups]
            out = set(map(id, dead))
            work.messages = [message for message in work.messages if id(message) not in out]
            expired += dead
        self._paused = [work for work in self._paused if work.messages]
        self._parked = [work for work in self._parked if work.messages]
        return expired

    def clear(self) -> list[Message]:
        """Take out everything that waits."""
        messages = [message for work in self._waiting for message in work.messages]
        self._paused.clear()
        self._parked.clear()
        return messages
