"""The event loop in virtual time that the simulation runs on: machines with clocks of their own, stopped and let go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.support.virtual_loop import Machine, VirtualLoop, machine_here

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

_T = TypeVar("_T")


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """Make a loop."""
    made = VirtualLoop()
    yield made
    made.close()


def spawn(loop: VirtualLoop, machine: Machine, work: Coroutine[None, None, _T]) -> asyncio.Task[_T]:
    """Start a task on a machine."""
    return machine.context.run(loop.create_task, work)


async def note_after(delay_s: float, log: list[tuple[str, float]], name: str = "") -> None:
    """Write down the true time after a while."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(delay_s)
    assert isinstance(loop, VirtualLoop)
    log.append((name, loop.now))


def test_an_hour_passes_at_once(loop: VirtualLoop) -> None:
    """Time goes on to the next timer when nobody has anything to do."""
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.now == 3600 == loop.time()


def test_each_machine_has_its_own_clock(loop: VirtualLoop) -> None:
    """A slow oscillator's second is longer; timers and deadlines go by the machine's clock, outside by the true one."""
    slow = Machine("slow", rate=0.5, up_s=1000)

    async def on_machine() -> tuple[float, float]:
        began_at = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.sleep(10)
        assert machine_here() is slow
        return began_at, loop.time()

    async def outside() -> None:
        assert await spawn(loop, slow, on_machine()) == (1000, 1002)
        assert machine_here() is None
        assert loop.time() == 4

    loop.run_until_complete(outside())


def test_what_a_machine_starts_is_its_own(loop: VirtualLoop) -> None:
    """Tasks and timers of its tasks stop with it, and no others."""
    one, other = Machine("one"), Machine("other")
    log: list[tuple[str, float]] = []

    async def on_machine() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(note_after(1, log, "child"))

    async def outside() -> None:
        tasks = [spawn(loop, one, on_machine()), spawn(loop, other, note_after(2, log, "other"))]
        await asyncio.sleep(0.5)
        loop.stop_machine(one)
        await asyncio.sleep(4.5)
        assert log == [("other", 2)]
        loop.go_on(one)
        await asyncio.wait(tasks)

    loop.run_until_complete(outside())
    assert log == [("other", 2), ("child", 5)]


@pytest.mark.parametrize(("slept", "fires_at", "reads"), [(False, 10, 10), (True, 12, 3)])
def test_a_stopped_process_finds_its_timers_due_and_a_machine_that_slept_does_not(
    loop: VirtualLoop, *, slept: bool, fires_at: float, reads: float
) -> None:
    """In sleep the monotonic clock stands still; the one from boot does not."""
    machine = Machine("one")
    log: list[tuple[str, float]] = []

    async def outside() -> None:
        task = spawn(loop, machine, note_after(3, log))
        await asyncio.sleep(1)
        loop.stop_machine(machine)
        await asyncio.sleep(9)
        loop.go_on(machine, slept=slept)
        await task
        assert machine.monotonic_s(loop.now) == reads
        assert machine.boot_s(loop.now) == fires_at

    loop.run_until_complete(outside())
    assert log == [("", fires_at)]


@pytest.mark.parametrize(("timers_first", "expected"), [(False, ["message", "timer"]), (True, ["timer", "message"])])
def test_what_came_while_it_stood_still_is_done_when_it_goes_on(
    loop: VirtualLoop, *, timers_first: bool, expected: list[str]
) -> None:
    """Messages from outside and timers, in either order."""
    machine = Machine("one")
    log: list[str] = []

    async def outside() -> None:
        answer: asyncio.Future[None] = machine.context.run(loop.create_future)

        async def wait_for_it() -> None:
            await answer
            log.append("message")

        task = spawn(loop, machine, wait_for_it())
        machine.context.run(loop.call_later, 1, log.append, "timer")
        await asyncio.sleep(0.5)
        loop.stop_machine(machine)
        await asyncio.sleep(2)
        answer.set_result(None)
        await asyncio.sleep(1)
        assert log == []
        loop.go_on(machine, timers_first=timers_first)
        await task

    loop.run_until_complete(outside())
    assert log == expected


def test_a_set_of_tasks_is_gone_through_alike_each_time(loop: VirtualLoop) -> None:
    """By when they were made, and not by where they are in memory, which differs from run to run."""

    async def order() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0)) for _ in range(100)]
        return [tasks.index(task) for task in set(tasks)]

    again = VirtualLoop()
    try:
        assert loop.run_until_complete(order()) == again.run_until_complete(order())
    finally:
        again.close()


@pytest.mark.parametrize(
    "does", [lambda loop: loop.run_until_complete(loop.create_future()), lambda loop: loop.run_in_executor(None, print)]
)
def test_what_could_not_be_repeated_is_refused(loop: VirtualLoop, does: Callable[[VirtualLoop], object]) -> None:
    """To wait for what never comes, and threads."""
    with pytest.raises(RuntimeError, match=r"everybody waits|no threads"):
        does(loop)
