"""What the history of a run comes to: broken promises, and what each fault has cost. Pure.

Everything follows from three accounts: the function's log, the nodes' logs, and the faults that happened.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.chaos.plan import Kind
from tests.support.history import OK, Partition, check

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.faults import Happened
    from tests.support.history import Entry, Invoked

_BATCHES_REPEATED = 2
"""Of a shard, by the end of its holder or of Redis: the batch with the function, and the one before it whose save (or
deletion, for a queue) was under way."""
_REDIS_FORGETS_S = 2.0
"""A Redis that is killed finds its append-only file as of the last write to it, which waits up to two seconds when the
disk is busy (`appendfsync everysec`)."""
_UNSAVED_S = 1.0  # a delivery is saved within this, or nobody can save: what comes again later has another cause

_FREE = frozenset({Kind.ROLL, Kind.KAFKA_KILL, Kind.RESHARD, Kind.REFUSALS})
"""What repeats nothing: handlers end within the drain timeout; positions are Redis' and not the broker's; a shard is
left after its last record is saved; what the function has refused it has not taken."""
_OF_NODES = frozenset({Kind.KILL, Kind.PAUSE})  # cost only what the nodes held that they hit


class Tenure(NamedTuple):
    """A lease that a process had, as its log says."""

    shard: str
    token: int
    process: str
    acquired: float  # epoch seconds
    released: float | None  # in order, after its last checkpoint


class TakeOver(NamedTuple):
    """A shard of a killed node: seconds from the kill to the successor's lease, and to its first invocation."""

    lease_s: float
    invoked_s: float | None


class HandOver(NamedTuple):
    """A shard that moved in order.

    `lease_s`: seconds from its release, right after the last checkpoint, to the successor's lease. `idle_s`: seconds
    to the successor's first invocation from the last one before, or from when there was a record if that was later.
    """

    lease_s: float
    idle_s: float | None


@dataclass
class Judgement:
    """What was found."""

    problems: list[str] = field(default_factory=list)
    delivered: int = 0
    invocations: int = 0
    duplicates: Counter[tuple[Kind, str]] = field(default_factory=Counter)  # by fault kind and source
    allowed: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    take_overs: list[TakeOver] = field(default_factory=list)
    hand_overs: list[HandOver] = field(default_factory=list)


def tenures(logs: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Tenure]:
    """Return the leases that processes had, by their log lines, oldest token first."""
    found: dict[tuple[str, int], Tenure] = {}
    for process, lines in logs.items():
        for line in lines:
            if line["event"] == "lease.acquired":
                place = (line["shard"], line["token"])
                found[place] = Tenure(*place, process, _epoch(line), None)
            elif line["event"] == "lease.released" and line["reason"] == "released":
                place = (line["shard"], line["token"])
                if place in found:
                    found[place] = found[place]._replace(released=_epoch(line))
    return sorted(found.values(), key=lambda tenure: tenure.token)


