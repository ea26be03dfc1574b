"""Carrying out the plan: each fault is made, ended, and waited for until the fleet is whole again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from tests.chaos.plan import NODES, Fault, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.fleet import ChaosFleet


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault that was carried out."""

    fault: Fault
    began: float  # epoch seconds
    over: float  # when the fleet was whole again
    hit: frozenset[str] = frozenset()  # the processes it ended or paused


async def carry_out(
    plan: Sequence[Fault], fleet: ChaosFleet, say: Callable[[str], None], *, within_s: float
) -> list[Happened]:
    """Make the faults at their times, or later if the one before takes longer. Returns what happened, in order.

    Where that takes longer than `within_s`, the further ones of a kind that has come already are left out.
    """
    happened: list[Happened] = []
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    under_way: set[asyncio.Task[None]] = set()
    begun: set[Kind] = set()

    async def make(fault: Fault) -> None:
        began = time.time()
        hit = await _make(fault, fleet)
        happened.append(Happened(fault, began, time.time(), frozenset(hit)))
        say(f"{fault.at_s:6.1f} s  {fault.kind}{_detail(fault)}: whole again after {time.time() - began:.1f} s")

    async with asyncio.TaskGroup() as tasks:
        for fault in plan:
            if under_way and not fault.beside:
                await asyncio.wait(under_way)
                under_way.clear()
            if fault.kind in begun and loop.time() > began_at + within_s:
                continue
            begun.add(fault.kind)
            await asyncio.sleep(began_at + fault.at_s - loop.time())
            under_way.add(tasks.create_task(make(fault), name=fault.kind))
    return sorted(happened, key=lambda one: one.began)


def _detail(fault: Fault) -> str:
    return (f" {fault.lasts_s:g} s" if fault.lasts_s else "") + (", beside" if fault.beside else "")


async def _make(fault: Fault, fleet: ChaosFleet) -> list[str]:
    """Make one fault and wait for its end; return the processes that it hit."""
    hit: list[str] = []
    match fault.kind:
        case Kind.KILL:
            hit = [await _kill(fleet, _place(fault, fleet), fault.lasts_s)]
        case Kind.PAUSE:
            hit = [await _pause(fleet, _place(fault, fleet), fault.lasts_s)]
        case Kind.ROLL:
            hit = [node.name for node in fleet.nodes]
            for place in range(NODES):
                await _restart(fleet, place)
        case Kind.REDIS_KILL:
            fleet.servers.redis.kill()
            await asyncio.sleep(fault.lasts_s)
            fleet.servers.redis.start()  # by this thread: the server ends with the thread that started it
        case Kind.REDIS_FREEZE:
            pid = fleet.servers.redis.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.lasts_s)
            finally:
                os.kill(pid, signal.SIGCONT)
        case Kind.KAFKA_KILL:
            await asyncio.to_thread(fleet.servers.kafka.kill)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(fleet.servers.kafka.start)
        case Kind.RESHARD:
            await fleet.reshard()
        case Kind.REFUSALS:
            fleet.target.refuse()
            await asyncio.sleep(fault.lasts_s)
            fleet.target.refuse()
        case _:
            assert_never(fault.kind)
    await fleet.whole()
    return hit


def _place(fault: Fault, fleet: ChaosFleet) -> int:
    """Return the node to hit: the planned one, or the next that is not hit already."""
    assert fault.node is not None
    places = [(fault.node + n) % NODES for n in range(NODES)]
    return next(place for place in places if place not in fleet.paused and fleet.nodes[place].address)


async def _kill(fleet: ChaosFleet, place: int, away_s: float) -> str:
    node = fleet.nodes[place]
    node.kill()
    node.address = ""
    await asyncio.sleep(away_s)
    await fleet.serving(fleet.spawn(place))
    return node.name


async def _pause(fleet: ChaosFleet, place: int, for_s: float) -> str:
    node = fleet.nodes[place]
    joined = len(node.find("member.joined"))
    fleet.paused.add(place)
    node.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(for_s)
    finally:
        node.signal(signal.SIGCONT)
        fleet.paused.discard(place)
    await node.logged("member.joined", count=joined + 1)  # anew: what it was a member of has gone on without it
    return node.name


async def _restart(fleet: ChaosFleet, place: int) -> None:
    node = fleet.nodes[place]
    status = await node.stop()
    assert status == 0, f"{node.name} ended with {status}:\n{node.tail()}"
    await fleet.serving(fleet.spawn(place))
