"""`esmd run`, from the command line to the node, with a node that does what the test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from model.errors import StoreUnavailableError
from model.lease import ALL_ROLES, Role
from model.secret import SecretText
from node import cli, daemon
from node.exits import ExitStatus
from node.options import ListenAddress, Overrides, RunOptions
from node.startup import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from node.signals import Shutdown


@dataclass
class Embedded:
    """The section of that name."""

    kafka: object = None
    aws: object = None


@dataclass
class Fakes:
    """The configuration's settings, and the node that is run with them."""

    redis_url: SecretText | None = None
    listen: str = "127.0.0.1:9001"
    embedded: Embedded = field(default_factory=Embedded)
    node: Callable[[RunOptions, Shutdown], Coroutine[Any, Any, None]] | None = None
    loaded: tuple[Sequence[Path], Overrides] | None = None
    ran: list[RunOptions] = field(default_factory=list)

    def load(self, files: Sequence[Path], overrides: Overrides) -> Fakes:
        """Be the settings."""
        self.loaded = (files, overrides)
        return self

    async def run_node(self, options: RunOptions, shutdown: Shutdown) -> None:
        """Be the node."""
        self.ran.append(options)
        if self.node is not None:
            await self.node(options, shutdown)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Put the fakes in place."""
    made = Fakes()
    monkeypatch.setattr(daemon, "_load", made.load)
    monkeypatch.setattr(daemon, "_wiring", lambda: made.run_node)
    monkeypatch.delenv("ESMD_RUN_REDIS", raising=False)
    return made


def test_the_node_is_told_what_was_asked_for(fakes: Fakes) -> None:
    """Files, roles and overrides arrive; a node that returns ends the process with 0."""
    line = "run a.yaml b.yaml --redis redis://h --listen [::1]:0 --role pollers --data-dir d --drain-timeout 2"
    assert cli.run(line.split()) == 0
    (options,) = fakes.ran
    assert options.files == (Path("a.yaml"), Path("b.yaml"))
    assert options.roles == {Role.POLLERS}
    assert options.overrides.sections() == {
        "redis": {"url": "redis://h"},
        "listen": "[::1]:0",
        "data_dir": "d",
        "drain_timeout": 2.0,
    }
    assert fakes.loaded == (options.files, options.overrides)


def test_a_node_is_told_its_zone(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option or, where many nodes share a command line, by the environment; what is no label is bad usage."""
    monkeypatch.setenv("ESMD_ZONE", "eu-1a")
    assert cli.run(["run", "a.yaml"]) == 0
    assert cli.run(["run", "a.yaml", "--zone", "eu-1b"]) == 0
    assert [options.overrides.zone for options in fakes.ran] == ["eu-1a", "eu-1b"]
    assert cli.run(["run", "a.yaml", "--zone", "a|b"]) == 2
    assert len(fakes.ran) == 2


def test_by_default_a_node_has_every_role_and_the_files_address(fakes: Fakes) -> None:
    """Nothing on the command line changes nothing."""
    assert cli.run(["run", "a.yaml"]) == 0
    (options,) = fakes.ran
    assert (options.roles, options.listen) == (ALL_ROLES, ListenAddress("127.0.0.1", 9001))
    assert options.overrides.sections() == {}


def test_only_the_first_of_several_processes_takes_the_address() -> None:
    """The others serve on loopback, on any free port."""
    settings: Any = Fakes()
    settings.listen = "node.example:9001"
    addresses = [RunOptions((), Overrides(), settings, index).listen for index in range(3)]
    assert addresses == [("node.example", 9001), ("127.0.0.1", 0), ("127.0.0.1", 0)]


def test_each_of_several_processes_knows_how_many_share_the_machine(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent tells its children on their command line, and they their node."""
    fakes.redis_url = SecretText("redis://h")
    commands: list[Sequence[str]] = []

    async def supervise(children: Sequence[Sequence[str]], _shutdown: Shutdown, *, env: object) -> ExitStatus:
        assert env is not None
        commands.extend(children)
        return ExitStatus.DONE

    monkeypatch.setattr(daemon, "supervise", supervise)
    assert cli.run(["run", "a.yaml", "--processes", "3"]) == 0
    told = [[command[command.index(f"--process-{what}") + 1] for what in ("index", "count")] for command in commands]
    assert told == [["0", "3"], ["1", "3"], ["2", "3"]]
    assert cli.run(["run", "--process-count", "3", "a.yaml"]) == 0
    (options,) = fakes.ran
    assert options.process_count == 3


def test_a_component_that_is_not_there_in_time_is_status_3(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    """What is waited for, and why in vain, is said, also from inside a task group."""

    async def probe() -> None:
        raise StoreUnavailableError("connection refused")

    async def node(_options: RunOptions, _shutdown: Shutdown) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait_for("Redis at redis://h:6379", probe, limit_s=0.01))

    fakes.node = node
    assert cli.run(["run", "a.yaml"]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "esmd: Redis at redis://h:6379 could not be reached within 0.01 s: connection refused"


def test_a_stop_while_starting_is_a_clean_stop(fakes: Fakes) -> None:
    """The first signal during start-up ends the process with 0."""

    async def node(_options: RunOptions, shutdown: Shutdown) -> None:
        async with asyncio.TaskGroup() as tasks:

            async def start() -> None:
                async with shutdown.starting():
                    await asyncio.Event().wait()

            tasks.create_task(start())
            await asyncio.sleep(0)
            shutdown.request()

    fakes.node = node
    assert cli.run(["run", "a.yaml"]) == 0


def test_a_crash_leaves_its_traceback_in_the_log(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    """A defect in a running node is logged with where it was, and ends the process with 1."""

    async def node(_options: RunOptions, _shutdown: Shutdown) -> None:
        raise ZeroDivisionError("oops")

    fakes.node = node
    assert cli.run(["run", "a.yaml", "--log-format", "json"]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert '"event":"node.crashed"' in first
    assert "ZeroDivisionError: oops" in first
    assert last.startswith("esmd: unexpected ZeroDivisionError: oops")


def test_several_processes_need_servers_to_share(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    """Processes that would each start a Redis or a broker of their own are refused, with the mend."""
    fakes.embedded.kafka = object()
    assert cli.run(["run", "a.yaml", "--processes", "2"]) == 2
    redis, embedded = capsys.readouterr().err.splitlines()
    assert "--redis URL" in redis
    assert "embedded" in embedded
    assert fakes.ran == []


def test_a_password_reaches_children_through_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for --redis in a child is not ESMD_REDIS_URL, which yields to configuration files."""
    monkeypatch.delenv("ESMD_DEBUG", raising=False)
    monkeypatch.setenv("ESMD_REDIS_URL", "redis://other")
    env = daemon.child_environment(Overrides(redis="redis://:secret@h"), debug=True)
    assert (env["ESMD_RUN_REDIS"], env["ESMD_REDIS_URL"], env["ESMD_DEBUG"]) == (
        "redis://:secret@h",
        "redis://other",
        "1",
    )
    assert "ESMD_RUN_REDIS" not in daemon.child_environment(Overrides(), debug=False)
