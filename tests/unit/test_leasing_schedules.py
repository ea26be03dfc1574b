"""Whatever happens when: two never work on one shard, and in the end everything is worked on again.

Each schedule comes from a seed, which a failure names. `ESMD_LEASING_SEEDS=17` in the environment runs that one again.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from leasing.term import default_margin_s
from model.ids import TRACKER
from tests.support.fleet_values import source
from tests.support.lease_fleet import Fleet, Node, fleet_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.looptime(noop_cycles=1)  # nothing comes from outside the loop
SEEDS = [int(seed) for seed in os.environ.get("ESMD_LEASING_SEEDS", "").split()] or list(range(40))
TTL_S = 5.0


@pytest.mark.parametrize("after", range(1, 26))
@pytest.mark.parametrize("before_it_arrives", [True, False])
async def test_cancelled_at_any_call(after: int, *, before_it_arrives: bool) -> None:
    """Cancelling a node at each of its store calls leaves it with nothing, and the other with everything."""
    async with fleet_of(6) as fleet:
        ann = fleet.node("ann", ttl_s=TTL_S)
        ann.link.request_s = lambda: 0.01
        ann.link.reply_s = lambda: 0.01

        def cancel(_: str, number: int) -> None:
            if number == after:
                fleet.loop.call_later(0 if before_it_arrives else 0.015, ann.task.cancel)

        ann.link.on_call = cancel
        bob = fleet.node("bob", ttl_s=TTL_S)  # so that ann gives some away
        await fleet.until(ann.task.done, within_s=60)
        assert ann.host.working == {}
        assert ann.service.held == {}
        assert ann.service.node is None
        await fleet.until(lambda: set(bob.host.working) == fleet.wanted(), within_s=TTL_S + 1)


@pytest.mark.parametrize("moment", range(12))
async def test_cancelled_at_any_time_of_a_hand_over(moment: int) -> None:
    """Cancelling the giving or the receiving node at any moment of a hand-over leaves nothing behind."""
    for victim in ("ann", "bob"):
        async with fleet_of(6) as fleet:
            ann = fleet.node("ann", ttl_s=TTL_S)
            await fleet.whole(within_s=2)
            ann.host.drain_s = lambda _: 0.05
            bob = fleet.node("bob", ttl_s=TTL_S)
            for node in fleet.nodes:
                node.link.request_s = node.link.reply_s = lambda: 0.01
            await fleet.run_for(0.03 * moment)
            gone, other = (ann, bob) if victim == "ann" else (bob, ann)
            gone.task.cancel()
            await fleet.until(lambda: set(other.host.working) == fleet.wanted(), within_s=TTL_S + 1)  # noqa: B023  # awaited
            assert gone.host.working == {}


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_schedule(seed: int) -> None:
    """Random delays, losses, pauses, kills, drains, joins and changes of what is wanted never give a shard to two."""
    rng = random.Random(seed)
    async with fleet_of(rng.randint(4, 20)) as fleet:
        for name in ("ann", "bob", "cat"):
            _join(fleet, name, rng)
        await fleet.settled(within_s=10)
        for round_number in range(rng.randint(6, 14)):
            await _disturb(fleet, rng, round_number)
            await fleet.run_for(rng.choice([0.1, 0.5, 2.0, TTL_S, 2 * TTL_S]))
        for node in fleet.nodes:
            _mend(node, lambda: 0.0)
        if not any(_lives(node) for node in fleet.nodes):
            _join(fleet, "last", rng)
        # A hand-over that began in the trouble may take its whole limit, an answer under way its whole delay.
        await fleet.settled(within_s=40)
        await fleet.run_for(2 * TTL_S)
        await fleet.settled(within_s=0)
        held = {key: (holding.node, holding.token) for key, holding in fleet.store._holdings.items()}
        worked = {
            key: (lease.node, lease.token)
            for node in fleet.nodes
            for key, lease in node.host.working.items()
            if _lives(node)
        }
        assert worked == held


def _join(fleet: Fleet, name: str, rng: random.Random) -> Node:
    node = fleet.node(name, ttl_s=TTL_S)
    node.clock_rate = rng.uniform(0.999, 1.001)
    node.clock_ahead_s = rng.uniform(0, 1e6)
    node.link.request_s = lambda: rng.uniform(0, 0.02)
    node.link.reply_s = lambda: rng.uniform(0, 0.02)
    node.host.drain_s = lambda _: rng.uniform(0, 0.5)
    return node


def _lives(node: Node) -> bool:
    return not node.task.done() and not node.task.cancelling() and not node.leaving


async def _disturb(fleet: Fleet, rng: random.Random, round_number: int) -> None:
    """Do one bad thing, or undo one."""
    living = [node for node in fleet.nodes if _lives(node)]
    if len(living) < 2 or (len(living) < 5 and rng.random() < 0.2):
        _join(fleet, f"new{round_number}", rng)
        return
    node = rng.choice(living)
    match rng.choice(["trouble", "trouble", "end", "mend", "want", "give_up"]):
        case "trouble":
            _trouble(node, rng)
        case "end":
            _end(fleet, node, rng)
        case "mend":
            for other in living:
                _mend(other, lambda: rng.uniform(0, 0.02))
        case "want":
            tracker = fleet.holder(next(key for key in fleet.wanted() if key.shard == TRACKER))
            if tracker is not None:
                await fleet.want_instead([source(n) for n in range(rng.randint(1, 20))])
        case "give_up":
            for key in rng.sample(sorted(node.service.held), min(2, len(node.service.held))):
                node.host.working.pop(key, None)
                node.service.give_up(key)


def _end(fleet: Fleet, node: Node, rng: random.Random) -> None:
    match rng.choice(["kill", "stop", "drain"]):
        case "kill":
            node.kill()
        case "stop":
            node.task.cancel()
        case "drain":
            node.leaving = True
            fleet.tasks.create_task(node.service.drain(rng.choice([0.1, 1.0, 20.0])))


def _trouble(node: Node, rng: random.Random) -> None:
    match rng.choice(["refuse", "mute", "hold up", "hold up releases", "slow", "lag", "stuck"]):
        case "refuse":
            node.link.refusing = True
        case "mute":
            node.link.mute = True
        case "hold up":
            node.link.hold_up()
        case "hold up releases":
            node.link.hold_up("release")
        case "slow":
            node.link.request_s = lambda: rng.uniform(0, TTL_S / 2)
            node.link.reply_s = lambda: rng.uniform(0, TTL_S / 2)
        case "lag":
            node.clock_ahead_s += rng.uniform(0, TTL_S)
        case "stuck":
            node.host.drain_s = lambda _: 1e6


def _mend(node: Node, delay: Callable[[], float]) -> None:
    node.link.refusing = node.link.mute = False
    node.link.let_through()
    node.link.request_s = node.link.reply_s = delay
    node.host.drain_s = lambda _: 10 * delay()


def test_the_margin_is_what_the_schedules_assume() -> None:
    """Clocks in the schedules differ by a thousandth, which the margin covers many times over."""
    assert default_margin_s(TTL_S) > 100 * TTL_S * 0.001
