"""Every store: parking lots (`ProgressStore.load_parked`, `ProgressUpdate.parked`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model.progress import ParkedChange, ParkedKey, ParkedRecords, SaveResult, ShardReport
from model.record import Record
from tests.support.fleet_values import ANN, ORDERS, older, shard, take, track, update

if TYPE_CHECKING:
    from model.lease import Lease
    from model.progress import ProgressUpdate
    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab

FIRST = Record(7, 1_790_000_000_123, b'{"a":"\\u2603"}', b"\x00\xff", (3 << 63) | 7)  # a Kafka record's item id
SECOND = Record(49590338271490256608559692538361571095921575989136588898, 5, b"{}", "k", "4959")  # of Kinesis
KEYLESS = Record(8, 0, b"{}", None, 8)


def parking(lease: Lease, change: ParkedChange, position: str | None = None) -> ProgressUpdate:
    """Return a fenced write that changes the parking lot too."""
    return replace(update(lease, position), parked=change)


async def test_parked_records_come_back_as_they_were(store: Store) -> None:
    """Positions and item ids of any size, keys of every kind and any bytes survive, in order of position."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    assert await store.load_parked(shard(0)) == ParkedRecords()
    change = ParkedChange(None, 1, (SECOND, FIRST, KEYLESS))
    assert await store.save([parking(lease, change, "9")]) == [SaveResult.SAVED]
    assert await store.load_parked(shard(0)) == ParkedRecords(1, (FIRST, KEYLESS, SECOND))
    assert await store.load_parked(shard(1)) == ParkedRecords()


async def test_a_change_adds_and_drops(store: Store) -> None:
    """What leaves the lot goes, what comes is added, and the rest stays."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    changes = [ParkedChange(0, 1, (FIRST,)), ParkedChange(1, 2, (KEYLESS,)), ParkedChange(2, 3, (SECOND,), (7, 99))]
    for change in changes:
        assert await store.save([parking(lease, change)]) == [SaveResult.SAVED]
    assert await store.load_parked(shard(0)) == ParkedRecords(3, (KEYLESS, SECOND))
    assert await store.save([parking(lease, ParkedChange(None, 4))]) == [SaveResult.SAVED]
    assert await store.load_parked(shard(0)) == ParkedRecords(4)


async def test_a_change_of_another_revision_is_refused_whole(store: Store) -> None:
    """A store that lost a change takes neither the next one nor its checkpoint; the whole lot it takes."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    assert await store.save([parking(lease, ParkedChange(None, 1, (FIRST,)), "8")]) == [SaveResult.SAVED]
    assert await store.save([parking(lease, ParkedChange(2, 3, (KEYLESS,)), "9")]) == [SaveResult.INCOMPLETE]
    assert (await store.load([shard(0)]))[shard(0)].position == "8"
    assert await store.load_parked(shard(0)) == ParkedRecords(1, (FIRST,))
    assert await store.save([parking(lease, ParkedChange(None, 4, (FIRST, KEYLESS)), "9")]) == [SaveResult.SAVED]
    assert await store.load_parked(shard(0)) == ParkedRecords(4, (FIRST, KEYLESS))


async def test_a_stale_token_parks_nothing(store: Store) -> None:
    """The fencing token guards the lot as it guards the checkpoint; so does a checkpoint that would move back."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    stale = parking(older(lease), ParkedChange(None, 1, (FIRST,)))
    assert await store.save([stale]) == [SaveResult.STALE]
    await store.save([update(lease, "9")])
    assert await store.save([parking(lease, ParkedChange(None, 1, (FIRST,)), "8")]) == [SaveResult.BACKWARD]
    assert await store.load_parked(shard(0)) == ParkedRecords()


async def test_shards_of_one_save_have_lots_of_their_own(store: Store) -> None:
    """In one round trip some shards change their lots, each on its own terms, and others do not."""
    await track(store)
    leases = [await take(store, ANN, shard(number)) for number in range(3)]
    updates = [
        parking(leases[0], ParkedChange(5, 6, (FIRST,)), "1"),
        update(leases[1], "2"),
        parking(leases[2], ParkedChange(None, 1, (KEYLESS,)), "3"),
    ]
    assert await store.save(updates) == [SaveResult.INCOMPLETE, SaveResult.SAVED, SaveResult.SAVED]
    lots = [await store.load_parked(shard(number)) for number in range(3)]
    assert lots == [ParkedRecords(), ParkedRecords(), ParkedRecords(1, (KEYLESS,))]


async def test_what_is_shown_of_parked_keys_survives(store: Store) -> None:
    """The report tells other nodes which keys are parked."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    report = ShardReport(parked_keys=(ParkedKey("k", 3, 120, 1_790_000_000.5, 2, "boom"),))
    await store.save([update(lease, "1", report=report)])
    assert (await store.load([shard(0)]))[shard(0)].report == report


async def test_removed_and_retired_shards_leave_no_lot(store: Store) -> None:
    """With a mapping, or a forgotten shard, its parking lot goes."""
    tracker = await track(store)
    for number in (0, 1):
        lease = await take(store, ANN, shard(number))
        await store.save([parking(lease, ParkedChange(None, 1, (FIRST,)))])
    assert await store.retire([shard(0).shard], tracker=update(tracker))
    assert await store.load_parked(shard(0)) == ParkedRecords()
    assert await store.load_parked(shard(1)) == ParkedRecords(1, (FIRST,))
    assert await store.remove_mapping(ORDERS, tracker=tracker)
    assert await store.load_parked(shard(1)) == ParkedRecords()


async def test_a_wiped_store_takes_the_whole_lot_again(store: Store, lab: StoreLab) -> None:
    """A holder that goes on after the store lost everything is told, and puts its lot back."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    await store.save([parking(lease, ParkedChange(None, 1, (FIRST,)))])
    await lab.wipe()
    assert await store.save([parking(lease, ParkedChange(1, 2, (KEYLESS,)), "9")]) == [SaveResult.INCOMPLETE]
    assert await store.save([parking(lease, ParkedChange(None, 3, (FIRST, KEYLESS)), "9")]) == [SaveResult.SAVED]
    assert await store.load_parked(shard(0)) == ParkedRecords(3, (FIRST, KEYLESS))
