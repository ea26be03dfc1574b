"""When a shard's unfinished records will be deleted by their source, if it goes on like this. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

_SAMPLE_S: Final = 10.0
_WINDOW_S: Final = 300.0
_MIN_SPAN_S: Final = 30.0  # a shard that has just been opened shows no trend
_HORIZON_S: Final = 7 * 86400.0  # a forecast beyond this means nothing
_WARN_S: Final = 3600.0


class RetentionForecast:
    """The trend of one shard's lag over the last minutes. Times are of any one clock, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()  # when, lag

    def loss_in_s(self, now: float, lag_s: float | None, retention_s: float | None) -> float | None:
        """Take note of the lag, and return how long until the oldest unfinished record is deleted.

        None: it is not to be expected, since the lag does not grow, or not known. A shard that stands still falls
        behind by a second per second.
        """
        if lag_s is None or retention_s is None:
            self._samples.clear()
            return None
        samples = self._samples
        if not samples or now - samples[-1][0] >= _SAMPLE_S:
            samples.append((now, lag_s))
        while now - samples[0][0] > _WINDOW_S:
            samples.popleft()
        began, before_s = samples[0]
        if now - began < _MIN_SPAN_S or lag_s <= before_s:
            return None
        left_s = max(0.0, retention_s - lag_s) * (now - began) / (lag_s - before_s)
        return round(left_s, 1) if left_s < _HORIZON_S else None


class Warn(Protocol):
    """Told, once, when a loss comes near; and again when it does after a recovery."""

    def __call__(self, *, loss_in_s: float | None, lag_s: float | None, retention_s: float | None) -> None:
        """Warn."""


class WarningForecast:
    """A forecast that warns an hour before records are lost."""

    def __init__(self, warn: Warn) -> None:
        self._forecast = RetentionForecast()
        self._warn = warn
        self._near = False

    def loss_in_s(self, now: float, lag_s: float | None, retention_s: float | None) -> float | None:
        """See `RetentionForecast`."""
        loss_in_s = self._forecast.loss_in_s(now, lag_s, retention_s)
        before, self._near = self._near, loss_in_s is not None and loss_in_s < _WARN_S
        if self._near and not before:
            self._warn(loss_in_s=loss_in_s, lag_s=lag_s, retention_s=retention_s)
        return loss_in_s
