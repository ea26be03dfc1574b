"""Every store: the fenced state of shards (`ProgressStore`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model.ids import FencingToken, NodeId, Position, ShardId, ShardKey, ShardOrigin
from model.lease import Lease, Member
from model.progress import (
    Blocking,
    CircuitReport,
    CircuitState,
    Ledger,
    SaveResult,
    ShardProgress,
    ShardReport,
    ShardState,
    Succession,
    Tenure,
    WaitsFor,
)
from tests.support.fleet_values import (
    ANN,
    BOB,
    CLICKS,
    LONG_S,
    NO_FLOOR,
    ORDERS,
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

SAVED, STALE, BACKWARD = SaveResult.SAVED, SaveResult.STALE, SaveResult.BACKWARD


async def test_progress_comes_back_as_it_was_saved(store: Store) -> None:
    """Position, writer, ledger, state and report survive, whatever bytes and letters they hold."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    circuit = CircuitReport(CircuitState.OPEN, 1_700_000_000_123, 1_700_000_001_000, "refused \u2603", 3)
    report = ShardReport(
        ShardState.RETRYING,
        12,
        3.25,
        "PROBLEM: Function call failed",
        "boom \u2603 \x00\n",
        error_time=1_790_000_000.5,
        waits_for=WaitsFor.FUNCTION,
        blocking=Blocking("4711", "k \u2603", 3, 2, 4, 5, 1_790_000_000.25, None, 1),
        tenures=(Tenure(lease.token, ANN, 1_790_000_000.125, Succession.HANDED_OVER),),
        parked_tries=3,
        remark="\u2603",
        circuit=circuit,
    )
    ledger = Ledger(10, 1, 2, 3, 4, 0, 0)
    written = replace(update(lease, "42", state=bytes(range(256)), report=report), ledger=ledger)
    assert await store.save([written]) == [SAVED]
    expected = ShardProgress(Position("42"), lease.token, ANN, ledger, bytes(range(256)), report)
    assert await store.load([shard(0), shard(1)]) == {shard(0): expected}


async def test_a_taken_shard_has_no_progress_before_the_first_save(store: Store) -> None:
    """Leasing alone makes no progress; the new holder gets empty progress with the lease."""
    await track(store)
    taken = await store.acquire(ANN, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S)
    assert taken[shard(0)][1] == ShardProgress()
    assert await store.load([shard(0)]) == {}
    assert await store.load_mapping(ORDERS) == {}


async def test_a_lease_comes_with_the_progress_of_the_predecessor(store: Store) -> None:
    """The next holder starts from what the last one saved, and sees whose it was."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    lease = await take(store, ANN, shard(0))
    await store.save([update(lease, "7", polled=7, state=b"window")])
    await store.release([lease])
    _, progress = (await store.acquire(BOB, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S))[shard(0)]
    assert (progress.position, progress.token, progress.node) == ("7", lease.token, ANN)
    assert (progress.ledger.polled, progress.state) == (7, b"window")


async def test_a_stale_token_writes_nothing(store: Store) -> None:
    """Once a successor has the lease, its predecessor's save is refused, whoever saved last."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    old = await take(store, ANN, shard(0))
    await store.save([update(old, "5")])
    await store.release([old])
    new = await take(store, BOB, shard(0))
    assert await store.save([update(old, "6")]) == [STALE]
    assert await store.save([update(new, "5")]) == [SAVED]
    assert await store.save([update(old, "9")]) == [STALE]
    assert (await store.load([shard(0)]))[shard(0)].position == "5"


async def test_a_position_never_moves_back(store: Store) -> None:
    """An earlier position is refused as a whole; the same one and none at all are fine."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    assert await store.save([update(lease, "10", polled=1)]) == [SAVED]
    assert await store.save([update(lease, "9", polled=2)]) == [BACKWARD]
    assert (await store.load([shard(0)]))[shard(0)].ledger.polled == 1
    assert await store.save([update(lease, "10", polled=3)]) == [SAVED]
    assert await store.save([update(lease, None, polled=4)]) == [SAVED]
    progress = (await store.load([shard(0)]))[shard(0)]
    assert (progress.position, progress.ledger.polled) == ("10", 4)


async def test_a_rewind_takes_the_position_back_under_the_same_fencing(store: Store) -> None:
    """A shard whose log began anew goes on at its beginning; a stale holder cannot rewind."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    assert await store.save([update(lease, "10")]) == [SAVED]
    assert await store.save([replace(update(older(lease), "2"), rewind=True)]) == [STALE]
    assert await store.save([replace(update(lease, "2", polled=5), rewind=True)]) == [SAVED]
    progress = (await store.load([shard(0)]))[shard(0)]
    assert (progress.position, progress.ledger.polled) == ("2", 5)
    assert await store.save([update(lease, "1")]) == [BACKWARD]


