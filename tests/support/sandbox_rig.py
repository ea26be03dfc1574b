"""Functions written in a test, run by a worker manager in real sandboxes.

    async with sandboxes(tmp_path) as rig:
        result = await rig.call("handler = lambda event, context: 1", {})

A function's code is a text; each text gets a folder of its own.
"""

from __future__ import annotations

import asyncio
import json
import textwrap
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any

import psutil

from invocation.invoking import InvocationResult, NotInvoked, Request
from invocation.roster import State, Terms
from invocation.sandbox_users import SandboxUsers
from invocation.sandboxes import Sandboxes
from invocation.settings import HandlerFunction
from invocation.worker_manager import WorkerManager
from model.placement import Capacity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from invocation.isolation import Limits
    from model.secret import SecretText

ARN = "arn:aws:lambda:eu-west-1:000000000000:function:"


class PlainTexts:
    """A secret resolver for texts without secrets."""

    async def resolve(self, text: SecretText) -> str:
        """Return the text."""
        return text.template


@dataclass
class SandboxRig:
    """A worker manager and the functions it is given."""

    workers: WorkerManager
    folder: Path
    functions: dict[str, HandlerFunction] = field(default_factory=dict)

    def function(self, code: str, *, file: str = "app.py", **settings: Any) -> HandlerFunction:
        """Write a function's code into a folder."""
        name = settings.pop("name", None) or "f" + blake2b(code.encode(), digest_size=4).hexdigest()
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        path = folder / file
        path.write_text(textwrap.dedent(code))
        path.chmod(0o755)
        made = HandlerFunction(name, settings.pop("handler", "app.handler"), str(folder), timeout_s=20.0)
        return replace(made, **settings)

    async def call(
        self, function: HandlerFunction | str, event: object = None, request_id: str | None = None
    ) -> InvocationResult:
        """Invoke a function that there is room for."""
        result = await self.ask(function, event, request_id)
        assert isinstance(result, InvocationResult), result
        return result

    async def ask(
        self, function: HandlerFunction | str, event: object = None, request_id: str | None = None
    ) -> InvocationResult | NotInvoked:
        """Invoke a function."""
        made = self.function(function) if isinstance(function, str) else function
        request = Request(json.dumps(event).encode(), request_id or str(uuid.uuid4()))
        return await self.workers.invoke(made, request)

    def environments(self, state: State | None = None) -> int:
        """Count environments."""
        counts = self.workers.counts().values()
        return sum(count for by_state in counts for of, count in by_state.items() if state in (None, of))


@asynccontextmanager
async def sandboxes(
    folder: Path,
    *,
    environments: int = 20,
    memory_mb: int = 8192,
    lease_s: float = 3600.0,
    idle_s: float = 300.0,
    limits: Limits | None = None,
    init_s: float = 10.0,
    look_s: float = 0.05,
) -> AsyncIterator[SandboxRig]:
    """Run a worker manager; at the end no process and no folder of its sandboxes may be left."""
    users = RememberedUsers()
    made = Sandboxes(
        PlainTexts(), region="eu-west-1", arn=lambda name: ARN + name, limits=limits, init_s=init_s, users=users
    )
    workers = WorkerManager(
        made.make, Capacity(environments, memory_mb), Terms(lease_s, idle_s), random=Random(1), look_s=look_s
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(workers.run())
            yield SandboxRig(workers, folder)
            watching.cancel()
    finally:
        await workers.aclose()
        kept = made._folder
        made.close()
    assert kept is None or not kept.exists()
    left = users.processes()
    assert left == [], [psutil.Process(pid).cmdline() for pid in left]


class RememberedUsers(SandboxUsers):
    """Users for sandboxes; also tells which ones there were."""

    def __init__(self) -> None:
        super().__init__()
        self.ever: set[int] = set()

    def take(self) -> int | None:
        """Return the number of a user that nobody else has."""
        user = super().take()
        self.ever |= {user} - {None}  # type: ignore[arg-type]
        return user

    def processes(self) -> list[int]:
        """Return what runs as one of them, and the keepers."""
        found = [child.pid for child in psutil.Process().children() if "keeper.py" in " ".join(child.cmdline())]
        running = [process for process in psutil.process_iter(["uids"]) if process.info["uids"]]
        return found + [process.pid for process in running if process.info["uids"].real in self.ever]


def value(result: InvocationResult) -> Any:
    """Return the result of a function that did not fail."""
    assert result.function_error is None, result
    return json.loads(result.payload)


def error(result: InvocationResult) -> dict[str, Any]:
    """Return the error document of a function that failed."""
    assert result.function_error == "Unhandled", result
    document: dict[str, Any] = json.loads(result.payload)
    return document
