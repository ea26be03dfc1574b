"""The gate before a function: whose turn it is, and that no turn is ever lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, Throttled
from model.progress import CircuitReport, CircuitState
from pollers.circuit import FIRST_OPEN_S, MAX_OPEN_S, OPEN_AFTER, Circuit
from pollers.counters import Counters
from pollers.gate import Gate, Place, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.looptime

AWAY, BUSY = NotReached("connection refused"), Throttled("HTTP 429")
EPOCH_S = 1_700_000_000.0


class Bench:
    """A gate, and callers."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.circuit = Circuit(Random(7))
        self.gate = Gate(
            self.circuit, mapping="orders", counters=self.counters, now_s=lambda: EPOCH_S + round(loop.time(), 6)
        )
        self.draining = asyncio.Event()
        self.log: list[str] = []

    async def enter(self, *, not_before: float = 0.0, until: float | None = None) -> Turn | None:
        """Wait for a turn."""
        return await self.gate.enter(self.draining, not_before=not_before, until=until)

    async def call(self, outcome: Outcome | None = None, *, name: str = "", seconds: float = 0.0) -> None:
        """Call the function once, in turn."""
        turn = await self.enter()
        if turn is None:
            self.log.append(f"{name} let go")
            return
        with turn:
            self.log.append(name)
            await asyncio.sleep(seconds)
            turn.outcome = outcome or Delivered()

    async def open(self) -> None:
        """Have the circuit open."""
        for _ in range(OPEN_AFTER):
            await self.call(AWAY)
        assert not self.gate.closed


async def test_turns_are_given_in_the_order_of_the_asking() -> None:
    """One at a time once the function has shown that it holds one; nobody overtakes."""
    bench = Bench()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bench.call(name="held", seconds=10))
        tasks.create_task(bench.call(BUSY, name="throttled", seconds=0.01))
        await asyncio.sleep(0.1)
        for n in range(5):
            tasks.create_task(bench.call(name=str(n), seconds=1))
    assert bench.log == ["held", "throttled", *"01234"]
    assert asyncio.get_running_loop().time() == pytest.approx(15, abs=0.1)


async def test_one_probe_goes_the_failed_one_to_the_back() -> None:
    """A batch that is never taken is not every probe: the others have their turn, and the first to reach closes."""
    bench = Bench()
    await bench.open()
    async with asyncio.TaskGroup() as tasks:

        async def poison() -> None:
            while "good" not in bench.log:
                await bench.call(AWAY, name="poison", seconds=0.1)

        tasks.create_task(poison())
        await asyncio.sleep(0.01)
        tasks.create_task(bench.call(AWAY, name="unlucky", seconds=0.1))
        tasks.create_task(bench.call(name="good", seconds=0.1))
    assert bench.log[OPEN_AFTER:][:3] == ["poison", "unlucky", "good"]
    assert bench.gate.closed


async def test_a_waiter_that_is_cancelled_is_passed_over() -> None:
    """Its place is gone, and the next one goes."""
    bench = Bench()
    await bench.open()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(bench.call(name="first"))
        tasks.create_task(bench.call(name="second"))
        await asyncio.sleep(0.01)
        first.cancel()
    assert bench.log[OPEN_AFTER:] == ["second"]
    assert first.cancelled()


async def test_a_turn_given_to_one_that_is_cancelled_in_the_same_step_goes_on_to_the_next() -> None:
    """Nobody is left half-open by a caller that never knew of its turn."""
    bench = Bench()
    await bench.open()
    async with asyncio.TaskGroup() as tasks:
        probe = await bench.enter()
        assert probe is not None
        first = tasks.create_task(bench.call(name="first"))
        tasks.create_task(bench.call(name="second"))
        await asyncio.sleep(0.01)
        probe.end()
        assert bench.circuit.running == 1  # it is the first one's turn
        first.cancel()
    assert first.cancelled()
    assert bench.log[OPEN_AFTER:] == ["second"]
    assert bench.circuit.running == 0


