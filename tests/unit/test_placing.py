"""Nodes that run functions for each other, over HTTP, with environments that only claim to run something."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from invocation.forwarding import PATH, Destination, Refused, forward
from invocation.frontend import Room
from invocation.invoking import InvocationResult, NotInvoked, Request, out_of_service, throttled
from invocation.placement import Headroom
from invocation.settings import HandlerFunction
from invocation.transport import Transport
from model.ids import NodeId
from model.lease import ALL_ROLES, FleetSnapshot, Member
from model.placement import Capacity
from node.credentials import BearerTokens, FleetNodes
from node.environments_api import EnvironmentsApi
from node.placement import Placement
from statemgr.memory_store import MemoryStore
from tests.support.bare_surface import bare_node
from tests.support.node_process import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from node.options import ListenAddress
    from statemgr.stores import PlacementStore

OK = Request(b"{}", "id", '{"a": "\u00e4"}', "Root=1")
TOKEN = "an-operator's"
EVERY_S = 0.05


class Workers:
    """Environments of one node: `free` of them, each busy until `go` is set."""

    def __init__(self, name: str, free: int) -> None:
        self.name = name
        self.free = free
        self.requests: list[Request] = []
        self.go = asyncio.Event()
        self.go.set()
        self.ended = asyncio.Event()
        self.warm = False
        self.broken: NotInvoked | None = None

    def headroom(self) -> Headroom:
        """See `WorkerManager`."""
        return Headroom(0, Capacity(self.free, self.free * 128), Capacity(0, 0), {"work": 1} if self.warm else {})

    def is_warm(self, function: HandlerFunction) -> bool:
        """See `WorkerManager`."""
        return self.warm and function.name == "work"

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Answer with the node's name, once there is leave to."""
        assert function.name == "work"
        if self.broken is not None:
            return self.broken
        if not self.free:
            return throttled(own_limit=False)
        self.free -= 1
        self.requests.append(request)
        try:
            await self.go.wait()
        finally:
            self.free += 1
            self.ended.set()
        return InvocationResult(self.name.encode(), None, b"log", 0.1, 0.2)


class Leasing:
    """A membership, and the members there are."""

    def __init__(self, name: str, members: dict[str, Member]) -> None:
        self.node = NodeId(name)
        self._members = members

    @property
    def snapshot(self) -> FleetSnapshot:
        """See `LeasingService`."""
        return FleetSnapshot(1, tuple(self._members.values()))


class Node:
    """One node's placement, with what it needs."""

    def __init__(self, name: str, free: int, function: HandlerFunction) -> None:
        self.workers = Workers(name, free)
        self.room = Room()
        self.functions: dict[str, Any] = {function.name: function}
        self.function = function
        self.placement: Placement
        self.address: ListenAddress

    async def invoke(self, request: Request = OK) -> InvocationResult | NotInvoked:
        """Invoke the function through this node."""
        return await self.placement.placing.invoke(self.function, request)

    async def where(self) -> str:
        """Invoke the function; return which node has run it."""
        came = await self.invoke()
        assert isinstance(came, InvocationResult), came
        return came.payload.decode()

    def forwarded(self) -> dict[str, int]:
        """Return what came of invocations sent to others."""
        return {result: count for (_, result), count in self.placement.placing.forwarded.items()}


class Counted:
    """A store that counts what it is asked."""

    def __init__(self, store: PlacementStore) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Count and hand on."""
        self.calls.append(name)
        return getattr(self._store, name)


class Fleet:
    """Nodes that share a store."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.counted = Counted(self.store.placement)
        self.members: dict[str, Member] = {}
        self.nodes: dict[str, Node] = {}

    async def add(
        self, stack: AsyncExitStack, name: str, free: int, folder: Path, *, guarded: bool = False, memory_mb: int = 128
    ) -> Node:
        """Run one more node."""
        made = Node(name, free, HandlerFunction("work", "app.handler", str(folder), memory_mb=memory_mb))
        workers: Any = made.workers
        store: Any = self.counted
        made.placement = await stack.enter_async_context(
            Placement(store, workers, lambda: made.functions, every_s=EVERY_S)
        )
        api = EnvironmentsApi(made.placement, workers, made.room)
        credentials = (FleetNodes(made.placement.secret), BearerTokens([TOKEN])) if guarded else ()
        made.address = await stack.enter_async_context(bare_node(api.routes(), credentials=credentials))
        self.members[name] = Member(NodeId(name))
        await self.store.join(self.members[name], ttl_s=60.0)
        leasing: Any = Leasing(name, self.members)
        made.placement.joined(leasing, made.address, roles=ALL_ROLES, tls=False, guarded=guarded)
        self.nodes[name] = made
        return made

    async def offered(self) -> None:
        """Wait until all nodes have offered what they have; then they also know which functions they have."""

        async def there() -> bool:
            return set(self.nodes) == set(await self.store.placement.offers())

        await eventually(there, "offers")


