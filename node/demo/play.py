"""The demo's course: start everything, let events flow, deliver what is left, tell how it went."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml

from config.load import load
from config.yaml_document import read_document
from invocation.settings import HandlerFunction
from model.errors import UnavailableError
from node.demo import screen
from node.demo.added import added_functions, reduced, views
from node.demo.function import Report
from node.demo.function_process import FunctionProcess
from node.demo.producers import Producers, Readers, added_queues, rates_for
from node.demo.sandboxed import OWN, SandboxReports, cannot_run, own_function
from node.demo.snapshot import Observer, Phase, Produced, Snapshot, settled
from node.demo.view import Scene
from node.demo.watching import Watch
from node.embedded_aws import EmbeddedAws
from node.embedded_kafka import EmbeddedKafka
from node.options import ListenAddress, Overrides, RunOptions
from node.signals import Shutdown, StoppedWhileStartingError
from node.wiring import run_node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from config.settings import Settings
    from node.demo.added import AddedFunction, FunctionView
    from node.demo.screen import Screen

CONFIG = "demo.yaml"
ADDED = "functions.yaml"
BROKER = "127.0.0.1:9092"  # in the shipped file; the demo puts the real address in
_LISTEN = ListenAddress("127.0.0.1", 9001)
_REFRESH_S = 0.25
_READY_POLL_S = 0.02
_SETTLE_S = 20.0  # for delivering what is left at the end
_ANSWER_S = 5.0
_STOP_S = 5.0  # beyond the node's drain timeout


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says."""

    config: Path
    settings: Settings  # of this file and that of `functions`, as they are
    rate: int
    seconds: float | None
    command: str = "esmd"  # how to call it here
    seed: int = 1
    functions: Path | None = None  # a file of further functions and mappings


@dataclass(frozen=True, slots=True)
class Ended:
    """How it went."""

    status: dict[str, Any]
    report: Report
    produced: Produced
    seconds: float
    first_after_s: float | None
    settled: bool
    no_sandboxes: str | None = None  # why functions did not run in any
    added: tuple[FunctionView, ...] = ()


async def play(wishes: Wishes, data_dir: Path, shutdown: Shutdown, *, started_time_s: float) -> Ended | None:
    """Run the demo to its end, or until `shutdown` asks for it; None when that was before events flowed.

    Raises `UnavailableError` when a part does not start or ends by itself.
    """
    shipped = wishes.settings
    added = () if wishes.functions is None else added_functions(shipped, str(wishes.functions), {})
    async with contextlib.AsyncExitStack() as parts:
        kafka, aws = EmbeddedKafka({}), EmbeddedAws()
        found = _Found({one.name: function for one in added if (function := _tried(shipped, one.name)) is not None})
        producers = Producers.made(wishes.rate, wishes.seed, added_queues(shipped))

        async def start_aws() -> None:
            await parts.enter_async_context(aws)
            await producers.create(aws.endpoint_url)

        async with shutdown.starting(), asyncio.TaskGroup() as starting:
            starting.create_task(parts.enter_async_context(kafka), name="start kafka")
            starting.create_task(found.start(parts), name="start functions")
            starting.create_task(start_aws(), name="start stream and queues")
        functions = found.functions
        configs = _written(wishes, data_dir, functions.configured, kafka.bootstrap_servers, found.missing)
        listener = parts.enter_context(_listener())
        overrides = Overrides(listen=ListenAddress(*listener.getsockname()), data_dir=data_dir)
        settings = load(configs, environ={}, overrides=overrides.sections())
        topics = settings.embedded.kafka.topics if settings.embedded.kafka is not None else {}
        for topic, partitions in topics.items():
            await kafka.create_topic(topic, partitions)
        options = RunOptions(configs, overrides, settings)
        scene = Scene(
            rates=rates_for(wishes.rate),
            command=wishes.command,
            node_url=f"http://{options.listen}",
            config=str(configs[0]),
            log=str(data_dir / "esmd.log"),
            seconds=wishes.seconds,
            no_sandboxes=found.no_sandboxes,
            missing=found.missing,
        )
        session = await parts.enter_async_context(
            aiohttp.ClientSession(scene.node_url, timeout=aiohttp.ClientTimeout(total=_ANSWER_S))
        )
        seen = parts.enter_context(screen.opened(scene))
        servers = _Servers(kafka.bootstrap_servers, aws.endpoint_url, listener)
        added = tuple(replace(one, missing=found.missing.get(one.name)) for one in added)
        watch = Watch([name for one in added for name in one.mappings])
        course = _Course(
            wishes, shutdown, functions, producers, servers, session, seen, added, watch, started_time_s=started_time_s
        )
        ended = await course.run(options)
        return None if ended is None else replace(ended, no_sandboxes=found.no_sandboxes)


