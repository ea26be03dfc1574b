"""Every store: the Lambda API's operations of several nodes at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from controlplane.lambda_errors import ApiError
from controlplane.lambda_mappings import LambdaMappings
from controlplane.mappings import Desired, apply
from model.ids import TRACKER, ShardKey
from model.lease import Member
from model.mapping import MappingState
from model.mapping_rules import canonical_document, parse_mapping
from tests.support.fleet_values import ANN, LONG_S, take
from tests.support.lambda_rig import QUEUE, FakeSurroundings

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from statemgr.stores import Store

ORDERS: dict[str, Any] = {"Name": "orders", "EventSourceArn": QUEUE, "FunctionName": "f"}


async def outcomes(calls: list[Coroutine[Any, Any, Any]]) -> list[str]:
    """Make calls at the same time; return for each `done`, or the type of its error."""

    async def outcome(call: Coroutine[Any, Any, Any]) -> str:
        try:
            await call
        except ApiError as error:
            return error.type
        return "done"

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(outcome(call)) for call in calls]
    return sorted(task.result() for task in running)


async def test_a_mapping_is_made_once(store: Store) -> None:
    """However many nodes are asked for the same one, without a name that could tell them apart."""
    nodes = [LambdaMappings(store, FakeSurroundings()) for _ in range(6)]
    wish = {"EventSourceArn": QUEUE, "FunctionName": "f"}
    found = await outcomes([node.create(wish, by="test") for node in nodes])
    assert found == ["ResourceConflictException"] * 5 + ["done"]
    assert len((await store.mappings())[1]) == 1


async def test_no_change_is_lost(store: Store) -> None:
    """Changes of one mapping by several nodes, while others of the fleet change."""
    nodes = [LambdaMappings(store, FakeSurroundings()) for _ in range(8)]
    made = await nodes[0].create({**ORDERS, "Enabled": False}, by="test")
    tags = [node.retag(made["UUID"], {f"t{n}": "x"}, [], by="test") for n, node in enumerate(nodes)]
    others = [
        node.create({"EventSourceArn": f"{QUEUE}{n}", "FunctionName": "f"}, by="test") for n, node in enumerate(nodes)
    ]
    assert await outcomes([*tags, *others]) == ["done"] * 16
    assert len(await nodes[0].tags("orders")) == 8
    assert len((await store.mappings())[1]) == 9


async def test_one_of_two_opposite_wishes_comes_first(store: Store) -> None:
    """Whoever comes second finds the mapping in use, and tries again: nothing is written over."""
    nodes = [LambdaMappings(store, FakeSurroundings()) for _ in range(2)]
    made = await nodes[0].create(ORDERS, by="test")
    await store.join(Member(ANN), ttl_s=LONG_S)
    (record,) = (await store.mappings())[1]
    tracker = await take(store, ANN, ShardKey(record.id, TRACKER))
    await store.set_mapping_state(record.id, MappingState.ENABLED, "USER_INITIATED", tracker=tracker)
    calls = [nodes[0].update(made["UUID"], {"BatchSize": 5}, by="test"), nodes[1].delete("orders", by="test")]
    assert await outcomes(calls) == ["ResourceInUseException", "done"]


async def test_a_change_by_the_api_outlasts_the_file(store: Store) -> None:
    """A file that asks for what it asked for before changes nothing; one that asks for something else does."""
    node = LambdaMappings(store, FakeSurroundings())
    document = {**ORDERS, "Enabled": False}

    def wish(more: dict[str, Any]) -> list[Desired]:
        mapping = parse_mapping({**document, **more})
        return [Desired(mapping.id, mapping.name, canonical_document({**document, **more}), mapping.enabled)]

    await apply(store, wish({}))
    await node.update("orders", {"BatchSize": 7}, by="test")
    assert await apply(store, wish({})) == []
    assert (await node.get("orders"))["BatchSize"] == 7
    await apply(store, wish({"MaximumBatchingWindowInSeconds": 1}))
    assert (await node.get("orders"))["BatchSize"] == 10
