"""A stream's pump before a function that throttles or is away: budgets, age, order, drains, leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from model.errors import LeaseLostError
from model.mapping import Extensions
from model.outcome import Delivered, FunctionFailed, NotReached, Throttled
from model.progress import CircuitState, ShardState
from pollers.circuit import MAX_OPEN_S, OPEN_AFTER
from pollers.lane import lane_numbers
from pollers.pump import Pump
from pollers.retrying import Condition, RetryPolicy
from tests.support.pump_fakes import SHARD, Raw
from tests.support.pump_rig import Rig
from tests.unit.test_handing_over import DestinationRig

if TYPE_CHECKING:
    from model.outcome import Outcome
    from pollers.checkpointer import Checkpointer

pytestmark = pytest.mark.looptime

AWAY = NotReached("connection refused")
BUSY = Throttled("HTTP 429")
POISON = NotReached("HTTP 413", status=413, batch_refused=True)


class AgingRig(DestinationRig):
    """A pump for which the event loop began at the epoch."""

    def pump(self, checkpointer: Checkpointer) -> Pump:
        """Make the pump."""
        parts = replace(super().pump(checkpointer)._parts, now_s=asyncio.get_running_loop().time)
        return Pump(parts, self.lease)  # type: ignore[arg-type]  # a fake lease


def many_keys(count: int, keys: int) -> list[Raw]:
    """Make records that spread over lanes."""
    return [Raw(n, key=b"k%d" % (n % keys)) for n in range(count)]


def away_until(rig: Rig, at: float, outcome: Outcome = AWAY) -> None:
    """Have the function refused until a time."""
    loop = asyncio.get_running_loop()
    rig.target.answer = lambda _p, _n: outcome if loop.time() < at else Delivered()


async def test_lanes_share_one_circuit() -> None:
    """Ten minutes away, with no retries allowed: a handful of calls for all lanes together, and nothing is lost."""
    rig = DestinationRig(raws=many_keys(300, 50), lanes=16, policy=RetryPolicy(maximum_retry_attempts=0))
    away_until(rig, 600)
    async with rig.running():
        await asyncio.sleep(599)
        assert len(rig.target.calls) <= OPEN_AFTER + 5 + 600 / (MAX_OPEN_S / 2)
        assert len(rig.target.calls) >= OPEN_AFTER + 600 / MAX_OPEN_S
        await rig.until(lambda: rig.saved(300))
        assert asyncio.get_running_loop().time() < 600 + MAX_OPEN_S + 10
    assert rig.counters.failed_invoke == 0
    assert rig.account == (300, 0, 0, 0)


async def test_what_reaches_the_function_and_fails_uses_its_retries_after_any_number_of_refusals() -> None:
    """The budgets are apart: twenty times away and twenty throttles leave every retry to be used."""
    rig = Rig(3, policy=RetryPolicy(maximum_retry_attempts=1))
    refusals = [AWAY] * 20 + [BUSY] * 20
    rig.target.answer = lambda _p, n: refusals[n - 1] if n <= len(refusals) else FunctionFailed("boom")
    async with rig.running():
        await asyncio.sleep(40 * MAX_OPEN_S)
        assert rig.saved(3)
    assert len(rig.target.calls) == 42
    assert (rig.counters.failed_invoke, rig.counters.dropped, rig.counters.throttles) == (6, 3, 20)
    assert [invocation.attempt for invocation in rig.target.invocations] == list(range(1, 43))


async def test_a_drain_does_not_wait_at_an_open_circuit() -> None:
    """The batches are left to the next holder at once, and nobody is called any more."""
    rig = Rig(raws=many_keys(100, 30), lanes=8)
    away_until(rig, 1e9)
    loop = asyncio.get_running_loop()
    async with rig.running() as (pump, done):
        await asyncio.sleep(100)
        calls, drained_at = len(rig.target.calls), loop.time()
        pump.drain()
        await done
        assert loop.time() - drained_at < 0.1
        assert len(rig.target.calls) == calls
    assert rig.saves.progress.ledger.balanced
    away_until(rig, 0)
    rig.target.calls.clear()
    async with rig.running():
        await rig.until(lambda: rig.saved(100))
    assert sorted(rig.target.delivered()) == list(range(100))


async def test_a_drain_lets_a_probe_under_way_finish() -> None:
    """What the function takes is saved; those who waited behind it are let go."""
    rig = Rig(raws=many_keys(60, 30), lanes=8)
    away_until(rig, 50)
    async with rig.running() as (pump, done):
        await asyncio.sleep(49)
        rig.target.seconds = 20
        rig.target.called.clear()
        await rig.target.called.wait()
        await asyncio.sleep(1)
        assert rig.target.running == 1
        pump.drain()
        await done
    assert rig.saves.progress.ledger.delivered == len(rig.target.calls[-1])
    assert rig.saves.progress.ledger.balanced


@pytest.mark.parametrize("refusal", [AWAY, BUSY])
async def test_records_grow_too_old_while_they_wait(refusal: Outcome) -> None:
    """The leading ones go when they are too old, not when there is a turn; younger ones are delivered afterwards."""
    loop = asyncio.get_running_loop()
    raws = [Raw(n, arrival_ms=n * 40_000) for n in range(9)]
    rig = AgingRig(raws=raws, policy=RetryPolicy(maximum_retry_attempts=0, maximum_record_age_s=60))
    away_until(rig, 200, refusal)
    async with rig.running():
        for position in range(4):
            await asyncio.sleep(position * 40 + 59.9 - loop.time())
            assert len(rig.destination.taken) == position
            await asyncio.sleep(0.2)
            assert rig.destination.positions == [[n] for n in range(position + 1)]
        await rig.until(lambda: rig.saved(9))
    assert {failure.condition for failure in rig.destination.taken} == {Condition.RECORD_AGE_EXCEEDED}
    assert rig.target.delivered()[-5:] == [4, 5, 6, 7, 8]
    assert rig.account == (5, 4, 0, 0)


async def test_the_lease_is_checked_after_the_wait() -> None:
    """A turn that comes when the lease is not trusted any more goes on to the next pump, and nobody is called."""
    rig, other = Rig(3), Rig(3)
    other.gate = rig.gate
    loop = asyncio.get_running_loop()
    away_until(rig, 1e9)
    async with rig.running() as (_, done):
        await asyncio.sleep(100)
        calls = len(rig.target.calls)
        rig.lease.lost = True
        async with other.running():
            with pytest.raises(LeaseLostError):
                await done
            lost_at = loop.time()
            await rig.until(lambda: other.saved(3))
            assert loop.time() - lost_at < 0.1
    assert len(rig.target.calls) == calls
    assert rig.gate.closed


async def test_a_killed_probe_leaves_its_place_to_the_next_pump() -> None:
    """The circuit is shared by all pumps of a mapping: one's end does not keep the others waiting."""
    rig, other = Rig(3), Rig(0)
    other.gate = rig.gate
    away_until(rig, 1e9)
    loop = asyncio.get_running_loop()
    async with other.running():
        async with rig.running():
            await asyncio.sleep(49)
            rig.target.seconds = 1e6
            rig.target.called.clear()
            await rig.target.called.wait()
            other.raws.append(Raw(0))
            other.source.readers[0].arrived.set()
            await asyncio.sleep(5)
            assert other.target.calls == []
        killed_at = loop.time()
        await rig.until(lambda: other.saved(1))
        assert loop.time() - killed_at < 0.1


