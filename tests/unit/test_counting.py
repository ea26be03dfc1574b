"""The counting service of a node: who gets a slot, who waits, who is refused, and that none is lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from invocation.counting import Counting
from invocation.invoking import NotInvoked, throttled
from model.errors import StoreUnavailableError
from model.function_config import FunctionPart
from statemgr.function_view import FunctionView
from statemgr.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from model.concurrency import CountReply

pytestmark = pytest.mark.looptime(noop_cycles=1)  # nothing comes from outside the loop
OWN, ACCOUNT = throttled(own_limit=True), throttled(own_limit=False)
ACCOUNT_CONCURRENCY = 103


class Rig:
    """A fleet's store, which can be away or slow, and nodes that count on it."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.store = MemoryStore(asyncio.get_running_loop().time)
        self.functions = FunctionView(self.store.functions)
        self.away = False
        self.calls = 0
        self.slow_s = 0.0
        self.ends = asyncio.Event()

    async def count(self, *args: object, **kwargs: object) -> CountReply:
        """See `ConcurrencyStore`."""
        self.calls += 1
        if self.away:
            raise StoreUnavailableError("away")
        reply = await self.store.concurrency.count(*args, **kwargs)  # type: ignore[arg-type]
        await asyncio.sleep(self.slow_s)
        return reply

    async def stop_counting(self, *args: object) -> None:
        """See `ConcurrencyStore`."""
        await self.store.concurrency.stop_counting(*args)  # type: ignore[arg-type]

    async def reserve(self, function: str, number: int | None) -> None:
        """Change a function's reserved concurrency, and let the nodes know."""
        document = None if number is None else str(number).encode()
        await self.store.functions.put_part(function, FunctionPart.CONCURRENCY, document)
        await self.functions.read()

    @asynccontextmanager
    async def node(self) -> AsyncIterator[Counting]:
        """Run a node that has been heard."""
        counting = Counting(
            self,
            reserved=lambda: self.functions.reserved,
            account=lambda: ACCOUNT_CONCURRENCY,
            ttl_s=10.0,
            clock=asyncio.get_running_loop().time,
        )
        running = self._tasks.create_task(counting.run())
        try:
            await asyncio.sleep(0.01)
            yield counting
            self.ends.set()
        finally:
            running.cancel()
            await asyncio.wait([running])
            await counting.aclose()

    async def work(self) -> str:
        """Be a function that ends when told."""
        await self.ends.wait()
        return "done"

    def start(self, node: Counting, number: int, function: str = "billing") -> list[asyncio.Task[str | NotInvoked]]:
        """Start some invocations."""
        return [self._tasks.create_task(node.counted(function, self.work)) for _ in range(number)]


@asynccontextmanager
async def fleet() -> AsyncIterator[Rig]:
    """Give a fleet; its functions end with it."""
    async with asyncio.TaskGroup() as tasks:
        yield Rig(tasks)


async def settled(seconds: float = 0.05) -> None:
    """Let what is under way go on."""
    await asyncio.sleep(seconds)


async def test_a_function_runs_as_often_as_is_reserved_for_it() -> None:
    """Beyond the reserved concurrency invocations are refused with the function's reason, and counted."""
    async with fleet() as rig:
        await rig.reserve("billing", 3)
        async with rig.node() as node:
            tasks = rig.start(node, 5)
            await settled()
            assert [task.result() for task in tasks if task.done()] == [OWN, OWN]
            assert node.running["billing"] == 3
            assert node.throttles == {("billing", "ReservedFunctionConcurrentInvocationLimitExceeded"): 2}
            rig.ends.set()
            assert [await task for task in tasks[:3]] == ["done"] * 3
            assert node.running["billing"] == 0


async def test_the_others_share_what_is_not_reserved() -> None:
    """Functions without a reservation take of the account's rest together, and are refused with its reason."""
    async with fleet() as rig:
        await rig.reserve("billing", 3)
        async with rig.node() as node:
            tasks = rig.start(node, 60, "thumbs") + rig.start(node, 60, "mails")
            await settled()
            assert node.running["thumbs"] + node.running["mails"] == 100
            assert {task.result() for task in tasks if task.done()} == {ACCOUNT}
            assert [task.done() for task in rig.start(node, 3)] == [False] * 3


async def test_a_function_that_is_stopped_never_runs() -> None:
    """With nothing reserved but zero every invocation is refused, without asking the store."""
    async with fleet() as rig:
        await rig.reserve("billing", 0)
        async with rig.node() as node:
            before = rig.calls
            assert await node.counted("billing", rig.work) == OWN
            assert rig.calls == before


async def test_nodes_share_one_limit() -> None:
    """Two nodes run together what one may run, and one gets what the other gave back."""
    async with fleet() as rig:
        await rig.reserve("billing", 7)
        async with rig.node() as ann, rig.node() as bob:
            await settled(6.0)  # the first TTL of a store in which nobody counted yet
            first = rig.start(ann, 5)
            await settled()
            second = rig.start(bob, 5)
            await settled()
            assert (ann.running["billing"], bob.running["billing"]) == (5, 2)
            rig.ends.set()
            await asyncio.wait(first + second)
            rig.ends.clear()
            await settled(3.0)
            rig.start(bob, 9)
            await settled()
            assert bob.running["billing"] == 7


