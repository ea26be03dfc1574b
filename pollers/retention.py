"""When a shard's unfinished records will be deleted by their source, if it goes on like this. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

_SAMPLE_S: Final = 10.0
_WINDOW_S: Final = 300.0
_MIN_SPAN_S: Final = 30.0  # a shard that has just been opened shows no trend
_HORIZON_S: Final = 7 * 86400.0  # a forecast beyond this means nothing


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
