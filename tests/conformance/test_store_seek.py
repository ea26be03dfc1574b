"""Every store: wishes to move a mapping's position, and meeting them (`MappingStore.wish_seek` and `move`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model.ids import MappingId, Position, ShardOrigin
from model.lease import Member
from model.progress import ParkedChange, ParkedRecords, SaveResult, ShardReport, ShardState
from model.record import Record
from tests.support.fleet_values import (
    ANN,
    BOB,
    LONG_S,
    ORDERS,
    listen,
    mapping_record,
    older,
    shard,
    take,
    track,
    update,
)

if TYPE_CHECKING:
    from model.lease import Lease
    from model.mapping import MappingRecord
    from model.progress import ProgressUpdate
    from statemgr.stores import Store

SAVED, STALE, INCOMPLETE = SaveResult.SAVED, SaveResult.STALE, SaveResult.INCOMPLETE
AT = ShardOrigin("AT_TIMESTAMP 1790000000000")
WISH = '{"moves": ["\u2603"]}'


async def only(store: Store) -> MappingRecord:
    """Return the one mapping's record."""
    _, (record,) = await store.mappings()
    return record


def to(tracker: Lease, number: int, position: str | None, *, parked: ParkedChange | None = None) -> ProgressUpdate:
    """Return what becomes of a shard."""
    report = ShardReport(ShardState.DRAINING)
    wanted = update(tracker, position, polled=3, state=b"kept", report=report)
    return replace(wanted, key=shard(number), origin=AT, parked=parked)


async def test_a_wish_stands_in_the_record_until_it_is_met(store: Store) -> None:
    """It has a number, wakes the fleet, outlasts a new document, and goes with the move."""
    tracker = await track(store)
    revision, _ = await store.mappings()
    async with listen(store) as wakes:
        await anext(wakes)
        assert await store.wish_seek(ORDERS, "first") == 1
        await anext(wakes)
    assert await store.wish_seek(ORDERS, WISH) == 2
    record = await only(store)
    assert (record.seeks, record.seek) == (2, WISH)
    assert (await store.mappings())[0] > revision
    await store.put_mapping(mapping_record(document=b'{"a": 2}'))
    await store.try_parked(ORDERS)
    assert ((await only(store)).seeks, (await only(store)).seek) == (2, WISH)
    assert await store.move(ORDERS, [], tracker=tracker, wish=2) == SAVED
    record = await only(store)
    assert (record.seeks, record.seek, record.parked_tries) == (2, "", 1)


async def test_there_is_no_wish_for_a_mapping_that_is_not_there(store: Store) -> None:
    """Nothing is made of it."""
    assert await store.wish_seek(MappingId("nobody"), WISH) is None
    assert await store.mappings() == (0, [])


async def test_a_move_replaces_position_and_origin_in_both_directions(store: Store) -> None:
    """Back, forward and to none at all; also of shards that nothing was known of; the others stay."""
    tracker = await track(store)
    leases = [await take(store, ANN, shard(number)) for number in range(3)]
    for lease in leases:
        await store.save([update(lease, "10", polled=10)])
    await store.release(leases)
    number = await store.wish_seek(ORDERS, WISH)
    assert number is not None
    moves = [to(tracker, 0, "9"), to(tracker, 1, None), to(tracker, 7, "12")]
    assert await store.move(ORDERS, moves, tracker=tracker, wish=number) == SAVED
    progress = await store.load_mapping(ORDERS)
    places = {key.shard: (one.position, one.origin) for key, one in progress.items()}
    assert places == {
        "orders-0": (Position("9"), AT),
        "orders-1": (None, AT),
        "orders-2": (Position("10"), None),
        "orders-7": (Position("12"), AT),
    }
    moved = progress[shard(0)]
    assert (moved.ledger.polled, moved.state, moved.report.state) == (3, b"kept", ShardState.DRAINING)
    assert (moved.token, moved.node) == (tracker.token, ANN)


async def test_after_a_move_former_holders_write_nothing(store: Store) -> None:
    """A late save of a lease from before is stale, and the next holder begins at the new place."""
    tracker = await track(store)
    await store.join(Member(BOB), ttl_s=LONG_S)
    lease = await take(store, ANN, shard(0))
    await store.save([update(lease, "10")])
    await store.release([lease])
    number = await store.wish_seek(ORDERS, WISH)
    assert await store.move(ORDERS, [to(tracker, 0, "4")], tracker=tracker, wish=number or 0) == SAVED
    assert await store.save([update(lease, "11")]) == [STALE]
    new = await take(store, BOB, shard(0))
    assert new.token > lease.token
    assert (await store.load([shard(0)]))[shard(0)].position == "4"
    assert await store.save([update(new, "5")]) == [SAVED]


async def test_a_stale_tracker_moves_nothing(store: Store) -> None:
    """Nor does one whose wish was met, or replaced: what it computed is of the past."""
    tracker = await track(store)
    first = await store.wish_seek(ORDERS, WISH)
    assert await store.move(ORDERS, [to(tracker, 0, "4")], tracker=older(tracker), wish=first or 0) == STALE
    second = await store.wish_seek(ORDERS, WISH)
    assert await store.move(ORDERS, [to(tracker, 0, "4")], tracker=tracker, wish=first or 0) == SAVED
    assert await store.load([shard(0)]) == {}
    assert (await only(store)).seek == WISH
    assert await store.move(ORDERS, [to(tracker, 0, "4")], tracker=tracker, wish=second or 0) == SAVED
    assert await store.move(ORDERS, [to(tracker, 0, "9")], tracker=tracker, wish=second or 0) == SAVED
    assert (await store.load([shard(0)]))[shard(0)].position == "4"


async def test_a_move_changes_parking_lots_that_are_as_it_knows_them(store: Store) -> None:
    """Records leave the lot in the same step; on another lot nothing at all is moved."""
    tracker = await track(store)
    lease = await take(store, ANN, shard(1))
    records = tuple(Record(at, 0, b"{}", "k", str(at)) for at in (5, 8))
    await store.save([replace(update(lease, "9"), parked=ParkedChange(None, 3, records))])
    await store.release([lease])
    number = await store.wish_seek(ORDERS, WISH) or 0
    late = [to(tracker, 0, "1"), to(tracker, 1, "7", parked=ParkedChange(2, 4, drop=(8,)))]
    assert await store.move(ORDERS, late, tracker=tracker, wish=number) == INCOMPLETE
    assert await store.load([shard(0)]) == {}
    known = [to(tracker, 0, "1"), to(tracker, 1, "7", parked=ParkedChange(3, 4, drop=(8,)))]
    assert await store.move(ORDERS, known, tracker=tracker, wish=number) == SAVED
    assert await store.load_parked(shard(1)) == ParkedRecords(4, records[:1])
    assert (await store.load([shard(1)]))[shard(1)].position == "7"
