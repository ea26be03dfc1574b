"""The worker manager: finds or starts an execution environment for each invocation, and ends those nobody needs.

`invocation.roster` decides; here it is done. Front end and pollers call `WorkerManager.invoke` in process. Environments
are started in the task of the invocation that waits for them, ahead of demand in tasks of `run`, and a cancelled
invocation kills its function: its caller may have lost the right to have it run.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING

import structlog

from invocation.code_version import code_version
from invocation.function_log import LineBudget
from invocation.invoking import InvocationResult, NotInvoked, out_of_service, throttled
from invocation.placement import Headroom
from invocation.roster import Full, Reuse, Roster, Seat, Start, State, Terms
from invocation.sandbox_counters import SandboxCounters
from invocation.sandbox_process import memory_of
from model.errors import EsmdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from invocation.invoking import Request
    from invocation.settings import HandlerFunction
    from invocation.worker import Environment
    from model.placement import Capacity

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_LOOK_S = 1.0
_MEMORY_LOOK_S = 0.1
_IDLE_LOOK = 10  # every so many looks
_CODE_SHARE = 50  # times as long as a look at the code has taken it is not looked at
_CLOSING = out_of_service("the node is stopping")


class WorkerManager:
    """The execution environments of a node. Runs nothing before the first invocation.

    `make` makes an environment of a function, whose sandbox lives in the given folder. `limits` says how often
    functions run at most, which others see to (`invocation.counting`): no more environments are started ahead.
    """

    def __init__(
        self,
        make: Callable[[HandlerFunction, SandboxCounters, LineBudget], Environment],
        capacity: Capacity,
        terms: Terms,
        *,
        random: Random,
        limits: Callable[[], Mapping[str, int]] = dict,
        look_s: float = _LOOK_S,
    ) -> None:
        self._make = make
        self._limits = limits
        self._roster: Roster[Environment] = Roster(
            capacity, terms, random=random.random, warm=lambda environment: environment.warm
        )
        self._look_s = look_s
        self._functions: dict[str, HandlerFunction] = {}
        self._code: dict[str, str] = {}  # state by folder
        self._code_at = 0.0  # when to look at it again
        self._versions = count(1)  # of code and settings together
        self._budgets: dict[str, LineBudget] = {}
        self.counters: dict[str, SandboxCounters] = {}
        self._ends: dict[Seat[Environment], asyncio.Lock] = {}
        self._any = asyncio.Event()
        self._closed = False

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """Return how many environments each function has, by what they are doing."""
        return self._roster.counts()

    def headroom(self) -> Headroom:
        """Return what there is room for, and what waits."""
        return Headroom(len(self._roster), self._roster.free(), self._roster.idle(), self._roster.warm())

    def is_warm(self, function: HandlerFunction) -> bool:
        """Whether a warm environment of the function as it is configured now waits."""
        return self._functions.get(function.name) == function and self._roster.is_warm(function.name)

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Invoke a function once. Raises nothing but CancelledError, after which the function does not run any more."""
        await self._known(function)
        if self._closed:
            return _CLOSING
        now = asyncio.get_running_loop().time()
        self._roster.demand(function.name).arrived(now)
        chosen = self._roster.take(function.name)
        if isinstance(chosen, Full):
            self.counters[function.name].throttles += 1
            return throttled(own_limit=False)
        seat = chosen.seat if isinstance(chosen, Reuse) else self._new(function, busy=True)
        healthy = False
        try:
            if isinstance(chosen, Start):
                for old in chosen.first:
                    await self._end(old)
                await seat.environment.initialise()
            result = await seat.environment.invoke(request)
            healthy = True
        except (EsmdError, OSError) as exc:
            log.error("sandbox.not_started", function=function.name, error=str(exc))  # noqa: TRY400 says what is wrong
            return out_of_service(f"no execution environment: {exc}")
        finally:
            await self._back(seat, keep=healthy)
        if seat.environment.warm:
            self._roster.demand(function.name).took(result.duration_s)
        return result

    async def run(self) -> None:
        """Watch over the environments until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_memory(), name="sandbox memory")
            while True:
                await self._any.wait()
                await asyncio.sleep(self._look_s)
                await self._look_at_code()
                now = asyncio.get_running_loop().time()
                self._roster.due(now)
                # Also those whose end was interrupted by a cancellation.
                for seat in [seat for seat in self._roster if seat.state is State.ENDING]:
                    tasks.create_task(self._end(seat), name=f"end a sandbox of {seat.function}")
                for name in self._roster.wanted(now, self._limits()):
                    seat = self._new(self._functions[name], busy=False)
                    tasks.create_task(self._start_ahead(seat), name=f"start a sandbox of {name}")
                if not len(self._roster):
                    self._any.clear()

    async def aclose(self) -> None:
        """End all environments, also busy ones. Safe to call twice."""
        self._closed = True
        async with asyncio.TaskGroup() as tasks:
            for seat in list(self._roster):
                if seat.state is not State.ENDING:
                    self._roster.discard(seat)
                tasks.create_task(self._end(seat))

    async def _known(self, function: HandlerFunction) -> None:
        """See that the roster knows the function as it is configured now."""
        if self._functions.get(function.name) == function and function.code in self._code:
            return
        if function.code not in self._code:
            version = await asyncio.to_thread(code_version, function.code)
            self._code.setdefault(function.code, version)
            if self._functions.get(function.name) == function:
                return  # somebody else was here meanwhile
        self._functions[function.name] = function
        self._budgets.setdefault(function.name, LineBudget())
        self.counters.setdefault(function.name, SandboxCounters())
        self._describe(function)

    def _describe(self, function: HandlerFunction) -> None:
        self._roster.function(
            function.name,
            version=next(self._versions),
            memory_mb=function.memory_mb,
        )

    def _new(self, function: HandlerFunction, *, busy: bool) -> Seat[Environment]:
        environment = self._make(function, self.counters[function.name], self._budgets[function.name])
        self._any.set()
        return self._roster.add(function.name, environment, now=asyncio.get_running_loop().time(), busy=busy)

    async def _back(self, seat: Seat[Environment], *, keep: bool) -> None:
        """Give an environment back after its invocation, or end it."""
        if seat.state is State.ENDING:
            return  # everything is being ended
        if not keep:
            self._roster.discard(seat)
        elif self._roster.give_back(seat, now=asyncio.get_running_loop().time()):
            return
        await self._end(seat)

    async def _end(self, seat: Seat[Environment]) -> None:
        """End an environment. Safe to call while it is being ended; `run` goes on where this is cancelled."""
        async with self._ends.setdefault(seat, asyncio.Lock()):
            if seat in self._roster:
                await seat.environment.end()
                self._roster.ended(seat)
        self._ends.pop(seat, None)

    async def _start_ahead(self, seat: Seat[Environment]) -> None:
        """Start an environment that nobody waits for yet."""
        keep = False
        try:
            keep = await seat.environment.initialise()
        except (EsmdError, OSError) as exc:
            log.warning("sandbox.not_started", function=seat.function, error=str(exc))
        finally:
            await self._back(seat, keep=keep)

    async def _look_at_code(self) -> None:
        """See whether code has changed; less often where it takes long to see."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._code_at:
            return
        began_at = time.perf_counter()
        for folder in {function.code for function in self._functions.values()}:
            version = await asyncio.to_thread(code_version, folder)
            if version != self._code[folder]:
                self._code[folder] = version
                for function in self._functions.values():
                    if function.code == folder:
                        log.info("function.code_changed", function=function.name)
                        self._describe(function)
        self._code_at = loop.time() + (time.perf_counter() - began_at) * _CODE_SHARE

    async def _watch_memory(self) -> None:
        """Look at the memory of sandboxes: those that are busy for a while often, all others now and then.

        Shorter invocations are within their rlimits; what a function does behind its answer is seen within a second.
        """
        loop = asyncio.get_running_loop()
        for look in count():
            await self._any.wait()
            await asyncio.sleep(_MEMORY_LOOK_S)
            before = loop.time() - _MEMORY_LOOK_S
            for seat in list(self._roster):
                environment = seat.environment
                busy = environment.busy_since is not None and environment.busy_since <= before
                if environment.pid is None or not (busy or look % _IDLE_LOOK == 0):
                    continue
                # In a thread: a sandbox can have a thousand processes.
                pid, own = environment.pid, environment.own_processes
                used = await asyncio.to_thread(memory_of, pid, own=own)
                if environment.pid == pid:
                    environment.used_memory(used)
