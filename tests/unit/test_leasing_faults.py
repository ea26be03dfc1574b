"""Leases when the store, the network, the clock or the event loop misbehave."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from model.errors import LeaseLostError
from model.ids import TRACKER, FencingToken, NodeId
from model.lease import Holding, Member
from tests.support.fleet_values import shard, take
from tests.support.lease_fleet import fleet_of

pytestmark = pytest.mark.looptime(noop_cycles=1)  # nothing comes from outside the loop
TTL_S, MARGIN_S = 10.0, 2.0


async def test_a_late_answer_does_not_extend_trust() -> None:
    """An answer that takes 1.5 s leaves 1.5 s less of trust: it counts from before the request left."""
    async with fleet_of(1) as fleet:
        ann = fleet.node("ann")
        ann.link.request_s = lambda: 0.2
        ann.link.reply_s = lambda: 1.5
        await fleet.whole(within_s=10)
        await fleet.run_for(10)
        lease = ann.service.held[shard(0)]
        ann.link.refusing = True
        await asyncio.sleep(3)  # what was asked before is answered
        asked_at = ann.service.last_renewed_at
        assert asked_at is not None
        await asyncio.sleep(asked_at + TTL_S - MARGIN_S - 0.001 - fleet.loop.time())
        lease.check()
        await asyncio.sleep(0.002)
        with pytest.raises(LeaseLostError, match="term_ended"):
            lease.check()
        assert ann.host.times("lost") == pytest.approx([asked_at + TTL_S - MARGIN_S] * 2)


@pytest.mark.parametrize("trouble", ["refusing", "mute", "held_up"])
async def test_a_store_away_for_half_a_minute(trouble: str) -> None:
    """Every lease is lost before it can have expired in the store, hosts hear of it at once, and all come back."""
    async with fleet_of(8) as fleet:
        nodes = [fleet.node("ann"), fleet.node("bob")]
        await fleet.settled(within_s=2)
        await fleet.run_for(17)
        asked_at = {node.name: node.service.last_renewed_at for node in nodes}
        leases = [lease for node in nodes for lease in node.service.held.values()]
        before = fleet.store._sessions.copy()
        for node in nodes:
            if trouble == "held_up":
                node.link.hold_up()
            else:
                setattr(node.link, trouble, True)
        await fleet.run_for(30)
        assert fleet.owned() == set()
        for node in nodes:
            losses = node.host.times("lost")
            assert len(losses) >= 4
            if trouble != "mute":
                expected = asked_at[node.name] + TTL_S - MARGIN_S  # type: ignore[operator]  # it was renewed
                assert losses == pytest.approx([expected] * len(losses), abs=1e-6)
                assert losses[0] < before[NodeId(f"{node.name}-1")].expires_at
            assert node.service.node is None
            assert node.service.last_error is not None
            node.link.refusing = node.link.mute = False
            node.link.let_through()
        await fleet.settled(within_s=4)
        assert all(lease.over is not None for lease in leases)
        assert {node.service.node for node in nodes}.isdisjoint({"ann-1", "bob-1"})
        await fleet.run_for(15)  # what was underway at the time of the trouble changes nothing any more
        await fleet.settled(within_s=0)


async def test_short_trouble_costs_nothing() -> None:
    """While the term lasts a node keeps trying, and keeps its leases if it gets through in time."""
    async with fleet_of(4) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        for _ in range(10):
            await fleet.run_for(6)
            with capture_logs() as logs:
                ann.link.refusing = True
                await fleet.run_for(3.5)
                ann.link.refusing = False
                await fleet.run_for(1)
            assert [entry["event"] for entry in logs] == ["member.not_renewed", "member.renewed_again"]
        assert ann.service.transitions == {"acquired": 5}


async def test_a_hanging_store_does_not_outlast_the_term() -> None:
    """Requests that hang are given up well before the term ends and made anew; one that gets through saves the term."""
    async with fleet_of(2) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        await fleet.run_for(4)
        asked_at = ann.service.last_renewed_at
        assert asked_at is not None
        ticks = ann.link.calls["tick"]
        ann.link.mute = True
        await asyncio.sleep(asked_at + 6 - fleet.loop.time())
        ann.link.mute = False
        await fleet.run_for(10)
        assert ann.link.calls["tick"] > ticks + 2
        assert ann.service.transitions == {"acquired": 3}


async def test_an_event_loop_that_comes_late_steps_down() -> None:
    """After a pause longer than the trust nothing may be done under the old leases, whatever runs first."""
    async with fleet_of(4) as fleet:
        ann, bob = fleet.node("ann"), fleet.node("bob")
        await fleet.settled(within_s=2)
        leases = list(ann.service.held.values())
        ann.clock_ahead_s += 9  # nothing of this process has run for nine seconds; its timers have not fired yet
        for lease in leases:
            with pytest.raises(LeaseLostError, match="term_ended"):
                lease.check()
        assert ann.host.working != {}
        ann.service.check()
        assert ann.host.working == {}
        assert {lease.over for lease in leases} == {"term_ended"}
        assert set(ann.service.held) == set()
        await fleet.settled(within_s=2)  # the shards did not have to wait for the old membership's expiry
        assert ann.service.node == "ann-2"
        assert bob.service.transitions["acquired"] >= 1


async def test_an_answer_after_the_trust_ended_revives_nothing() -> None:
    """A heartbeat that left in time but was answered too late, by this node's clock, does not bring leases back."""
    async with fleet_of(2) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        await fleet.run_for(1)
        lease = ann.service.held[shard(0)]
        ann.link.reply_s = lambda: 0.5

        def pause(name: str, _: int) -> None:
            if name == "tick":
                # Past the trust of the heartbeat before, and not past that of the one on its way.
                ann.clock_ahead_s += 6
                ann.link.on_call = None

        ann.link.on_call = pause
        await fleet.until(lambda: ann.service.node not in ("ann-1", None), within_s=4)
        assert lease.over == "term_ended"
        ann.link.reply_s = lambda: 0.0
        await fleet.whole(within_s=3)


