"""Invocations done with care: who of a node's goes alone, who waits for whom, and what is left when one is cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from model.outcome import Delivered
from model.record import Batch, Records
from pollers.attempts import Flight, Work
from pollers.caution import ALONE_S, Caution, Quarantine
from tests.support.pump_fakes import record

if TYPE_CHECKING:
    from model.outcome import Outcome

pytestmark = pytest.mark.looptime

NONE, AMONG_OTHERS, ALONE, _ = Flight


class Calls:
    """Invocations by several lanes of one node."""

    def __init__(self) -> None:
        self.quarantine = Quarantine()
        self.running = self.most_running = self.notes = 0

    def caution(self) -> Caution:
        """Make a lane's."""
        return Caution(note=self.note, quarantine=self.quarantine, draining=asyncio.Event())

    async def note(self) -> None:
        """Count."""
        self.notes += 1

    async def call(self, work: Work) -> Outcome:
        """Take a while."""
        assert work.flight is not NONE
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(3)
        self.running -= 1
        return Delivered()


async def test_suspects_of_a_node_go_one_by_one_and_wait_only_so_long() -> None:
    """Three seconds each: when the fourth is alone the others go among others, and a death is not charged to them."""
    calls = Calls()
    works = [Work(Batch(Records.of([record(n)]), 10), deaths=1) for n in range(6)]
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    flights: list[Flight] = []

    async def call(work: Work) -> Outcome:
        flights.append(work.flight)
        return await calls.call(work)

    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(calls.caution().invoke(work, call))
    assert flights == [ALONE] * 4 + [AMONG_OTHERS] * 2
    assert calls.most_running == 3
    assert loop.time() - began_at == pytest.approx(ALONE_S + 3, abs=0.1)
    assert repr(calls.quarantine) == "<Quarantine 0>"
    assert {work.flight for work in works} == {NONE}


async def test_others_that_need_care_wait_while_a_suspect_is_alone() -> None:
    """What is with a function for the first time after a take-over may be what kills the node."""
    calls = Calls()
    async with asyncio.TaskGroup() as tasks:
        for deaths in (1, 0, 0):
            caution = calls.caution()
            caution.begin()
            tasks.create_task(caution.invoke(Work(Batch(Records.of([record(0)]), 10), deaths=deaths), calls.call))
        await asyncio.sleep(2.5)
        assert calls.most_running == 1
        await asyncio.sleep(2.5)
        assert calls.running == 2


@pytest.mark.parametrize("seconds", [0.1, 2, 3, 5])
async def test_a_cancelled_suspect_leaves_the_way_free(seconds: float) -> None:
    """Waiting for others, or with the function: the next one goes on."""
    calls = Calls()
    one, other = (calls.caution() for _ in range(2))
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(caution.invoke(Work(Batch(Records.of([record(n)]), 10), deaths=1), calls.call))
            for n, caution in enumerate((one, other))
        ]
        await asyncio.sleep(seconds)
        for task in running:
            task.cancel()
    assert repr(calls.quarantine) == "<Quarantine 0>"


async def test_a_draining_node_invokes_with_no_suspect() -> None:
    """It neither waits nor calls; the records go to the next holder as they are."""
    calls = Calls()
    draining = asyncio.Event()
    caution = Caution(note=calls.note, quarantine=calls.quarantine, draining=draining)
    draining.set()
    for deaths in (0, 1, 3):
        work = Work(Batch(Records.of([record(0)]), 10), deaths=deaths)
        assert await caution.invoke(work, calls.call) is None
        assert work.flight is NONE