async def test_a_holder_whose_token_was_lost_may_say_an_earlier_position(store: Store, lab: StoreLab) -> None:
    """Its predecessor, who has told a wiped store first, knows nothing of a move in between."""
    await track(store)
    old = await take(store, ANN, shard(0))
    await store.release([old])
    new = await take(store, ANN, shard(0))
    await lab.wipe()
    assert await store.save([update(old, "9")]) == [SAVED]
    assert await store.save([update(new, "4")]) == [SAVED]
    assert (await store.load([shard(0)]))[shard(0)].position == "4"
    assert await store.save([update(new, "3")]) == [BACKWARD]
    assert await store.save([update(old, "9")]) == [STALE]


async def test_positions_of_128_digits_keep_their_order(store: Store) -> None:
    """Kinesis sequence numbers are compared digit by digit, not as rounded numbers."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    base = "4" * 127
    assert await store.save([update(lease, "9" * 127)]) == [SAVED]
    assert await store.save([update(lease, base + "2")]) == [SAVED]
    assert await store.save([update(lease, base + "1")]) == [BACKWARD]
    assert await store.save([update(lease, base + "3")]) == [SAVED]
    assert (await store.load([shard(0)]))[shard(0)].position == base + "3"


async def test_each_update_of_a_save_stands_alone(store: Store) -> None:
    """Of several shards in one call, also of several mappings, only the offending ones are refused, in order."""
    await track(store)
    await track(store, ANN, mapping_record(CLICKS, "clicks"))
    leases = [await take(store, ANN, shard(n)) for n in range(3)]
    click = await take(store, ANN, shard(0, CLICKS))
    await store.save([update(leases[1], "8")])
    updates = [
        update(leases[0], "1"),
        update(leases[1], "7"),
        update(click, "3"),
        update(older(leases[2]), "4"),
        update(leases[0], "2"),
    ]
    assert await store.save(updates) == [SAVED, BACKWARD, SAVED, STALE, SAVED]
    loaded = await store.load([*(shard(n) for n in range(3)), shard(0, CLICKS)])
    assert {key: progress.position for key, progress in loaded.items()} == {
        shard(0): "2",
        shard(1): "8",
        shard(0, CLICKS): "3",
    }


async def test_nothing_to_do_is_fine(store: Store) -> None:
    """Empty requests answer empty."""
    assert list(await store.save([])) == []
    assert await store.load([]) == {}
    assert await store.acquire(ANN, [], floor=NO_FLOOR, ttl_s=LONG_S) == {}
    await store.release([])
    assert await store.load_mapping(ORDERS) == {}


async def test_a_wiped_store_takes_what_running_nodes_write(lab: StoreLab, store: Store) -> None:
    """A shard the store does not know takes the update and its token, which then fences older ones."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    await lab.wipe()
    assert await store.save([update(lease, "5")]) == [SAVED]
    assert await store.save([update(older(lease), "6")]) == [STALE]
    assert (await store.load([shard(0)]))[shard(0)].token == lease.token
    await track(store)
    assert (await take(store, ANN, shard(0))).token > lease.token


async def test_a_holder_whose_token_was_overtaken_gets_a_new_one(store: Store) -> None:
    """When a newer token has written meanwhile (a store that lost writes), the holder must acquire anew."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    newer = Lease(shard(0), NodeId("elsewhere"), FencingToken(lease.token + 1_000_000))
    assert await store.save([update(newer, "5")]) == [SAVED]
    assert (await take(store, ANN, shard(0))).token > newer.token


async def test_a_mapping_s_progress_is_read_as_a_whole(store: Store) -> None:
    """All shards of the mapping, also those no longer wanted, and none of another mapping."""
    tracker = await track(store)
    await track(store, ANN, mapping_record(CLICKS, "clicks"))
    for key in (shard(0), shard(1), shard(1, CLICKS)):
        await store.save([update(await take(store, ANN, key), "3")])
    await store.set_wanted(ORDERS, [source(1)], tracker=tracker)
    loaded = await store.load_mapping(ORDERS)
    assert {key: progress.position for key, progress in loaded.items()} == {shard(0): "3", shard(1): "3"}


async def test_shard_names_may_hold_any_separator(store: Store) -> None:
    """Names with slashes, colons, spaces and other alphabets are kept apart."""
    tracker = await track(store, shards=0)
    names = ["a/b", "a", "b", "a:b", "a b", "p", "t", "d", "été-0"]
    keys = [ShardKey(ORDERS, ShardId(name)) for name in names]
    await store.set_wanted(ORDERS, [replace(source(0), key=key) for key in keys], tracker=tracker)
    taken = await store.acquire(ANN, keys, floor=NO_FLOOR, ttl_s=LONG_S)
    assert list(taken) == keys
    for number, (lease, _) in enumerate(taken.values()):
        await store.save([update(lease, str(number))])
    loaded = await store.load_mapping(ORDERS)
    assert {key: progress.position for key, progress in loaded.items()} == {
        key: str(number) for number, key in enumerate(keys)
    }
    assert {wanted.key for wanted in (await store.snapshot()).wanted} == {*keys, tracker.key}


async def test_what_was_read_is_the_reader_s_own(store: Store) -> None:
    """Changing a ledger after saving or loading it does not change the store."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    written = update(lease, "1", polled=1)
    await store.save([written])
    written.ledger.polled = 99
    (await store.load([shard(0)]))[shard(0)].ledger.polled = 98
    assert (await store.load([shard(0)]))[shard(0)].ledger.polled == 1


