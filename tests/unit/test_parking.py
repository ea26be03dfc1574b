"""Parking: a failing key steps aside, in order and durably; everything else goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from model.mapping import EventSourceMapping, Extensions, KafkaSource
from model.outcome import Delivered, PartlyFailed, Throttled
from model.progress import ShardState
from pollers.retrying import Condition, RetryPolicy
from pollers.shard_state import StoredState
from tests.support.parking_rig import PARKING, keyed, parking_rig
from tests.support.pump_fakes import MAPPING, SHARD, FakeDestination, Raw
from tests.support.pump_rig import Rig

pytestmark = pytest.mark.looptime


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


async def test_the_lot_is_retried_with_growing_delays_of_up_to_a_minute() -> None:
    """Half a second doubling, jittered, so that a key that fails for ever costs about two calls a minute."""
    rig, _, _ = parking_rig(keyed(10), [7])
    async with rig.running():
        await rig.until(lambda: rig.saved(10))
        await asyncio.sleep(60)
        rig.target.calls.clear()
        await asyncio.sleep(3600)
    assert 60 <= len(rig.target.calls) <= 240


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