async def test_shards_that_wait_say_so_and_why() -> None:
    """Also a shard that did not call itself: state, reason and the circuit are in its report."""
    rig, other = Rig(3), Rig(0)
    other.gate = rig.gate
    away_until(rig, 100)
    async with rig.running(), other.running():
        await rig.until(lambda: not rig.gate.closed)
        other.raws.append(Raw(0))
        other.source.readers[0].arrived.set()
        await asyncio.sleep(0.1)
        for one in (rig, other):
            report = one.counters.probes[SHARD]().report
            assert (report.state, report.last_error) == (ShardState.WAITING, "connection refused")
            assert report.circuit is not None
            assert report.circuit.state is CircuitState.OPEN
        assert other.target.calls == []
        await asyncio.sleep(100 + MAX_OPEN_S)
        assert rig.saved(3)
        assert other.saved(1)
        for one in (rig, other):
            report = one.counters.probes[SHARD]().report
            assert (report.state, report.last_error, report.last_result) == (ShardState.READING, None, "OK")


async def test_a_batch_that_is_refused_itself_holds_up_only_its_lane() -> None:
    """It is tried again ever more seldom, without using up retries, while all others flow."""
    rig = Rig(raws=many_keys(200, 40), lanes=8, policy=RetryPolicy(maximum_retry_attempts=0))
    rig.target.answer = lambda p, _n: POISON if 7 in p else Delivered()
    async with rig.running():
        await asyncio.sleep(600)
        refused = [call for call in rig.target.calls if 7 in call]
        assert 10 <= len(refused) <= 60
        lane = lane_numbers([raw.key for raw in rig.raws], 8)
        assert {n for n in range(200) if lane[n] != lane[7]} <= set(rig.target.delivered())
        assert rig.gate.closed
        report = rig.counters.probes[SHARD]().report
        assert (report.state, report.last_result) == (ShardState.WAITING, "PROBLEM: HTTP 413")
        assert rig.counters.dropped == rig.counters.failed_invoke == 0


