"""How many batches a function that throttles is given at once, and how far apart. Pure.

Without throttles there is no limit. A throttle shows what the function holds, namely what is with it at that moment:
that becomes the limit. Each batch taken at the limit raises it a little, so that a function at its limit is asked too
much once in about ten batches, and one that has more room is given a tenth more with each round. A function that
throttles fewer than that for reasons of its own is given as many as ever.

Throttled with nothing else with it, the function takes less than one at a time: batches are spaced out, until it takes
most of what comes. When it takes nothing for seconds there is no room at all, and it is for `pollers.circuit` to wait.
"""

from __future__ import annotations

from math import inf

FIRST_SPACING_S = 0.02
LONGEST_SPACING_S = 3.0
FULL_AFTER = 9
"""Throttles in a row, with nothing else with the function, that mean that it has no room: five seconds, in all."""
QUIET_S = 60.0
"""After so long without a throttle the limit is lifted step by step: what it was learned from is over."""

_MORE = 0.1
_LENGTHEN, _SHORTEN = 1.12, 0.98  # about six batches taken for one throttled
_FEW = 3  # throttles in a row that are more than chance
_WIDEN_S = 1.0
_LIMITLESS = 1000.0


class Allowance:
    """What one function is given. `now` is event-loop time; `running` counts what is with the function."""

    def __init__(self) -> None:
        self.limit = inf
        self.throttled_lately = False
        self._throttles = 0  # in a row, with nothing else with the function
        self.spacing_s = 0.0  # from beginning to beginning
        self._not_before = -inf
        self._ramping = False
        self._widen_at: float | None = None
        self._widen_s = _WIDEN_S

    def __repr__(self) -> str:
        return f"<Allowance {self.limit:.2f} at once, {self.spacing_s:.3f} s apart>"

    def room(self, running: int, now: float) -> float:
        """How many more may begin now; infinite without a limit."""
        self._widen(now)
        if now < self._not_before:
            return 0
        return self.limit if self.limit == inf else max(0, int(self.limit) - running)

    def due_at(self, running: int) -> float | None:
        """When there may be room though nothing ends; None: never."""
        spaced_at = self._not_before if running + 1 <= self.limit else -inf
        return min((at for at in (spaced_at, self._widen_at) if at is not None and at > -inf), default=None)

    def began(self, now: float) -> None:
        """Note that a batch goes to the function."""
        self._not_before = now + self.spacing_s if self.spacing_s else -inf

    def unused(self) -> None:
        """Note that what began went to nobody after all."""
        self._not_before = -inf

    def took(self, running: int, took_s: float) -> None:
        """Note that the function took a batch, and how long it had it; `running` counts it still."""
        self._throttles = 0
        if self.spacing_s > took_s:
            self.spacing_s *= _SHORTEN
            return
        self.spacing_s = 0.0  # one at a time is seldom enough
        if self.limit != inf and running >= int(self.limit) and not self._ramping:
            self.limit += _MORE  # below the limit nothing is learned

    def throttled(self, running: int, now: float) -> bool:
        """Note a throttle; `running` counts what else is with the function. Tells whether there is no room at all."""
        self.throttled_lately, self._ramping = True, False
        self._widen_at, self._widen_s = now + QUIET_S, _WIDEN_S
        self.limit = max(1, running if self.limit >= running + 2 else self.limit - 1)
        if running:
            return False
        self._throttles += 1
        pause_s = FIRST_SPACING_S * 2 ** (self._throttles - 1)
        longer_s = self.spacing_s * _LENGTHEN if self._throttles < _FEW else max(2 * self.spacing_s, pause_s)
        self.spacing_s = min(longer_s, LONGEST_SPACING_S)
        self._not_before = now + min(max(longer_s, pause_s), LONGEST_SPACING_S)
        return self._throttles >= FULL_AFTER

    def ramp(self, now: float, step_s: float) -> None:
        """Begin with one at a time, twice as many with each step: the function was away, and is not to be stormed."""
        self.limit, self._ramping = 1.0, True
        self._throttles = 0
        self._not_before = -inf
        self._widen_at, self._widen_s = now + step_s, step_s

    def _widen(self, now: float) -> None:
        while self._widen_at is not None and now >= self._widen_at:
            self.limit *= 2
            self.spacing_s /= 2
            self._widen_at += self._widen_s
            if self.limit > _LIMITLESS:
                self.limit, self.spacing_s, self._widen_at = inf, 0.0, None
                self.throttled_lately = self._ramping = False
