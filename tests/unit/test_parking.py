"""Parking: a failing key steps aside, in order and durably; everything else goes on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from model.errors import LeaseLostError
from model.mapping import EventSourceMapping, Extensions, KafkaSource
from model.outcome import Delivered, FunctionFailed, PartlyFailed, Throttled
from model.progress import ParkedRecords, SaveResult, ShardState
from pollers.retrying import Condition, RetryPolicy
from pollers.shard_state import StoredState
from tests.support.pump_fakes import MAPPING, SHARD, FakeDestination, FakeTarget, Raw
from tests.support.pump_rig import Rig
from tests.support.saves import Saves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model.outcome import Outcome

pytestmark = pytest.mark.looptime

PARKING = Extensions(park_failing_keys=True)
AT_ONCE = RetryPolicy(park_after=1)
BOOM = FunctionFailed("Boom")


def keyed(count: int, keys: int = 5) -> list[Raw]:
    """Return records spread over keys in turn: record 7 of five keys has key 2."""
    return [Raw(n, b"%d" % (n % keys)) for n in range(count)]


def failing_on(*poison: int, mended: Callable[[], bool] = lambda: False) -> Callable[[list[int], int], Outcome]:
    """Answer with an error to every call that holds one of the positions, until it is mended."""
    return lambda positions, _: BOOM if set(positions) & set(poison) and not mended() else Delivered()


class Deliveries:
    """What a function took, call by call."""

    def __init__(self, target: FakeTarget, answer: Callable[[list[int], int], Outcome]) -> None:
        self.positions: list[int] = []
        self._answer = answer
        target.answer = self._note

    def _note(self, positions: list[int], attempt: int) -> Outcome:
        outcome = self._answer(positions, attempt)
        if isinstance(outcome, Delivered):
            self.positions += positions
        return outcome

    def by_key(self, keys: int = 5) -> dict[int, list[int]]:
        """Return the positions taken of each key."""
        found = defaultdict(list)
        for position in self.positions:
            found[position % keys].append(position)
        return found


def parking_rig(raws: list[Raw], poison: Iterable[int], **options: Any) -> tuple[Rig, Deliveries, dict[str, bool]]:
    """Return a pump that parks, its function, and a switch that mends the function."""
    switch = {"mended": False}
    rig = Rig(**{"raws": raws, "batch_size": 10, "policy": AT_ONCE, "extensions": PARKING, **options})
    return rig, Deliveries(rig.target, failing_on(*poison, mended=lambda: switch["mended"])), switch


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


async def test_a_failing_key_is_parked_and_the_others_and_the_checkpoint_go_on() -> None:
    """The key's later records queue behind it, undelivered, while everything else is delivered within a moment."""
    rig, got, _ = parking_rig(keyed(100), [7])
    loop = asyncio.get_running_loop()
    async with rig.running():
        await rig.until(lambda: rig.saved(100))
        assert loop.time() < 0.5  # nobody waited for a backoff
        assert sorted(got.positions) == [n for n in range(100) if n % 5 != 2 or n < 7]
        ledger = rig.saves.progress.ledger
        assert (ledger.delivered, ledger.parked, ledger.in_flight) == (81, 19, 0)
        assert ledger.balanced
        assert [one.position for one in rig.saves.lot.records] == list(range(7, 100, 5))
        report = rig.saves.progress.report
        assert [(key.key, key.records, key.failures) for key in report.parked_keys] == [("2", 19, 1)]
        assert report.state is ShardState.READING


