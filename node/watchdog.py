"""Watches whether the event loop keeps up, because a node that does not cannot keep its promises about leases.

A task notices lag after the fact and tells whoever must step down; a thread notices a loop that is stuck right now
and shows in the log where. What to do about either is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from typing import TYPE_CHECKING

import structlog

from leasing.clock import trust_clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

INTERVAL_S = 0.1
WARN_S = 0.5
WARN_EVERY_S = 10.0
HANG_S = 5.0
WINDOW_S = 10.0
_HANG_CHECKS = 5


class LoopLag:
    """The latest lag and the largest of late. Pure: told the time."""

    def __init__(self, *, window_s: float = WINDOW_S) -> None:
        self.last_s = 0.0
        self._window_s = window_s
        self._window_ends_at = float("-inf")
        self._max_s = 0.0  # in this window
        self._max_before_s = 0.0  # in the one before

    def observe(self, lag_s: float, *, now: float) -> None:
        """Take a measurement."""
        if now >= self._window_ends_at:
            idle = now >= self._window_ends_at + self._window_s
            self._max_before_s = 0.0 if idle else self._max_s
            self._max_s = 0.0
            self._window_ends_at = now + self._window_s
        self.last_s = lag_s
        self._max_s = max(self._max_s, lag_s)

    @property
    def recent_max_s(self) -> float:
        """The largest lag of the last one to two windows: no scrape misses a peak, and a peak passes."""
        return max(self._max_s, self._max_before_s)


class Watchdog:
    """Measures the loop it runs on.

    `on_lag` is called on the loop with every lag of at least `warn_s`, before anything else that was waiting for its
    turn behind the watchdog; it must not block.
    """

    def __init__(
        self,
        *,
        on_lag: Callable[[float], None] | None = None,
        warn_s: float = WARN_S,
        hang_s: float = HANG_S,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = trust_clock,
    ) -> None:
        self.lag = LoopLag()
        self._on_lag = on_lag
        self._warn_s = warn_s
        self._hang_s = hang_s
        self._interval_s = interval_s
        self._clock = clock
        self._beats = 0
        self._warn_again_at = float("-inf")
        self._beaten_at: float | None = None

    @property
    def alive(self) -> bool:
        """Whether the loop is being watched and has not been stuck just now."""
        return self._beaten_at is not None and self._clock() - self._beaten_at < self._hang_s

    async def run(self) -> None:
        """Measure until cancelled."""
        stopped = threading.Event()
        thread = threading.Thread(
            target=self._watch, args=(threading.get_ident(), stopped), name="loop watchdog", daemon=True
        )
        thread.start()
        self._beaten_at = self._clock()  # it runs now: who asks before the first beat is not told of a stuck loop
        try:
            while True:
                slept_at = self._clock()
                await asyncio.sleep(self._interval_s)
                now = self._clock()
                self._beats += 1
                self._beaten_at = now
                self._took(max(0.0, now - slept_at - self._interval_s), now)
        finally:
            self._beaten_at = None
            stopped.set()  # the thread ends by itself; waiting for it here would hold up the loop

    def _took(self, lag_s: float, now: float) -> None:
        self.lag.observe(lag_s, now=now)
        if lag_s < self._warn_s:
            return
        if self._on_lag is not None:
            self._on_lag(lag_s)
        if now >= self._warn_again_at:
            self._warn_again_at = now + WARN_EVERY_S
            log.warning("event_loop.lagged", lag_s=round(lag_s, 3))

    def _watch(self, loop_thread: int, stopped: threading.Event) -> None:
        """Show where the loop's thread is once it has missed its beats for `hang_s`; once for each hang.

        Counts own rounds rather than time: a process that was stopped as a whole was not stuck.
        """
        seen, missed = -1, 0
        while not stopped.wait(self._hang_s / _HANG_CHECKS):
            if self._beats != seen:
                if missed >= _HANG_CHECKS:
                    log.warning("event_loop.going_on")
                seen, missed = self._beats, 0
                continue
            missed += 1
            if missed == _HANG_CHECKS:
                log.error("event_loop.stuck", for_s=self._hang_s, stack=_stack(loop_thread))


def _stack(thread: int) -> str:
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to see another thread
    return "".join(traceback.format_stack(frame)) if frame is not None else "(gone)"