def parking_rig(*, age_s: int | None = None) -> AgingRig:
    """Make a pump whose function fails on keys `a` and `b`, which are parked at once."""
    raws = [Raw(0, b"a", 0), Raw(1, b"b", 10_000), *[Raw(n, b"c", n * 1000) for n in range(2, 8)]]
    return AgingRig(
        raws=raws,
        policy=RetryPolicy(maximum_record_age_s=age_s, park_after=1),
        extensions=Extensions(park_failing_keys=True, parked_max_bytes=10_000),
    )


@pytest.mark.parametrize("away_at", [5, 1e9])
async def test_parked_records_grow_too_old_in_their_time(away_at: float) -> None:
    """Each by itself, at an open circuit or in the midst of a backoff, also when it is not the one that is tried."""
    rig = parking_rig(age_s=60)
    loop = asyncio.get_running_loop()
    failed = FunctionFailed("boom")
    rig.target.answer = lambda p, _n: AWAY if loop.time() > away_at else failed if min(p) < 2 else Delivered()
    async with rig.running():
        await asyncio.sleep(59.9)
        assert rig.gate.closed is (away_at > 60)
        assert rig.counters.probes[SHARD]().ledger.parked == 2
        assert rig.destination.positions == []
        await asyncio.sleep(0.7)
        assert rig.destination.positions == [[0]]
        await asyncio.sleep(9.2)
        assert rig.destination.positions == [[0]]
        await asyncio.sleep(0.8)
        assert rig.destination.positions == [[0], [1]]
    assert {failure.condition for failure in rig.destination.taken} == {Condition.RECORD_AGE_EXCEEDED}
    assert rig.account == (6, 2, 0, 0)


async def test_a_drain_does_not_wait_for_parked_keys_at_an_open_circuit() -> None:
    """They stay parked, and the next holder tries them."""
    rig = parking_rig()
    loop = asyncio.get_running_loop()
    rig.target.answer = lambda p, _n: AWAY if loop.time() > 5 else FunctionFailed("x") if min(p) < 2 else Delivered()
    async with rig.running() as (pump, done):
        await asyncio.sleep(60)
        assert not rig.gate.closed
        drained_at = loop.time()
        pump.drain()
        await done
        assert loop.time() - drained_at < 0.1
    assert rig.saves.progress.ledger.parked == 2
    rig.target.answer = lambda _p, _n: Delivered()
    async with rig.running():
        await asyncio.sleep(60)
    assert rig.account == (8, 0, 0, 0)