async def test_whoever_was_answered_can_go_to_another_node_at_once() -> None:
    """With one slot in the fleet, a caller that goes from node to node is never refused."""
    async with fleet() as rig:
        rig.ends.set()
        await rig.reserve("billing", 1)
        async with rig.node() as ann, rig.node() as bob:
            await settled(6.0)
            rig.slow_s = 0.001
            for _ in range(20):
                assert await ann.counted("billing", rig.work) == "done"
                assert await bob.counted("billing", rig.work) == "done"


async def test_a_slot_to_hand_costs_no_call() -> None:
    """A function called again and again asks the store no more often than it looks after its slots."""
    async with fleet() as rig:
        rig.ends.set()
        async with rig.node() as node:
            await node.counted("billing", rig.work)
            before = rig.calls
            for _ in range(100):
                assert await node.counted("billing", rig.work) == "done"
            assert rig.calls == before


async def test_a_cancelled_invocation_gives_its_slot_back() -> None:
    """Cancelled while it waits for the store, at the moment it is granted, or at work: the slot is free again."""
    async with fleet() as rig:
        rig.slow_s = 0.1
        await rig.reserve("billing", 1)
        async with rig.node() as node:
            await settled(0.2)
            for steps in range(60):
                (task,) = rig.start(node, 1)
                await asyncio.sleep(0.005 * steps)
                task.cancel()
                await asyncio.wait([task])
                await settled(3.0)
                assert node.running["billing"] == 0
            rig.ends.set()
            assert await node.counted("billing", rig.work) == "done"


async def test_a_failing_function_gives_its_slot_back() -> None:
    """What an invocation raises goes to its caller, and its slot to the next one."""
    async with fleet() as rig:
        await rig.reserve("billing", 1)

        async def fails() -> None:
            raise ValueError("no good")

        async with rig.node() as node:
            for _ in range(2):
                with pytest.raises(ValueError, match="no good"):
                    await node.counted("billing", fails)


async def test_without_the_store_each_node_has_its_share() -> None:
    """When the store is away the shares hold, all together the limit; when it is back so does the exact count."""
    async with fleet() as rig:
        await rig.reserve("billing", 7)
        async with rig.node() as ann, rig.node() as bob:
            await settled(6.0)
            with capture_logs() as logs:
                rig.away = True
                await settled(8.0)
                assert [node.in_fallback for node in (ann, bob)] == [True, True]
                tasks = rig.start(ann, 9) + rig.start(bob, 9)
                await settled()
                assert sorted((ann.running["billing"], bob.running["billing"])) == [3, 4]
                assert [task.result() for task in tasks if task.done()] == [OWN] * 11
                rig.away = False
                await settled(1.0)
                assert [node.in_fallback for node in (ann, bob)] == [False, False]
                rig.start(ann, 9)
                rig.start(bob, 9)
                await settled()
                assert ann.running["billing"] + bob.running["billing"] == 7
                rig.ends.set()
                await settled(10.0)
                rig.ends.clear()
                rig.start(ann, 9)
                await settled()
                assert ann.running["billing"] == 7
            assert [entry["event"] for entry in logs] == ["counting.fallback"] * 2 + ["counting.exact_again"] * 2


async def test_a_store_that_hangs_keeps_nobody_waiting_for_long() -> None:
    """Whoever waits for a store that does not answer is refused after a moment."""
    async with fleet() as rig:
        await rig.reserve("billing", 7)
        async with rig.node() as node:
            rig.slow_s = 3600.0
            began_at = asyncio.get_running_loop().time()
            assert await node.counted("billing", rig.work) == OWN
            assert asyncio.get_running_loop().time() - began_at < 2.1


async def test_a_lifted_reservation_moves_the_function_to_the_shared_pool() -> None:
    """As soon as a node has heard of it; until then it keeps to its share."""
    async with fleet() as rig:
        await rig.reserve("billing", 4)
        async with rig.node() as node:
            await rig.store.functions.put_part("billing", FunctionPart.CONCURRENCY, None)
            rig.start(node, 9)
            await settled()
            assert node.running["billing"] == 4
            await rig.functions.read()
            rig.start(node, 9)
            await settled()
            assert node.running["billing"] == 13


async def test_a_store_that_forgot_the_reservations_opens_no_gates() -> None:
    """Until a node has told it again, each has its share of what was reserved."""
    async with fleet() as rig:
        await rig.reserve("billing", 7)
        async with rig.node() as ann, rig.node() as bob:
            await settled(6.0)
            rig.store.wipe()
            rig.start(ann, 9)
            rig.start(bob, 9)
            await settled()
            assert sorted((ann.running["billing"], bob.running["billing"])) == [3, 4]
            await rig.reserve("billing", 7)
            await settled(1.0)
            rig.start(ann, 9)
            await settled()
            assert ann.running["billing"] + bob.running["billing"] == 7


async def test_a_node_that_stops_leaves_nothing_behind() -> None:
    """After its end the slots of a node are free at once."""
    async with fleet() as rig:
        await rig.reserve("billing", 7)
        async with rig.node() as ann:
            rig.start(ann, 7)
            await settled()
        rig.ends.clear()
        async with rig.node() as bob:
            rig.start(bob, 7)
            await settled()
            assert bob.running["billing"] == 7