async def test_an_origin_is_noted_once_with_the_wish_and_comes_with_the_lease(store: Store) -> None:
    """Where a shard begins is fixed by the first tracker that says it, whether the shard is wanted yet or not."""
    tracker = await track(store)
    first, second = ShardOrigin("AT_TIMESTAMP 5"), ShardOrigin("TRIM_HORIZON")
    origins = {shard(0).shard: first, shard(7).shard: second}
    assert await store.set_wanted(ORDERS, [source(0)], tracker=tracker, origins=origins)
    assert await store.set_wanted(ORDERS, [source(0)], tracker=tracker, origins={shard(0).shard: second})
    assert await store.load_mapping(ORDERS) == {
        shard(0): ShardProgress(origin=first),
        shard(7): ShardProgress(origin=second),
    }
    assert await store.load([shard(0), shard(1), shard(7)]) == await store.load_mapping(ORDERS)
    taken = await store.acquire(ANN, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S)
    lease, progress = taken[shard(0)]
    assert progress == ShardProgress(origin=first)
    assert await store.save([update(lease, "5")]) == [SAVED]
    assert (await store.load([shard(0)]))[shard(0)].origin == first


async def test_a_stale_tracker_notes_no_origin(store: Store) -> None:
    """Origins are fenced like the wanted shards they come with."""
    tracker = await track(store)
    origins = {shard(0).shard: ShardOrigin("TRIM_HORIZON")}
    assert not await store.set_wanted(ORDERS, [], tracker=older(tracker), origins=origins)
    assert await store.load_mapping(ORDERS) == {}


async def test_a_save_brings_an_origin_back_to_a_store_that_forgot_it(lab: StoreLab, store: Store) -> None:
    """Running nodes know where their shards began."""
    await track(store)
    lease = await take(store, ANN, shard(0))
    await lab.wipe()
    origin = ShardOrigin("AT_TIMESTAMP 5")
    assert await store.save([replace(update(lease), origin=origin)]) == [SAVED]
    assert (await store.load([shard(0)]))[shard(0)].origin == origin


async def test_a_retired_shard_is_forgotten_and_its_late_writers_are_refused(store: Store) -> None:
    """Progress, origin and token go, the tracker's account is saved with it, and other shards are not touched."""
    tracker = await track(store)
    gone, stays = await take(store, ANN, shard(0)), await take(store, ANN, shard(1))
    origins = {shard(0).shard: ShardOrigin("TRIM_HORIZON")}
    await store.set_wanted(ORDERS, [source(1)], tracker=tracker, origins=origins)
    assert await store.save([update(gone, "5", polled=5), update(stays, "6")]) == [SAVED, SAVED]
    account = replace(update(tracker), ledger=Ledger(polled=5, delivered=5))
    stale = replace(account, token=FencingToken(tracker.token - 1))
    assert not await store.retire([shard(0).shard], tracker=stale)
    assert shard(0) in await store.load_mapping(ORDERS)
    assert await store.retire([shard(0).shard, shard(9).shard], tracker=account)
    left = await store.load_mapping(ORDERS)
    assert set(left) == {shard(1), tracker.key}
    assert left[tracker.key].ledger == Ledger(polled=5, delivered=5)
    assert await store.save([update(gone, "7"), update(stays, "8")]) == [STALE, SAVED]
    assert shard(0) not in await store.load_mapping(ORDERS)


async def test_a_retired_shard_that_is_wanted_again_begins_as_new(store: Store) -> None:
    """A stream that was made anew may use the names of the old one."""
    tracker = await track(store)
    await store.release([await take(store, ANN, shard(0))])
    assert await store.retire([shard(0).shard], tracker=update(tracker))
    taken = await store.acquire(ANN, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S)
    lease, progress = taken[shard(0)]
    assert progress == ShardProgress()
    assert await store.save([update(lease, "1")]) == [SAVED]
