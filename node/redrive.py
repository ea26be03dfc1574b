"""Redrives on this node: one at a time for a mapping, each as long as whoever asked for it listens.

What is done is `pollers.redriving` for destinations and `controlplane.parked_redrive` for parking lots. Here one of
them is chosen, and what happens becomes documents for the client.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
import structlog

from controlplane.explain import find_mapping
from controlplane.parked_redrive import ParkedCounts, ParkedRedrive
from model.errors import ConflictError, RefusedError
from pollers.pump_parts import PumpParts
from pollers.redriving.choice import PARKED, choose
from pollers.redriving.job import Counts, Redrive, Wishes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from model.ids import MappingId, ShardKey
    from model.mapping import EventSourceMapping
    from model.progress import ParkedKey, ShardProgress
    from node.redrive_parts import RedriveParts
    from node.runtimes import Catalogue, Runtimes
    from statemgr.stores import Store

    Say = Callable[[dict[str, Any]], Awaitable[None]]  # takes a document for the client; may make the redrive wait

log = structlog.get_logger(__name__)


MIN_RATE = 1e-6
"""Records a second: one in eleven days."""

Rate = Annotated[float, msgspec.Meta(ge=MIN_RATE)]
"""Records a second."""

EpochMs = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Epoch milliseconds, to the end of the year 9999."""


class RedriveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for."""

    destination: str | None = msgspec.field(default=None, name="from")
    since_ms: EpochMs | None = None
    rate: Rate | None = None
    dry_run: bool = False


class Job(Protocol):
    """A redrive that can be started."""

    async def run(self, say: Say, stop: asyncio.Event) -> dict[str, Any]:
        """Do it, and return what it came to. Raises `RefusedError` and `UnavailableError`."""


class Redrives:
    """The redrives of a node. `present` tells what is known of a mapping's shards by now."""

    def __init__(
        self,
        catalogue: Catalogue,
        runtimes: Runtimes,
        store: Store,
        parts: RedriveParts,
        *,
        present: Callable[[MappingId], Awaitable[Mapping[ShardKey, ShardProgress]]],
    ) -> None:
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._store = store
        self._parts = parts
        self._present = present
        self._running: dict[MappingId, asyncio.Event] = {}
        self._closing = False

    def prepare(self, name: str, request: RedriveRequest) -> RunningRedrive:
        """Check a request. Raises `NotFoundError`, `RefusedError`, or `ConflictError` when one is under way."""
        record = find_mapping(list(self._catalogue), name)
        mapping = self._catalogue.mapping(record.id)
        destination = choose(mapping, request.destination)
        job: Job
        if destination == PARKED:
            if request.rate is not None or request.since_ms is not None:
                raise RefusedError("parked keys are tried one after the other: --rate and --since are for destinations")
            job = _Parked(self._store, mapping, dry_run=request.dry_run, present=lambda: self._present(mapping.id))
        else:
            wishes = Wishes(
                before_ms=time.time() * 1000, since_ms=request.since_ms, rate=request.rate, dry_run=request.dry_run
            )
            job = _FromDestination(self._runtimes, self._store, self._parts, mapping, source=destination, wishes=wishes)
        return self.accept(mapping, destination, job)

    def accept(self, mapping: EventSourceMapping, source: str, job: Job, *, what: str = "redrive") -> RunningRedrive:
        """Give a job its turn, unless one is under way for the mapping. Raises `ConflictError`."""
        if self._closing:
            raise ConflictError("this node is stopping; ask another one")
        if mapping.id in self._running:
            raise ConflictError(f"a redrive or replay of {mapping.name} is under way on this node")
        return RunningRedrive(self._running, mapping, source, job, what)

    def stop(self) -> None:
        """Stop all of them, after what is under way, and begin no more."""
        self._closing = True
        for stop in self._running.values():
            stop.set()


class RunningRedrive:
    """One redrive, from being accepted on. `run` must follow at once."""

    def __init__(
        self,
        running: dict[MappingId, asyncio.Event],
        mapping: EventSourceMapping,
        source: str,
        job: Job,
        what: str,
    ) -> None:
        self.stop = running[mapping.id] = asyncio.Event()
        self._running = running
        self._mapping = mapping
        self._source = source
        self._job = job
        self._what = what

    async def run(self, say: Say) -> None:
        """Do it, telling what happens. Raises `RefusedError` and `UnavailableError`."""
        said = log.bind(mapping=self._mapping.name, source=self._source)
        began = time.monotonic()
        said.info(f"{self._what}.began")
        try:
            counts = await self._job.run(say, self.stop)
        finally:
            del self._running[self._mapping.id]
        seconds = round(time.monotonic() - began, 3)
        said.info(f"{self._what}.ended", stopped=self.stop.is_set(), seconds=seconds, **counts)
        await say({"event": "end", "stopped": self.stop.is_set(), "seconds": seconds, **counts})


