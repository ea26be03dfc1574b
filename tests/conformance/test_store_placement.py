"""Every store: what nodes offer each other, and their secret (`PlacementStore`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from model.lease import Member
from tests.support.fleet_values import ANN, BOB, CAT, LONG_S

if TYPE_CHECKING:
    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab


async def test_members_offers_are_read_by_all(store: Store) -> None:
    """Each member has one offer, the last one; of somebody who is no member there is none."""
    for node in (ANN, BOB):
        await store.join(Member(node), ttl_s=LONG_S)
    await store.placement.offer(ANN, b"old")
    await store.placement.offer(ANN, b"new")
    await store.placement.offer(BOB, "bö".encode())
    await store.placement.offer(CAT, b"a stranger's")
    assert await store.placement.offers() == {ANN: b"new", BOB: "bö".encode()}


async def test_an_offer_can_be_withdrawn(store: Store) -> None:
    """A node that offers nothing any more is still a member; withdrawing twice is no error."""
    await store.join(Member(ANN), ttl_s=LONG_S)
    await store.placement.offer(ANN, b"1")
    await store.placement.offer(ANN, None)
    await store.placement.offer(ANN, None)
    assert await store.placement.offers() == {}
    assert [member.node for member in (await store.snapshot()).members] == [ANN]


async def test_an_offer_ends_with_its_membership(lab: StoreLab) -> None:
    """That of a node that has left, or whose membership has expired, is not read any more, nor does it come back."""
    store = lab.client()
    for node, ttl_s in ((ANN, LONG_S), (BOB, 0.2), (CAT, LONG_S)):
        await store.join(Member(node), ttl_s=ttl_s)
        await store.placement.offer(node, node.encode())
    await store.leave(ANN)
    await lab.pass_time(0.3)
    assert await store.placement.offers() == {CAT: b"cat-1"}
    await store.placement.offer(CAT, b"2")
    await store.join(Member(ANN), ttl_s=LONG_S)
    assert await store.placement.offers() == {CAT: b"2"}


async def test_all_get_one_secret(store: Store) -> None:
    """Nodes that propose secrets at once get the same one, and so does whoever comes later."""
    asked = []

    async def ask(proposed: str) -> None:
        asked.append(await store.placement.fleet_secret(proposed))

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(ask(f"secret {number}"))
    assert len(set(asked)) == 1
    assert asked[0] in {f"secret {number}" for number in range(5)}
    assert await store.placement.fleet_secret("later") == asked[0]