@asynccontextmanager
async def fleet(folder: Path, *, guarded: bool = False, **free: int) -> AsyncIterator[Fleet]:
    """Run nodes with room for so many invocations each."""
    (folder / "app.py").write_text("handler = None")
    made = Fleet()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for name, count in free.items():
            await made.add(stack, name, count, folder, guarded=guarded)
        running = [tasks.create_task(node.placement.run()) for node in made.nodes.values()]
        yield made
        for task in running:
            task.cancel()


async def test_what_has_no_room_here_runs_there(tmp_path: Path) -> None:
    """All of the request gets there and all of the result comes back; when all are full the refusal is this node's."""
    async with fleet(tmp_path, ann=0, bob=1) as made:
        await made.offered()
        ann, bob = made.nodes.values()
        assert await ann.invoke() == InvocationResult(b"bob", None, b"log", 0.1, 0.2)
        assert bob.workers.requests == [OK]
        bob.workers.go.clear()
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(ann.invoke())
            await eventually(lambda: len(bob.workers.requests) == 2, "it runs")
            assert await ann.invoke() == throttled(own_limit=False)
            bob.workers.go.set()
            assert isinstance(await call, InvocationResult)
        assert ann.forwarded()["ok"] == 2


async def test_a_node_that_is_alone_asks_nobody(tmp_path: Path) -> None:
    """The store hears nothing of a node without others, nor of one that has a warm environment."""
    async with fleet(tmp_path, ann=1) as made:
        assert await made.nodes["ann"].where() == "ann"
        await asyncio.sleep(5 * EVERY_S)  # an offer would have been written by now
        assert made.counted.calls == []
        made.members["bob"] = Member(NodeId("bob"))
        made.nodes["ann"].workers.warm = True
        assert await made.nodes["ann"].where() == "ann"
        assert "offers" not in made.counted.calls


async def test_an_offer_is_written_when_it_has_changed(tmp_path: Path) -> None:
    """Nothing is written again while all stays as it is; a withdrawn one stays away."""
    async with fleet(tmp_path, ann=1, bob=2) as made:
        await made.offered()
        written = made.counted.calls.count("offer")
        await asyncio.sleep(5 * EVERY_S)
        assert made.counted.calls.count("offer") == written == 2
        made.nodes["bob"].workers.free = 7
        await eventually(lambda: made.counted.calls.count("offer") == 3, "the change is written")
        await made.nodes["ann"].placement.withdraw()
        assert set(await made.store.placement.offers()) == {"bob"}


async def test_no_invocation_is_handed_on_twice(tmp_path: Path) -> None:
    """A node that has no room refuses what another one sent, though a third one has room."""
    async with fleet(tmp_path, ann=0, bob=0, cat=1) as made:
        await made.offered()
        ann, bob, cat = made.nodes.values()
        mark = ann.placement.mark(ann.function)
        assert mark is not None
        to = (await ann.placement.neighbours("work", mark))[NodeId("bob")].offer
        async with Transport() as transport:
            came = await forward(transport, Destination(to, "ann"), ann.function, mark, OK)
        assert came == Refused("HTTP 429", away=False)
        assert cat.workers.requests == []
        assert await bob.where() == "cat"  # its own invocations it does send there


async def test_who_refuses_is_followed_by_the_next(tmp_path: Path) -> None:
    """Nodes that have no room after all are passed over; when nobody has any the refusal is this node's."""
    async with fleet(tmp_path, ann=0, bob=1, cat=2) as made:
        await made.offered()
        ann, bob, cat = made.nodes.values()
        bob.workers.free = 0  # as nobody knows yet
        assert await ann.where() == "cat"
        cat.workers.free = 0
        assert await ann.invoke() == throttled(own_limit=False)
        assert ann.forwarded()["ok"] == 1