async def test_a_probe_that_is_cancelled_leaves_its_place_to_the_next_at_once() -> None:
    """Whoever waits need not wait another time."""
    bench = Bench()
    await bench.open()
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        probe = tasks.create_task(bench.call(name="probe", seconds=1000))
        tasks.create_task(bench.call(name="next"))
        await asyncio.sleep(FIRST_OPEN_S)
        assert bench.log[OPEN_AFTER:] == ["probe"]
        probe.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert bench.log[OPEN_AFTER:] == ["probe", "next"]
    assert bench.gate.closed
    assert loop.time() < 1


async def test_who_drains_does_not_wait_at_an_open_circuit() -> None:
    """Those who wait are let go at once; who asks while draining gets a turn only if it is there."""
    bench, other = Bench(), asyncio.Event()
    await bench.open()
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for n in range(3):
            tasks.create_task(bench.call(name=str(n)))
        staying = tasks.create_task(bench.gate.enter(other))
        await asyncio.sleep(0.01)
        bench.draining.set()
        bench.gate.drained()
        await asyncio.sleep(0.01)
        assert bench.log[OPEN_AFTER:] == ["0 let go", "1 let go", "2 let go"]
        assert await bench.enter() is None
        assert loop.time() < began_at + 0.1
        turn = await staying
        assert turn is not None
        turn.outcome = Delivered()
        turn.end()
    assert await bench.enter() is not None


async def test_nobody_waits_longer_than_wanted() -> None:
    """Whose records grow too old in the meantime comes back without a turn, in time, and leaves no place behind."""
    bench = Bench()
    await bench.open()
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.1
    assert await bench.enter(until=until) is None
    assert loop.time() == pytest.approx(until)
    await bench.call(name="later")
    assert bench.log[-1] == "later"


async def test_a_pause_of_ones_own_holds_up_nobody_else() -> None:
    """Who was refused while the circuit is closed waits alone; once it opens, its time is everybody's."""
    bench = Bench()
    loop = asyncio.get_running_loop()
    order: list[tuple[str, float]] = []

    async def paused() -> None:
        turn = await bench.enter(not_before=loop.time() + 50)
        assert turn is not None
        order.append(("paused", loop.time()))
        turn.outcome = Delivered()
        turn.end()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(paused())
        await asyncio.sleep(1)
        await bench.call(name="other")
        assert order == []
        await asyncio.sleep(60)
        assert order[0][1] == pytest.approx(50, abs=0.01)
        tasks.create_task(paused())
        await asyncio.sleep(1)
        await bench.open()
        await asyncio.sleep(FIRST_OPEN_S)
        assert len(order) == 2
        assert order[1][1] < 65


async def test_a_place_holds_one_ticket() -> None:
    """A poller that cannot wait is woken when its turn is there, and gives it back when it wants none any more."""
    bench = Bench()
    woken: list[float] = []
    loop = asyncio.get_running_loop()
    place = Place(bench.gate, lambda: woken.append(loop.time()))
    turn = place.take()
    assert turn is not None
    turn.end()
    await bench.open()
    woken.clear()
    assert place.take() is None
    assert place.take() is None
    await asyncio.sleep(FIRST_OPEN_S)
    assert len(woken) == 1
    place.leave()
    place.leave()
    assert bench.circuit.running == 0
    turn = place.take()
    assert turn is not None
    with turn:
        turn.outcome = Delivered()
    turn.end()
    assert bench.gate.closed
    assert bench.circuit.running == 0


