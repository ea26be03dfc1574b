"""What a shard costs its holder, so that nodes can be given the same load and not only as many shards. Pure.

The unit is an idle shard. The figures are those of docs/performance.md, rounded: microseconds of CPU time for a record,
a few nanoseconds for a byte, some 50 microseconds a second for a shard that only waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_US = 50.0
_RECORD_US = 5.0
_BYTE_US = 0.002
_DAMPING_S = 120.0  # after so long, two thirds of a change are in the measure
_LEAST_S = 1.0  # between two looks: shorter ones would only measure bursts
_STEP = math.log(1.25)


class LoadMeter:
    """Damped measure of one shard. `before` is what the last holder measured; `clock` tells seconds of any kind."""

    def __init__(self, clock: Callable[[], float], before: float) -> None:
        self.records = 0  # read so far
        self.size = 0  # bytes of what was read and not filtered out
        self._clock = clock
        self._load = max(1.0, before)
        self._shown = self._load
        self._seen = (0, 0)
        self._at = clock()

    def shown(self) -> float:
        """Return the load in steps of a quarter, so that small changes are none: 1 for a shard that is idle."""
        now = self._clock()
        elapsed_s = now - self._at
        if elapsed_s >= _LEAST_S:
            records, size = self.records - self._seen[0], self.size - self._seen[1]
            present = 1.0 + (records * _RECORD_US + size * _BYTE_US) / _IDLE_US / elapsed_s
            self._load += (present - self._load) * (1.0 - math.exp(-elapsed_s / _DAMPING_S))
            self._seen, self._at = (self.records, self.size), now
            if abs(math.log(self._load / self._shown)) > 0.75 * _STEP:  # half would let it swing between two
                self._shown = round(math.exp(round(math.log(self._load) / _STEP) * _STEP), 2)
        return self._shown