class _FromDestination:
    """A redrive of failure documents. `pollers.redriving.job.Listener`."""

    def __init__(
        self,
        runtimes: Runtimes,
        store: Store,
        parts: RedriveParts,
        mapping: EventSourceMapping,
        *,
        source: str,
        wishes: Wishes,
    ) -> None:
        self._runtimes = runtimes
        self._store = store
        self._parts = parts
        self._mapping = mapping
        self._source = source
        self._wishes = wishes
        self._say: Say

    async def run(self, say: Say, stop: asyncio.Event) -> dict[str, Any]:
        """See `Job`."""
        self._say = say
        async with self._runtimes.using(self._mapping.id) as parts:
            if not isinstance(parts, PumpParts):
                raise RefusedError(f"{self._mapping.name} reads a queue")
            reader, counters = self._parts.reader(self._mapping), parts.counters

            def took(records: int) -> None:
                counters.redriven += records

            archive = self._parts.archive(self._mapping, self._source, self._wishes)
            redrive = Redrive(
                parts,
                archive,
                read=lambda found: reader.read(found.body),
                took=took,
                rereading=self._parts.rereading(parts),
                token_of=self._token_of,
                listener=self,
                wishes=self._wishes,
                stop=stop,
            )
            await say(begin(self._mapping, str(archive), await archive.count(), "documents", self._wishes.dry_run))
            counts = await redrive.run()
            return {**msgspec.structs.asdict(counts), "skipped": dict(redrive.skipped)}

    async def kept(self, document: str, records: int, error: str) -> None:
        """Tell of a document that stays."""
        await self._say({"event": "kept", "what": document, "records": records, "error": error})

    async def waiting(self, error: str, retry_in_s: float) -> None:
        """Tell what it waits for."""
        await self._say({"event": "waiting", "error": error, "retry_in_s": round(retry_in_s, 3)})

    async def progress(self, counts: Counts) -> None:
        """Tell how far it is."""
        await self._say({"event": "progress", "done": counts.documents, **msgspec.structs.asdict(counts)})

    async def _token_of(self, key: ShardKey) -> int:
        return await token_of(self._store, key)


async def token_of(store: Store, key: ShardKey) -> int:
    """Return the token of whoever worked on a shard last."""
    progress = (await store.load([key])).get(key)
    return 0 if progress is None or progress.token is None else progress.token


class _Parked:
    """A redrive of parking lots. `controlplane.parked_redrive.Watch`."""

    def __init__(
        self,
        store: Store,
        mapping: EventSourceMapping,
        *,
        dry_run: bool,
        present: Callable[[], Awaitable[Mapping[ShardKey, ShardProgress]]],
    ) -> None:
        self._store = store
        self._mapping = mapping
        self._dry_run = dry_run
        self._present = present
        self._say: Say

    async def run(self, say: Say, stop: asyncio.Event) -> dict[str, Any]:
        """See `Job`."""
        self._say = say
        redrive = ParkedRedrive(self._store, self._mapping.id, present=self._present, watch=self, stop=stop)
        await say(begin(self._mapping, PARKED, await redrive.parked(), "records", self._dry_run))
        if self._dry_run:
            parked = (await redrive.look()).parked
            return {**msgspec.structs.asdict(Counts(delivered_records=parked)), "skipped": {}}
        counts = await redrive.run()
        failed = 0 if stop.is_set() else counts.parked - counts.delivered
        came_to = Counts(delivered_records=counts.delivered, failed_records=failed)
        return {**msgspec.structs.asdict(came_to), "skipped": {}}

    async def looked(self, counts: ParkedCounts) -> None:
        """Tell how far it is."""
        done = msgspec.structs.asdict(Counts(delivered_records=counts.delivered))
        await self._say({"event": "progress", "done": counts.delivered, **done})

    async def still_parked(self, key: ParkedKey, shard: ShardKey) -> None:
        """Tell of a key that stays parked."""
        error = "it waits for its turn" if key.error is None else key.error
        await self._say(
            {"event": "kept", "what": f"key {key.key} of {shard.shard}", "records": key.records, "error": error}
        )


def begin(mapping: EventSourceMapping, source: str, total: int | None, unit: str, dry_run: bool) -> dict[str, Any]:  # noqa: FBT001 - a field of the document
    """Return the first document for the client."""
    return {
        "event": "begin",
        "mapping": mapping.name,
        "from": source,
        "total": total,
        "unit": unit,
        "dry_run": dry_run,
    }