async def test_another_definition_is_another_function(tmp_path: Path) -> None:
    """A node whose function is not the same one is not asked, and would refuse."""
    async with fleet(tmp_path, ann=0, bob=1) as made:
        await made.offered()
        ann, bob = made.nodes.values()
        bob.functions["work"] = HandlerFunction("work", "app.handler", str(tmp_path), timeout_s=9.0)
        assert await ann.invoke() == throttled(own_limit=False)
        assert ann.forwarded() == {"refused": 1}
        mark = ann.placement.mark(ann.function)
        assert mark is not None

        async def known() -> bool:
            return not await ann.placement.neighbours("work", mark)

        await eventually(known, "bob offers another one")
        assert await ann.invoke() == throttled(own_limit=False)
        assert ann.forwarded() == {"refused": 1}


async def test_a_cancelled_invocation_ends_there(tmp_path: Path) -> None:
    """Who loses the right to have a function run ends it, wherever it runs."""
    async with fleet(tmp_path, ann=0, bob=1) as made:
        await made.offered()
        ann, bob = made.nodes.values()
        bob.workers.go.clear()
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(ann.invoke())
            await eventually(lambda: bob.workers.requests, "it runs")
            call.cancel()
        async with asyncio.timeout(5):
            await bob.workers.ended.wait()
        assert ann.forwarded() == {"cancelled": 1}
        await eventually(lambda: bob.room.calls == 0, "nothing is left of it")


async def test_what_the_other_node_cannot_start_is_its_answer(tmp_path: Path) -> None:
    """It is tried nowhere else: the caller is told, as he is of his own node's troubles."""
    async with fleet(tmp_path, ann=0, bob=1, cat=2) as made:
        await made.offered()
        made.nodes["bob"].workers.broken = out_of_service("no sandbox")
        assert await made.nodes["ann"].invoke() == out_of_service("no sandbox")
        assert made.nodes["ann"].forwarded() == {"failed": 1}


async def test_a_node_that_stops_takes_nothing(tmp_path: Path) -> None:
    """The next best one runs it."""
    async with fleet(tmp_path, ann=0, bob=1, cat=2) as made:
        await made.offered()
        await made.nodes["bob"].room.drain(0)
        assert await made.nodes["ann"].where() == "cat"
        assert made.nodes["ann"].forwarded() == {"unreached": 1, "ok": 1}


async def test_nodes_have_a_secret_of_their_own(tmp_path: Path) -> None:
    """With it they run functions for each other; no other credential does, and it does nothing else."""
    async with fleet(tmp_path, guarded=True, ann=0, bob=1) as made:
        await made.offered()
        assert await made.nodes["ann"].where() == "bob"
        secret = await made.store.placement.fleet_secret("")
        base = f"http://{made.nodes['bob'].address}"
        async with aiohttp.ClientSession() as client:

            async def status(method: str, path: str, token: str) -> int:
                headers = {"Authorization": f"Bearer {token}"}
                async with client.request(method, base + path, headers=headers, data=b"x") as came:
                    return came.status

            invoke = f"{PATH}work/invocations"
            assert [await status("POST", invoke, token) for token in (TOKEN, "", "wrong", secret)] == [401] * 3 + [409]
            assert [await status("GET", "/metrics", token) for token in (TOKEN, secret)] == [200, 401]


async def test_a_store_that_forgot_the_secret_has_another_one(tmp_path: Path) -> None:
    """A node that comes with the new one is let in by one that knew the old one."""
    async with fleet(tmp_path, guarded=True, ann=0, bob=1) as made:
        await made.offered()
        assert await made.nodes["ann"].where() == "bob"
        made.store.placement.wipe()
        new = await made.store.placement.fleet_secret("another")
        url = f"http://{made.nodes['bob'].address}{PATH}work/invocations"

        async def let_in() -> bool:
            async with (
                aiohttp.ClientSession() as client,
                client.post(url, headers={"Authorization": f"Bearer {new}"}, data=b"x") as came,
            ):
                return came.status == 409

        await eventually(let_in, "the new secret is known")
