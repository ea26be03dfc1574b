"""One execution environment: initialise, invoke, time out, reset, end (spec section 8).

An environment has one runtime process at most, and a folder that outlives it. After a time-out, a crash or a failed
initialisation it is *cold*: the next invocation starts the runtime anew, within its own time. Who uses it when, one
invocation at a time, is `invocation.worker_manager`'s business.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invocation.function_errors import (
    Ended,
    Exited,
    NotStarted,
    OutOfMemory,
    TimedOut,
    Unstartable,
    end_line,
    explain,
    failure_document,
    init_report_line,
    report_line,
    start_line,
)
from invocation.function_log import FunctionLog, LogPipe
from invocation.invoking import InvocationResult
from invocation.isolation import VERSION
from invocation.runtime_api import Event, FunctionAnswer, RuntimeApi
from invocation.runtime_server import RuntimeServer
from invocation.sandbox_process import SandboxProcess, memory_of
from model.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from invocation.function_errors import Ending
    from invocation.function_log import LineBudget
    from invocation.invoking import Request
    from invocation.isolation import Sandbox
    from invocation.sandbox_counters import SandboxCounters

INIT_S = 10.0
"""How long an environment may take to be initialised before its first invocation (spec section 8)."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """What an environment must know of its function."""

    name: str
    arn: str
    timeout_s: float
    memory_mb: int


class Environment:
    """Runs one function, one event at a time.

    `plan` makes a sandbox for each start of the runtime, with secrets as they are by then; `leave` clears up behind the
    last one.
    """

    def __init__(
        self,
        settings: EnvironmentSettings,
        plan: Callable[[], Awaitable[Sandbox]],
        leave: Callable[[], Awaitable[None]],
        *,
        budget: LineBudget,
        counters: SandboxCounters,
        init_s: float = INIT_S,
    ) -> None:
        self.settings = settings
        self._plan = plan
        self._leave = leave
        self._counters = counters
        self._longest_init_s = init_s
        self._loop = asyncio.get_running_loop()
        self._log = FunctionLog(settings.name, budget, clock=self._loop.time)
        self._init_s: float | None = None  # not told yet
        self._used_bytes = 0
        self._process: SandboxProcess | None = None
        self._api: RuntimeApi | None = None
        self._server: RuntimeServer | None = None
        self._pipe: LogPipe | None = None
        self._ending: Ending | None = None
        self._turn: asyncio.Future[None] = self._loop.create_future()
        self.busy_since: float | None = None
        self.own_processes = 0  # processes of ours between the one that `pid` names and the runtime

    @property
    def warm(self) -> bool:
        """Whether the runtime waits for an event."""
        return self._ending is None and self._api is not None and self._api.idle

    @property
    def pid(self) -> int | None:
        """The process that the sandbox descends from, while there is one that has not ended."""
        return self._process.pid if self._process is not None and self._ending is None else None

    async def initialise(self) -> bool:
        """Start the runtime before anybody waits for it. A failure is logged; the next invocation tries again.

        Raises as `_prepare` and `_start`.
        """
        began_at = self._loop.time()
        self._counters.cold_starts += 1
        why = await self._started(began_at + self._longest_init_s, self._longest_init_s)
        took_s = self._loop.time() - began_at
        if why is None:
            self._init_s = took_s
            self._counters.initialised(took_s)
            return True
        status = why.status if isinstance(why, Ended) else _status_of(why)
        self._log.platform_line(init_report_line(init_s=took_s, status=status), failed=True)
        self._counters.failed_inits += 1
        return False

    async def invoke(self, request: Request) -> InvocationResult:
        """Invoke the function once. Raises as `initialise`; when cancelled, the function is killed."""
        clock = time.perf_counter()  # finer than the loop's, which may count in milliseconds
        began_at = self.busy_since = self._loop.time()
        until = began_at + self.settings.timeout_s
        self._log.begin(request.request_id)
        self._log.platform_line(start_line(request.request_id, VERSION))
        init_s, self._init_s = self._init_s, None
        try:
            came = None if self.warm else await self._started(until, self.settings.timeout_s, request.request_id)
            if came is None:
                came = await self._ask(request, until)
        except BaseException:
            self._reset()  # the event may be with the function, which nobody waits for any longer
            raise
        finally:
            self.busy_since = None
        duration_s = time.perf_counter() - clock
        if self._pipe is not None:
            self._pipe.drain()
        status: str | None
        if isinstance(came, Ended):
            payload, status = failure_document(came.error_type, came.message, None), came.status
        else:
            payload, status = came.payload, None if came.error_type is None else _status_of(came)
        self._log.platform_line(end_line(request.request_id))
        self._log.platform_line(
            report_line(
                request.request_id,
                duration_s=duration_s,
                memory_mb=self.settings.memory_mb,
                used_mb=-(-self._used_bytes // _MIB),
                init_s=init_s,
                status=status,
            ),
            failed=status is not None,
        )
        return InvocationResult(payload, None if status is None else "Unhandled", self._log.end(), duration_s, init_s)

    def used_memory(self, used_bytes: int) -> None:
        """Take note of what the sandbox holds; end it when that is too much, also between invocations."""
        self._used_bytes = max(self._used_bytes, used_bytes)
        if used_bytes <= self.settings.memory_mb * _MIB:
            return
        self._ended(OutOfMemory())
        if self.busy_since is None:  # nobody waits who would see to it
            self._counters.ended(OutOfMemory())
            self._reset()

    async def end(self) -> None:
        """End the environment for good, and wait until nothing is left of it. Safe to call twice."""
        await self._end_runtime()
        await self._leave()

    async def _end_runtime(self) -> None:
        """End the runtime and everything it has started, and wait until they are gone."""
        self._reset()
        if self._process is not None:
            await self._process.end()
            self._process = None
        if self._server is not None:
            await self._server.stop()
            self._server = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    async def _started(self, until: float, limit_s: float, request_id: str = "") -> Ended | FunctionAnswer | None:
        """Start the runtime and wait until it is idle. Returns what came instead, if it is not."""
        sandbox = await self._prepare(until)
        try:
            async with asyncio.timeout_at(until):
                await self._start(sandbox)
                await self._turn
        except TimeoutError:
            self._ending = self._ending or TimedOut(limit_s)
        if self.pid is not None:
            self._used_bytes = memory_of(self.pid, own=self.own_processes)
        return self._outcome(request_id)

    async def _prepare(self, until: float) -> Sandbox:
        """Plan the next sandbox, with what the last one left behind gone. What this takes is not the function's fault.

        Raises `EsmdError` when a secret is not to be had in time, or there can be no sandbox.
        """
        try:
            async with asyncio.timeout_at(until):
                await self._end_runtime()
                return await self._plan()
        except TimeoutError as exc:
            raise UnavailableError(f"function {self.settings.name}: the sandbox was not ready to be made") from exc

    async def _start(self, sandbox: Sandbox) -> None:
        """Start a runtime process. Raises OSError when the machine has no process or descriptor left."""
        self.own_processes = sandbox.own_processes
        self._ending, self._turn = None, self._loop.create_future()
        self._used_bytes = 0
        self._api = RuntimeApi(on_idle=self._wake, on_failed=self._wake)
        self._server = RuntimeServer(self._api, user=sandbox.connecting_user)
        self._process = SandboxProcess(on_exit=self._ended)
        read, write = os.pipe()
        self._pipe = LogPipe(read, self._log.feed)
        try:
            listener = await self._process.start(sandbox, write)
        finally:
            os.close(write)
        if listener is not None:
            await self._server.start(listener)

    async def _ask(self, request: Request, until: float) -> Ended | FunctionAnswer:
        """Give the event to the runtime and wait until it is idle again."""
        if self._api is None:
            raise AssertionError("only a started runtime is asked")
        self._turn = self._loop.create_future()
        self._api.begin(self._event(request))
        try:
            async with asyncio.timeout_at(until):
                await self._turn
        except TimeoutError:
            self._ending = self._ending or TimedOut(self.settings.timeout_s)
        came = self._outcome(request.request_id)
        if came is not None:
            return came
        if self._api.answer is None:
            raise AssertionError("an idle runtime has answered")
        return self._api.answer

    def _outcome(self, request_id: str) -> Ended | FunctionAnswer | None:
        """Say what came of waiting for the runtime to be idle; None when it is. One that is not is reset."""
        if self.warm:
            return None
        answer = None if self._api is None else self._api.answer
        ending = self._ending
        self._reset()
        if answer is not None and not isinstance(ending, TimedOut):
            return answer  # and ended after it, or because it could not be initialised
        ending = ending or Exited(0)  # it asked for an event and hung up
        if isinstance(ending, NotStarted) and ending.kind is Unstartable.SANDBOX:
            raise UnavailableError(f"function {self.settings.name}: {ending.why}")
        self._counters.ended(ending)
        return explain(ending, request_id)

    def _event(self, request: Request) -> Event:
        invocation_id = uuid.uuid4().hex
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + self.settings.timeout_s) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.settings.arn,
            "Lambda-Runtime-Invocation-Id": invocation_id,
        }
        if request.trace is not None:
            headers["Lambda-Runtime-Trace-Id"] = request.trace
        if request.client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = request.client_context
        return Event(request.event, headers, request.request_id, invocation_id)

    def _wake(self) -> None:
        if not self._turn.done():
            self._turn.set_result(None)

    def _ended(self, how: Exited | NotStarted | OutOfMemory) -> None:
        """Take note of the runtime's end: from now on it is cold."""
        self._ending = self._ending or how
        self._wake()

    def _reset(self) -> None:
        """Have the runtime killed, unless it is gone."""
        self._ending = self._ending or Exited(0)
        if self._process is not None:
            self._process.ask_end()
        if self._api is not None:
            self._api.close()
        self._wake()


def _status_of(answer: FunctionAnswer) -> str:
    return f"Status: error\tError Type: {answer.error_type}"
