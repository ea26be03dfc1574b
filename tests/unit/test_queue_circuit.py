"""A queue's pollers before a function that throttles or is away: receiving, visibility, drains, turns."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from model.errors import LeaseLostError
from model.outcome import Delivered, NotReached, Throttled
from model.progress import CircuitState, ShardState
from pollers.circuit import MAX_OPEN_S, OPEN_AFTER
from tests.support.fake_sqs import FakeQueue
from tests.support.queue_rig import QueueRig, sqs_mapping

if TYPE_CHECKING:
    from model.outcome import Outcome
    from pollers.queue_work import Work

pytestmark = pytest.mark.looptime

AWAY = NotReached("connection refused")
BUSY = Throttled("HTTP 429")
POISON = NotReached("HTTP 413", status=413, batch_refused=True)


def numbered(count: int) -> list[str]:
    """Make bodies."""
    return [f"b{n}" for n in range(count)]


def away_until(rig: QueueRig, at: float, outcome: Outcome = AWAY) -> None:
    """Have the function refused until a time."""
    loop = asyncio.get_running_loop()
    rig.function.answer = lambda _bodies: outcome if loop.time() < at else Delivered()


@pytest.mark.parametrize("refusal", [AWAY, BUSY])
async def test_nothing_is_received_while_the_circuit_is_open(refusal: Outcome) -> None:
    """An hour away with maxReceiveCount 1: what is held stays hidden, one probe goes for all pollers, nothing dies."""
    rig = QueueRig(FakeQueue(visibility_s=30, max_receives=1))
    rig.concurrency = 64
    away_until(rig, 3600, refusal)
    rig.queue.send(*numbered(1000))
    pumps = [rig.pump(index) for index in range(4)]
    async with rig.running(*pumps):
        await asyncio.sleep(30)
        assert not rig.gate.closed
        receives, calls = rig.queue.receives, len(rig.function.calls)
        assert calls <= 4 * 4 + 20
        for pump in pumps:
            report = rig.counters.probes[pump.key]().report
            assert (report.state, report.last_error) == (ShardState.WAITING, refusal.error)  # type: ignore[union-attr]
        await asyncio.sleep(3500)
        assert rig.queue.receives == receives
        assert len(rig.function.calls) <= calls + 3500 / (MAX_OPEN_S / 2)
        assert rig.queue.hidden() == sum(pump.held for pump in pumps) <= 4 * 4 * 10
        await asyncio.sleep(200)
    assert sorted(rig.function.done) == sorted(numbered(1000))
    assert rig.queue.dead == []
    assert set(rig.function.receives) == {1}
    assert rig.counters.failed_invoke == 0
    stored = (await rig.store.load([pump.key for pump in pumps])).values()
    assert all(one.ledger.balanced for one in stored)
    assert sum(one.ledger.delivered for one in stored) == 1000


async def test_a_drain_at_an_open_circuit_gives_everything_back_at_once() -> None:
    """Nobody waits for a turn; the messages are visible, and another holder delivers them."""
    rig = QueueRig(FakeQueue(visibility_s=300))
    rig.long_poll_s = 1
    away_until(rig, 1e9)
    rig.queue.send(*numbered(25))
    pump = rig.pump()
    loop = asyncio.get_running_loop()
    async with rig.running(pump) as [working]:
        await asyncio.sleep(100)
        held, calls, drained_at = pump.held, len(rig.function.calls), loop.time()
        assert held > 0
        pump.drain()
        await working
        assert loop.time() - drained_at < 0.5
        assert len(rig.function.calls) == calls
    assert len(rig.queue.visible()) == 25


async def test_with_nothing_held_the_next_receive_is_for_the_probe() -> None:
    """AWS's exact behaviour forgets what becomes visible: one batch is received when a probe may go, and not before."""
    mapping = sqs_mapping(extensions={"visibility_heartbeat": False})
    rig = QueueRig(FakeQueue(visibility_s=3), mapping)
    away_until(rig, 300)
    rig.queue.send(*numbered(10))
    async with rig.running(rig.pump()):
        await asyncio.sleep(100)
        receives, calls = rig.queue.receives, len(rig.function.calls)
        await asyncio.sleep(200)
        assert 200 / MAX_OPEN_S <= rig.queue.receives - receives <= 200 / (MAX_OPEN_S / 2) + 1
        assert len(rig.function.calls) - calls <= rig.queue.receives - receives + 1
        assert rig.queue.extensions == []
        await asyncio.sleep(60)
    assert sorted(rig.function.done) == sorted(numbered(10))


async def test_a_poller_that_held_nothing_receives_again_when_the_circuit_closes() -> None:
    """It is told, and need not look."""
    rig = QueueRig(FakeQueue(visibility_s=30))
    rig.concurrency = 32
    rig.long_poll_s = 1
    away_until(rig, 100)
    rig.queue.send(*numbered(10))
    one, other = rig.pump(0), rig.pump(1)
    async with rig.running(one, other):
        await asyncio.sleep(60)
        assert not rig.gate.closed
        assert one.held + other.held == 10
        rig.queue.send(*[f"c{n}" for n in range(300)])
        await asyncio.sleep(100)
    assert len(rig.function.done) == 310
    assert rig.gate.closed


