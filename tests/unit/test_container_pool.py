"""The pool of emulator containers: one invocation each, in turn, dead ones later."""

from __future__ import annotations

import asyncio

import pytest

from invocation.container_pool import ContainerPool


async def held(pool: ContainerPool[str], log: list[str], name: str, *, seconds: float, alive: bool = True) -> None:
    """Take a container, keep it for a while and note who had which."""
    container = await pool.take()
    log.append(f"{name}:{container}")
    await asyncio.sleep(seconds)
    pool.give_back(container, alive=alive)


@pytest.mark.looptime
async def test_waiters_are_served_in_turn() -> None:
    """Whoever came first gets the next free container; nobody overtakes."""
    pool = ContainerPool(["a", "b"])
    log: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        for number, seconds in enumerate([3, 1, 1, 1, 1]):
            tasks.create_task(held(pool, log, str(number), seconds=seconds))
    assert [entry[0] for entry in log] == ["0", "1", "2", "3", "4"]
    assert log[:3] == ["0:a", "1:b", "2:b"]
    assert asyncio.get_running_loop().time() == 4


@pytest.mark.looptime
async def test_a_dead_container_rests_while_others_live() -> None:
    """A dead container takes nothing until its rest is over, however many wait for the others."""
    pool = ContainerPool(["dead", "live"], rest_s=5)
    pool.give_back(await pool.take(), alive=False)
    log: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        for number in range(7):
            tasks.create_task(held(pool, log, str(number), seconds=1))
    assert [entry.partition(":")[2] for entry in log[:5]] == ["live"] * 5
    assert sorted(entry.partition(":")[2] for entry in log[5:]) == ["dead", "live"]
    pool.close()


@pytest.mark.looptime
async def test_when_all_are_dead_they_are_tried_one_after_the_other() -> None:
    """Nobody waits for a rest to end when no container is alive: callers learn at once that nothing answers."""
    pool = ContainerPool(["a", "b"], rest_s=60)
    log: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(held(pool, log, str(number), seconds=0, alive=False))
    assert [entry.partition(":")[2] for entry in log] == ["a", "b", "a", "b"]
    assert asyncio.get_running_loop().time() == 0
    pool.close()


@pytest.mark.looptime
async def test_a_cancelled_waiter_loses_no_container() -> None:
    """Cancelling a waiter, even in the step in which it is served, leaves the container to the next."""
    pool = ContainerPool(["a"])
    container = await pool.take()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(pool.take())
        served = tasks.create_task(pool.take())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(1)
        pool.give_back(container, alive=True)
        served.cancel()  # it has been handed the container and does not know yet
    assert waiting.cancelled()
    assert served.cancelled()
    async with asyncio.timeout(1):
        assert await pool.take() == "a"
