"""Runs one simulated world: `run(plan)` is a function of its plan.

It takes a fixed `PYTHONHASHSEED` for two processes to tell the same story (`__main__` sees to it).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING
from unittest.mock import patch

import structlog

from tests.simulation.world import CALM_S, World
from tests.support.simulated_kafka import simulated_brokers
from tests.support.virtual_loop import VirtualLoop, machine_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.plan import Plan

_EPOCH_S = 1_767_225_600.0  # 2026-01-01
_AFTER_S = 3 * CALM_S  # how long a world may go on after its storm: to become calm, and to drain its nodes


@dataclass(slots=True)
class Verdict:
    """What came of a world."""

    problems: list[str]
    written: int
    calls: int
    repeats: int  # records with which the function was called again after it had taken them
    calm_after_s: float
    story: list[str]
    digest: int  # alike for runs that went alike
    befell: Counter[str] = field(default_factory=Counter)


def run(plan: Plan) -> Verdict:
    """Let a world happen."""
    loop = VirtualLoop()
    collecting = gc.isenabled()
    gc.disable()  # nothing may depend on when garbage is collected
    try:
        with patch.object(time, "time", _wall_clock(loop)), simulated_brokers(Random(plan.seed)):
            return loop.run_until_complete(_run(plan, loop))
    finally:
        loop.close()
        gc.collect()
        if collecting:
            gc.enable()


def _wall_clock(loop: VirtualLoop) -> Callable[[], float]:
    def read() -> float:
        machine = machine_here()
        return _EPOCH_S + loop.now + (0.0 if machine is None else machine.wall_ahead_s)

    return read


async def _run(plan: Plan, loop: VirtualLoop) -> Verdict:
    world = World(plan, loop)
    loop.set_exception_handler(world.fell_through)
    structlog.configure(
        processors=[world.logged],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    async with asyncio.TaskGroup() as tasks:
        story = tasks.create_task(world.happen())
        failing = tasks.create_task(world.failed.wait())
        limit_s = plan.storm_s + _AFTER_S
        done, _ = await asyncio.wait([story, failing], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            world.judge.wrong(
                f"liveness: the world does not come to an end {_AFTER_S:.0f} s after its storm: {world.nodes}"
            )
        verdict = _verdict(world)
        await _end(world)
        story.cancel()
        failing.cancel()
    return verdict


def _verdict(world: World) -> Verdict:
    judges = [source.judge for source in world.sources.values()]
    return Verdict(
        problems=list(world.judge.problems),
        written=sum(judge.written for judge in judges),
        calls=world.judge.begun,
        repeats=sum(judge.repeats for judge in judges),
        calm_after_s=world.calm_after_s,
        story=world.story,
        digest=world.judge.digest,
        befell=world.befell,
    )


async def _end(world: World) -> None:
    """End everything at once: nothing that happens from here on counts."""
    world.ended = True
    for node in world.nodes:
        if not node.killed:
            await node.kill()
