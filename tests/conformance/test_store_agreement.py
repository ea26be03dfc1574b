"""The in-memory store and the Redis store answer alike, step by step, whatever a fleet does to them.

Time does not pass between steps here (memberships are long), so expiry is left to the other conformance tests; tokens
are compared by which lease they belong to, since each store has a clock of its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from model.errors import ConflictError
from model.ids import TRACKER, FencingToken, Position, ShardKey, ShardOrigin
from model.lease import Lease, Member
from model.mapping import MappingState
from model.progress import Ledger, ParkedChange, ProgressUpdate, ShardReport
from model.record import Record
from statemgr.memory_store import MemoryStore
from tests.support.fleet_values import ANN, BOB, CAT, CLICKS, LONG_S, NO_FLOOR, ORDERS, mapping_record, shard, source
from tests.support.store_labs import RedisLab

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from model.ids import MappingId, NodeId, ShardId
    from statemgr.stores import Store

NODES = st.sampled_from([ANN, BOB, CAT])
MAPPINGS = st.sampled_from([ORDERS, CLICKS])
NUMBERS = st.lists(st.integers(0, 3), max_size=4, unique=True)
KEYS = st.one_of(
    st.builds(shard, st.integers(0, 3), MAPPINGS), st.builds(lambda mapping: ShardKey(mapping, TRACKER), MAPPINGS)
)
ORIGINS = st.none() | st.dictionaries(
    st.integers(0, 3).map(lambda number: shard(number).shard), st.sampled_from("ab").map(ShardOrigin), max_size=2
)
POSITIONS = st.none() | st.sampled_from(["0", "9", "10", "11", "9" * 20, "1" + "0" * 20]).map(Position)


class Fleet(RuleBasedStateMachine):
    """Does the same to both stores and compares all answers."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.lab = RedisLab(self.url)
        self.memory: Store = MemoryStore()
        self.redis: Store = self.lab.client()
        self.leases: list[tuple[Lease, Lease]] = []  # every lease ever given, as each store gave it
        self.names: dict[FencingToken, int] = {NO_FLOOR: -1}  # tokens of both stores, by the lease they belong to
        self.changes: dict[tuple[str, int], list[int]] = {}  # versions and revisions seen, by what of which store

    def teardown(self) -> None:
        """Delete the fleet's keys and close."""
        self.runner.run(self.lab.wipe())
        self.runner.run(self.lab.aclose())
        self.runner.close()

    def both(self, call: Callable[[Store, int], Awaitable[Any]]) -> tuple[Any, Any]:
        """Do something to each store; a conflict is an answer too. `int` says which of a pair is the store's own."""

        async def answer(store: Store, index: int) -> object:
            try:
                return await call(store, index)
            except ConflictError as exc:
                return str(exc)

        async def answers() -> tuple[Any, Any]:
            return await answer(self.memory, 0), await answer(self.redis, 1)

        return self.runner.run(answers())

    def same(self, call: Callable[[Store, int], Awaitable[Any]]) -> None:
        """Do something to each store whose answers must be equal."""
        memory, redis = self.both(call)
        assert memory == redis

    def lease(self, pick: int) -> tuple[Lease, Lease] | None:
        """Return one of the leases ever given."""
        return self.leases[pick % len(self.leases)] if self.leases else None

    def tracker(self, mapping: MappingId, pick: int) -> tuple[Lease, Lease] | None:
        """Return one of the leases of a mapping's tracker."""
        found = [pair for pair in self.leases if pair[0].key == ShardKey(mapping, TRACKER)]
        return found[pick % len(found)] if found else None

    @initialize()
    def begin(self) -> None:
        """Let there be something to hold: most sequences need it."""
        self.put(ORDERS, 0, b"{}", MappingState.CREATING, None)
        self.beat(ANN, draining=False, join=True)
        self.acquire(ANN, [ShardKey(ORDERS, TRACKER)])
        self.want(ORDERS, [0, 1, 2], 0)

    @rule(
        mapping=MAPPINGS,
        name=st.integers(0, 1),
        document=st.sampled_from([b"{}", b'{"a":1}']),
        state=st.sampled_from([MappingState.CREATING, MappingState.DELETING]),
        expected=st.none() | st.integers(0, 2),
        applied=st.sampled_from(["", "mark"]),
    )
    def put(
        self,
        mapping: MappingId,
        name: int,
        document: bytes,
        state: MappingState,
        expected: int | None,
        *,
        applied: str = "",
    ) -> None:
        """Create or change a mapping."""
        record = replace(mapping_record(mapping, f"name-{name}", document), applied=applied)
        memory, redis = self.both(
            lambda store, _: store.put_mapping(_with_state(record, state), expected_revision=expected)
        )
        assert _timeless(memory) == _timeless(redis)

    @rule(node=NODES, draining=st.booleans(), join=st.booleans())
    def beat(self, node: NodeId, *, draining: bool, join: bool) -> None:
        """Join or tick."""
        member = Member(node, draining=draining)
        memory, redis = self.both(lambda store, _: (store.join if join else store.tick)(member, ttl_s=LONG_S))
        assert memory.member == redis.member
        assert self.change("version", 0, memory.version) == self.change("version", 1, redis.version)
        revisions = memory.mappings_revision, redis.mappings_revision
        assert self.change("revision", 0, revisions[0]) == self.change("revision", 1, revisions[1])

    @rule(node=NODES)
    def leave(self, node: NodeId) -> None:
        """End a membership."""
        self.same(lambda store, _: store.leave(node))

    @rule(node=NODES, keys=st.lists(KEYS, max_size=4, unique=True))
    def acquire(self, node: NodeId, keys: list[ShardKey]) -> None:
        """Acquire, also what is held or not wanted."""
        memory, redis = self.both(lambda store, _: store.acquire(node, keys, floor=NO_FLOOR, ttl_s=LONG_S))
        assert list(memory) == list(redis)
        for key in memory:
            ours, theirs = memory[key][0], redis[key][0]
            if ours.token not in self.names:
                assert theirs.token not in self.names
                self.names[ours.token] = self.names[theirs.token] = len(self.leases)
                self.leases.append((ours, theirs))
            assert self.named(memory[key]) == self.named(redis[key])

    @rule(pick=st.integers(0, 50), successor=st.none() | NODES)
    def release(self, pick: int, successor: NodeId | None) -> None:
        """Release a lease, present or past."""
        if (pair := self.lease(pick)) is not None:
            named = {pair[0].key: successor} if successor is not None else None
            self.same(lambda store, index: store.release([pair[index]], successor=named))

    @rule(pick=st.integers(0, 50), position=POSITIONS, polled=st.integers(0, 3))
    def save(self, pick: int, position: Position | None, polled: int) -> None:
        """Save under a lease, present or past."""
        if (pair := self.lease(pick)) is not None:
            updates = [
                ProgressUpdate(lease.key, lease.token, lease.node, position, Ledger(polled), ShardReport())
                for lease in pair
            ]
            self.same(lambda store, index: store.save([updates[index]]))

    @rule(
        pick=st.integers(0, 50),
        base=st.none() | st.integers(0, 2),
        put=st.lists(st.integers(1, 3), unique=True),
        drop=st.lists(st.integers(1, 3), unique=True),
    )
    def park(self, pick: int, base: int | None, put: list[int], drop: list[int]) -> None:
        """Change a parking lot under a lease, present or past, from a revision that may not be the stored one."""
        if (pair := self.lease(pick)) is not None:
            records = tuple(Record(position, 0, b"{}", b"k", position) for position in put)
            change = ParkedChange(base, (base or 0) + 1, records, tuple(drop))
            updates = [
                ProgressUpdate(lease.key, lease.token, lease.node, None, Ledger(), ShardReport(), parked=change)
                for lease in pair
            ]
            self.same(lambda store, index: store.save([updates[index]]))
            self.same(lambda store, _: store.load_parked(pair[0].key))

    @rule(mapping=MAPPINGS, numbers=NUMBERS, pick=st.integers(0, 10), begun=ORIGINS)
    def want(
        self, mapping: MappingId, numbers: list[int], pick: int, begun: dict[ShardId, ShardOrigin] | None = None
    ) -> None:
        """Replace the wanted shards under a tracker's lease, present or past."""
        if (pair := self.tracker(mapping, pick)) is not None:
            wanted = [source(number, mapping) for number in numbers]
            self.same(lambda store, index: store.set_wanted(mapping, wanted, tracker=pair[index], origins=begun))

    @rule(pick=st.integers(0, 50))
    def end(self, pick: int) -> None:
        """Report a shard as drained, under a lease present or past."""
        if (pair := self.lease(pick)) is not None:
            self.same(lambda store, index: store.report_drained(pair[index]))

    @rule(mapping=MAPPINGS)
    def try_parked(self, mapping: MappingId) -> None:
        """Ask for a try of what is parked, whether or not there is such a mapping."""
        self.same(lambda store, _index: store.try_parked(mapping))

    @rule(mapping=MAPPINGS)
    def wish_seek(self, mapping: MappingId) -> None:
        """Ask for a move, whether or not there is such a mapping."""
        self.same(lambda store, _index: store.wish_seek(mapping, "{}"))

    @rule(
        mapping=MAPPINGS,
        numbers=NUMBERS,
        position=POSITIONS,
        base=st.none() | st.integers(0, 2),
        picked=st.tuples(st.integers(0, 10), st.integers(1, 3)),
    )
    def meet(
        self,
        mapping: MappingId,
        numbers: list[int],
        position: Position | None,
        base: int | None,
        picked: tuple[int, int],
    ) -> None:
        """Meet a wish, present or past, under a tracker's lease, present or past, with lots that may be others."""
        pick, wish = picked
        if (pair := self.tracker(mapping, pick)) is not None:
            change = None if base is None else ParkedChange(base, base + 1, drop=(1, 2))
            updates = [
                [
                    ProgressUpdate(
                        shard(number, mapping),
                        lease.token,
                        lease.node,
                        position,
                        Ledger(number),
                        ShardReport(),
                        origin=ShardOrigin("c"),
                        parked=change,
                    )
                    for number in numbers
                ]
                for lease in pair
            ]
            self.same(lambda store, index: store.move(mapping, updates[index], tracker=pair[index], wish=wish))
            for number in numbers:
                self.same(lambda store, _, number=number: store.load_parked(shard(number, mapping)))  # type: ignore[misc]

    @rule(mapping=MAPPINGS, numbers=NUMBERS, pick=st.integers(0, 10))
    def retire(self, mapping: MappingId, numbers: list[int], pick: int) -> None:
        """Forget shards under a tracker's lease, present or past."""
        if (pair := self.tracker(mapping, pick)) is not None:
            shards = [shard(number).shard for number in numbers]
            updates = [
                ProgressUpdate(lease.key, lease.token, lease.node, None, Ledger(len(shards)), ShardReport())
                for lease in pair
            ]
            self.same(lambda store, index: store.retire(shards, tracker=updates[index]))

    @rule(
        mapping=MAPPINGS,
        state=st.sampled_from(MappingState),
        pick=st.integers(0, 10),
        revision=st.none() | st.integers(1, 3),
    )
    def move(self, mapping: MappingId, state: MappingState, pick: int, revision: int | None) -> None:
        """Move the state under a tracker's lease, present or past."""
        if (pair := self.tracker(mapping, pick)) is not None:
            self.same(
                lambda store, index: store.set_mapping_state(
                    mapping, state, "moved", tracker=pair[index], revision=revision
                )
            )

    @rule(mapping=MAPPINGS, pick=st.integers(0, 10))
    def remove(self, mapping: MappingId, pick: int) -> None:
        """Remove a mapping under a tracker's lease, present or past."""
        if (pair := self.tracker(mapping, pick)) is not None:
            self.same(lambda store, index: store.remove_mapping(mapping, tracker=pair[index]))

    @invariant()
    def everything_is_equal(self) -> None:
        """Compare all there is to read."""

        async def read(store: Store, index: int) -> object:
            snapshot = await store.snapshot()
            revision, records = await store.mappings()
            assert [await store.mapping(record.id) for record in records] == list(records)
            progress = {**await store.load_mapping(ORDERS), **await store.load_mapping(CLICKS)}
            assert await store.load(list(progress)) == progress
            return (
                self.change("version", index, snapshot.version),
                [(member.node, member.draining) for member in snapshot.members],
                sorted(snapshot.wanted, key=lambda wanted: wanted.key),
                {key: (held.node, self.names[held.token]) for key, held in snapshot.holdings.items()},
                snapshot.reserved,
                self.change("revision", index, revision),
                [_timeless(record) for record in records],
                {key: self.named((None, found)) for key, found in progress.items()},
            )

        self.same(read)

    def change(self, what: str, index: int, number: int) -> int:
        """Return how many other numbers of the kind this store has shown before; they only grow."""
        seen = self.changes.setdefault((what, index), [])
        if not seen or seen[-1] != number:
            assert not seen or number > seen[-1]
            seen.append(number)
        return len(seen)

    def named(self, answer: tuple[Any, Any]) -> tuple[Any, ...]:
        """Write a lease and its progress with the names of their tokens."""
        lease, progress = answer
        writer = None if progress.token is None else self.names[progress.token]
        held = None if lease is None else (lease.key, lease.node, self.names[lease.token])
        return (held, progress.position, writer, progress.node, progress.ledger, progress.report, progress.origin)


def _with_state(record: Any, state: MappingState) -> Any:
    return replace(record, state=state)


def _timeless(record: Any) -> Any:
    if isinstance(record, str):
        return record
    told = (record.id, record.name, record.document, record.revision, record.state, record.state_reason)
    return (*told, record.seeks, record.seek)


def test_both_stores_answer_alike(redis_url: str) -> None:
    """Any sequence of operations has the same answers and the same outcome in memory and in Redis."""
    machine = type("FleetOnRedis", (Fleet,), {"url": redis_url})
    quick = settings(
        max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(machine, settings=quick)
