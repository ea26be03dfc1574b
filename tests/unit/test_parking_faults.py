"""Parking through crashes, hand-overs, and stores that lose what they were told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from model.errors import LeaseLostError
from model.progress import ParkedRecords, SaveResult
from pollers.shard_state import StoredState
from tests.support.parking_rig import keyed, parking_rig
from tests.support.pump_fakes import Raw
from tests.support.saves import Saves

pytestmark = pytest.mark.looptime


async def test_what_is_parked_is_kept_although_the_source_has_deleted_it() -> None:
    """It is safe in the lot, and holds up nothing that the source might delete next."""
    rig, got, switch = parking_rig(keyed(20), [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(20))
        rig.source.readers[0].first = 20
        await asyncio.sleep(600)
        assert rig.saves.progress.ledger.parked == 3
        switch["mended"] = True
        await rig.until(lambda: not rig.saves.progress.ledger.parked)
    assert got.by_key()[2] == [2, 7, 12, 17]


async def test_the_mirror_never_passes_the_checkpoint() -> None:
    """Records of a parked key go to the lot when they are read, ahead of others that are still to be delivered."""
    rig, _, switch = parking_rig(keyed(100), [7])
    rig.target.seconds = 1.0
    async with rig.running():
        await rig.until(lambda: rig.saved(20))
        switch["mended"] = True
        mirrored = rig.source.readers[0].mirrored
        while not rig.saved(100):
            await asyncio.sleep(0.1)
            assert max(map(int, mirrored)) <= int(rig.saves.progress.position or 0)
    assert mirrored[-1] == "100"


@pytest.mark.parametrize("lanes", [1, 3])
async def test_a_crash_at_any_moment_keeps_parked_records_and_their_order(lanes: int) -> None:
    """Killed between any two calls and carried on by another holder: nothing is lost, order per key holds."""
    for calls in range(1, 40, 5):
        rig, got, switch = parking_rig(keyed(100), [7, 31], lanes=lanes)
        rig.saves.slow_s = 0.05
        rig.target.seconds = 0.02
        async with rig.running():
            await rig.until(lambda rig=rig, calls=calls: len(rig.target.calls) >= calls)  # type: ignore[misc]
        before = len(got.positions)
        async with rig.running():
            await rig.until(lambda rig=rig: rig.saved(100))  # type: ignore[misc]
        switch["mended"] = True
        async with rig.running():
            await rig.until(lambda rig=rig: rig.saves.progress.ledger.parked == 0)  # type: ignore[misc]
        assert set(got.positions) == set(range(100))
        for key in range(5):
            mine = [n for n in got.positions if n % 5 == key]
            first = list(dict.fromkeys(mine))
            assert first == sorted(first), f"after {calls} calls, {before} delivered"
        assert rig.saves.progress.ledger.delivered == 100
        assert rig.saves.progress.ledger.balanced


async def test_the_attempts_of_a_parked_record_survive_a_hand_over() -> None:
    """The next holder goes on counting, and tells operators the count."""
    rig, _, _ = parking_rig(keyed(10), [7])
    async with rig.running() as (pump, done):
        await rig.until(lambda: rig.saves.progress.report.parked_keys[:1] != ())
        await rig.until(lambda: rig.saves.progress.report.parked_keys[0].failures >= 3)
        pump.drain()
        assert await done is False
    failures = StoredState.decode(rig.saves.progress.state).attempts[7].failures
    assert failures >= 3
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.report.parked_keys[0].failures == failures + 1)


async def test_the_mirror_of_the_checkpoint_stays_before_the_first_parked_record() -> None:
    """A consumer group's offset outlives the store, and the lot does not."""
    rig, _, switch = parking_rig(keyed(100), [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(100))
        assert rig.source.readers[0].mirrored[-1] == "7"
        switch["mended"] = True
        await rig.until(lambda: rig.source.readers[0].mirrored[-1] == "100")


async def test_a_store_that_lost_parked_records_gets_all_of_them_again() -> None:
    """A failover that undid the last writes shows at the next save, and heals there."""
    raws = keyed(50)
    rig, _, _ = parking_rig(raws, [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(50))
        rig.saves.lot = replace(rig.saves.lot, revision=rig.saves.lot.revision - 1, records=rig.saves.lot.records[:3])
        raws += [Raw(n, b"2") for n in range(52, 60)]
        rig.source.readers[0].arrived.set()
        await rig.until(lambda: rig.saved(60))
    assert [one.position for one in rig.saves.lot.records] == [*range(7, 50, 5), *range(52, 60)]


async def test_a_stale_holder_parks_nothing() -> None:
    """The store's refusal ends the pump; what it had parked since is its successor's to read again."""
    rig, _, _ = parking_rig(keyed(10), [7])
    rig.saves.answer = SaveResult.STALE
    async with rig.running() as (_, done):
        await asyncio.wait([done])
        assert done.exception() is not None
    assert rig.saves.lot.revision == 0


async def test_a_drain_leaves_the_lot_as_it_is_and_does_not_wait_for_it() -> None:
    """What is parked waits for the next holder."""
    rig, _, _ = parking_rig(keyed(10), [7])
    loop = asyncio.get_running_loop()
    async with rig.running() as (pump, done):
        await rig.until(lambda: rig.saved(10))
        await asyncio.sleep(100)
        began_at = loop.time()
        pump.drain()
        assert await done is False
        assert loop.time() - began_at < 0.1
    assert [one.position for one in rig.saves.lot.records] == [7]


async def test_a_lot_that_cannot_be_loaded_is_waited_for() -> None:
    """Nothing is delivered before it is known what is parked."""
    rig, got, _ = parking_rig(keyed(20), [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(20))
    rig.raws += [Raw(n, b"%d" % (n % 5)) for n in range(20, 40)]
    before = list(got.positions)
    rig.saves.away = True
    async with rig.running():
        await asyncio.sleep(30)
        assert got.positions == before
        rig.saves.away = False
        await rig.until(lambda: rig.saved(40))


async def test_a_wish_outlives_the_holder_that_was_asked() -> None:
    """The next one knows from the mapping's record what was asked, and from the report what was done."""
    rig, _, switch = parking_rig(keyed(10), [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
    switch["mended"] = True
    async with rig.running() as (pump, _):
        pump.try_parked(5)  # as the worker does before `run`
        await rig.until(lambda: rig.saves.progress.report.parked_tries == 5)
        await rig.until(lambda: rig.saves.progress.ledger.parked == 0)
    calls = len(rig.target.calls)
    async with rig.running() as (pump, _):
        pump.try_parked(5)
        await asyncio.sleep(5)
    assert len(rig.target.calls) == calls


async def test_a_store_that_lost_parked_records_is_found_out_by_any_save() -> None:
    """A checkpoint beyond them is not saved without them, whether or not anything changed in the lot."""
    rig, _, _ = parking_rig(keyed(10), [3])
    async with rig.running():
        await rig.until(lambda: rig.saved(10) and len(rig.saves.lot.records) == 2)
        rig.saves.lot = ParkedRecords()
        rig.raws.append(Raw(10, b"0"))
        rig.source.readers[0].arrived.set()
        await rig.until(lambda: rig.saved(11))
        assert [one.position for one in rig.saves.lot.records] == [3, 8]


async def test_nothing_is_saved_before_the_lot_is_known() -> None:
    """Else the next holder would be told that nothing is parked, and the account would not balance."""
    rig, _, _ = parking_rig(keyed(10), [3])
    async with rig.running():
        await rig.until(lambda: rig.saved(10) and len(rig.saves.lot.records) == 2)
    stored, before = rig.saves.progress, len(rig.saves.updates)

    async def never(_key: object) -> ParkedRecords:
        await asyncio.Event().wait()
        raise AssertionError

    rig.saves.load_parked = never  # type: ignore[assignment,method-assign]  # it takes its time
    async with rig.running() as (pump, _):
        for _ in range(10):
            await asyncio.sleep(5)
            pump.refresh()
        assert len(rig.saves.updates) == before
    assert rig.saves.progress == stored


async def test_a_lot_that_is_not_the_checkpoints_is_not_taken_up() -> None:
    """A fail-over between the lease and the loading of the lot: the lease is given back, and both are read anew."""
    rig, _, _ = parking_rig(keyed(10), [3])
    async with rig.running():
        await rig.until(lambda: rig.saved(10) and len(rig.saves.lot.records) == 2)
    rig.saves.lot = ParkedRecords(rig.saves.lot.revision - 1, rig.saves.lot.records[:1])
    async with rig.running() as (_, outcome):
        with pytest.raises(LeaseLostError, match="another parking lot"):
            await outcome


async def test_what_is_published_again_without_the_lot_lies_before_all_that_was_parked() -> None:
    """A lot is not kept for others, so a store that has lost it gets an earlier checkpoint, or none."""
    rig, _, _ = parking_rig(keyed(10), [3])
    async with rig.running() as (pump, outcome):
        await rig.until(lambda: rig.saved(10) and len(rig.saves.lot.records) == 2)
        pump.drain()
        await outcome
        forgetful = Saves()
        rig.saves.save, lost = forgetful.save, rig.saves  # type: ignore[method-assign]  # it forgot everything
        assert rig.checkpointer is not None
        await rig.checkpointer.republish()
    assert lost.progress.position == "10"
    assert int(forgetful.progress.position or 0) <= 3
    assert forgetful.progress.ledger.balanced
    assert forgetful.lot.records == ()
    assert StoredState.decode(forgetful.progress.state) == StoredState()