async def test_parked_records_are_delivered_in_order_once_the_function_recovers() -> None:
    """The lot empties in order, the key is parked no more, and its next records go the ordinary way."""
    raws = keyed(100)
    rig, got, switch = parking_rig(raws, [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(100))
        await asyncio.sleep(60)
        switch["mended"] = True
        await rig.until(lambda: rig.saves.progress.ledger.parked == 0)
        raws += [Raw(n, b"%d" % (n % 5)) for n in range(100, 110)]
        rig.source.readers[0].arrived.set()
        await rig.until(lambda: rig.saved(110))
    assert all(positions == sorted(positions) for positions in got.by_key().values())
    assert sorted(got.positions) == list(range(110))
    assert rig.saves.lot.records == ()
    assert rig.saves.progress.ledger.delivered == 110
    assert rig.saves.progress.report.parked_keys == ()
    assert StoredState.decode(rig.saves.progress.state) == StoredState()


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


async def test_the_lot_is_retried_with_growing_delays_of_up_to_a_minute() -> None:
    """Half a second doubling, jittered, so that a key that fails for ever costs about two calls a minute."""
    rig, _, _ = parking_rig(keyed(10), [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
        await asyncio.sleep(60)
        rig.target.calls.clear()
        await asyncio.sleep(3600)
    assert 60 <= len(rig.target.calls) <= 240


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


async def test_a_whole_batch_of_one_key_is_parked_together_and_told_apart_in_the_lot() -> None:
    """What stood before the failing record is delivered from the lot, what stands behind waits."""
    raws = [Raw(n, b"k") for n in range(6)]
    rig, got, _ = parking_rig(raws, [3])
    async with rig.running():
        await rig.until(lambda: rig.saved(6))
        await rig.until(lambda: rig.saves.progress.ledger.parked == 3)
        assert got.positions == [0, 1, 2]


async def test_park_after_counts_errors_of_the_key_alone() -> None:
    """The batch is told apart first; then the key has its errors, with delays, before it is parked."""
    rig, _, _ = parking_rig(keyed(10), [7], policy=RetryPolicy(park_after=3))
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
    alone = [call for call in rig.target.calls if call == [7]]
    assert len(alone) == 3
    assert rig.target.calls[0] == list(range(10))


async def test_a_throttled_function_parks_nothing() -> None:
    """Throttling is not failure: everything waits in its place."""
    rig, _, _ = parking_rig(keyed(10), [])
    rig.target.answer = lambda _p, n: Throttled("busy") if n < 20 else Delivered()
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
    assert rig.counters.throttles == 19
    assert rig.saves.lot.revision == 0


async def test_the_record_that_a_partial_response_names_is_parked() -> None:
    """What the function had reported is set apart; what it had processed before is not delivered again."""
    rig = Rig(
        raws=keyed(20), batch_size=10, policy=RetryPolicy(partial_responses=True, park_after=1), extensions=PARKING
    )
    rig.target.answer = lambda p, _: Delivered(b'{"batchItemFailures":[{"itemIdentifier":7}]}' if 7 in p else b"")
    async with rig.running():
        await rig.until(lambda: rig.saved(20))
        assert rig.saves.progress.ledger.parked == 3
    assert [one.position for one in rig.saves.lot.records] == [7, 12, 17]
    assert rig.target.calls[0] == list(range(10))
    assert all(min(call) >= 7 for call in rig.target.calls[1:])


async def test_a_function_that_fails_on_everything_is_not_answered_by_parking_everything() -> None:
    """Parking slows down to a key a minute, and speeds up again when the function takes something."""
    rig, got, switch = parking_rig([Raw(n, b"%d" % n) for n in range(500)], range(500))
    async with rig.running():
        await asyncio.sleep(1800)
        parked = rig.counters.probes[SHARD]().ledger.parked
        assert 20 < parked < 80
        switch["mended"] = True
        await rig.until(lambda: rig.saves.progress.ledger.delivered == 500)
    assert sorted(got.positions) == list(range(500))


async def test_a_full_lot_gives_the_first_failing_record_to_the_destination() -> None:
    """The record a key is stuck on makes room for the others; the key's rest gets its turn."""
    destination = FakeDestination()
    limit = Extensions(park_failing_keys=True, parked_max_bytes=1000)
    rig, got, _ = parking_rig(keyed(200), [7], destination=destination, extensions=limit)
    async with rig.running():
        await rig.until(lambda: rig.saved(200))
        await rig.until(lambda: rig.saves.progress.ledger.parked == 0)
        ledger = rig.saves.progress.ledger
        assert (ledger.delivered, ledger.destination) == (199, 1)
    assert destination.positions == [[7]]
    assert destination.taken[0].condition is Condition.RETRY_ATTEMPTS_EXHAUSTED
    assert destination.taken[0].invocations > 1
    assert all(positions == sorted(positions) for positions in got.by_key().values())


async def test_a_full_lot_without_a_destination_drops_where_retries_have_an_end() -> None:
    """As without parking; where they are endless, reading waits and the status says why."""
    limit = Extensions(park_failing_keys=True, parked_max_bytes=1000)
    policy = RetryPolicy(maximum_retry_attempts=0, park_after=1)
    rig, _, _ = parking_rig(keyed(200), [7], extensions=limit, policy=policy)
    async with rig.running():
        await rig.until(lambda: rig.saved(200))
        await rig.until(lambda: rig.saves.progress.ledger.parked == 0)
    assert (rig.saves.progress.ledger.delivered, rig.saves.progress.ledger.dropped) == (199, 1)
    rig, got, switch = parking_rig(keyed(200), [7, 8], extensions=limit)
    async with rig.running():
        await asyncio.sleep(600)
        view = rig.counters.probes[SHARD]()
        assert (view.report.state, view.report.last_error) == (ShardState.WAITING, "the parking lot is full")
        assert view.ledger.balanced
        assert len(got.positions) < 199
        switch["mended"] = True
        await rig.until(lambda: rig.saves.progress.ledger.delivered == 200)


async def test_records_in_the_lot_get_too_old() -> None:
    """MaximumRecordAgeInSeconds holds there too."""
    raws = [Raw(n, b"%d" % (n % 5), arrival_ms=0) for n in range(10)]
    destination = FakeDestination()
    policy = RetryPolicy(maximum_record_age_s=60, park_after=1)
    rig, _, _ = parking_rig(raws, [7], destination=destination, policy=policy)
    for raw in raws:
        raw.arrival_ms = 10**13  # arrived in the far future, so young
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
        lot = rig.saves.lot
    rig.saves.lot = replace(lot, records=tuple(_aged(one) for one in lot.records))
    async with rig.running():
        await rig.until(lambda: rig.saves.progress.ledger.parked == 0)
    assert [taken.condition for taken in destination.taken] == [Condition.RECORD_AGE_EXCEEDED]
    assert destination.positions == [[7]]


def _aged(one: Any) -> Any:
    return type(one)(one.position, 0, one.fragment, one.key, one.item_id)


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


async def test_a_closed_shard_is_read_to_its_end_only_when_nothing_is_parked() -> None:
    """Its children would overtake the parked records of their keys."""
    rig, got, switch = parking_rig(keyed(10), [7])
    async with rig.running() as (_, done):
        await rig.until(lambda: rig.saved(10))
        rig.source.readers[0].at_end = True
        rig.source.readers[0].arrived.set()
        await asyncio.sleep(600)
        assert not done.done()
        switch["mended"] = True
        assert await done is True
    assert sorted(got.positions) == list(range(10))


async def test_a_lot_is_emptied_also_when_the_mapping_parks_no_more() -> None:
    """What is stored as parked is tried, and its key's records queue behind it, whatever the mapping says now."""
    rig, got, switch = parking_rig(keyed(20), [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(20))
    rig.policy, rig.mapping = RetryPolicy(), replace(rig.mapping, extensions=Extensions())
    rig.raws += [Raw(n, b"%d" % (n % 5)) for n in range(20, 40)]
    async with rig.running():
        await rig.until(lambda: rig.saved(40))
        assert rig.saves.progress.ledger.parked == 7
        switch["mended"] = True
        await rig.until(lambda: rig.saves.progress.ledger.parked == 0)
    assert all(positions == sorted(positions) for positions in got.by_key().values())


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


@pytest.mark.parametrize(
    ("retries", "park_after", "expected"), [(None, None, 1), (3, None, 4), (0, None, 1), (3, 2, 2), (None, 5, 5)]
)
def test_when_a_key_is_parked(retries: int | None, park_after: int | None, expected: int) -> None:
    """As said; else when its retries are used up, and at once where they are endless: the lot retries without end."""
    mapping = EventSourceMapping(
        id=MAPPING,
        name="orders",
        function_name="f",
        source=KafkaSource("orders", "group"),
        maximum_retry_attempts=retries,
        extensions=Extensions(park_failing_keys=True, park_after=park_after),
    )
    assert RetryPolicy.of(mapping, in_order=True).park_after == expected
    off = replace(mapping, extensions=Extensions())
    assert RetryPolicy.of(off, in_order=True).park_after is None


async def test_a_reported_failure_shows_as_the_reason() -> None:
    """Operators read why a key is parked, whichever way it fails."""
    rig, _, _ = parking_rig(keyed(10), [7])
    async with rig.running():
        await rig.until(lambda: (rig.saves.progress.report.parked_keys or [None])[0] is not None)
        await rig.until(lambda: rig.saves.progress.report.parked_keys[0].error == "Boom")
    rig = Rig(
        raws=keyed(10), batch_size=10, policy=RetryPolicy(partial_responses=True, park_after=1), extensions=PARKING
    )
    rig.target.answer = lambda p, _: PartlyFailed(frozenset({7})) if 7 in p else Delivered()
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
        await rig.until(lambda: rig.saves.progress.report.parked_keys[0].error == "reported as failed")


async def test_a_wish_of_an_operator_has_everything_parked_tried_at_once() -> None:
    """Whatever the backoff; once each key had its turn the report says so, and a wish is carried out once."""
    rig, got, switch = parking_rig(keyed(100), [7, 8], policy=RetryPolicy(park_after=1))
    loop = asyncio.get_running_loop()
    async with rig.running() as (pump, _):
        await rig.until(lambda: rig.saved(100))
        await asyncio.sleep(600)  # the delays have grown to a minute
        switch["mended"] = True
        before = loop.time()
        pump.try_parked(1)
        await rig.until(lambda: rig.saves.progress.ledger.parked == 0)
        assert loop.time() - before < 1
        await rig.until(lambda: rig.saves.progress.report.parked_tries == 1)
    assert sorted(got.positions) == list(range(100))


async def test_keys_that_fail_again_had_their_turn_too() -> None:
    """They keep their place, and the next wish is another one; looking at the same wish again tries nothing."""
    rig, _, _ = parking_rig(keyed(10), [7, 8])
    async with rig.running() as (pump, _):
        await rig.until(lambda: rig.saved(10))
        await asyncio.sleep(600)
        for number in (1, 2):
            calls = len(rig.target.calls)
            pump.try_parked(number)
            pump.try_parked(number)
            await rig.until(lambda number=number: rig.saves.progress.report.parked_tries == number)  # type: ignore[misc]
            assert sorted(rig.target.calls[calls:]) == [[7], [8]]
            pump.try_parked(number)
    assert [one.position for one in rig.saves.lot.records] == [7, 8]


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
