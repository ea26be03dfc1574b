"""Every store: membership and leases (`LeaseStore`)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from model.ids import TRACKER, FencingToken, NodeId, ShardKey
from model.lease import Holding, Lease, Member, Role
from tests.support.fleet_values import (
    ANN,
    BOB,
    CAT,
    LONG_S,
    NO_FLOOR,
    ORDERS,
    listen,
    mapping_record,
    older,
    shard,
    source,
    take,
    track,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab

SHORT_S = 0.25  # a membership that the test lets expire


async def assert_silent(wakes: AsyncGenerator[None, None]) -> None:
    """Check that no wake is waiting or under way. Ends the listening."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(wakes)


async def test_a_member_is_seen_with_its_facts(store: Store) -> None:
    """A node that joined is in the snapshot with its roles, its address and a fresh heartbeat."""
    member = Member(ANN, frozenset({Role.POLLERS, Role.FRONTEND}), address="127.0.0.1:9001", zone="eu-1a")
    reply = await store.join(member, ttl_s=LONG_S)
    assert reply.member
    assert reply.next_expiry_s is None
    (seen,) = (await store.snapshot()).members
    assert replace(seen, heartbeat_age_s=0.0) == member
    assert 0 <= seen.heartbeat_age_s < LONG_S / 2


async def test_a_tick_without_membership_extends_nothing(store: Store) -> None:
    """A node that never joined is told so and does not become a member."""
    reply = await store.tick(Member(ANN), ttl_s=LONG_S)
    assert not reply.member
    assert (await store.snapshot()).members == ()


async def test_a_membership_ends_by_the_clock_of_the_store(lab: StoreLab, store: Store) -> None:
    """Without ticks the membership and its leases are over after the TTL, for the node itself and for the others."""
    await track(store, BOB)
    await store.join(Member(ANN), ttl_s=SHORT_S)
    lease = await take(store, ANN, shard(0))
    assert (await store.snapshot()).holdings[shard(0)] == Holding(ANN, lease.token)
    await lab.pass_time(SHORT_S + 0.01)
    snapshot = await store.snapshot()
    assert [member.node for member in snapshot.members] == [BOB]
    assert shard(0) not in snapshot.holdings
    assert not (await store.tick(Member(ANN), ttl_s=LONG_S)).member
    assert (await take(store, BOB, shard(0))).token > lease.token


async def test_ticks_keep_the_membership_and_every_lease(lab: StoreLab, store: Store) -> None:
    """One heartbeat carries all leases past their first TTL."""
    await track(store, BOB)
    await store.join(Member(ANN), ttl_s=SHORT_S)
    await take(store, ANN, shard(0))
    for _ in range(3):
        await lab.pass_time(SHORT_S * 0.6)
        assert (await store.tick(Member(ANN), ttl_s=SHORT_S)).member
    assert (await store.snapshot()).holdings[shard(0)].node == ANN


async def test_the_version_grows_only_with_changes(store: Store) -> None:
    """A plain heartbeat leaves the version of the snapshot alone; a new fact raises it."""
    first = await store.join(Member(ANN), ttl_s=LONG_S)
    again = await store.tick(Member(ANN), ttl_s=LONG_S)
    assert again.version == first.version == (await store.snapshot()).version
    moved = await store.tick(Member(ANN, address="127.0.0.1:1"), ttl_s=LONG_S)
    assert moved.version > again.version
    draining = await store.join(Member(ANN, address="127.0.0.1:1", draining=True), ttl_s=LONG_S)
    assert draining.version > moved.version
    assert (await store.snapshot()).members[0].draining


async def test_versions_come_from_time_so_that_none_comes_twice(store: Store) -> None:
    """A store that failed over and lost its last writes does not give out the numbers of those once more."""
    before = datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1_000_000
    await store.put_mapping(mapping_record(ORDERS))
    assert (await store.join(Member(ANN), ttl_s=LONG_S)).version > before
    revision, _ = await store.mappings()
    assert revision > before


async def test_the_next_expiry_is_that_of_the_others(store: Store) -> None:
    """A tick tells when the earliest other membership would end."""
    await store.join(Member(ANN), ttl_s=5)
    await store.join(Member(BOB), ttl_s=LONG_S)
    mine = await store.tick(Member(ANN), ttl_s=5)
    other = await store.tick(Member(BOB), ttl_s=LONG_S)
    assert mine.next_expiry_s is not None
    assert 5 < mine.next_expiry_s <= LONG_S
    assert other.next_expiry_s is not None
    assert other.next_expiry_s <= 5