async def test_a_function_that_holds_few_is_given_few_by_all_pollers_together() -> None:
    """Two at once for four pollers with eight slots each: no more is received than is tried soon, and all get there."""
    rig = QueueRig(FakeQueue(visibility_s=30, max_receives=1))
    rig.concurrency = 128
    rig.function.seconds = lambda _bodies: 1.0
    pumps = [rig.pump(index) for index in range(4)]

    class Two:
        """Takes two at once."""

        async def invoke(self, invocation: object) -> Outcome:
            if len(rig.function.running) >= 2:
                return BUSY
            return await rig.function.invoke(invocation)  # type: ignore[arg-type]

    for pump in pumps:
        object.__setattr__(pump._parts, "target", Two())
    rig.queue.send(*numbered(1000))
    async with rig.running(*pumps):
        await asyncio.sleep(10)
        held = []
        for _ in range(30):
            await asyncio.sleep(1)
            held.append(sum(pump.held for pump in pumps))
            assert rig.gate.closed
        assert len(rig.function.done) >= 0.8 * 10 * 2 * 40
        assert max(held[15:]) <= 10 * (2 + 1 + 4)
        assert sum(pump.use().limit for pump in pumps) <= 4
        await asyncio.sleep(30)
    assert len(rig.function.done) == 1000
    assert set(rig.function.receives) == {1}


async def test_a_batch_that_is_refused_itself_is_tried_again_by_itself() -> None:
    """Other batches flow; no receive count is used up."""
    rig = QueueRig(FakeQueue(visibility_s=30, max_receives=1), sqs_mapping(BatchSize=1))
    rig.concurrency = 32
    rig.function.answer = lambda bodies: POISON if "b3" in bodies else Delivered()
    rig.queue.send(*numbered(100))
    async with rig.running(rig.pump()):
        await asyncio.sleep(600)
        assert len(rig.function.done) == 99
        assert 5 <= rig.function.calls.count(["b3"]) <= 40
        assert rig.gate.closed
    assert rig.queue.dead == []


async def test_killed_pollers_take_no_turn_with_them() -> None:
    """Whenever a poller loses its lease, the others of the node go on."""
    for step in range(30):
        rig = QueueRig(FakeQueue(visibility_s=5))
        rig.concurrency = 48
        rig.function.seconds = lambda _bodies: 0.3
        away_until(rig, 2)
        rig.queue.send(*numbered(200))
        dying, living = rig.pump(0), rig.pump(1)

        async def live_and_die(dying: object = dying) -> None:
            with suppress(LeaseLostError):
                await dying.run()  # type: ignore[attr-defined]

        async with rig.running(living), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(live_and_die())
            await asyncio.sleep(0.1 * step)
            task.cancel()
            await asyncio.sleep(60)
            assert len(set(rig.function.done)) == 200
            assert rig.gate.report().state is CircuitState.CLOSED
        assert rig.gate._circuit.running == 0
        assert rig.counters.circuit_transitions.get(CircuitState.OPEN, 0) <= OPEN_AFTER


async def test_a_poller_killed_while_it_waits_leaves_its_place() -> None:
    """A turn that nobody takes would count as with the function for ever."""
    rig = QueueRig(FakeQueue(visibility_s=5))
    away_until(rig, 30)
    rig.queue.send(*numbered(10))
    dying, living = rig.pump(0), rig.pump(1)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(dying.run())
        await asyncio.sleep(29)
        assert not rig.gate.closed
        assert rig.gate.held_up
        task.cancel()
    async with rig.running(living):
        await asyncio.sleep(60)
    assert sorted(rig.function.done) == sorted(numbered(10))
    assert rig.gate._circuit.running == 0
    assert not rig.gate.held_up


async def test_a_poller_killed_in_the_step_in_which_it_begins_gives_its_turn_back() -> None:
    """A task that is cancelled before its first step cannot do that itself."""
    rig = QueueRig(FakeQueue(visibility_s=5))
    rig.queue.send(*numbered(10))
    dying = rig.pump(0)
    begin = dying._load.begin
    async with asyncio.TaskGroup() as tasks:

        def die() -> None:
            for other in asyncio.all_tasks():
                if other.get_name().startswith("deliver"):
                    other.cancel()

        def begin_and_die(work: Work) -> None:
            begin(work)
            asyncio.get_running_loop().call_soon(die)  # before the first step of the task that is made next

        dying._load.begin = begin_and_die  # type: ignore[method-assign]
        task = tasks.create_task(dying.run())
        await asyncio.sleep(1)
        task.cancel()
    assert rig.function.calls == []
    assert rig.gate._circuit.running == 0


async def test_the_one_batch_held_is_every_probe() -> None:
    """Its own pause after each refusal does not add to the circuit's: a recovery is noticed in half a minute."""
    rig = QueueRig(FakeQueue(visibility_s=30))
    away_until(rig, 3600)
    rig.queue.send("b0")
    async with rig.running(rig.pump()):
        await asyncio.sleep(600)
        before = len(rig.function.calls)
        await asyncio.sleep(3000)
        assert len(rig.function.calls) - before >= 3000 / MAX_OPEN_S
        await asyncio.sleep(MAX_OPEN_S + 1)
        assert rig.function.done == ["b0"]
