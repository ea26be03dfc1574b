"""Latencies in buckets, so that millions cost no memory and percentiles of any stretch of time can be told. Pure.

Buckets grow by 2 %: a percentile is within 1 % of the true one. Below one millisecond, the resolution of record
timestamps, everything counts as 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROWTH = math.log(1.02)


class Latencies:
    """Counts by bucket: 0 for less than 1 ms, bucket n > 0 around 1.02 ** (n - 1) ms."""

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, latency_ms: float, times: int = 1) -> None:
        """Count a latency. A negative one, from clocks that differ, counts as 0."""
        bucket = 0 if latency_ms < 1 else 1 + round(math.log(latency_ms) / _GROWTH)
        self.counts[bucket] = self.counts.get(bucket, 0) + times

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts.values())

    def since(self, earlier: Latencies) -> Latencies:
        """Return what was counted after `earlier`, a former state of these counts."""
        before = earlier.counts
        grown = {bucket: count - before.get(bucket, 0) for bucket, count in self.counts.items()}
        return Latencies({bucket: count for bucket, count in grown.items() if count > 0})

    def percentile(self, percent: float) -> float | None:
        """Return the nearest-rank percentile in milliseconds; None when nothing was counted."""
        rank = max(1, math.ceil(self.total * percent / 100))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return 0.0 if bucket == 0 else math.exp((bucket - 1) * _GROWTH)
        return None