async def test_leases_granted_to_a_membership_that_is_over_are_not_worked_on() -> None:
    """An acquisition answered after the membership was lost starts nothing."""
    async with fleet_of(3) as fleet:
        ann = fleet.node("ann")

        def step_down() -> None:
            ann.clock_ahead_s += TTL_S
            ann.service.check()
            ann.link.reply_s = lambda: 0.0

        def slowly(name: str, _: int) -> None:
            if name == "acquire":
                ann.link.on_call, ann.link.reply_s = None, lambda: 1.0
                fleet.loop.call_later(0.5, step_down)

        ann.link.on_call = slowly
        await fleet.whole(within_s=3)
        assert ann.service.node == "ann-2"
        await fleet.run_for(2)
        assert ann.service.transitions == {"acquired": 4}


async def test_a_forgotten_membership_is_lost_at_the_next_heartbeat() -> None:
    """When the store says that this node is no member everything is lost, and it joins under a new id."""
    async with fleet_of(3) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        await fleet.store.leave(NodeId("ann-1"))
        await fleet.until(lambda: ann.service.node == "ann-2", within_s=TTL_S / 3)
        await fleet.whole(within_s=1)
        assert ann.service.transitions == {"acquired": 8, "membership_lost": 4}


async def test_a_wiped_store_is_reported_and_joined_anew() -> None:
    """The listener hears of it before the leases are lost; tokens stay above all that were ever seen."""
    async with fleet_of(3) as fleet:
        fleet.store.progress.highest_token = 2**40  # the lost store had a clock far ahead
        nodes = [fleet.node("ann"), fleet.node("bob")]
        await fleet.settled(within_s=2)
        await fleet.run_for(1)
        fleet.store.wipe()
        await fleet.until(lambda: not fleet.owned(), within_s=TTL_S / 3)
        await fleet.want(3)
        await fleet.settled(within_s=TTL_S + 0.5)
        assert [len(node.replaced) for node in nodes] == [1, 1]
        assert min(fleet.tokens[key] for key in fleet.owned()) > 2**40 + 4
        assert sum(node.service.transitions["store_replaced"] for node in nodes) == 4


async def test_after_a_wipe_nothing_is_taken_while_others_may_still_work() -> None:
    """Who notices a wiped store first waits until the trust of all who have not noticed must have ended."""
    async with fleet_of(3) as fleet:
        ann, bob = fleet.node("ann"), fleet.node("bob")
        await fleet.settled(within_s=2)
        await fleet.run_for(5)
        fleet.store.wipe()
        bob.link.refusing = True  # works on, under leases of a store that is gone
        await fleet.want(3)
        await fleet.until(lambda: bool(ann.replaced), within_s=TTL_S / 3)
        assert bob.host.working
        await fleet.until(lambda: not bob.host.working, within_s=TTL_S - MARGIN_S)
        assert not fleet.owned()
        await fleet.whole(within_s=TTL_S)
        assert fleet.sources_of(ann) == 3


async def test_a_lease_that_the_store_lost_is_lost_here() -> None:
    """A fail-over that forgot an acquisition, or gave it to someone else, ends the work as soon as it is seen."""
    async with fleet_of(3) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        lease = ann.service.held[shard(1)]
        other = ann.service.held[shard(2)]
        del fleet.store._holdings[shard(1)]
        fleet.store._holdings[shard(2)] = Holding(NodeId("ann-1"), FencingToken(other.token + 1))
        fleet.store.progress.tokens[shard(2)] = other.token + 1
        fleet.store._snapshot_changed()
        await fleet.until(lambda: lease.over is not None, within_s=1)
        await fleet.whole(within_s=1)
        assert (lease.over, other.over) == ("taken", "taken")
        assert ann.service.held[shard(1)].token > lease.token
        assert ann.service.held[shard(2)].token == other.token + 1


