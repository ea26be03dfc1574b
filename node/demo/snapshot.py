"""What the demo shows at one moment, put together from the node's status and the functions' report. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from node.demo.function import Tally
from node.demo.latency import Latencies
from node.stretch import Stretch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from node.demo.added import FunctionView
    from node.demo.function import Report

_RATE_S = 2.0  # rates are told over this long
_LATENCY_S = 10.0  # and latencies over this
HISTORY_S = 60  # rates of whole seconds, for the sparkline


class Phase(StrEnum):
    """Where the demo is."""

    STARTING = "starting"
    FLOWING = "flowing"
    FINISHING = "finishing"


@dataclass(frozen=True, slots=True)
class MappingView:
    """One mapping's line."""

    name: str
    state: str = "Creating"
    delivered: int = 0
    delivered_per_s: float = 0.0
    filtered: int = 0
    filtered_per_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0
    retries: int = 0
    throttled: int = 0
    history: tuple[float, ...] = ()  # delivered in each of the last seconds, oldest first
    next_firing: str | None = None  # of a schedule


@dataclass(frozen=True, slots=True)
class ShardLine:
    """One shard of one mapping."""

    mapping: str
    id: str
    state: str
    lag_records: int | None
    checkpoint: str | None
    fencing_token: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class LastError:
    """The latest error any shard told of, and how long ago it was last seen."""

    where: str
    text: str
    age_s: float


class Produced(NamedTuple):
    """How many events there are so far."""

    orders: int = 0
    clicks: int = 0
    mails: int = 0


NOTHING = Produced()


class Due(NamedTuple):
    """Events that mappings have to finish, together if there are several: they share a queue."""

    mappings: tuple[str, ...]
    events: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything on the screen."""

    phase: Phase
    elapsed_s: float
    produced: Produced = NOTHING
    first_after_s: float | None = None
    mappings: tuple[MappingView, ...] = ()
    shards: tuple[ShardLine, ...] = ()
    last_error: LastError | None = None
    functions: tuple[FunctionView, ...] = ()  # that were added, with what their mappings did

    def unfinished(self, mappings: Collection[str], produced: int) -> int:
        """Return how many of the events produced for mappings these have not finished."""
        return produced - sum(one.delivered + one.filtered for one in self.mappings if one.name in mappings)

    @property
    def added(self) -> frozenset[str]:
        """The mappings of added functions."""
        return frozenset(name for view in self.functions for name in view.function.mappings)

    @property
    def own(self) -> tuple[MappingView, ...]:
        """The demo's own mappings that are no schedules."""
        added = self.added
        return tuple(one for one in self.mappings if one.next_firing is None and one.name not in added)

    @property
    def schedules(self) -> tuple[MappingView, ...]:
        """The demo's own mappings that are schedules."""
        added = self.added
        return tuple(one for one in self.mappings if one.next_firing is not None and one.name not in added)

    @property
    def behind(self) -> int:
        """Records the slowest mapping has still to finish, where its source tells their number."""
        behind: dict[str, int] = {}
        for shard in self.shards:
            behind[shard.mapping] = behind.get(shard.mapping, 0) + (shard.lag_records or 0)
        return max(behind.values(), default=0)


@dataclass(frozen=True, slots=True)
class _Counts:
    delivered: int
    filtered: int
    latencies: Latencies


@dataclass(slots=True)
class _Course:
    """What a mapping did lately."""

    counts: Stretch[_Counts] = field(default_factory=lambda: Stretch(_LATENCY_S))
    history: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY_S))
    second_at: float | None = None
    second_delivered: int = 0

    def take(self, at: float, counts: _Counts) -> None:
        self.counts.add(at, counts)
        if self.second_at is None:
            self.second_at, self.second_delivered = at, counts.delivered
        elif at - self.second_at >= 1:
            self.history.append((counts.delivered - self.second_delivered) / (at - self.second_at))
            self.second_at, self.second_delivered = at, counts.delivered

    def rates(self) -> tuple[float, float]:
        """Return delivered and filtered per second."""
        ends = self.counts.ends(_RATE_S)
        if ends is None:
            return 0.0, 0.0
        (began_at, first), (ended_at, last) = ends
        took_s = ended_at - began_at
        return (last.delivered - first.delivered) / took_s, (last.filtered - first.filtered) / took_s


class Observer:
    """Turns documents into snapshots, and remembers what rates and recent latencies need. `at` is in seconds."""

    def __init__(self) -> None:
        self._courses: dict[str, _Course] = {}
        self._error: tuple[str, str, float] | None = None

    def observe(
        self,
        status: Mapping[str, Any],
        report: Report,
        *,
        at: float,
        phase: Phase,
        elapsed_s: float,
        produced: Produced,
        first_after_s: float | None,
        functions: tuple[FunctionView, ...] = (),
    ) -> Snapshot:
        """Take in the node's status document and the functions' report; `functions` are those that were added."""
        mappings = tuple(self._mapping(document, report, at) for document in status["mappings"])
        shards = tuple(
            ShardLine(
                document["name"],
                shard["id"],
                shard["state"],
                shard["lag_records"],
                shard["checkpoint"],
                shard["fencing_token"],
                shard["last_error"],
            )
            for document in status["mappings"]
            for shard in document["shards"]
        )
        for shard in shards:
            if shard.last_error is not None:
                self._error = (f"{shard.mapping} {shard.id}", shard.last_error, at)
        error = None if self._error is None else LastError(*self._error[:2], at - self._error[2])
        return Snapshot(phase, elapsed_s, produced, first_after_s, mappings, shards, error, functions)

    def _mapping(self, document: Mapping[str, Any], report: Report, at: float) -> MappingView:
        name, ledger = document["name"], document["ledger"]
        tally = report.tallies.get(name) or Tally()
        course = self._courses.setdefault(name, _Course())
        latencies = Latencies(tally.latency)
        course.take(at, _Counts(ledger["delivered"], ledger["filtered"], latencies))
        delivered_per_s, filtered_per_s = course.rates()
        recent = latencies.since(course.counts.first.latencies)
        if not recent.total:
            recent = latencies
        return MappingView(
            name=name,
            state=document["state"],
            delivered=ledger["delivered"],
            delivered_per_s=delivered_per_s,
            filtered=ledger["filtered"],
            filtered_per_s=filtered_per_s,
            p50_ms=recent.percentile(50),
            p99_ms=recent.percentile(99),
            errors=tally.errors,
            retries=tally.retries,
            throttled=tally.turned_away,
            next_firing=next((shard.get("next_firing") for shard in document["shards"]), None),
            history=tuple(course.history),
        )


def settled(status: Mapping[str, Any], due: Iterable[Due]) -> bool:
    """Whether every mapping has finished everything that it was due to."""
    ledgers = {mapping["name"]: mapping["ledger"] for mapping in status["mappings"]}
    return all(ledger["balanced"] and ledger["in_flight"] == 0 for ledger in ledgers.values()) and all(
        ledgers.keys() >= set(one.mappings) and sum(ledgers[name]["polled"] for name in one.mappings) >= one.events
        for one in due
    )