def _tried(settings: Settings, name: str) -> HandlerFunction | None:
    """Return a function that can be tried here; one that runs elsewhere cannot."""
    function = settings.target_for(name)
    return function if isinstance(function, HandlerFunction) else None


def _written(
    wishes: Wishes, data_dir: Path, configured: Callable[[str], str], kafka: str, missing: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write down what the node shall run: with the broker's real address, and without functions that cannot run."""
    written = [data_dir / CONFIG]
    written[0].write_text(configured(wishes.config.read_text()).replace(BROKER, kafka))
    if wishes.functions is not None:
        document = reduced(_document(wishes.functions), missing)
        written.append(data_dir / ADDED)
        written[1].write_text(yaml.safe_dump(document, sort_keys=False).replace(BROKER, kafka))
    return tuple(written)


def _document(path: Path) -> dict[str, Any]:
    """Return a configuration file as it stands there; it has been loaded before."""
    found = read_document(path).value
    return found if isinstance(found, dict) else {}


def _listener() -> socket.socket:
    """Take the usual address, so that other commands find the node by themselves, or else a free one, and keep it.

    An address that was only found free may be somebody else's, another demo's perhaps, by the time the node starts.
    """
    for port in (_LISTEN.port, 0):
        with contextlib.suppress(OSError):
            return socket.create_server((_LISTEN.host, port))
    raise UnavailableError("no free port on the loopback interface")


@dataclass(slots=True)
class _Found:
    """The functions: in sandboxes where there can be some, or else in a process of their own."""

    added: Mapping[str, HandlerFunction]
    functions: FunctionProcess | SandboxReports = field(default_factory=SandboxReports)
    no_sandboxes: str | None = None  # why there can be none
    missing: Mapping[str, str] = field(default_factory=dict)  # why added ones cannot run

    async def start(self, parts: contextlib.AsyncExitStack) -> None:
        tried = await cannot_run({**self.added, OWN: own_function()})
        self.no_sandboxes = tried.pop(OWN, None)
        self.missing = tried
        if self.no_sandboxes is not None:
            self.functions = FunctionProcess()
        await parts.enter_async_context(self.functions)


@dataclass(frozen=True, slots=True)
class _Servers:
    """Where the demo's own servers are."""

    kafka: str
    aws: str
    listener: socket.socket  # of the node


@dataclass(slots=True)
class _Course:
    """One demo under way."""

    wishes: Wishes
    shutdown: Shutdown
    functions: FunctionProcess | SandboxReports
    producers: Producers
    servers: _Servers
    session: aiohttp.ClientSession
    seen: Screen
    added: Sequence[AddedFunction]
    watch: Watch
    started_time_s: float
    observer: Observer = field(default_factory=Observer)
    now: Snapshot = field(default_factory=lambda: Snapshot(Phase.STARTING, 0.0))
    status: dict[str, Any] = field(default_factory=lambda: {"node": "", "nodes": [], "mappings": []})

    async def run(self, options: RunOptions) -> Ended | None:
        node_shutdown = Shutdown()
        async with asyncio.TaskGroup() as tasks:
            node = tasks.create_task(self._run_node(options, node_shutdown), name="node")
            helpers = [
                tasks.create_task(self.functions.follow(), name="follow functions"),
                tasks.create_task(self._follow_reloads(node_shutdown), name="follow reloads"),
            ]
            ended = None
            if await self._ready():
                ended = await self._flow(options)
            node_shutdown.request()
            stop_s = options.settings.drain_timeout_s + _STOP_S
            try:
                async with asyncio.timeout(stop_s):
                    await node
            except TimeoutError as error:
                raise UnavailableError(f"the node did not stop within {stop_s:g} s") from error
            for helper in helpers:
                helper.cancel()
        return ended

    async def _run_node(self, options: RunOptions, shutdown: Shutdown) -> None:
        try:
            servers = self.servers
            await run_node(
                options,
                shutdown,
                embedded_kafka=servers.kafka,
                embedded_aws=servers.aws,
                listener=servers.listener,
                watch=self.watch,
            )
        except* StoppedWhileStartingError:
            pass  # contextlib.suppress would not look into the group that a task group makes of it
        if not shutdown.drain.is_set():
            raise UnavailableError("the node ended by itself; its log tells why")

    async def _follow_reloads(self, node_shutdown: Shutdown) -> None:
        """Pass SIGHUP on: the node reads its file again."""
        seen = 0
        while True:
            seen = await self.shutdown.reload_after(seen)
            node_shutdown.request_reload()

    async def _ready(self) -> bool:
        """Wait until the node reads its shards; False when the demo should end instead."""
        await self.seen.show(self.now)
        while not self.shutdown.drain.is_set():
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.session.get("/readyz") as answer:
                    if answer.status == 200:  # noqa: PLR2004 - ready
                        return True
            await asyncio.sleep(_READY_POLL_S)
        return False

    async def _flow(self, options: RunOptions) -> Ended:
        """Produce until the time is over or somebody wants to stop, and deliver all of it."""
        loop, producers, servers = asyncio.get_running_loop(), self.producers, self.servers
        readers = Readers.of(options.settings.mappings)
        async with asyncio.TaskGroup() as tasks:
            began_at = loop.time()
            producers.start(tasks, servers.kafka, servers.aws, readers=readers, now=lambda: self.now)
            ends_at = None if self.wishes.seconds is None else began_at + self.wishes.seconds
            while not (self.shutdown.drain.is_set() or (ends_at is not None and loop.time() >= ends_at)):
                await self._look(Phase.FLOWING, began_at)
                due_at = loop.time() + _REFRESH_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due_at if ends_at is None else min(due_at, ends_at)):
                        await self.shutdown.drain.wait()
            producers.stop()
        seconds = loop.time() - began_at
        produced = producers.produced
        due = producers.due(readers)
        gives_up_at = loop.time() + _SETTLE_S
        while True:
            await self._look(Phase.FINISHING, began_at)
            done = settled(self.status, due)
            if done or loop.time() > gives_up_at:
                break
            await asyncio.sleep(_REFRESH_S)
        # The functions' last report may still be on its way.
        await asyncio.sleep(_REFRESH_S)
        added = views(self.added, self.status, self.watch.tallies)
        return Ended(self.status, self._report(), produced, seconds, self._first_after_s(), done, added=added)

    async def _look(self, phase: Phase, began_at: float) -> None:
        """Ask the node how it is, and show it."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # busy: what it said before has to do for now
            async with self.session.get("/esmd/v1/status", raise_for_status=True) as answer:
                self.status = await answer.json()
            await self.functions.look(self.session)
        at = asyncio.get_running_loop().time()
        self.now = self.observer.observe(
            self.status,
            self._report(),
            at=at,
            phase=phase,
            elapsed_s=at - began_at,
            produced=self.producers.produced,
            first_after_s=self._first_after_s(),
            functions=views(self.added, self.status, self.watch.tallies),
        )
        try:
            await self.seen.show(self.now)
        except OSError:  # the terminal or the pipe is gone, and with it the reason to go on
            if not self.shutdown.drain.is_set():
                self.shutdown.request()

    def _report(self) -> Report:
        """Return what the functions said, and what was seen of those that say nothing."""
        said = self.functions.report
        return Report(said.url, said.first_time_s, {**said.tallies, **self.watch.tallies})

    def _first_after_s(self) -> float | None:
        first_s = self.functions.report.first_time_s
        return None if first_s is None else max(0.0, first_s - self.started_time_s)


def process_started_time_s() -> float:
    """Return when this process was started, epoch seconds; where that cannot be told, now."""
    now_s = time.time()
    try:
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(stat[19]) / os.sysconf("SC_CLK_TCK")
        return now_s - (time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
    except (OSError, ValueError, IndexError, AttributeError):
        return now_s
