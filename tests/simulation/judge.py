"""Judges every step of a simulated world by the invariants of the architecture.

Here: leases, tokens and trust (invariants 4 to 6), for every kind of shard. What is promised about records is judged
per mapping, by `stream_judge` and `queue_judge`; this module passes on to them what concerns them.

The judge keeps its own book of what the store granted and took back, so that a store that errs is found out too. It
says what is wrong once (`wrong`); the world ends then.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from leasing.term import default_margin_s
from model.ids import TRACKER
from model.lease import Holding
from model.mapping import MappingState
from model.progress import SaveResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model.ids import MappingId, NodeId, ShardKey
    from model.invocation import Invocation
    from model.lease import Lease, Member
    from model.mapping import MappingRecord
    from model.progress import ProgressUpdate, ShardProgress
    from tests.simulation.calls import Call, Entry, Written
    from tests.support.simulated_redis import SimulatedRedis
    from tests.support.virtual_loop import VirtualLoop

_DRIFT = 0.002  # by which the clocks of two machines may run apart, and more


class RecordJudge(Protocol):
    """Judges what is promised about the records of one mapping."""

    def find(self, entry: Entry) -> Written:
        """Return what is known of a record."""

    def begins(self, call: Call) -> None:
        """Judge a call that begins."""

    def carried_out(self, call: Call, taken: list[Written]) -> None:
        """Learn what the function took."""

    def answered(self, call: Call) -> None:
        """Learn what the caller knows."""

    def acquired(self, lease: Lease, progress: ShardProgress) -> None:
        """Judge what a new holder begins with."""

    def releasing(self, lease: Lease) -> None:
        """Judge what a holder leaves behind."""

    def saved(self, update: ProgressUpdate) -> None:
        """Judge progress that the store accepted."""

    def creating(self) -> None:
        """Learn that the mapping was put into a store that did not know it, by somebody who did not know better."""

    def wanted(self) -> None:
        """Learn that the mapping's shards were made wanted."""

    def retired(self, shard: ShardKey) -> None:
        """Learn that a shard's progress was forgotten on purpose."""

    def moved(self, shard: ShardKey) -> None:
        """Learn that a shard is to be read again from its beginning."""

    def forgotten(self) -> None:
        """Learn that the store went back to an earlier state, or to none."""


