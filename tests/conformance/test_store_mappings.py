"""Every store: the mappings and which shards they want (`MappingStore`)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from model.errors import ConflictError
from model.ids import TRACKER, ShardKey
from model.lease import Lease, Member, ShardKind, WantedShard
from model.mapping import MappingState
from model.progress import SaveResult
from tests.support.fleet_values import (
    ANN,
    BOB,
    CLICKS,
    LONG_S,
    NO_FLOOR,
    ORDERS,
    listen,
    mapping_record,
    older,
    shard,
    source,
    take,
    track,
    update,
)

if TYPE_CHECKING:
    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab


async def test_a_new_mapping_wants_its_tracker(store: Store) -> None:
    """Putting a mapping stores it with its first revision and a time, and wants its tracker."""
    before, none = await store.mappings()
    assert list(none) == []
    stored = await store.put_mapping(mapping_record(document='{"a": "ü/\\u0000"}'.encode()))
    assert stored.revision == 1
    assert stored.modified_time > 1_000_000_000
    assert stored.state is MappingState.CREATING
    after, records = await store.mappings()
    assert list(records) == [stored]
    assert after > before
    assert (await store.snapshot()).wanted == (WantedShard(ShardKey(ORDERS, TRACKER), ShardKind.TRACKER),)


async def test_an_identical_document_changes_nothing(store: Store) -> None:
    """Putting the same again keeps state, revision, time and the revision of the whole."""
    tracker = await track(store)
    await store.set_mapping_state(ORDERS, MappingState.ENABLED, "USER_INITIATED", tracker=tracker)
    before = await store.mappings()
    version = (await store.snapshot()).version
    assert await store.put_mapping(mapping_record(), expected_revision=1) == before[1][0]
    assert await store.mappings() == before
    assert (await store.snapshot()).version == version


async def test_a_changed_document_is_a_new_revision(lab: StoreLab, store: Store) -> None:
    """A change raises the revision and the time, takes the new state, and keeps the wanted shards."""
    await track(store)
    first = (await store.mappings())[1][0]
    await lab.pass_time(0.01)
    changed = replace(mapping_record(document=b'{"a": 2}'), state=MappingState.UPDATING)
    second = await store.put_mapping(changed, expected_revision=1)
    assert (second.revision, second.state) == (2, MappingState.UPDATING)
    assert second.modified_time > first.modified_time
    assert len((await store.snapshot()).wanted) == 4


async def test_a_change_of_an_outdated_revision_is_refused(store: Store) -> None:
    """Nothing is written when the caller's revision is not the present one, 0 standing for none."""
    await store.put_mapping(mapping_record(), expected_revision=0)
    for revision in (0, 2):
        with pytest.raises(ConflictError):
            await store.put_mapping(mapping_record(document=b"{}"), expected_revision=revision)
    with pytest.raises(ConflictError):
        await store.put_mapping(mapping_record(CLICKS, "clicks"), expected_revision=1)
    assert [record.document for record in (await store.mappings())[1]] == [b'{"a": 1}']


async def test_a_change_can_depend_on_all_mappings(store: Store) -> None:
    """Nothing is written when any mapping changed since the revision that the caller has seen."""
    seen, _ = await store.mappings()
    await store.put_mapping(mapping_record(), seen=seen)
    with pytest.raises(ConflictError):
        await store.put_mapping(mapping_record(CLICKS, "clicks"), seen=seen)
    seen, records = await store.mappings()
    assert [record.name for record in records] == ["orders"]
    await store.put_mapping(mapping_record(CLICKS, "clicks"), seen=seen)


async def test_a_mark_alone_is_no_change(store: Store) -> None:
    """What a file asked for last is noted without a new revision, and kept when the state moves."""
    await store.put_mapping(mapping_record())
    before, (first,) = await store.mappings()
    assert first.applied == ""
    marked = await store.put_mapping(replace(mapping_record(), applied="mark"))
    assert marked == replace(first, applied="mark")
    assert await store.mappings() == (before, [marked])
    await store.join(Member(ANN), ttl_s=LONG_S)
    tracker = await take(store, ANN, ShardKey(ORDERS, TRACKER))
    assert await store.set_mapping_state(ORDERS, MappingState.ENABLED, "x", tracker=tracker)
    assert await store.report_drained(tracker)
    assert (await store.mappings())[1][0].applied == "mark"
    changed = await store.put_mapping(mapping_record(document=b"{}"))
    assert (changed.revision, changed.applied) == (2, "")


async def test_a_state_is_moved_only_for_the_document_it_was_decided_on(store: Store) -> None:
    """A tracker that has not seen a deletion, or a newer document, does not write over its state."""
    tracker = await track(store)
    deleting = replace(mapping_record(), state=MappingState.DELETING)
    await store.put_mapping(deleting)
    assert await store.set_mapping_state(ORDERS, MappingState.ENABLED, "x", tracker=tracker, revision=1)
    assert (await store.mappings())[1][0].state is MappingState.DELETING
    assert await store.set_mapping_state(ORDERS, MappingState.DISABLED, "x", tracker=tracker, revision=2)
    assert (await store.mappings())[1][0].state is MappingState.DISABLED


