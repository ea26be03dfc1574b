"""Put a node together: servers, store, leasing, fleet, HTTP surface; start it, and stop it in order."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from config.load import load
from config.secrets import Secrets
from controlplane.mappings import Desired, apply
from invocation.client import Targets
from model.errors import ConflictError, UnavailableError
from model.mapping_rules import canonical_document
from model.problem import InvalidConfigurationError
from node import collector
from node.async_queue import AsyncQueue
from node.credentials import Access
from node.engine import Engine
from node.fleet_view import FleetView
from node.function_side import FunctionSide
from node.http_side import HttpSide
from node.parts import Parts, unsupported_settings, works_alike
from node.placement import Placement
from node.redrive_parts import RedriveParts
from node.sandboxing import worker_manager
from node.serve import application, serving
from node.servers import open_store, sources_reached, start_aws, start_kafka
from node.tls import ServerTls
from node.tracing import NodeTraces, tracing
from node.watchdog import Watchdog
from pollers.checkpointer import Checkpointer
from pollers.counters import Meters
from pollers.destinations.aws_clients import AwsClients

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import ConfiguredMapping, Settings
    from invocation.worker_manager import WorkerManager
    from model.secret import SecretResolver
    from node.options import RunOptions
    from node.signals import Shutdown
    from pollers.tracing import Traces
    from statemgr.stores import Store

log = structlog.get_logger(__name__)


async def run_node(
    options: RunOptions,
    shutdown: Shutdown,
    *,
    embedded_kafka: str | None = None,
    embedded_aws: str | None = None,
    listener: socket.socket | None = None,
    watch: Callable[[Traces], Traces] | None = None,
) -> None:
    """Run a node until asked to drain, and drain it.

    `embedded_kafka` and `embedded_aws` are where the caller runs that broker and those services already; `listener`
    listens already at the address that the options say. `watch` wraps what traces the attempts of pollers.

    Raises `InvalidConfigurationError` for what this version cannot do, `NotReachedInTimeError` when Redis or a broker
    does not answer in time, OSError when the address is taken.
    """
    settings = options.settings
    _check_supported(settings)
    resolver = Secrets()
    async with AsyncExitStack() as servers:
        async with shutdown.starting():
            kafka = embedded_kafka or await start_kafka(settings, servers)
            local_aws = embedded_aws or await start_aws(settings, servers)
            store = await open_store(settings, resolver, servers)
            region, endpoint_url = settings.aws.region, settings.aws.endpoint_url
            if endpoint_url is not None:
                local_aws = None  # its owner says which one this node is to use
            functions = FunctionSide(settings, store)
            workers = await servers.enter_async_context(
                worker_manager(settings, resolver, limits=lambda: functions.view.reserved, nodes=options.process_count)
            )
            placement = await servers.enter_async_context(
                Placement(store.placement, workers, lambda: functions.settings.functions)
            )
            targets = await servers.enter_async_context(
                Targets(
                    resolver,
                    region=region,
                    aws_endpoint_url=endpoint_url,
                    embedded_aws=local_aws,
                    runner=placement.placing,
                    counter=functions.counting,
                )
            )
            aws = await servers.enter_async_context(
                AwsClients(region=region, endpoint_url=endpoint_url or local_aws, embedded=local_aws is not None)
            )
            access = Access(settings.auth, resolver)
            await access.read()
            tls = None if settings.tls is None else ServerTls(settings.tls)
            traces = await servers.enter_async_context(tracing(os.environ, node=_node_name()))
            if watch is not None:
                traces = replace(traces, of=watch(traces.of))
        node = Node(
            options,
            store,
            resolver,
            targets,
            aws,
            workers=workers,
            functions=functions,
            placement=placement,
            embedded_kafka=kafka,
            embedded_aws=local_aws is not None,
            listener=listener,
            traces=traces,
        )
        await node.run(shutdown, access, tls)


class Node:
    """One node's parts, wired."""

    def __init__(
        self,
        options: RunOptions,
        store: Store,
        resolver: SecretResolver,
        targets: Targets,
        aws: AwsClients,
        *,
        workers: WorkerManager,
        functions: FunctionSide,
        placement: Placement,
        embedded_kafka: str | None = None,
        embedded_aws: bool = False,
        listener: socket.socket | None = None,
        traces: NodeTraces | None = None,
    ) -> None:
        self._listener = listener
        self._traces = traces or NodeTraces()
        self._workers = workers
        self._functions = functions
        self._placement = placement
        self._options = options
        self._settings = options.settings
        self._store = store
        self._resolver = resolver
        self._targets = targets
        self._aws = aws
        self._embedded_kafka = embedded_kafka
        self._embedded_aws = embedded_aws
        self._meters = Meters()
        self._name = _node_name()

    async def run(self, shutdown: Shutdown, access: Access, tls: ServerTls | None = None) -> None:
        """Run until asked to drain, then drain within the drain timeout."""
        settings = self._settings
        async with asyncio.TaskGroup() as tasks:
            checkpointer = Checkpointer(self._store)
            self._parts = Parts(
                settings,
                tasks=tasks,
                resolver=self._resolver,
                targets=self._targets,
                aws=self._aws,
                meters=self._meters,
                checkpointer=checkpointer,
                embedded_kafka=self._embedded_kafka,
                embedded_aws=self._embedded_aws,
                traces=self._traces.of,
            )
            events = AsyncQueue(self._store, self._parts, self._functions.view, self._aws, self._traces.events)
            self._engine = Engine(
                self._store,
                checkpointer,
                self._parts,
                name=self._name,
                roles=self._options.roles,
                zone=self._options.overrides.zone or "",
                ttl_s=settings.leasing.ttl_s,
                hand_over_s=settings.drain_timeout_s,
                desired=self._desired,
                functions=self._functions.files,
                make_partition_worker=events.worker,
            )
            self._functions.uploaded.changed = self._functions_changed
            leasing = self._engine.leasing
            http = HttpSide(
                self._store,
                self._engine,
                self._parts,
                view=FleetView(self._store, leasing, self._meters.view, name=self._name),
                meters=self._meters,
                events=events,
                functions=self._functions,
                placement=self._placement,
                workers=self._workers,
                redriving=RedriveParts(self._parts, resolver=self._resolver, targets=self._targets, aws=self._aws),
                traces=self._traces,
                roles=self._options.roles,
            )
            async with shutdown.starting():
                await self._bring_up()
            watchdog = Watchdog(on_lag=lambda _lag_s: leasing.check())
            app, context = application(http.surface(access, watchdog)), None if tls is None else tls.context
            async with serving(app, self._options.listen, context, listener=self._listener) as address:
                leasing.address = str(address)
                self._placement.joined(
                    leasing,
                    address,
                    roles=self._options.roles,
                    tls=tls is not None,
                    guarded=bool(access.methods),
                )
                background = [
                    tasks.create_task(watchdog.run(), name="watchdog"),
                    tasks.create_task(self._workers.run(), name="worker manager"),
                    tasks.create_task(http.run(), name="console"),
                    tasks.create_task(events.run(), name="asynchronous queue"),
                    tasks.create_task(self._functions.run(), name="functions"),
                    tasks.create_task(self._placement.run(), name="placement"),
                    tasks.create_task(self._follow_reloads(shutdown), name="follow reloads"),
                    tasks.create_task(access.run(), name="follow credentials"),
                ]
                if tls is not None:
                    background.append(tasks.create_task(tls.run(), name="follow the certificate"))
                engine = tasks.create_task(self._engine.run(), name="engine")
                collector.settle()
                log.info("node.started", node=self._name, roles=sorted(self._options.roles), listen=str(address))
                await shutdown.drain.wait()
                http.begin_drain()
                async with asyncio.TaskGroup() as draining:
                    draining.create_task(self._placement.withdraw())
                    draining.create_task(http.drain(settings.drain_timeout_s))
                    draining.create_task(self._engine.drain(settings.drain_timeout_s))
                await engine
                for task in background:
                    task.cancel()
        await self._functions.counting.aclose()
        log.info("node.stopped", node=self._name)

    def _desired(self) -> list[Desired]:
        return [_desired(configured) for configured in self._settings.event_source_mappings]

    async def _bring_up(self) -> None:
        """Put the files' mappings into the store and wait for their brokers."""
        await self._engine.take_up_files()
        await self._functions.uploaded.follow()
        names = {configured.mapping.name for configured in self._settings.event_source_mappings}
        strangers = [record.name for record in self._engine.catalogue if record.name not in names]
        if strangers:
            log.info("mappings.not_in_files", names=strangers)
        asked = [one.mapping.name for one in self._settings.event_source_mappings if one.mapping.enabled]
        await sources_reached(asked, self._engine.catalogue, self._engine.runtimes)

    async def _follow_reloads(self, shutdown: Shutdown) -> None:
        """Read the files again on SIGHUP, and change only what changed."""
        seen = shutdown.reloads
        while True:
            seen = await shutdown.reload_after(seen)
            try:
                settings = load(self._options.files, overrides=self._options.overrides.sections())
                _check_supported(settings)
                await self._reload(settings)
            except InvalidConfigurationError as exc:
                log.error("reload.refused", problems=[str(problem) for problem in exc.problems])  # noqa: TRY400
            except (UnavailableError, ConflictError) as exc:
                log.error("reload.failed", error=str(exc))  # noqa: TRY400

    async def _reload(self, settings: Settings) -> None:
        files, before = self._functions.files_settings, self._take(settings)
        gone = {c.mapping.name for c in before.event_source_mappings} - {
            c.mapping.name for c in settings.event_source_mappings
        }
        changes = await apply(self._store, self._desired(), gone=gone)
        await self._functions.reload(before=files)
        log.info("reload.done", changes=[f"{change.kind} {change.record.name}" for change in changes])
        self._renew_targets(before)

    def _take(self, files: Settings) -> Settings:
        """Have files' settings hold, with the functions that the API made; return those before."""
        before, self._settings = self._settings, self._functions.take(files)
        self._parts.take(self._settings)
        return before

    def _functions_changed(self) -> None:
        self._renew_targets(self._take(self._functions.files_settings))

    def _renew_targets(self, before: Settings) -> None:
        self._engine.renew(lambda name: not works_alike(before.target_for(name), self._settings.target_for(name)))


def _node_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _check_supported(settings: Settings) -> None:
    problems = unsupported_settings(settings)
    if problems:
        raise InvalidConfigurationError(problems)


def _desired(configured: ConfiguredMapping) -> Desired:
    mapping = configured.mapping
    document = canonical_document(configured.document)
    return Desired(mapping.id, mapping.name, document, mapping.enabled, mapping.extensions.renamed_from)