async def test_what_changed_is_told_once() -> None:
    """The log has a line when it opens and one when it closes; transitions are counted, watchers are called."""
    bench = Bench()
    changes: list[bool] = []

    def changed() -> None:
        changes.append(bench.gate.closed)

    bench.gate.watch(changed)
    with capture_logs() as logs:
        await asyncio.sleep(100)
        await bench.open()
        opened = bench.gate.report()
        assert opened == CircuitReport(
            CircuitState.OPEN, round((EPOCH_S + 100) * 1000), opened.retry_ms, "connection refused", None
        )
        assert opened.retry_ms is not None
        assert 250 <= opened.retry_ms - (EPOCH_S + 100) * 1000 <= 500
        for _ in range(3):
            await bench.call(AWAY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bench.call(seconds=1))
            await asyncio.sleep(8)
        assert bench.gate.report().state is CircuitState.CLOSED
        assert bench.gate.report().retry_ms is None
    assert [(entry["event"], entry["log_level"], entry["mapping"]) for entry in logs] == [
        ("circuit.opened", "warning", "orders"),
        ("circuit.closed", "info", "orders"),
    ]
    assert logs[0]["error"] == "connection refused"
    assert logs[1]["open_s"] > 2
    assert changes == [False, True]
    assert bench.counters.circuit_transitions == {
        CircuitState.OPEN: 4,
        CircuitState.HALF_OPEN: 4,
        CircuitState.CLOSED: 1,
    }
    bench.gate.unwatch(changed)
    await bench.open()
    assert changes == [False, True]


async def test_throttling_is_told_when_it_begins_and_when_it_is_over() -> None:
    """However many throttles there are between, and not for the limit of a function that was away."""
    bench = Bench()
    with capture_logs() as logs:
        for n in range(200):
            await bench.call(BUSY if n % 6 == 0 else None, seconds=0.1)
        assert bench.gate.report().limit in (1, 2)
        await asyncio.sleep(100)
        await bench.call()
        assert bench.gate.report().limit is None
        await bench.open()
        await bench.call()
    assert [entry["event"] for entry in logs] == [
        "throttling.began",
        "throttling.ended",
        "circuit.opened",
        "circuit.closed",
    ]
    assert logs[0]["error"] == "HTTP 429"


async def test_a_closed_gate_is_not_shown_any_more() -> None:
    """A changed mapping has a new gate, which the old one's end does not hide."""
    bench = Bench()
    shown: Callable[[], CircuitReport] | None = bench.counters.circuit
    assert shown is not None
    newer = Gate(Circuit(Random(1)), mapping="orders", counters=bench.counters)
    bench.gate.close()
    assert bench.counters.circuit == newer.report
    newer.close()
    assert bench.counters.circuit is None


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_is_cancelled_or_drained_nothing_stays_behind(seed: int) -> None:
    """Callers come, are refused, cancelled and let go at random: afterwards all turns are back and one may go."""
    bench, random = Bench(), Random(seed)
    outcomes: list[Outcome | None] = [None, Delivered(), FunctionFailed("boom"), AWAY, AWAY, AWAY, BUSY]

    async def caller(draining: asyncio.Event) -> None:
        while True:
            until = asyncio.get_running_loop().time() + random.uniform(0, 20) if random.random() < 0.2 else None
            turn = await bench.gate.enter(draining, not_before=random.uniform(0, 100), until=until)
            if turn is None:
                if draining.is_set():
                    return
                continue
            with turn, suppress(ZeroDivisionError):
                await asyncio.sleep(random.expovariate(2))
                if random.random() < 0.05:
                    raise ZeroDivisionError
                turn.outcome = random.choice(outcomes)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(40):
            draining = asyncio.Event()
            callers = [tasks.create_task(caller(draining)) for _ in range(random.randrange(1, 6))]
            place = Place(bench.gate, lambda: None)
            turn = place.take()
            await asyncio.sleep(random.uniform(0, 8))
            if turn is not None:
                turn.end()
            for task in callers[1::2]:
                task.cancel()
            place.leave()
            draining.set()
            bench.gate.drained()
    assert bench.circuit.running == 0
    assert not bench.gate.held_up or not bench.gate.closed
    async with asyncio.timeout(2 * MAX_OPEN_S):
        await bench.call(name="after")
    assert bench.gate.closed
