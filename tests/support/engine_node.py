"""A node without sockets: the product's engine and parts over whatever a test puts in their place."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from config.settings import Settings
from invocation.settings import UrlFunction
from model.ids import NodeId
from node.engine import Engine
from node.parts import Parts
from pollers.checkpointer import Checkpointer
from pollers.counters import Meters

if TYPE_CHECKING:
    from collections.abc import Callable

    from pollers.ports import Target
    from statemgr.memory_store import MemoryStore

DRAIN_S = 30.0
TTL_S = 10.0


class Outside:
    """`invocation.client.Targets`, as far as parts need it: one function, and AWS's services by name."""

    def __init__(self, function: Target, aws: Callable[[str], Any]) -> None:
        self._function = function
        self._aws = aws

    def make(self, _settings: object) -> Target:
        """Return the function, whatever is asked for."""
        return self._function

    def aws(self, service: str, **_more: object) -> Any:
        """Return who makes a service's calls."""
        return self._aws(service)


def make_parts(
    outside: Outside,
    checkpointer: Checkpointer,
    tasks: asyncio.TaskGroup,
    random: Random,
    *,
    function_timeout_s: float = 30.0,
) -> Parts:
    """Return the product's own factory of a mapping's parts, for mappings whose function is `f`."""
    targets: Any = outside
    none: Any = None  # nothing of what is tested asks for it
    return Parts(
        Settings(functions={"f": UrlFunction("f", "http://127.0.0.1:9/", timeout_s=function_timeout_s)}),
        tasks=tasks,
        resolver=none,
        targets=targets,
        aws=none,
        meters=Meters(),
        checkpointer=checkpointer,
        random=random,
    )


class EngineNode:
    """One node on a store in memory."""

    def __init__(self, store: MemoryStore, outside: Outside, *, name: str, seed: int) -> None:
        self._store = store
        self._outside = outside
        self._name = name
        self._random = Random(seed)
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def engine(self) -> Engine:
        """What was started, once it runs."""
        assert self._engine is not None
        return self._engine

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run until drained."""
        self._task = tasks.create_task(self._run(), name=self._name)

    async def _run(self) -> None:
        checkpointer = Checkpointer(self._store)
        async with asyncio.TaskGroup() as tasks:
            self._engine = Engine(
                self._store,
                checkpointer,
                make_parts(self._outside, checkpointer, tasks, self._random),
                name=self._name,
                ttl_s=TTL_S,
                hand_over_s=DRAIN_S,
                desired=list,
                clock=asyncio.get_running_loop().time,
                rng=self._random,
                new_id=lambda: NodeId(self._name),
            )
            await self._engine.run()

    async def drain(self) -> None:
        """End it in order."""
        assert self._engine is not None
        assert self._task is not None
        await self._engine.drain(DRAIN_S)
        await asyncio.wait([self._task])