async def test_names_are_unique(store: Store) -> None:
    """A second mapping cannot take a name; a name is free after a renaming or a removal."""
    tracker = await track(store)
    with pytest.raises(ConflictError):
        await store.put_mapping(mapping_record(CLICKS))
    await store.put_mapping(mapping_record(name="renamed"))
    await store.put_mapping(mapping_record(CLICKS))
    with pytest.raises(ConflictError):
        await store.put_mapping(mapping_record())
    assert await store.remove_mapping(ORDERS, tracker=tracker)
    await store.put_mapping(mapping_record(CLICKS, name="renamed"))


async def test_mappings_are_ordered_by_name(store: Store) -> None:
    """The list is in the order of names, not of creation."""
    await store.put_mapping(mapping_record(ORDERS, "b"))
    await store.put_mapping(mapping_record(CLICKS, "a"))
    assert [record.name for record in (await store.mappings())[1]] == ["a", "b"]


async def test_deletion_is_asked_for_and_taken_back_by_putting(store: Store) -> None:
    """The same document counts as a change when it asks for deletion or ends it, but not twice."""
    await store.put_mapping(mapping_record())
    deleting = replace(mapping_record(), state=MappingState.DELETING)
    first = await store.put_mapping(deleting)
    assert (first.state, first.revision) == (MappingState.DELETING, 2)
    assert await store.put_mapping(deleting) == first
    again = await store.put_mapping(mapping_record())
    assert (again.state, again.revision) == (MappingState.CREATING, 3)


async def test_the_tracker_moves_the_state(lab: StoreLab, store: Store) -> None:
    """A new state shows with its reason and time and raises the revision of the whole, not the mapping's own."""
    tracker = await track(store)
    before, (record,) = await store.mappings()
    await lab.pass_time(0.01)
    assert await store.set_mapping_state(ORDERS, MappingState.ENABLED, "because", tracker=tracker)
    after, (moved,) = await store.mappings()
    assert after > before
    assert (moved.state, moved.state_reason, moved.revision) == (MappingState.ENABLED, "because", record.revision)
    assert moved.modified_time > record.modified_time
    assert (moved.name, moved.document) == (record.name, record.document)
    assert await store.set_mapping_state(ORDERS, MappingState.ENABLED, "because", tracker=tracker)
    assert await store.mappings() == (after, [moved])


async def test_a_stale_tracker_changes_nothing(store: Store) -> None:
    """State, wanted shards and removal are refused under an older token."""
    stale = older(await track(store))
    mappings, snapshot = await store.mappings(), await store.snapshot()
    assert not await store.set_mapping_state(ORDERS, MappingState.ENABLED, "x", tracker=stale)
    assert not await store.set_wanted(ORDERS, [source(9)], tracker=stale)
    assert not await store.remove_mapping(ORDERS, tracker=stale)
    assert await store.mappings() == mappings
    assert (await store.snapshot()).wanted == snapshot.wanted


async def test_a_successor_fences_the_old_tracker(store: Store) -> None:
    """As soon as another node holds the tracker, the former one is refused."""
    old = await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    await store.leave(ANN)
    new = await take(store, BOB, old.key)
    assert not await store.set_wanted(ORDERS, [], tracker=old)
    assert await store.set_wanted(ORDERS, [], tracker=new)


async def test_wanting_the_same_changes_nothing(store: Store) -> None:
    """The order of the wanted shards does not matter; a weight does."""
    tracker = await track(store, shards=2)
    version = (await store.snapshot()).version
    assert await store.set_wanted(ORDERS, [source(1), source(0)], tracker=tracker)
    assert (await store.snapshot()).version == version
    assert await store.set_wanted(ORDERS, [source(1), source(0, weight=0.5)], tracker=tracker)
    assert (await store.snapshot()).version > version


async def test_wanted_shards_are_replaced(store: Store) -> None:
    """What is not in the new list is wanted no more; the tracker and other mappings stay."""
    tracker = await track(store, shards=2)
    await track(store, ANN, mapping_record(CLICKS, "clicks"), shards=1)
    await store.set_wanted(ORDERS, [source(1), source(2)], tracker=tracker)
    assert {wanted.key for wanted in (await store.snapshot()).wanted} == {
        ShardKey(ORDERS, TRACKER),
        shard(1),
        shard(2),
        ShardKey(CLICKS, TRACKER),
        shard(0, CLICKS),
    }


async def test_a_shard_no_longer_wanted_is_kept_for_nobody(store: Store) -> None:
    """A reservation ends when its shard is not wanted any more, and does not come back with it."""
    tracker = await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    await store.release([await take(store, ANN, shard(0))], successor={shard(0): BOB})
    assert (await store.snapshot()).reserved == {shard(0): BOB}
    await store.set_wanted(ORDERS, [source(1)], tracker=tracker)
    assert (await store.snapshot()).reserved == {}
    await store.set_wanted(ORDERS, [source(0)], tracker=tracker)
    await take(store, ANN, shard(0))


