"""Nodes that share shards: taking, moving, giving back, and what happens when one of them dies."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from leasing.service import LeasingService
from model.errors import LeaseLostError
from model.ids import TRACKER, ShardKey
from model.lease import Role
from statemgr.memory_store import MemoryStore
from tests.support.fleet_values import CLICKS, ORDERS, shard, source
from tests.support.lease_fleet import Host, fleet_of

if TYPE_CHECKING:
    from model.ids import NodeId

pytestmark = pytest.mark.looptime(noop_cycles=1)  # nothing comes from outside the loop
TTL_S = 10.0


async def test_one_node_takes_everything() -> None:
    """A lone node becomes a member and works on every shard and tracker, under one token each."""
    async with fleet_of(5) as fleet:
        with capture_logs() as logs:
            ann = fleet.node("ann")
            assert await fleet.whole(within_s=1) < 0.1
        assert set(ann.service.held) == fleet.wanted()
        assert len(ann.service.held) == 6
        assert ann.service.node == "ann-1"
        assert ann.service.balanced
        assert ann.service.transitions == {"acquired": 6}
        assert [entry["event"] for entry in logs] == ["member.joined"] + 6 * ["lease.acquired"]
        assert ann.link.calls["acquire"] == 1


async def test_nodes_share_within_one() -> None:
    """Two, then three nodes share the partitions balanced within one, and only the share of the new one moves."""
    async with fleet_of(11) as fleet:
        fleet.node("ann")
        fleet.node("bob")
        await fleet.settled(within_s=2)
        before = fleet.starts.copy()
        fleet.node("cat")
        await fleet.settled(within_s=2)
        assert sorted(fleet.sources_of(node) for node in fleet.nodes) == [3, 4, 4]
        assert (fleet.starts - before).total() <= 4


async def test_an_idle_fleet_costs_one_round_trip_per_tick() -> None:
    """When nothing changes a node asks the store nothing but its heartbeat, a third of a term apart."""
    async with fleet_of(50) as fleet:
        ann, _ = fleet.node("ann"), fleet.node("bob")
        await fleet.settled(within_s=2)
        await fleet.run_for(2)
        ann.link.calls.clear()
        await asyncio.sleep(300)
        assert set(ann.link.calls) == {"tick"}
        assert 90 <= ann.link.calls["tick"] <= 101


@pytest.mark.parametrize("ttl_s", [3.0, 10.0])
@pytest.mark.parametrize("moment_s", [0.0, 1.3, 2.6, 3.1])
async def test_a_killed_nodes_shards_are_taken_within_ttl_and_a_second(ttl_s: float, moment_s: float) -> None:
    """After kill -9, at any moment between heartbeats, everything is worked on again within TTL + 1 s, evenly."""
    async with fleet_of(12) as fleet:
        ann, bob, cat = (fleet.node(name, ttl_s=ttl_s) for name in ("ann", "bob", "cat"))
        await fleet.settled(within_s=2)
        await fleet.run_for(20 + moment_s)
        ann.kill()
        took_s = await fleet.whole(within_s=ttl_s + 1)
        assert took_s > ttl_s / 2  # not before the dead node's lease was over
        assert [fleet.sources_of(node) for node in (ann, bob, cat)] == [0, 6, 6]


async def test_a_stopped_node_leaves_at_once() -> None:
    """Cancelling a node ends its work first, then its membership, so that the others need not wait for the expiry."""
    async with fleet_of(6) as fleet:
        ann, bob = fleet.node("ann"), fleet.node("bob")
        await fleet.settled(within_s=2)
        leases = list(ann.service.held.values())
        ann.task.cancel()
        assert await fleet.until(lambda: fleet.sources_of(bob) == 6, within_s=1) < 0.2
        assert ann.service.held == {}
        assert ann.host.working == {}
        for lease in leases:
            with pytest.raises(LeaseLostError, match="stopped"):
                lease.check()


async def test_draining_hands_everything_to_named_successors() -> None:
    """A draining node finishes each shard, releases it to its successor, and leaves; nothing else moves."""
    async with fleet_of(9) as fleet:
        ann, bob, cat = (fleet.node(name) for name in ("ann", "bob", "cat"))
        await fleet.settled(within_s=2)
        ann.host.drain_s = lambda key: 0.5 + int(key.shard[-1]) / 10 if key.shard != TRACKER else 0.0
        released: list[tuple[ShardKey, NodeId | None]] = []
        real_release = fleet.store.release
        before = fleet.starts.copy()
        held = set(ann.service.held)

        async def release(leases, *, successor=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # as the store's
            released.extend((lease.key, (successor or {}).get(lease.key)) for lease in leases)
            await real_release(leases, successor=successor)

        fleet.store.release = release  # type: ignore[method-assign]  # listens in
        await ann.service.drain(20)
        assert ann.task.done()
        assert {key for key, _ in released} == held
        assert {successor for _, successor in released} <= {"bob-1", "cat-1"}
        assert await fleet.whole(within_s=0.3) < 0.3
        assert (fleet.starts - before).total() == len(held)
        assert sorted(fleet.sources_of(node) for node in (bob, cat)) == [4, 5]
        assert ann.service.transitions["released"] == len(held)
        # Each successor began right after its shard was quiet, not at the end.
        started = {key: at for node in (bob, cat) for at, what, key in node.host.log if what == "start" and key in held}
        quiet = {key: at for at, what, key in ann.host.log if what == "quiet"}
        assert all(0 <= started[key] - quiet[key] <= 0.25 for key in held)


async def test_draining_ends_at_its_deadline() -> None:
    """A shard that does not become quiet is stopped at the deadline; what was quiet before went over in order."""
    async with fleet_of(4) as fleet:
        ann, bob = fleet.node("ann"), fleet.node("bob")
        await fleet.settled(within_s=2)
        stuck = next(key for key in ann.service.held if key.shard != TRACKER)
        ann.host.drain_s = lambda key: 1e6 if key == stuck else 0.1
        began = fleet.loop.time()
        await ann.service.drain(5)
        assert fleet.loop.time() - began == pytest.approx(5, abs=0.1)
        assert ann.host.working == {}
        assert ann.service.transitions["stopped"] == 1
        await fleet.until(lambda: fleet.sources_of(bob) == 4, within_s=0.5)


async def test_draining_without_a_store_or_successor_ends_too() -> None:
    """The last node of a fleet drains, and a node whose store is away becomes quiet and gives up with its term."""
    async with fleet_of(3) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        await ann.service.drain(20)
        assert ann.service.node is None
        assert fleet.store._sessions == {}
        bob = fleet.node("bob")
        await fleet.whole(within_s=2)
        bob.link.refusing = True
        began = fleet.loop.time()
        await bob.service.drain(60)
        assert bob.host.times("quiet")[0] == pytest.approx(began)
        assert fleet.loop.time() - began <= TTL_S + 1
    service = LeasingService(MemoryStore(), Host(fleet, "never"), name="never")
    await service.drain(1)
    await service.run()


async def test_a_slow_drain_holds_up_nothing() -> None:
    """While one shard takes long to become quiet, others move and the heartbeat goes on."""
    async with fleet_of(8) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        drained: list[ShardKey] = []

        def drain_s(key: ShardKey) -> float:
            drained.append(key)
            return 25.0 if key == drained[0] else 0.1

        ann.host.drain_s = drain_s
        bob = fleet.node("bob")
        await fleet.run_for(2)
        assert (fleet.sources_of(ann), fleet.sources_of(bob)) == (5, 3)
        assert drained[0] in ann.service.held
        renewed_at = ann.service.last_renewed_at
        await fleet.settled(within_s=40)
        assert renewed_at is not None
        assert ann.service.last_renewed_at is not None
        assert ann.service.last_renewed_at > renewed_at
        assert drained[0] in bob.service.held
        assert ann.service.transitions.keys() == {"acquired", "released"}


async def test_a_shard_that_never_becomes_quiet_is_stopped_after_a_while() -> None:
    """A drain has a limit of its own; then the host is told to stop and the shard moves."""
    async with fleet_of(2) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        ann.host.drain_s = lambda _: 1e6
        fleet.node("bob")
        await fleet.run_for(29)
        assert "drain_timeout" not in ann.service.transitions
        await fleet.settled(within_s=5)
        assert ann.service.transitions["drain_timeout"] >= 1


async def test_shards_no_longer_wanted_are_drained_and_released() -> None:
    """When the tracker wants fewer shards their holders finish and release them; more are taken."""
    async with fleet_of(6) as fleet:
        ann, _ = fleet.node("ann"), fleet.node("bob")
        await fleet.settled(within_s=2)
        await fleet.want_instead([source(n) for n in range(2, 9)])
        await fleet.settled(within_s=2)
        assert fleet.store._holdings.keys() == fleet.wanted()
        assert not {shard(0), shard(1)} & (set(ann.service.held) | fleet.owned())


async def test_roles_are_respected() -> None:
    """Trackers go to state managers, source shards to pollers."""
    async with fleet_of(4) as fleet:
        await fleet.want(2, CLICKS)
        manager = fleet.node("ann", roles=frozenset({Role.STATEMGR}))
        poller = fleet.node("bob", roles=frozenset({Role.POLLERS}))
        await fleet.whole(within_s=2)
        assert set(manager.service.held) == {ShardKey(ORDERS, TRACKER), ShardKey(CLICKS, TRACKER)}
        assert len(poller.service.held) == 6


async def test_a_shard_that_cannot_start_is_tried_again_after_growing_pauses() -> None:
    """A host that fails to start one shard keeps the others; the shard is released and taken again later."""
    async with fleet_of(3) as fleet:
        ann = fleet.node("ann")
        ann.host.fail_start.add(shard(1))
        await fleet.run_for(20)
        starts = [at for at, what, key in ann.host.log if (what, key) == ("start", shard(1))]
        assert 4 <= len(starts) <= 6
        gaps = [after - before for before, after in itertools.pairwise(starts)]
        assert gaps == sorted(gaps)
        assert len(fleet.owned()) == 3
        assert not ann.service.balanced
        ann.host.fail_start.clear()
        await fleet.whole(within_s=40)
        await fleet.until(lambda: ann.service.balanced, within_s=1)


async def test_a_host_may_give_up_a_shard() -> None:
    """What a host gives up is over at once, released in the store, and comes back under a new token."""
    async with fleet_of(2) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        lease = ann.service.held[shard(0)]
        del ann.host.working[shard(0)]
        ann.service.give_up(shard(0))
        ann.service.give_up(shard(0))
        assert shard(0) not in ann.service.held
        with pytest.raises(LeaseLostError, match="given_up"):
            lease.check()
        assert await fleet.whole(within_s=3) >= 1
        assert ann.service.held[shard(0)].token > lease.token
        assert ann.service.transitions["given_up"] == 1


async def test_the_mappings_revision_is_passed_on() -> None:
    """The listener hears of each new revision that a heartbeat brings, soon after the change."""
    async with fleet_of(1) as fleet:
        ann = fleet.node("ann")
        await fleet.whole(within_s=2)
        assert ann.revisions == [ann.service.mappings_revision]
        await fleet.want(1, CLICKS)
        await fleet.run_for(0.2)
        assert ann.revisions == sorted(set(ann.revisions))
        assert len(ann.revisions) == 2


async def test_a_ttl_below_three_seconds_is_refused() -> None:
    """Below that there is no room for a margin and a repeated heartbeat."""
    async with fleet_of(0) as fleet:
        with pytest.raises(ValueError, match="too short"):
            fleet.node("ann", ttl_s=2.9)
