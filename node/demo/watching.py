"""Watches the calls of added functions from the node's side: they tell the demo nothing themselves.

Stands around what traces the mappings: an attempt is traced from right before the function is called until its answer
is understood. Latencies are of whole batches: what was taken of one that failed in part is not among them.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Self

import msgspec

from model.outcome import Delivered, FunctionFailed, PartlyFailed, Throttled
from node.demo.function import Tally
from node.demo.handlers import events
from node.demo.latency import Latencies

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from model.invocation import Invocation
    from model.mapping import EventSourceMapping
    from model.outcome import Outcome
    from pollers.tracing import Attempt, Traces, Tracing


class _Firing(msgspec.Struct):
    """What a schedule's event says of its time."""

    time: str | None = None


_firing = msgspec.json.Decoder(_Firing).decode


class Watch:
    """What the calls of some mappings came to, by mapping. Wraps what traces them: `run_node(watch=…)`."""

    def __init__(self, mappings: Collection[str]) -> None:
        self._mappings = frozenset(mappings)
        self.tallies: dict[str, Tally] = {}

    def __call__(self, traces: Traces) -> Traces:
        """Return what traces a node's mappings, and watches those of this watch."""

        def watched(mapping: EventSourceMapping) -> Tracing:
            inner = traces(mapping)
            if mapping.name not in self._mappings:
                return inner
            return _Watched(inner, self.tallies.setdefault(mapping.name, Tally()))

        return watched


class _Watched:
    """Watches the attempts of one mapping. `pollers.tracing.Tracing`."""

    def __init__(self, inner: Tracing, tally: Tally) -> None:
        self._inner = inner
        self._tally = tally

    def attempt(self, invocation: Invocation, records: int) -> _WatchedAttempt:
        """Note that a batch is about to be sent."""
        return _WatchedAttempt(self._inner.attempt(invocation, records), self._tally, records)


class _WatchedAttempt:
    """One attempt. `pollers.tracing.Attempt`."""

    __slots__ = ("_began_s", "_inner", "_records", "_tally", "invocation", "outcome")

    def __init__(self, inner: Attempt, tally: Tally, records: int) -> None:
        self._inner = inner
        self._tally = tally
        self._records = records
        self._began_s = 0.0
        self.invocation = inner.invocation
        self.outcome: Outcome | None = None

    def __enter__(self) -> Self:
        self._inner.__enter__()
        self.invocation = self._inner.invocation
        self._began_s = time.time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._inner.outcome = self.outcome
        self._inner.__exit__(kind, error, where)
        tally, invocation = self._tally, self.invocation
        match self.outcome:
            case Delivered():
                tally.records += self._records
                self._count_latencies(invocation.event)
            case PartlyFailed(failed=failed):
                tally.records += self._records - len(failed)
                tally.errors += 1
            case FunctionFailed():
                tally.errors += 1
            case Throttled():
                tally.turned_away += 1
                return
            case _:
                return  # not reached, or broken off
        tally.calls += 1
        tally.retries += invocation.attempt > 1

    def _count_latencies(self, event: bytes) -> None:
        latencies = Latencies()
        latencies.counts = self._tally.latency
        for timestamp_ms in _timestamps_ms(event):
            latencies.add(self._began_s * 1000 - timestamp_ms)


def _timestamps_ms(event: bytes) -> list[float]:
    """Return when an event's records came to be, or when a schedule was due; nothing for an event of another form."""
    try:
        seen = events.records(event)
        if seen:
            return [record.timestamp_ms for record in seen]
        due = _firing(event).time
        return [] if due is None else [datetime.fromisoformat(due).timestamp() * 1000]
    except (msgspec.MsgspecError, ValueError):
        return []