async def test_leaving_ends_membership_and_leases_at_once(store: Store) -> None:
    """Who leaves holds nothing any more; leaving again, or never having been there, is fine."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    before = await take(store, BOB, shard(0))
    await store.leave(BOB)
    await store.leave(BOB)
    await store.leave(NodeId("nobody"))
    snapshot = await store.snapshot()
    assert [member.node for member in snapshot.members] == [ANN]
    assert shard(0) not in snapshot.holdings
    assert (await take(store, ANN, shard(0))).token > before.token


async def test_a_lease_does_not_outlive_its_membership_under_the_same_id(lab: StoreLab, store: Store) -> None:
    """Joining again after expiry gives back none of the old leases."""
    await track(store, BOB)
    await store.join(Member(ANN), ttl_s=SHORT_S)
    await take(store, ANN, shard(0))
    await lab.pass_time(SHORT_S + 0.01)
    assert (await store.join(Member(ANN), ttl_s=LONG_S)).member
    assert shard(0) not in (await store.snapshot()).holdings


async def test_the_snapshot_shows_what_is_wanted(store: Store) -> None:
    """Wanted shards come with their kind and weight, the tracker among them."""
    tracker = await track(store, shards=0)
    shards = [source(1, weight=2.5), source(0)]
    await store.set_wanted(ORDERS, shards, tracker=tracker)
    wanted = {wanted.key: wanted for wanted in (await store.snapshot()).wanted}
    assert wanted.keys() == {ShardKey(ORDERS, TRACKER), shard(0), shard(1)}
    assert [wanted[shard(1)], wanted[shard(0)]] == shards


async def test_only_wanted_shards_are_leased_and_only_to_members(store: Store) -> None:
    """A shard nobody wants, or a node that is no member, gets no lease."""
    await track(store, ANN)
    assert await store.acquire(ANN, [shard(77)], floor=NO_FLOOR, ttl_s=LONG_S) == {}
    assert await store.acquire(BOB, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S) == {}
    assert shard(0) not in (await store.snapshot()).holdings


async def test_a_held_shard_is_not_free(store: Store) -> None:
    """Nobody else gets a held shard; its holder gets the same lease again."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    lease = await take(store, ANN, shard(0))
    taken = await store.acquire(BOB, [shard(0), shard(1)], floor=NO_FLOOR, ttl_s=LONG_S)
    assert taken.keys() == {shard(1)}
    version = (await store.snapshot()).version
    assert await take(store, ANN, shard(0)) == lease
    assert (await store.snapshot()).version == version


async def test_concurrent_acquirers_have_one_winner(lab: StoreLab) -> None:
    """However many try at once through two clients, each shard has one holder, and tokens are all different."""
    clients = [lab.client(), lab.client()]
    await track(clients[0], NodeId("tracker"), shards=20)
    nodes = [NodeId(f"node-{n}") for n in range(12)]
    won: list[Lease] = []

    async def compete(node: NodeId, client: Store) -> None:
        await client.join(Member(node), ttl_s=LONG_S)
        for n in range(20):
            taken = await client.acquire(node, [shard(n)], floor=NO_FLOOR, ttl_s=LONG_S)
            won.extend(lease for lease, _ in taken.values())

    async with asyncio.TaskGroup() as tasks:
        for index, node in enumerate(nodes):
            tasks.create_task(compete(node, clients[index % 2]))
    assert sorted(lease.key for lease in won) == sorted(shard(n) for n in range(20))
    assert len({lease.token for lease in won}) == 20
    holdings = (await clients[0].snapshot()).holdings
    assert all(holdings[lease.key] == Holding(lease.node, lease.token) for lease in won)


async def test_tokens_grow_past_the_floor(lab: StoreLab, store: Store) -> None:
    """A token exceeds the floor, the last token, and stays ahead when the floor is low again."""
    await track(store, ANN)
    far = FencingToken(2**52)
    high = (await store.acquire(ANN, [shard(0)], floor=far, ttl_s=LONG_S))[shard(0)][0]
    assert far < high.token < 2**53
    await store.release([high])
    assert (await take(store, ANN, shard(0))).token > high.token
    await lab.pass_time(0.001)


async def test_a_released_shard_is_free_at_once(store: Store) -> None:
    """Without a named successor anyone may come next."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    lease = await take(store, ANN, shard(0))
    await store.release([lease])
    assert shard(0) not in (await store.snapshot()).holdings
    assert (await take(store, BOB, shard(0))).token > lease.token


async def test_a_release_under_another_token_or_node_is_ignored(store: Store) -> None:
    """A late release of an older lease does not take the shard from its present holder."""
    await track(store, ANN)
    lease = await take(store, ANN, shard(0))
    version = (await store.snapshot()).version
    await store.release([older(lease), Lease(lease.key, BOB, lease.token)], successor={lease.key: BOB})
    snapshot = await store.snapshot()
    assert snapshot.holdings[shard(0)] == Holding(ANN, lease.token)
    assert snapshot.version == version
    assert snapshot.reserved == {}


async def test_a_successor_comes_first(store: Store) -> None:
    """A released shard is kept for the named successor: others get nothing, the snapshot tells for whom it is."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    await store.join(Member(CAT), ttl_s=LONG_S)
    await store.release([await take(store, ANN, shard(0))], successor={shard(0): BOB})
    snapshot = await store.snapshot()
    assert snapshot.reserved == {shard(0): BOB}
    assert shard(0) not in snapshot.holdings
    assert await store.acquire(CAT, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S) == {}
    await take(store, BOB, shard(0))
    assert (await store.snapshot()).reserved == {}


