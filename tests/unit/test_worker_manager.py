"""The worker manager over environments that only claim to run something: `invocation.worker_manager`."""

from __future__ import annotations

import asyncio
import os
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from invocation.code_version import code_digest, code_version
from invocation.function_errors import OutOfMemory
from invocation.invoking import InvocationResult, NotInvoked, Request, out_of_service
from invocation.roster import State, Terms
from invocation.settings import HandlerFunction
from invocation.worker_manager import WorkerManager
from model.errors import UnavailableError
from model.placement import Capacity
from node.sandboxing import SandboxCollector

if TYPE_CHECKING:
    from pathlib import Path

    from invocation.sandbox_counters import SandboxCounters

REQUEST = Request(b"{}", "id")


class Claimed:
    """An environment that answers as it is told, or waits."""

    pid = None
    busy_since = None

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.warm = False
        self.ended = 0

    async def initialise(self) -> bool:
        """Start."""
        self._behaviour.starting += 1
        self._behaviour.started.set()
        if self._behaviour.broken is not None:
            raise self._behaviour.broken
        await self._behaviour.may_start.wait()
        self.warm = True
        return True

    async def invoke(self, request: Request) -> InvocationResult:
        """Answer with the request's id."""
        await self._behaviour.may_answer.wait()
        return InvocationResult(request.request_id.encode(), None, b"", 0.01)

    async def end(self) -> None:
        """End."""
        await self._behaviour.may_end.wait()
        self.ended += 1
        self.warm = False


class Behaviour:
    """How environments behave, and which there were."""

    def __init__(self) -> None:
        self.may_start, self.may_answer, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for event in (self.may_start, self.may_answer, self.may_end):
            event.set()
        self.started = asyncio.Event()
        self.broken: Exception | None = None
        self.starting = 0
        self.made: list[Claimed] = []

    def make(self, _function: HandlerFunction, _counters: SandboxCounters, _budget: object) -> Any:
        """Make one."""
        self.made.append(Claimed(self))
        return self.made[-1]


def manager(behaviour: Behaviour, environments: int = 2) -> WorkerManager:
    """Make a manager with room for a few."""
    return WorkerManager(behaviour.make, Capacity(environments, 10_000), Terms(100.0, 10.0), random=Random(1))


@pytest.fixture
def function(tmp_path: Path) -> HandlerFunction:
    """Make a function whose code is there."""
    return HandlerFunction("f", "app.handler", str(tmp_path))


async def test_an_invocation_starts_an_environment_and_the_next_uses_it(function: HandlerFunction) -> None:
    """Nothing runs before the first."""
    behaviour = Behaviour()
    workers = manager(behaviour)
    assert workers.counts() == {}
    for _ in range(3):
        assert await workers.invoke(function, REQUEST) == InvocationResult(b"id", None, b"", 0.01)
    assert (len(behaviour.made), behaviour.starting) == (1, 1)
    assert workers.counts()["f"][State.IDLE] == 1
    await workers.aclose()
    assert behaviour.made[0].ended == 1
    assert await workers.invoke(function, REQUEST) == out_of_service("the node is stopping")
    await workers.aclose()
    assert behaviour.made[0].ended == 1


async def test_an_environment_that_cannot_be_made_is_no_function_error(function: HandlerFunction) -> None:
    """The caller is told that it was not invoked, and the room is free again."""
    behaviour = Behaviour()
    behaviour.broken = UnavailableError("no user is left")
    workers = manager(behaviour, environments=1)
    for _ in range(2):
        came = await workers.invoke(function, REQUEST)
        assert came == out_of_service("no execution environment: no user is left")
    assert [environment.ended for environment in behaviour.made] == [1, 1]
    assert len(workers._roster) == 0


@pytest.mark.parametrize("where", ["may_start", "may_answer"])
async def test_a_cancelled_invocation_ends_its_environment(function: HandlerFunction, where: str) -> None:
    """Wherever it is cancelled; nothing is left on the books."""
    behaviour = Behaviour()
    workers = manager(behaviour, environments=1)
    getattr(behaviour, where).clear()
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(workers.invoke(function, REQUEST))
        await behaviour.started.wait()
        await asyncio.sleep(0)
        asking.cancel()
    assert (behaviour.made[0].ended, len(workers._roster)) == (1, 0)
    getattr(behaviour, where).set()
    assert isinstance(await workers.invoke(function, REQUEST), InvocationResult)


