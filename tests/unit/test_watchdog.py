"""The event loop watchdog."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from node.watchdog import LoopLag, Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


class LateClock:
    """The loop's time plus what a test says was lost."""

    def __init__(self) -> None:
        self.late_s = 0.0

    def __call__(self) -> float:
        """Read it."""
        return asyncio.get_running_loop().time() + self.late_s


@pytest.mark.looptime
async def test_a_loop_that_keeps_up_has_no_lag() -> None:
    """Nobody is told anything while the loop is on time."""
    told: list[float] = []
    watchdog = Watchdog(on_lag=told.append, clock=LateClock())
    alive = [watchdog.alive]
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watchdog.run())
            await asyncio.sleep(3)
            alive.append(watchdog.alive)
            await stopped(task)
    alive.append(watchdog.alive)
    assert alive == [False, True, False]
    assert (told, lines) == ([], [])
    assert watchdog.lag.recent_max_s == pytest.approx(0, abs=1e-6)


@pytest.mark.looptime
async def test_lag_is_told_every_time_and_logged_now_and_then() -> None:
    """Whoever must step down hears of each lag; the log has one line in ten seconds."""
    told: list[float] = []
    clock = LateClock()
    watchdog = Watchdog(on_lag=told.append, clock=clock)
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watchdog.run())
            for _ in range(3):
                await asyncio.sleep(1.05)
                clock.late_s += 0.7
            await asyncio.sleep(1.05)
            await stopped(task)
    assert told == pytest.approx([0.7, 0.7, 0.7])
    assert [line["event"] for line in lines] == ["event_loop.lagged"]
    assert watchdog.lag.recent_max_s == pytest.approx(0.7)
    assert watchdog.lag.last_s == pytest.approx(0, abs=1e-6)


async def test_a_loop_that_is_stuck_is_shown_in_the_log() -> None:
    """While the loop's thread hangs, another thread logs where it is, once; and notes when it goes on."""
    watchdog = Watchdog(hang_s=0.1, interval_s=0.01)
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watchdog.run())
            await asyncio.sleep(0.05)
            block_until(lambda: any(line["event"] == "event_loop.stuck" for line in lines))
            await asyncio.to_thread(block_until, lambda: any(line["event"] == "event_loop.going_on" for line in lines))
            await stopped(task)
    stuck = [line for line in lines if line["event"] == "event_loop.stuck"]
    assert len(stuck) == 1
    assert "block_until" in stuck[0]["stack"]
    block_until(lambda: all(thread.name != "loop watchdog" for thread in threading.enumerate()))


def block_until(condition: Callable[[], bool]) -> None:
    """Block the calling thread until the condition holds."""
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_a_peak_is_seen_for_one_to_two_windows() -> None:
    """The largest lag stays visible long enough for a scrape, then passes."""
    lag = LoopLag(window_s=10)
    lag.observe(0.1, now=0)
    lag.observe(0.9, now=9)
    lag.observe(0.2, now=11)
    assert lag.recent_max_s == 0.9
    lag.observe(0.3, now=21)
    assert lag.recent_max_s == 0.3
    lag.observe(0.0, now=50)
    assert lag.recent_max_s == 0.0


async def test_the_loop_is_alive_before_the_first_beat() -> None:
    """Whoever asks right after the start is not told that the loop was stuck."""
    watchdog = Watchdog(interval_s=60)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watchdog.run())
        await asyncio.sleep(0)
        assert watchdog.alive
        running.cancel()
    assert not watchdog.alive
