"""What the fleet runs under a lease: a pump for a shard, a tracker for a mapping, holding the mapping's runtime."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

from model.errors import MappingRefusedError, NotFoundError, RefusedError, UnavailableError
from model.ids import TRACKER, ShardKey
from model.mapping import MappingState, SqsSource
from model.progress import ProgressUpdate, ShardReport, ShardState
from model.shard import SourceShard
from pollers.blocking import tenures
from pollers.counters import ShardView
from pollers.pump import Pump
from pollers.queue_calls import QueueParts
from pollers.queue_pump import QueuePump
from pollers.sought import moved
from pollers.visibility import too_short
from statemgr.manager import DISCOVERY_S, Tracker
from statemgr.queue_scaler import SCALING_S, QueueScaler
from statemgr.scaling import Allotment, ScalingLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasing.held import HeldLease
    from model.ids import MappingId
    from model.mapping import MappingRecord
    from node.runtimes import Catalogue, Runtimes
    from pollers.counters import ShardProbe
    from pollers.pump_parts import PumpParts
    from pollers.queue_ports import QueueFacts
    from statemgr.stores import Store

log = structlog.get_logger(__name__)

_REFUSED_S = 30.0
_LOOK_S = 15.0  # how often a shard that was read to its end is looked after


class PumpWorker:
    """Pumps one shard with its mapping's runtime. `pollers.fleet.Worker`."""

    def __init__(self, lease: HeldLease, catalogue: Catalogue, runtimes: Runtimes, store: Store) -> None:
        self._lease = lease
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._store = store
        self._pump: Pump | QueuePump | None = None
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Pump until drained. A mapping this node cannot work on is reported, and tried again after a while."""
        try:
            async with self._runtimes.using(self._lease.key.mapping) as parts:
                found = self._lease.progress
                if _at_its_end(self._lease, parts):
                    as_found = ShardView(found.report, found.ledger)
                    if await self._stay_drained(parts, lambda: as_found):
                        return
                pump = self._pump = self._make_pump(parts)
                self._try_parked()
                if self._draining.is_set():
                    return
                if await pump.run() and isinstance(pump, Pump):
                    while not await self._stay_drained(parts, pump.view):
                        with suppress(UnavailableError):
                            await parts.checkpointer.save_again(self._lease.key)
        except (RefusedError, NotFoundError) as exc:
            log.error("worker.refused", shard=str(self._lease.key), error=str(exc))  # noqa: TRY400 - no bug, no traceback
            await self._tell(str(exc))
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFUSED_S):
                    await self._draining.wait()

    async def _stay_drained(self, parts: PumpParts | QueueParts, view: ShardProbe) -> bool:
        """Keep the lease of a shard that was read to its end until the tracker wants the shard no more.

        Whoever finds it like that does not read it again: nothing that he could say of it would be truer. Its children
        wait for its end, so a store that has lost it, by a fail-over, must be told: False as soon as that shows.
        """
        key, known = self._lease.key, False
        with parts.counters.probed(key, view):
            while True:
                with suppress(UnavailableError):  # the tracker finds it out by itself, a little later
                    if not known:
                        await self._store.report_drained(self._lease.lease)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._draining.wait()
                if self._draining.is_set():
                    return True
                with suppress(UnavailableError):
                    progress = (await self._store.load([key])).get(key)
                    known = progress is not None and progress.report.state is ShardState.DRAINED
                    if not known:
                        log.warning("shard.drained_again", shard=str(key), why="the store has lost it")
                        return False

    def _make_pump(self, parts: PumpParts | QueueParts) -> Pump | QueuePump:
        if isinstance(parts, QueueParts):
            return QueuePump(parts, self._lease, allotment=self._allotment)
        return Pump(parts, self._lease)

    async def _allotment(self) -> Allotment | None:
        """Read what the mapping's tracker allows its queue."""
        tracker = ShardKey(self._lease.key.mapping, TRACKER)
        progress = (await self._store.load([tracker])).get(tracker)
        return None if progress is None else Allotment.decode(progress.state)

    def drain(self) -> None:
        """Let the pump finish what is under way."""
        self._draining.set()
        if self._pump is not None:
            self._pump.drain()

    def refresh(self) -> None:
        """Bring the pump's report up to date."""
        if self._pump is not None:
            self._pump.refresh()

    def mapping_changed(self, *, document: bool) -> None:
        """Come back with the present document; try what is parked if an operator wishes it."""
        if document:
            self.drain()
        else:
            self._try_parked()

    def _try_parked(self) -> None:
        record = self._catalogue.record(self._lease.key.mapping)
        if record is not None and self._pump is not None:
            self._pump.try_parked(record.parked_tries)

    async def _tell(self, error: str) -> None:
        progress = self._lease.progress
        update = ProgressUpdate(
            key=self._lease.key,
            token=self._lease.token,
            node=self._lease.node,
            position=None,
            ledger=progress.ledger,
            report=ShardReport(
                ShardState.FAILED,
                last_result=f"PROBLEM: {error}",
                last_error=error,
                error_time=time.time(),
                tenures=tenures(progress, self._lease.lease, time.time()),
            ),
            state=progress.state,
            origin=progress.origin,
        )
        with suppress(UnavailableError):
            await self._store.save([update])


