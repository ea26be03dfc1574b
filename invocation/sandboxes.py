"""Makes execution environments on this machine: folders, users and plans for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from invocation.isolation import Facts, Place, sandbox
from invocation.runtimes import runtime_command
from invocation.sandbox_users import SandboxUsers, processes_of, reachable
from invocation.settings import Isolation
from invocation.worker import INIT_S, Environment, EnvironmentSettings
from model.errors import RefusedError, UnavailableError
from model.placement import Capacity

if TYPE_CHECKING:
    from collections.abc import Callable

    from invocation.function_log import LineBudget
    from invocation.isolation import Limits, Sandbox
    from invocation.sandbox_counters import SandboxCounters
    from invocation.settings import HandlerFunction, SandboxSettings
    from model.secret import SecretResolver

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_ENVIRONMENTS_PER_CPU = 32
_SHARE_OF_MEMORY = 0.75


def check_function(function: HandlerFunction) -> None:
    """Raise `RefusedError` with the reason when this machine cannot run a function."""
    runtime_command(function)
    if function.isolation is Isolation.BUBBLEWRAP and bubblewrap() is None:
        raise RefusedError(
            f"function {function.name}: isolation: bubblewrap needs the program bwrap (bubblewrap) on PATH"
        )


def bubblewrap() -> str | None:
    """Return the path of bubblewrap's program."""
    return shutil.which("bwrap")


class Sandboxes:
    """What the environments of a node have in common. `arn` tells a function's ARN by its name."""

    def __init__(
        self,
        resolver: SecretResolver,
        *,
        region: str,
        arn: Callable[[str], str],
        limits: Limits | None = None,
        init_s: float = INIT_S,
        users: SandboxUsers | None = None,
    ) -> None:
        self._resolver = resolver
        self._region = region
        self._arn = arn
        self._limits = limits
        self._init_s = init_s
        self._users = users or SandboxUsers()
        self._folder: Path | None = None

    def make(self, function: HandlerFunction, counters: SandboxCounters, budget: LineBudget) -> Environment:
        """Make an environment; nothing is started yet."""
        facts = Facts(self._region, self._arn(function.name))
        housing = _Housing(function, facts, self)
        settings = EnvironmentSettings(function.name, facts.arn, function.timeout_s, function.memory_mb)
        return Environment(settings, housing.plan, housing.leave, budget=budget, counters=counters, init_s=self._init_s)

    def close(self) -> None:
        """Remove the folder, once all environments are ended."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            self._folder = None

    async def variables(self, function: HandlerFunction) -> dict[str, str]:
        """Return the configured environment variables. Raises `EsmdError` when a secret is not to be had."""
        return {name: await self._resolver.resolve(text) for name, text in function.environment.items()}

    def take_place(self) -> Place:
        """Make the folder of a sandbox, and find a user for it. Raises `UnavailableError`, OSError."""
        if self._folder is None:
            # Where every user gets to, unlike the node's data folder.
            above = tempfile.gettempdir()
            if os.geteuid() == 0 and not reachable(above):
                raise UnavailableError(f"{above} is closed to the users of sandboxes; set TMPDIR to one that is not")
            self._folder = Path(tempfile.mkdtemp(prefix="esmd-sandboxes-", dir=above))
            self._folder.chmod(0o711)
        user = self._users.take()
        scratch = self._folder / uuid.uuid4().hex[:12]
        place = Place(scratch, user, 0 if user is not None else processes_of(os.geteuid()))
        try:
            scratch.mkdir(mode=0o711)
            place.temp.mkdir(mode=0o700)
            if user is not None:
                os.chown(place.temp, user, user)
        except BaseException:
            self.give_back(place)
            raise
        return place

    def give_back(self, place: Place) -> None:
        """Remove the folder of a sandbox whose processes have ended. Not for the event loop."""
        shutil.rmtree(place.scratch, ignore_errors=True)
        if place.user is not None and (left := processes_of(place.user)):
            log.error("sandbox.processes_left", user=place.user, count=left)  # nobody else gets this user
        else:
            self._users.give_back(place.user)

    @property
    def limits(self) -> Limits | None:
        """The limits that are not the usual ones."""
        return self._limits


class _Housing:
    """Where one environment lives: the same folder and user for every start of its runtime."""

    def __init__(self, function: HandlerFunction, facts: Facts, sandboxes: Sandboxes) -> None:
        self._function = function
        self._facts = facts
        self._sandboxes = sandboxes
        self._place: Place | None = None
        self._left = False
        self._log_stream = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"

    async def plan(self) -> Sandbox:
        """Plan a start of the runtime. Raises `EsmdError`, OSError."""
        variables = await self._sandboxes.variables(self._function)
        if self._left:
            raise UnavailableError(f"function {self._function.name}: the environment has ended")
        if self._place is None:
            self._place = self._sandboxes.take_place()  # a few system calls
        made = sandbox(
            self._function,
            runtime_command(self._function),
            self._place,
            self._facts,
            variables,
            log_stream=self._log_stream,
            bubblewrap=bubblewrap(),
            reachable=(lambda _path: True) if self._place.user is None else reachable,
            limits=self._sandboxes.limits,
        )
        for point in made.mount_points:
            os.makedirs(point, exist_ok=True)  # noqa: PTH103
        return made

    async def leave(self) -> None:
        """Leave nothing behind. Safe to call twice."""
        self._left = True
        if self._place is not None:
            await asyncio.to_thread(self._sandboxes.give_back, self._place)
            self._place = None


def capacity(settings: SandboxSettings, *, nodes: int = 1) -> Capacity:
    """Return what a node may use, one of so many on this machine: its share, unless it is configured."""
    environments = max(_ENVIRONMENTS_PER_CPU * (os.cpu_count() or 1) // nodes, 1)
    memory_mb = int(_memory_bytes() * _SHARE_OF_MEMORY) // nodes // (1024 * 1024)
    return Capacity(settings.environments or environments, settings.memory_mb or memory_mb)


def _memory_bytes() -> int:
    """Return the memory of this machine, or of the container if it has less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return min(whole, int(Path(limit).read_text("ascii")))
    return whole
