"""Replays on this node: a range of a mapping's records once more, beside its live position.

The job is a redrive's (`pollers.redriving.job`): the same target, gate, filter and batches, one batch at a time, one
redrive or replay of a mapping at a time, as long as whoever asked for it listens.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from controlplane.explain import find_mapping
from model.errors import RefusedError
from model.ids import ShardKey
from model.mapping import ScheduleSource, SqsSource
from model.progress import ShardProgress
from node.redrive import EpochMs, Rate, begin, token_of
from pollers.pump_parts import PumpParts
from pollers.redriving.job import Counts, Redrive, Wishes
from pollers.redriving.ranges import NOTHING, Limits, NothingToReread, RangeArchive, of_record
from statemgr.lineage import is_done, parents_first

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from model.mapping import EventSourceMapping
    from node.redrive import Redrives, RunningRedrive, Say
    from node.redrive_parts import RedriveParts
    from node.runtimes import Catalogue, Runtimes
    from statemgr.stores import Store

_TOLD = 20  # records that failed, by name; the others are counted


class ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for. Times are epoch milliseconds; `to_ms` None: now."""

    from_ms: EpochMs
    to_ms: EpochMs | None = None
    function: str | None = None  # instead of the mapping's own
    rate: Rate | None = None
    dry_run: bool = False


class Replays:
    """The replays of a node. They take turns with its redrives."""

    def __init__(
        self,
        catalogue: Catalogue,
        runtimes: Runtimes,
        store: Store,
        parts: RedriveParts,
        redrives: Redrives,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._store = store
        self._parts = parts
        self._redrives = redrives
        self._now_s = now_s

    def prepare(self, name: str, request: ReplayRequest) -> RunningRedrive:
        """Check a request. Raises `NotFoundError`, `RefusedError`, or `ConflictError` when one is under way."""
        record = find_mapping(list(self._catalogue), name)
        mapping = self._catalogue.mapping(record.id)
        now_ms = self._now_s() * 1000
        to_ms = now_ms if request.to_ms is None else request.to_ms
        if isinstance(mapping.source, SqsSource):
            raise RefusedError(f"{mapping.name} reads a queue, which keeps nothing that was delivered")
        if isinstance(mapping.source, ScheduleSource):
            raise RefusedError(f"{mapping.name} is a schedule: invoke its function with `esmd invoke`")
        if mapping.tumbling_window_s:
            raise RefusedError(f"{mapping.name} has tumbling windows: those that the records belong to are closed")
        if to_ms > now_ms:
            raise RefusedError("--to lies ahead: what comes then is delivered then")
        if not 0 <= request.from_ms < to_ms:
            raise RefusedError("--from must lie before --to")
        span_ms = (int(request.from_ms), int(to_ms))
        job = _Replay(self._runtimes, self._store, self._parts, mapping, request=request, span_ms=span_ms)
        return self._redrives.accept(mapping, "the source", job, what="replay")


class _Replay:
    """One replay. `node.redrive.Job`, `pollers.redriving.job.Listener`."""

    def __init__(
        self,
        runtimes: Runtimes,
        store: Store,
        parts: RedriveParts,
        mapping: EventSourceMapping,
        *,
        request: ReplayRequest,
        span_ms: tuple[int, int],
    ) -> None:
        self._runtimes = runtimes
        self._store = store
        self._parts = parts
        self._mapping = mapping
        self._request = request
        self._from_ms, self._to_ms = span_ms
        self._failed = 0
        self._say: Say
        self._archive: RangeArchive
        self._done: Callable[[], int]

    async def run(self, say: Say, stop: asyncio.Event) -> dict[str, Any]:
        """See `Job`."""
        self._say = say
        async with self._runtimes.using(self._mapping.id) as own:
            if not isinstance(own, PumpParts):
                raise RefusedError(f"{self._mapping.name} reads a queue")
            other = self._request.function
            parts = own if other is None else self._parts.for_function(own, other)
            counters = own.counters

            def took(records: int) -> None:
                counters.replayed += records

            reader = self._parts.range(parts, await self._limits(own), from_ms=self._from_ms, to_ms=self._to_ms)
            self._done = reader.done
            self._archive = RangeArchive(reader, batch_size=parts.mapping.batch_size)
            replay = Redrive(
                parts,
                self._archive,
                read=of_record,
                rereading=NothingToReread(),
                token_of=self._token_of,
                took=took,
                listener=self,
                wishes=Wishes(before_ms=self._to_ms, rate=self._request.rate, dry_run=self._request.dry_run),
                stop=stop,
            )
            try:
                total, unit = await reader.total()
                await say(begin(self._mapping, "the source", total, unit, self._request.dry_run))
                counts = await replay.run()
            finally:
                await self._archive.close()
                if other is not None:
                    parts.gate.close()
            return self._told(counts)

    async def _limits(self, parts: PumpParts) -> list[Limits]:
        """Return the shards, parents first, and how far each is replayed.

        To the mapping's own function only what it had once: the rest comes by itself.
        """
        listed = parents_first(await parts.source.shards())
        if self._request.function is not None:
            return [Limits(one.id, None) for one in listed]
        known = await self._store.load_mapping(self._mapping.id)
        limits = []
        for one in listed:
            progress = known.get(ShardKey(self._mapping.id, one.id), ShardProgress())
            until = None if is_done(progress) else progress.position or NOTHING
            limits.append(Limits(one.id, until))
        return limits

    def _told(self, counts: Counts) -> dict[str, Any]:
        """Return the account: every record that was read is in one of the others."""
        read, filtered = self._archive.records, self._archive.filtered
        delivered, failed = counts.delivered_records, counts.failed_records
        return {
            "done": self._done(),
            "read_records": read,
            "filtered_records": filtered,
            "delivered_records": delivered,
            "failed_records": failed,
            "left_records": read - filtered - delivered - failed,
        }

    async def kept(self, document: str, records: int, error: str) -> None:
        """Tell of a record that failed."""
        self._failed += records
        if self._failed <= _TOLD:
            await self._say({"event": "kept", "what": document, "records": records, "error": error})

    async def waiting(self, error: str, retry_in_s: float) -> None:
        """Tell what it waits for."""
        await self._say({"event": "waiting", "error": error, "retry_in_s": round(retry_in_s, 3)})

    async def progress(self, counts: Counts) -> None:
        """Tell how far it is."""
        await self._say({"event": "progress", **self._told(counts)})

    async def _token_of(self, key: ShardKey) -> int:
        return await token_of(self._store, key)