@pytest.mark.looptime
async def test_an_end_that_was_interrupted_is_finished_later(function: HandlerFunction) -> None:
    """An environment whose invocation is cancelled twice still ends, and until then holds its room."""
    behaviour = Behaviour()
    workers = manager(behaviour, environments=1)
    behaviour.may_answer.clear()
    behaviour.may_end.clear()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(workers.run())
        asking = tasks.create_task(workers.invoke(function, REQUEST))
        await behaviour.started.wait()
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.sleep(0.01)
        assert asking.done()
        came = await workers.invoke(function, REQUEST)
        assert isinstance(came, NotInvoked)
        assert came.status == 429
        behaviour.may_end.set()
        await asyncio.sleep(3.0)
        assert (behaviour.made[0].ended, len(workers._roster)) == (1, 0)
        watching.cancel()


async def test_metrics_show_environments_and_what_happened_to_them(function: HandlerFunction) -> None:
    """By function; nothing before the first invocation."""
    behaviour = Behaviour()
    workers = manager(behaviour)
    collector = SandboxCollector(workers)
    assert [sample for metric in collector.collect() for sample in metric.samples] == []
    await workers.invoke(function, REQUEST)
    counters = workers.counters["f"]
    counters.initialised(0.5)
    counters.ended(OutOfMemory())
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in collector.collect()
        for sample in metric.samples
    }
    assert found["esm_environments", "f", "idle"] == 1
    assert found["esm_environments", "f", "busy"] == 0
    assert found["esm_environment_resets_total", "f", "memory"] == 1
    assert found["esm_environment_resets_total", "f", "timeout"] == 0
    assert (found["esm_init_duration_seconds_count", "f"], found["esm_init_duration_seconds_sum", "f"]) == (1, 0.5)
    await workers.aclose()


def test_code_has_another_version_when_a_file_of_it_changes(tmp_path: Path) -> None:
    """Written, added, removed or made executable; what the interpreter puts there does not count."""
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner/app.py"
    versions = [code_version(str(tmp_path))]
    for change in (
        lambda: file.write_text("1"),
        lambda: file.write_text("22"),
        lambda: file.chmod(0o755),
        lambda: file.rename(tmp_path / "app.py"),
    ):
        change()
        versions.append(code_version(str(tmp_path)))
    assert len(set(versions)) == len(versions)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/app.pyc").write_text("x")
    assert code_version(str(tmp_path)) == versions[-1]


def test_names_that_are_no_text_are_names(tmp_path: Path) -> None:
    """Whoever unpacked them; a node must not end for it."""
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("1")
    before = code_version(str(tmp_path)), code_digest(str(tmp_path))
    (tmp_path / os.fsdecode(b"caf\xe8.txt")).write_text("1")
    assert code_version(str(tmp_path)) != before[0]
    assert code_digest(str(tmp_path)) != before[1]


def test_the_same_code_is_the_same_everywhere(tmp_path: Path) -> None:
    """Wherever it lies and whenever it was written; what is in a file, its name and whether it is a program count."""
    digests = []
    for name in ("here", "there"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner/app.py").write_text("1")
        os.utime(tmp_path / name / "inner/app.py", (len(name), len(name)))
        (tmp_path / name / "__pycache__").mkdir()
        (tmp_path / name / "__pycache__/app.pyc").write_text(name)
        os.mkfifo(tmp_path / name / "pipe")
        digests.append(code_digest(str(tmp_path / name)))
    assert digests[0] == digests[1]
    file = tmp_path / "there/inner/app.py"
    for change in (
        lambda: file.write_text("2"),
        lambda: file.chmod(0o755),
        lambda: file.rename(tmp_path / "there/app.py"),
    ):
        change()
        digests.append(code_digest(str(tmp_path / "there")))
    assert len(set(digests)) == 4