class Judge:
    """Watches the store and the function. `StoreWatch` and `calls.Watch`."""

    def __init__(self, loop: VirtualLoop, redis: SimulatedRedis, *, ttl_s: float) -> None:
        self.records: dict[MappingId, RecordJudge] = {}
        self.problems: list[str] = []
        self.on_problem: Callable[[], None] = lambda: None
        self.terms: Callable[[NodeId], float | None] = lambda _node: (
            None
        )  # true time until which a node trusts its term
        self.cut_off: Callable[[NodeId], int] = lambda _node: 0  # shards that a node gave away without becoming quiet
        self.begun = 0
        self.digest = 0  # of all that was seen: alike for runs that went alike
        self._loop = loop
        self._redis = redis
        self._ttl_s = ttl_s
        self._holders: dict[ShardKey, Holding] = {}
        self._tokens: dict[ShardKey, int] = {}  # the highest that the store should know of
        self._begun: dict[ShardKey, int] = {}  # the highest token under which a call began
        self._ever: dict[ShardKey, int] = {}  # the same, whatever the store forgot
        self._left: Counter[NodeId] = Counter()  # shards that members gave away with something not saved
        self._excused_until = self._step_excused_until = -1.0
        redis.watch = self

    def wrong(self, text: str) -> None:
        """Note a broken promise."""
        self.problems.append(f"at {self._loop.now:.3f} s: {text}")
        self.on_problem()

    def _see(self, *facts: object) -> None:
        self.digest = crc32(f"{self._loop.now} {' '.join(map(str, facts))}".encode(), self.digest)

    def excuse(self, for_s: float) -> None:
        """Let leases be in doubt for a while: what the protocol assumes was broken (docs/leases.md)."""
        self._excused_until = max(self._excused_until, self._loop.now + for_s)

    def clock_stepped(self, by_s: float) -> None:
        """Learn of a step of the store's clock; one that the margin does not cover breaks an assumption."""
        self._step_excused_until = self._loop.now + self._ttl_s
        if by_s > 0.8 * default_margin_s(self._ttl_s):
            self.excuse(self._ttl_s)

    @property
    def now(self) -> float:
        """The true time."""
        return self._loop.now

    @property
    def _strict(self) -> bool:
        return self._loop.now >= self._excused_until

    def is_newest(self, lease: Lease) -> bool:
        """Tell whether nobody was granted the shard after this lease, not even by a store that has forgotten it."""
        return lease.token == self._ever.get(lease.key)

    def in_order(self, member: NodeId) -> bool:
        """Tell whether a member that left something behind should have had the time not to."""
        self._left[member] += 1
        return self._left[member] > self.cut_off(member)

    # The store

    def beats(self, member: Member) -> None:
        """Judge the trust window: a node's ends a margin before what the store grants it (invariant 5)."""
        trusted_until, expires_at = self.terms(member.node), self._redis.true_expiry(member.node)
        if trusted_until is None or expires_at is None or not self._strict:
            return
        if self._loop.now < self._step_excused_until:
            return
        latest = expires_at - default_margin_s(self._ttl_s) + self._ttl_s * _DRIFT
        if trusted_until > latest:
            self.wrong(
                f"trust: {member.node} trusts its term until {trusted_until:.3f}, the store keeps it until "
                f"{expires_at:.3f}: less than a margin later"
            )

    def acquired(self, taken: Mapping[ShardKey, tuple[Lease, ShardProgress]]) -> None:
        """Judge what was granted: only when nobody else holds it, and under a token that grows."""
        for key, (lease, progress) in taken.items():
            before = self._holders.get(key)
            if before == Holding(lease.node, lease.token):
                self._pass(key, lambda judge: judge.acquired(lease, progress))  # noqa: B023 - called at once
                continue
            if before is not None and before.node != lease.node:
                self.wrong(f"leases: {key} granted to {lease.node}, while {before.node} holds it")
            if lease.token <= self._ever.get(key, 0):
                self.wrong(f"fencing: {key} granted under token {lease.token}, after {self._ever[key]}")
            self._tokens[key] = max(lease.token, self._tokens.get(key, 0))
            self._ever[key] = max(lease.token, self._ever.get(key, 0))
            self._holders[key] = Holding(lease.node, lease.token)
            self._pass(key, lambda judge: judge.acquired(lease, progress))  # noqa: B023 - called at once

    def releasing(self, leases: Sequence[Lease]) -> None:
        """Note what a holder leaves behind."""
        for lease in leases:
            if self._holders.get(lease.key) == Holding(lease.node, lease.token):
                self._pass(lease.key, lambda judge: judge.releasing(lease))  # noqa: B023 - called at once
                del self._holders[lease.key]

    def released(self, leases: Sequence[Lease]) -> None:
        """Judge a release: only its owner releases a lease."""
        for lease in leases:
            held, expected = self._redis._holdings.get(lease.key), self._holders.get(lease.key)
            if held != expected:
                self.wrong(f"leases: {lease.key} was {expected}'s, and after {lease.node}'s release {held}'s")

    def members_ended(self, nodes: set[NodeId]) -> None:
        """Leases end with the membership."""
        self._holders = {key: holding for key, holding in self._holders.items() if holding.node not in nodes}

    def saved(self, update: ProgressUpdate, result: SaveResult) -> None:
        """Judge a save: nothing is written under an old token, and the present one is not refused (invariant 4)."""
        key, newest = update.key, self._tokens.get(update.key, 0)
        self._see(key.shard, update.token, update.position, result)
        if result is SaveResult.SAVED and update.token < newest:
            self.wrong(f"fencing: {key} saved under token {update.token}, after {newest} was granted")
        if result is SaveResult.STALE and update.token >= newest:
            self.wrong(f"fencing: {key} not saved under token {update.token}, the newest ever granted")
        if result is not SaveResult.SAVED:
            return
        self._tokens[key] = max(newest, update.token)
        if not update.ledger.balanced or min(_columns(update)) < 0:
            self.wrong(f"ledger: {key}: {update.ledger}")
        self._pass(key, lambda judge: judge.saved(update))

    def mapping_put(self, record: MappingRecord) -> None:
        """Pass on that a mapping is to begin, or to begin anew."""
        if record.state is MappingState.CREATING:
            self.records[record.id].creating()

    def wanted(self, mapping: MappingId) -> None:
        """Pass it on."""
        self.records[mapping].wanted()

    def retired(self, shards: Sequence[ShardKey]) -> None:
        """Late writes under leases on what was forgotten are refused."""
        for key in shards:
            self._tokens[key] = self._redis.progress.newest_token(key)
            self._pass(key, lambda judge: judge.retired(key))  # noqa: B023 - called at once

    def moved(self, shards: Sequence[ShardKey]) -> None:
        """Nobody holds what is moved, and late writes under leases from before are refused."""
        for key in shards:
            if key in self._redis._holdings:
                self.wrong(f"seek: {key} is moved while it is held")
            if self._redis.progress.newest_token(key) <= self._tokens.get(key, 0):
                self.wrong(f"fencing: {key} is moved, and a save under {self._tokens.get(key)} would be accepted")
            self._tokens[key] = self._redis.progress.newest_token(key)
            self._pass(key, lambda judge: judge.moved(key))  # noqa: B023 - called at once

    def forgotten(self) -> None:
        """Begin the book anew with what the store still knows; until nodes have seen it, leases are in doubt."""
        self._holders = dict(self._redis._holdings)
        self._tokens = dict(self._redis.progress.tokens)
        self.excuse(self._ttl_s)
        for judge in self.records.values():
            judge.forgotten()

    def _pass(self, key: ShardKey, to: Callable[[RecordJudge], None]) -> None:
        judge = self.records.get(key.mapping)
        if judge is not None and key.shard != TRACKER:
            to(judge)

    # The function

    def find(self, invocation: Invocation, found: list[Entry]) -> list[Written]:
        """Return the records that a call is about."""
        judge = self.records[invocation.shard.mapping]
        return [judge.find(entry) for entry in found]

    def begins(self, call: Call) -> None:
        """Judge a call: it begins only under a lease that the store still grants (invariants 4 and 5)."""
        self.begun += 1
        self._see(call.caller, call.token, *call.records)
        key, now = call.shard, self._loop.now
        holding = self._redis._holdings.get(key)
        expires_at = None if holding is None else self._redis.true_expiry(holding.node)
        newest = self._begun.get(key, 0)
        if self._strict:
            if holding is None or holding.token != call.token or expires_at is None or expires_at <= now:
                self.wrong(
                    f"fencing: {call.caller} calls for {key} under token {call.token}, and the store says {holding}, "
                    f"until {expires_at}"
                )
            elif call.token < newest:
                self.wrong(f"fencing: {call.caller} calls for {key} under token {call.token}, after {newest}")
        self._begun[key] = max(newest, call.token)
        self.records[key.mapping].begins(call)
        for line in {record.line: None for record in call.records}:
            line.calls.append(call)

    def at_once(self, call: Call) -> Call | None:
        """Return another call under way about the same ordering key, whose caller has every right to it."""
        for other in call.others():
            if other.token == call.token or (self._strict and other.holds()):
                return other
        return None

    def carried_out(self, call: Call, taken: list[Written]) -> None:
        """Learn what the function took."""
        self.records[call.shard.mapping].carried_out(call, taken)

    def over(self, call: Call) -> None:
        """Learn that nobody waits for a call any more."""
        for line in {record.line: None for record in call.records}:
            line.calls.remove(call)
        if call.outcome is None:
            for record in call.records:
                record.cut_off += 1

    def answered(self, call: Call) -> None:
        """Learn what the caller knows."""
        self.records[call.shard.mapping].answered(call)


def _columns(update: ProgressUpdate) -> tuple[int, ...]:
    ledger = update.ledger
    return (
        ledger.polled,
        ledger.delivered,
        ledger.filtered,
        ledger.destination,
        ledger.dropped,
        ledger.parked,
        ledger.in_flight,
    )
