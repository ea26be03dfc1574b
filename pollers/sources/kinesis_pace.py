"""When a shard may be asked again: spec section 3.1's five calls a second, shared with everyone else. Pure.

A quiet shard is asked once a second. While there is backlog it is asked as often as AWS allows, and while records keep
arriving nearly so, so that a record waits an eighth of a second at the median. Whoever else reads the shard takes
from the same five calls: each throttle doubles the pause, and quiet time takes that back step by step.
"""

from __future__ import annotations

from typing import Final

IDLE_S: Final = 1.0
BACKLOG_S: Final = 0.205  # five a second, and a little for the network's jitter
LIVELY_S: Final = 0.25
_LIVELY_FOR_S: Final = 5.0  # after the last record
_MAX_PAUSE_S: Final = 5.0
_FORGIVE_S: Final = 10.0
_CALLED_OFF_S: Final = 10.0  # throttled for so long: say so


class Pace:
    """The calls of one reader on one shard. Times are event-loop time."""

    def __init__(self) -> None:
        self.due_at = 0.0
        self._asked_at = 0.0
        self._records_at: float | None = None
        self._pause_s = 0.0  # what throttling has taught
        self._taught_at = 0.0
        self._throttled_since: float | None = None

    def asking(self, now: float) -> None:
        """Note that a call goes out."""
        self._asked_at = now

    def answered(self, now: float, *, records: int, behind_ms: int | None) -> None:
        """Note an answer, and so when to ask again."""
        self._throttled_since = None
        if self._pause_s and now - self._taught_at >= _FORGIVE_S:
            self._pause_s = self._pause_s / 2 if self._pause_s > BACKLOG_S else 0.0
            self._taught_at = now
        if records:
            self._records_at = now
        if behind_ms:
            pause_s = BACKLOG_S
        elif self._records_at is not None and now - self._records_at < _LIVELY_FOR_S:
            pause_s = LIVELY_S
        else:
            pause_s = IDLE_S
        self.due_at = self._asked_at + max(pause_s, self._pause_s)

    def throttled(self, now: float) -> bool:
        """Note that the call was one too many. Tells whether that has gone on for long."""
        if self._throttled_since is None:
            self._throttled_since = now
        self._pause_s = min(_MAX_PAUSE_S, max(2 * self._pause_s, 2 * BACKLOG_S))
        self._taught_at = now
        self.due_at = now + max(self._pause_s, IDLE_S)
        return now - self._throttled_since >= _CALLED_OFF_S

    def failed(self, now: float) -> None:
        """Note that a call got no answer: the caller decides when to try again, and this adds only the usual pause."""
        self.due_at = now + BACKLOG_S