async def test_a_lease_whose_release_the_store_lost_is_not_worked_on_again() -> None:
    """After a fail-over that forgot a release, and who had the shard since, the old token is given back once more."""
    async with fleet_of(2) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        token = ann.service.held[shard(0)].token
        ann.host.working.pop(shard(0))
        holdings, wanted = fleet.store._holdings.copy(), fleet.store._wanted.pop(shard(0))
        ann.service.give_up(shard(0))  # as when the mapping is disabled
        await fleet.until(lambda: shard(0) not in fleet.store._holdings, within_s=0.5)
        await fleet.run_for(0.5)
        fleet.store._holdings, fleet.store._wanted[shard(0)] = holdings, wanted
        fleet.store._snapshot_changed()
        await fleet.whole(within_s=3)
        assert ann.service.held[shard(0)].token > token
        assert ann.link.calls["release"] == 2
        await fleet.run_for(12)
        assert ann.service.transitions == {"acquired": 4, "given_up": 1}


async def test_nobody_works_under_a_lease_whose_release_was_sent() -> None:
    """When the answer to a release is lost, it is repeated; the shard is worked on again under a new token only."""
    async with fleet_of(2) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        token = ann.service.held[shard(0)].token
        ann.link.hold_up("release")
        ann.host.working.pop(shard(0))
        ann.service.give_up(shard(0))
        await fleet.run_for(6)
        assert shard(0) not in ann.host.working
        assert ann.link.calls["release"] >= 2
        ann.link.let_through()  # now come the release, given up by its sender, and its repetitions
        await fleet.whole(within_s=3)
        assert ann.service.held[shard(0)].token > token
        assert ann.service.node == "ann-1"
        await fleet.run_for(12)
        assert ann.service.transitions == {"acquired": 4, "given_up": 1}


async def test_an_acquisition_whose_answer_was_lost_is_found_again() -> None:
    """A lease that the store granted and the node never heard of is found in the next snapshot and worked on."""
    async with fleet_of(4) as fleet:
        ann = fleet.node("ann")

        def lose_answer(name: str, _: int) -> None:
            ann.link.mute = name == "acquire" and not ann.host.log

        ann.link.on_call = lose_answer
        await fleet.until(lambda: ann.link.mute, within_s=1)
        await asyncio.sleep(0.1)
        assert len(fleet.store._holdings) == 5
        ann.link.on_call, ann.link.mute = None, False
        await fleet.whole(within_s=4)
        assert all(fleet.tokens[key] == held.token for key, held in fleet.store._holdings.items())


async def test_an_acquisition_that_comes_late_is_found() -> None:
    """What the store gave to this node after it stopped asking is worked on, or given back to who should have it."""
    async with fleet_of(6) as fleet:
        _, bob = fleet.node("ann"), fleet.node("bob")
        await fleet.settled(within_s=2)
        await fleet.run_for(1)
        for key in [key for key in bob.service.held if key.shard != TRACKER]:
            bob.host.working.pop(key)
            bob.service.give_up(key)
            await fleet.until(lambda key=key: key not in fleet.store._holdings, within_s=1)  # type: ignore[misc]  # lambda
            await fleet.store.acquire(NodeId("ann-1"), [key], floor=FencingToken(0), ttl_s=TTL_S)
        await fleet.settled(within_s=4)
        await fleet.run_for(1)
        assert {key: held.token for key, held in fleet.store._holdings.items()} == fleet.tokens


async def test_a_successor_that_does_not_come_is_not_waited_for_longer_than_a_term() -> None:
    """A shard kept for a member that never takes it goes to whom it is assigned once the reservation is over."""
    async with fleet_of(2) as fleet:
        ghost, admin = Member(NodeId("ghost"), frozenset()), Member(NodeId("admin"), frozenset())
        for member in (ghost, admin):
            await fleet.store.join(member, ttl_s=TTL_S)
        lease = await take(fleet.store, admin.node, shard(0), ttl_s=TTL_S)
        await fleet.store.release([lease], successor={shard(0): ghost.node})
        await fleet.store.leave(admin.node)
        fleet.node("ann")
        for _ in range(3):
            await fleet.run_for(3)
            assert (await fleet.store.tick(ghost, ttl_s=TTL_S)).member
            assert len(fleet.owned()) == 2
        await fleet.whole(within_s=2.1)


async def test_clocks_that_run_at_different_speeds_are_covered_by_the_margin() -> None:
    """A node whose clock is 5 % slow, far worse than any real one, still stops before its lease expires."""
    async with fleet_of(6) as fleet:
        ann, _ = fleet.node("ann"), fleet.node("bob")
        ann.clock_rate = 0.95
        await fleet.settled(within_s=2)
        for _ in range(5):
            await fleet.run_for(7)
            ann.link.refusing = True
            await fleet.run_for(15)
            ann.link.refusing = False
            await fleet.settled(within_s=5)
