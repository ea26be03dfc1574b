"""When a shard may be subscribed to again (spec section 3.1): a call a second, five seconds for another one. Pure."""

from __future__ import annotations

from typing import Final

CALL_S: Final = 1.1
"""AWS takes one call a second per consumer and shard; the rest is for the network's jitter."""

_MAX_PAUSE_S: Final = 5.0
_PATIENCE_S: Final = 10.0  # put off for so long: say so. Another's turn takes five


class FanOutPace:
    """The subscriptions of one reader to one shard. Times are event-loop time."""

    def __init__(self) -> None:
        self.due_at = 0.0
        self._pause_s = CALL_S
        self._put_off_since: float | None = None

    def asking(self, now: float) -> None:
        """Note that a call goes out."""
        self.due_at = now + CALL_S

    def flowing(self) -> None:
        """Note that a subscription brings events."""
        self._pause_s = CALL_S
        self._put_off_since = None

    def in_use(self, now: float) -> bool:
        """Note that it is another subscription's turn. Tells whether that has gone on for long."""
        return self._put_off(now, CALL_S)

    def throttled(self, now: float) -> bool:
        """Note that the call was one too many. Tells whether that has gone on for long."""
        self._pause_s = min(_MAX_PAUSE_S, 2 * self._pause_s)
        return self._put_off(now, self._pause_s)

    def _put_off(self, now: float, pause_s: float) -> bool:
        if self._put_off_since is None:
            self._put_off_since = now
        self.due_at = max(self.due_at, now + pause_s)
        return now - self._put_off_since >= _PATIENCE_S