def _epoch(line: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of a source from outside."""

    name: str
    expected: Mapping[Partition, range]
    written_at: Mapping[str, float]
    ordered: bool
    stream: bool  # its shards have records of their own, unlike the pollers of a queue
    per_second: float


def judge(
    log: Sequence[Invoked],
    leases: Sequence[Tenure],
    happened: Sequence[Happened],
    sources: Sequence[Source],
    *,
    batch: int,
) -> Judgement:
    """Judge a run. `batch`: the most records of an invocation."""
    judging = _Judging(leases, happened, batch)
    for source in sources:
        judging.source(source, [invoked for invoked in log if invoked.mapping == source.name])
    judging.moves(log, sources)
    judging.judgement.invocations = len(log)
    return judging.judgement


class _Judging:
    def __init__(self, leases: Sequence[Tenure], happened: Sequence[Happened], batch: int) -> None:
        self.judgement = Judgement()
        self._holder = {(one.shard, one.token): one for one in leases}
        self._next: dict[tuple[str, int], Tenure] = {}
        by_shard: dict[str, list[Tenure]] = defaultdict(list)
        for one in leases:
            by_shard[one.shard].append(one)
        for ones in by_shard.values():
            self._next |= {(a.shard, a.token): b for a, b in pairwise(ones)}
        self._happened = happened
        self._batch = batch

    # Promises

    def source(self, source: Source, log: Sequence[Invoked]) -> None:
        """Judge what became of a source's records."""
        verdict = check(log, source.expected, unbroken=source.ordered)
        if not source.ordered:
            verdict.disordered.clear()
        self.judgement.problems += [f"{source.name}: {problem}" for problem in verdict.problems()]
        self.judgement.delivered += verdict.delivered
        if source.stream and verdict.repeated_by_holder:
            found = verdict.repeated_by_holder
            self.judgement.problems.append(f"{source.name}: {found} records repeated by the same holder")
        costs = self._costs(source, log)
        for at, one in enumerate(self._happened):
            kind, cost, allowed = one.fault.kind, costs[at], self._allowed(source, one, log)
            self.judgement.duplicates[kind, source.name] += cost
            self.judgement.allowed[kind, source.name] += allowed
            if cost > allowed:
                where = f"{kind} at {one.fault.at_s:g} s"
                self.judgement.problems.append(f"{source.name}: {where} repeated {cost} records, allowed {allowed}")

    def _costs(self, source: Source, log: Sequence[Invoked]) -> Counter[int]:
        """Count repeated deliveries by the fault, by its place, that came between a delivery and its being saved."""
        costs: Counter[int] = Counter()
        first: dict[Entry, Invoked] = {}
        unexplained = 0
        for invoked in log:
            if invoked.outcome != OK:
                continue
            for entry in invoked.records:
                if entry not in first:
                    first[entry] = invoked
                elif (cause := self._cause(first[entry])) is not None:
                    costs[cause] += 1
                else:
                    unexplained += 1
                    if unexplained == 1:
                        text = f"{entry.topic}:{entry.offset} by {self._words(first[entry])} and {self._words(invoked)}"
        if unexplained:
            self.judgement.problems.append(f"{source.name}: {unexplained} repeats without a cause, first {text}")
        return costs

    def _words(self, invoked: Invoked) -> str:
        holder = self._holder.get((invoked.shard, invoked.token))
        return (
            f"{holder.process if holder else 'nobody'} ({invoked.shard}, token {invoked.token}) at {invoked.ended:.3f}"
        )

    def _cause(self, first: Invoked) -> int | None:
        """Return the place of the fault that can have kept this delivery from being saved."""
        holder = self._holder.get((first.shard, first.token))
        free = None
        for at, one in enumerate(self._happened):
            kind = one.fault.kind
            before_s = _REDIS_FORGETS_S if kind is Kind.REDIS_KILL else _UNSAVED_S
            if not one.began - before_s <= first.ended <= one.over:
                continue
            if kind in _FREE:
                free = at if free is None else free
            elif kind not in _OF_NODES or (holder is not None and holder.process in one.hit):
                return at
        return free

    def _allowed(self, source: Source, one: Happened, log: Sequence[Invoked]) -> int:
        """Return how many records of a source a fault may have repeated."""
        kind = one.fault.kind
        if kind in _FREE:
            return 0
        tokens = {(invoked.shard, invoked.token) for invoked in log if _about(one, invoked)}
        if kind in _OF_NODES:
            tokens = {held for held in tokens if held in self._holder and self._holder[held].process in one.hit}
        forgotten = int(_REDIS_FORGETS_S * source.per_second) if kind is Kind.REDIS_KILL else 0
        return _BATCHES_REPEATED * self._batch * len(tokens) + forgotten

    # Moves

    def moves(self, log: Sequence[Invoked], sources: Sequence[Source]) -> None:
        """Measure how long shards were between two holders."""
        streams = {source.name for source in sources if source.stream}
        written_at = {text: at for source in sources for text, at in source.written_at.items()}
        calls: dict[tuple[str, int], list[Invoked]] = defaultdict(list)
        for invoked in log:
            if invoked.mapping in streams:
                calls[invoked.shard, invoked.token].append(invoked)
        for at, one in enumerate(self._happened):
            alone = not one.fault.beside and not (at + 1 < len(self._happened) and self._happened[at + 1].fault.beside)
            if one.fault.kind is Kind.KILL and alone:
                self.judgement.take_overs += self._taken(one, calls)
            elif one.fault.kind is Kind.ROLL:
                self.judgement.hand_overs += self._handed(one, calls, written_at)

    def _taken(self, one: Happened, calls: Mapping[tuple[str, int], Sequence[Invoked]]) -> list[TakeOver]:
        taken = []
        for held in self._holder.values():
            if held.process not in one.hit or held.acquired > one.began or held.released is not None:
                continue
            after = self._next.get((held.shard, held.token))
            if after is None:
                continue  # lost earlier, or nobody wants the shard any more
            first = min((call.started for call in calls.get((after.shard, after.token), [])), default=None)
            taken.append(TakeOver(after.acquired - one.began, None if first is None else first - one.began))
        return [move for move in taken if move.lease_s > 0]

    def _handed(
        self,
        one: Happened,
        calls: Mapping[tuple[str, int], Sequence[Invoked]],
        written_at: Mapping[str, float],
    ) -> list[HandOver]:
        handed = []
        for held in self._holder.values():
            after = self._next.get((held.shard, held.token))
            if after is None or held.released is None or not one.began <= held.released <= one.over:
                continue
            idle_s = None
            before, later = calls.get((held.shard, held.token), []), calls.get((after.shard, after.token), [])
            if before and later:
                first = min(later, key=lambda call: call.started)
                there = min(written_at[f"{entry.topic}:{entry.offset}"] for entry in first.records)
                idle_s = max(0.0, first.started - max(there, *(call.ended for call in before)))
            handed.append(HandOver(max(0.0, after.acquired - held.released), idle_s))
        return handed


def _about(one: Happened, invoked: Invoked) -> bool:
    return one.began - _REDIS_FORGETS_S <= invoked.ended <= one.over