class TrackerWorker:
    """Follows one mapping. `pollers.fleet.Worker`."""

    def __init__(self, lease: HeldLease, catalogue: Catalogue, runtimes: Runtimes, store: Store) -> None:
        self._mapping: MappingId = lease.key.mapping
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._short: str | None = None  # as logged
        self._scaler = QueueScaler(
            store,
            lease.key.mapping,
            clock=asyncio.get_running_loop().time,
            before=Allotment.decode(lease.progress.state),
        )
        self._tracker = Tracker(
            store,
            lease,
            current=self._current,
            discover=self._discover,
            discovery_s=SCALING_S if _is_queue(catalogue, lease.key.mapping) else DISCOVERY_S,
            state=self._scaler.state,
            moved=moved,
        )

    async def run(self) -> None:
        """Follow the mapping until drained or until it is gone."""
        await self._tracker.run()

    def drain(self) -> None:
        """End after the step under way."""
        self._tracker.drain()

    def refresh(self) -> None:
        """Nothing to bring up to date."""
        self._tracker.refresh()

    def mapping_changed(self, *, document: bool) -> None:  # noqa: ARG002 - either way the tracker looks again
        """Look at the mapping again."""
        self._tracker.changed()

    def _current(self) -> tuple[MappingRecord, bool] | None:
        record = self._catalogue.record(self._mapping)
        if record is None:
            return None
        if record.state is MappingState.DELETING:
            return record, False  # its document need not be readable any more
        return record, msgspec.json.decode(record.document, type=_Enabled).Enabled

    async def _discover(self) -> Sequence[SourceShard]:
        try:
            async with self._runtimes.using(self._mapping) as parts:
                if isinstance(parts, QueueParts):
                    facts = await parts.source.facts()
                    self._check_visibility(parts, facts)
                    pollers = await self._scaler.shards(facts, ScalingLimits.of(parts.mapping))
                    return [SourceShard(poller) for poller in pollers]
                return await parts.source.shards()
        except NotFoundError as exc:
            raise RefusedError(str(exc)) from exc

    def _check_visibility(self, parts: QueueParts, facts: QueueFacts) -> None:
        """Refuse or warn, as docs/sqs.md says. Raises `MappingRefusedError`.

        AWS looks when a mapping is made or changed: one that works already goes on, whatever becomes of its queue.
        """
        short = too_short(facts.visibility_s, parts.function_timeout_s)
        record = self._catalogue.record(self._mapping)
        working = record is not None and record.state is MappingState.ENABLED
        if short is not None and not working and not parts.mapping.extensions.visibility_heartbeat:
            raise MappingRefusedError(short)
        if short is not None and short != self._short:
            log.warning(
                "queue.visibility_short",
                mapping=parts.mapping.name,
                why=short,
                extended=parts.mapping.extensions.visibility_heartbeat,
            )
        self._short = short


def _at_its_end(lease: HeldLease, parts: PumpParts | QueueParts) -> bool:
    """Whether the last holder read a shard to its end. Not of a queue: its pollers are whenever they leave."""
    return lease.progress.report.state is ShardState.DRAINED and not isinstance(parts, QueueParts)


def _is_queue(catalogue: Catalogue, mapping: MappingId) -> bool:
    try:
        return isinstance(catalogue.mapping(mapping).source, SqsSource)
    except (NotFoundError, RefusedError):
        return False


class _Enabled(msgspec.Struct):
    Enabled: bool = True
