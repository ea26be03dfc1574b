"""How one subject is measured while it works through a backlog: its CPU time against what its function was given."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processes import BenchmarkFailedError
from benchmarks.sink import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.bench import Bench, Sink
    from benchmarks.processes import Child

FIRST_S = 60.0
"""Until the first records arrive, if nothing else is said."""

_POLL_S = 0.05
_WARM_SHARE = 0.08  # of the backlog, before measuring
_WARM_MOST = 120_000  # records of it
_END_SHARE = 0.97  # of the backlog, where a measurement ends at the latest


@dataclass(frozen=True, slots=True)
class Sample:
    """What one subject did in one round."""

    records_per_cpu_s: float
    records_per_s: float
    records_per_request: float
    cpu_share: float
    peak_mb: float
    first_s: float  # from when it was started to its first records at the function

    def told(self) -> str:
        """Say it to the person who waits."""
        return (
            f"{self.records_per_cpu_s:,.0f} records per CPU-second, {self.records_per_s:,.0f}/s, "
            f"{self.records_per_request:.1f} a request, CPU {self.cpu_share:.0%}, {self.peak_mb:.0f} MB, "
            f"first after {self.first_s:.1f} s"
        )


def take(
    bench: Bench,
    subject: Child,
    sink: Sink,
    *,
    name: str,
    total: int,
    share: int = 1,
    warm_s: float = 0.0,
    within_s: float = FIRST_S,
) -> Sample:
    """Measure a subject that was just started, over the run's seconds or until its backlog is nearly used up.

    `total` is what its function can be given, of which it reads `share` times as many. It is warm after a share of
    that, and `warm_s` after its first records. Raises `BenchmarkFailedError`.
    """
    started = before = subject.usage()
    begun = Counts()
    first_at = _first(subject, sink, name=name, within_s=within_s)
    if not bench.options.quick:  # so few records may all have come by now
        _warm_up(subject, sink, name=name, records=min(total * _WARM_SHARE, _WARM_MOST), until=first_at + warm_s)
        before, begun = subject.usage(), sink.counts()
    ends_at = before.at + (FIRST_S + within_s if bench.options.quick else bench.options.seconds)
    while True:
        time.sleep(_POLL_S)
        after, counts = subject.usage(), sink.counts()
        if after.at >= ends_at or counts.records >= total * _END_SHARE:
            break
    if counts.records == begun.records:
        raise BenchmarkFailedError(f"{name}: no record within {bench.options.seconds:g} s")
    used = after.since(before)
    records = (counts.records - begun.records) * share
    return Sample(
        records_per_cpu_s=records / max(used.cpu_s, 0.01),
        records_per_s=records / used.at,
        records_per_request=(counts.records - begun.records) / max(1, counts.requests - begun.requests),
        cpu_share=used.cpu_s / used.at,
        peak_mb=subject.peak_mb(),
        first_s=first_at - started.at,
    )


def _first(subject: Child, sink: Sink, *, name: str, within_s: float) -> float:
    """Return when the first records had come."""
    deadline = time.monotonic() + within_s
    while not sink.counts().records:
        if time.monotonic() > deadline:
            raise BenchmarkFailedError(f"{name}: no record within {within_s:g} s{subject.last_words()}")
        subject.usage()  # raises when it has ended
        time.sleep(_POLL_S)
    return time.monotonic()


def _warm_up(subject: Child, sink: Sink, *, name: str, records: float, until: float) -> None:
    deadline = until + FIRST_S
    while (now := time.monotonic()) < until or (counts := sink.counts()).records < records:
        if now > deadline:
            raise BenchmarkFailedError(f"{name}: {counts.records} of {records:.0f} records within {FIRST_S:g} s")
        subject.usage()  # raises when it has ended
        time.sleep(_POLL_S)


def ratios(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[float]:
    """Return what one subject did for another's CPU-second, round by round."""
    return [our.records_per_cpu_s / their.records_per_cpu_s for our, their in zip(ours, theirs, strict=True)]


def wait_for(true: Callable[[], bool], what: str, *, within_s: float = 60.0) -> None:
    """Poll until a condition holds. Raises `BenchmarkFailedError`."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise BenchmarkFailedError(f"still waiting for {what} after {within_s:g} s")
        time.sleep(_POLL_S)
