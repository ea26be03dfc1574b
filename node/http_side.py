"""All that a node answers over HTTP: its APIs in one order, who may ask and how often, its metrics, and how it ends.

`node.wiring` makes it of the node's other parts, `node.serve` puts its surface on the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from controlplane.lambda_mappings import LambdaMappings
from invocation.frontend import Room
from model.async_event import ASYNC_QUEUE
from model.ids import TRACKER
from model.lease import Role
from model.progress import ShardState
from node.console_api import ConsoleApi
from node.console_feed import Feed, reading
from node.credentials import FleetNodes
from node.environments_api import EnvironmentsApi
from node.health import readiness
from node.invoke_api import InvokeApi
from node.invoke_metrics import InvokeMeters
from node.lambda_api import LambdaApi
from node.lambda_definitions_api import upload_room
from node.lambda_surroundings import NodeSurroundings
from node.mapping_api import MappingApi
from node.openapi_api import OpenApi
from node.plan_api import PlanApi
from node.rate_limits import RateLimits
from node.redrive import Redrives
from node.replay import Replays
from node.sandboxing import SandboxCollector
from node.seek import Seeks
from node.serve import Surface
from node.telemetry import FOLLOWERS, NodeCollector, Telemetry
from node.url_api import FunctionUrls

if TYPE_CHECKING:
    from aiohttp import web

    from invocation.worker_manager import WorkerManager
    from node.async_queue import AsyncQueue
    from node.credentials import Access
    from node.engine import Engine
    from node.fleet_view import FleetView
    from node.function_side import FunctionSide
    from node.health import Readiness
    from node.lambda_definitions_api import LambdaDefinitionsApi
    from node.lambda_functions_api import LambdaFunctionsApi
    from node.parts import Parts
    from node.placement import Placement
    from node.redrive_parts import RedriveParts
    from node.tracing import NodeTraces
    from node.watchdog import Watchdog
    from pollers.counters import Meters
    from statemgr.stores import Store


class Apis(NamedTuple):
    """What has routes of its own, in the order of its routes: where two paths match, the first one answers."""

    mapping: MappingApi
    console: ConsoleApi
    openapi: OpenApi
    environments: EnvironmentsApi
    invoke: InvokeApi | None  # None: a node that is no front end
    urls: FunctionUrls | None
    definitions: LambdaDefinitionsApi
    functions: LambdaFunctionsApi
    mappings: LambdaApi
    plan: PlanApi


def routes(apis: Apis) -> list[web.AbstractRouteDef]:
    """Return all routes, for `node.serve.Surface`."""
    return [route for api in apis if api is not None for route in api.routes()]


class HttpSide:
    """Make it, show its `surface` and `run` it; to end it, `begin_drain` and `drain`."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        parts: Parts,
        *,
        view: FleetView,
        meters: Meters,
        events: AsyncQueue,
        functions: FunctionSide,
        placement: Placement,
        workers: WorkerManager,
        redriving: RedriveParts,
        traces: NodeTraces,
        roles: frozenset[Role],
    ) -> None:
        self._store = store
        self._catalogue = engine.catalogue
        self._leasing = engine.leasing
        self._parts = parts
        self._view = view
        self._meters = meters
        self._events = events
        self._functions = functions
        self._placement = placement
        self._workers = workers
        self._traces = traces
        self._roles = roles
        self._invoke_meters = InvokeMeters()
        self._room = Room()
        self._redrives = Redrives(engine.catalogue, engine.runtimes, store, redriving, present=view.present_shards)
        self._replays = Replays(engine.catalogue, engine.runtimes, store, redriving, self._redrives)
        self._seeks = Seeks(engine.runtimes, store)
        self._feed = Feed(reading(engine.catalogue, meters, view.status))
        self._draining = False

    def surface(self, access: Access, watchdog: Watchdog) -> Surface:
        """Return what the node shows to those to whom `access` is given."""
        guarded = bool(access.methods)
        limits = RateLimits(self._parts.settings.rate_limits)
        apis = self._apis(guarded=guarded)
        return Surface(
            alive=lambda: watchdog.alive,
            ready=self._ready,
            metrics=self._telemetry(watchdog, limits).exposition,
            status=self._view.status,
            before=[upload_room(lambda: self._functions.uploaded.creating)],
            credentials=(FleetNodes(self._placement.secret), *access.methods) if guarded else (),
            routes=routes(apis),
            public=apis.console.public_paths,
            limits=limits,
        )

    async def run(self) -> None:
        """Read what the console shows for as long as somebody looks, until cancelled."""
        await self._feed.run()

    def begin_drain(self) -> None:
        """Be ready no more, and end what lasts as long as its client listens: redrives, replays and consoles."""
        self._draining = True
        self._redrives.stop()
        self._feed.stop()

    async def drain(self, timeout_s: float) -> None:
        """Take on no more invocations, and wait until those taken on are done, for so long at most."""
        await self._room.drain(timeout_s)

    def _telemetry(self, watchdog: Watchdog, limits: RateLimits) -> Telemetry:
        collector = NodeCollector(
            self._meters,
            leasing=self._leasing,
            loop_lag=watchdog.lag,
            labels=self._catalogue.labels,
            known=self._catalogue.all_labels,
        )
        telemetry = Telemetry(collector)
        telemetry.registry.register(SandboxCollector(self._workers))
        telemetry.registry.register(self._invoke_meters)
        telemetry.registry.register(self._functions)
        telemetry.registry.register(self._traces)
        telemetry.registry.register(limits)
        telemetry.gauge(*FOLLOWERS, lambda: self._feed.followers)
        telemetry.registry.register(self._events.collector)
        telemetry.registry.register(self._placement)
        return telemetry

    def _apis(self, *, guarded: bool) -> Apis:
        front_end = self._events.front_end if Role.FRONTEND in self._roles else None
        called = (self._room, self._invoke_meters)
        around = NodeSurroundings(lambda: self._parts.settings, self._parts, trusted=guarded)
        mappings = LambdaMappings(self._store, around, live=self._meters.view, node=lambda: self._view.node)
        definitions, functions = self._functions.apis()
        return Apis(
            mapping=MappingApi(
                explain=self._view.explain, redrives=self._redrives, replays=self._replays, seeks=self._seeks
            ),
            console=ConsoleApi(self._feed),
            openapi=OpenApi(guarded=guarded),
            environments=EnvironmentsApi(self._placement, self._workers, self._room),
            invoke=None if front_end is None else InvokeApi(front_end, *called),
            urls=None if front_end is None else FunctionUrls(front_end, *called, guarded=guarded),
            definitions=definitions,
            functions=functions,
            mappings=LambdaApi(mappings),
            plan=PlanApi(self._store, around),
        )

    def _ready(self) -> Readiness:
        unread = {
            key
            for key in self._leasing.held
            if key.shard != TRACKER
            and key.mapping != ASYNC_QUEUE  # has no positions
            and ((view := self._meters.view(key)) is None or view.report.state is ShardState.STARTING)
        }
        return readiness(self._leasing, unread=unread, draining=self._draining)