async def test_a_reservation_ends_with_its_time(lab: StoreLab, store: Store) -> None:
    """A successor that does not come within the TTL loses its turn."""
    await track(store, ANN)
    await store.join(Member(BOB), ttl_s=LONG_S)
    await store.release([await take(store, ANN, shard(0))], successor={shard(0): BOB})
    await lab.pass_time(SHORT_S)
    await take(store, ANN, shard(0), ttl_s=SHORT_S)


@pytest.mark.parametrize("how", ["left", "draining", "unknown"])
async def test_a_reservation_needs_a_successor_that_can_take_it(store: Store, how: str) -> None:
    """A successor that left, drains or never was does not keep the shard from others."""
    await track(store, ANN)
    if how != "unknown":
        await store.join(Member(BOB), ttl_s=LONG_S)
    await store.release([await take(store, ANN, shard(0))], successor={shard(0): BOB})
    if how == "left":
        await store.leave(BOB)
    elif how == "draining":
        await store.tick(Member(BOB, draining=True), ttl_s=LONG_S)
    assert (await store.snapshot()).reserved == {}
    await take(store, ANN, shard(0))


async def test_a_shard_no_longer_wanted_stays_with_its_holder_until_released(store: Store) -> None:
    """Wanting less does not end leases, but what was released is not leased again."""
    tracker = await track(store, ANN)
    lease = await take(store, ANN, shard(0))
    await store.set_wanted(ORDERS, [source(1)], tracker=tracker)
    assert (await store.snapshot()).holdings[shard(0)].token == lease.token
    await store.release([lease])
    assert await store.acquire(ANN, [shard(0)], floor=NO_FLOOR, ttl_s=LONG_S) == {}


async def test_a_wiped_store_is_recognised_and_fences_on(lab: StoreLab, store: Store) -> None:
    """After a wipe the member is none, the incarnation is new, and tokens still grow."""
    await track(store, ANN)
    lease = await take(store, ANN, shard(0))
    before = await store.tick(Member(ANN), ttl_s=LONG_S)
    await lab.wipe()
    after = await store.tick(Member(ANN), ttl_s=LONG_S)
    assert not after.member
    assert after.incarnation != before.incarnation
    assert (await store.tick(Member(ANN), ttl_s=LONG_S)).incarnation == after.incarnation
    await track(store, ANN)
    assert (await store.acquire(ANN, [shard(0)], floor=lease.token, ttl_s=LONG_S))[shard(0)][0].token > lease.token


async def test_others_are_woken_by_changes_and_not_by_heartbeats(lab: StoreLab, store: Store) -> None:
    """A change of the snapshot or the mappings wakes a listener; several become one; a heartbeat wakes nobody."""
    other = lab.client()
    async with asyncio.timeout(10), listen(store) as wakes:
        await anext(wakes)  # it listens
        await other.join(Member(BOB), ttl_s=LONG_S)
        await anext(wakes)
        await other.tick(Member(BOB), ttl_s=LONG_S)
        await other.tick(Member(BOB, draining=True), ttl_s=LONG_S)
        await anext(wakes)
        await other.put_mapping(mapping_record())
        await anext(wakes)
        await other.leave(BOB)
        await anext(wakes)
        await other.join(Member(CAT), ttl_s=LONG_S)
        await anext(wakes)
        await other.tick(Member(CAT), ttl_s=LONG_S)
        await assert_silent(wakes)


async def test_an_expiry_wakes_the_others(lab: StoreLab, store: Store) -> None:
    """Whoever notices that a membership has expired wakes the fleet."""
    await store.join(Member(ANN), ttl_s=SHORT_S)
    await store.join(Member(BOB), ttl_s=LONG_S)
    async with asyncio.timeout(10), listen(lab.client()) as wakes:
        await anext(wakes)
        await lab.pass_time(SHORT_S + 0.01)
        await store.tick(Member(BOB), ttl_s=LONG_S)
        await anext(wakes)


async def test_listening_can_be_cancelled_and_started_again(store: Store) -> None:
    """A cancelled listener leaves nothing behind that would disturb the next."""
    async with listen(store) as first:
        await anext(first)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(first)
    async with asyncio.timeout(10), listen(store) as second:
        await anext(second)
        await store.join(Member(ANN), ttl_s=LONG_S)
        await anext(second)