async def test_a_lease_of_something_else_is_a_mistake(store: Store) -> None:
    """Speaking for a mapping with another shard's lease, or wanting another's shards, raises."""
    tracker = await track(store)
    wrong = Lease(shard(0), ANN, tracker.token)
    with pytest.raises(ValueError, match="not the tracker"):
        await store.set_wanted(ORDERS, [], tracker=wrong)
    with pytest.raises(ValueError, match="not the tracker"):
        await store.set_mapping_state(ORDERS, MappingState.ENABLED, "x", tracker=wrong)
    with pytest.raises(ValueError, match="not the tracker"):
        await store.remove_mapping(ORDERS, tracker=wrong)
    with pytest.raises(ValueError, match="no source shard"):
        await store.set_wanted(ORDERS, [source(0, CLICKS)], tracker=tracker)


async def test_a_removed_mapping_leaves_nothing_behind(store: Store) -> None:
    """The record, the wanted shards, the leases and the progress are gone, and its tracker speaks for nothing."""
    tracker = await track(store)
    await store.save([update(await take(store, ANN, shard(0)), "5")])
    assert await store.remove_mapping(ORDERS, tracker=tracker)
    assert list((await store.mappings())[1]) == []
    snapshot = await store.snapshot()
    assert (snapshot.wanted, snapshot.holdings) == ((), {})
    assert await store.load_mapping(ORDERS) == {}
    assert not await store.set_wanted(ORDERS, [], tracker=tracker)
    assert not await store.remove_mapping(ORDERS, tracker=tracker)


async def test_a_late_write_does_not_bring_a_removed_mapping_back(store: Store) -> None:
    """Writes under leases from before the removal stay refused, also when the mapping is created anew."""
    tracker = await track(store)
    lease = await take(store, ANN, shard(0))
    await store.save([update(lease, "5")])
    await store.remove_mapping(ORDERS, tracker=tracker)
    assert await store.save([update(lease, "6")]) == [SaveResult.STALE]
    await track(store)
    assert await store.save([update(lease, "7")]) == [SaveResult.STALE]
    taken = await store.acquire(ANN, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S)
    assert taken[shard(0)][0].token > lease.token
    assert taken[shard(0)][1].position is None


async def test_a_tracker_of_a_wiped_store_speaks_for_nothing(lab: StoreLab, store: Store) -> None:
    """When the store has forgotten the mapping, its tracker is refused until the mapping is put again."""
    tracker = await track(store)
    await lab.wipe()
    assert not await store.set_mapping_state(ORDERS, MappingState.ENABLED, "x", tracker=tracker)
    await store.put_mapping(mapping_record())
    assert await store.set_mapping_state(ORDERS, MappingState.ENABLED, "x", tracker=tracker)


async def test_a_drained_shard_shows_in_the_mapping_and_wakes_the_fleet(store: Store) -> None:
    """The tracker, wherever it is, learns it as a change of the mapping; the document and its revision stay."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    before, (record,) = await store.mappings()
    async with listen(store) as wakes:
        await anext(wakes)
        assert await store.report_drained(lease)
        async with asyncio.timeout(5):
            await anext(wakes)
    after, (changed,) = await store.mappings()
    assert after > before
    assert changed == replace(record, drained=record.drained + 1)
    assert (await store.put_mapping(mapping_record(document=b'{"a": 2}'))).drained == record.drained + 1


async def test_a_try_of_what_is_parked_shows_in_the_mapping_and_wakes_the_fleet(lab: StoreLab, store: Store) -> None:
    """Each wish counts once, survives a change of the document, and is none without the mapping."""
    await track(store)
    _, (record,) = await store.mappings()
    async with listen(lab.client()) as wakes:
        await anext(wakes)
        assert await store.try_parked(ORDERS) == record.parked_tries + 1
        async with asyncio.timeout(5):
            await anext(wakes)
    assert await store.try_parked(ORDERS) == 2
    before, (changed,) = await store.mappings()
    assert changed == replace(record, parked_tries=2)
    again = await store.put_mapping(mapping_record(document=b'{"a": 2}'))
    assert (again.parked_tries, again.drained) == (2, record.drained)
    assert (await store.mappings())[0] > before
    assert await store.try_parked(CLICKS) is None


async def test_only_the_present_holder_reports_a_drained_shard(store: Store) -> None:
    """A stale lease, or one of a removed mapping, changes nothing."""
    tracker = await track(store)
    lease = await take(store, ANN, shard(0))
    before = await store.mappings()
    assert not await store.report_drained(older(lease))
    assert await store.mappings() == before
    assert await store.remove_mapping(ORDERS, tracker=tracker)
    assert not await store.report_drained(lease)


async def test_one_mapping_is_read_by_itself(store: Store) -> None:
    """It is what the list has of it; one that is not there is none."""
    assert await store.mapping(ORDERS) is None
    await store.put_mapping(mapping_record())
    await store.wish_seek(ORDERS, "{}")
    assert [await store.mapping(ORDERS)] == list((await store.mappings())[1])
