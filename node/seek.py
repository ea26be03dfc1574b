"""Moving a mapping's position: look up what it comes to in the source, refuse to lose records, and have it done.

The mapping's tracker does it, wherever in the fleet it is held (`statemgr.manager`): nothing of the mapping is read
while its shards move. What is asked for is the same for a mapping that runs and for one that is stopped.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from controlplane.explain import find_mapping
from model.errors import ConflictError, NotFoundError, RefusedError, UnavailableError
from model.ids import TRACKER, ShardId
from model.progress import ShardProgress
from model.seek import SeekWish
from pollers.pump_parts import PumpParts
from pollers.seeking import chosen_shards, moves_of, parse_place, put_together, skipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.mapping import MappingRecord
    from model.shard import SourceShard
    from node.runtimes import Runtimes
    from pollers.seeking import Found, Place, ShardSeek
    from statemgr.stores import Store

log = structlog.get_logger(__name__)

_AT_ONCE = 16  # shards that are looked up
_LOOK_S = 0.2
PATIENCE_S = 60.0
"""How long the answer waits for the move to be made: shards are drained first."""


class SeekRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for."""

    to: str
    shard: str | None = None  # only this one, and what it takes along
    force: bool = False  # also when unread records are passed over
    dry_run: bool = False


class ShardAnswer(msgspec.Struct, frozen=True):
    """What becomes of one shard. `was`, `now`: a checkpoint, or where reading begins without one."""

    id: str
    was: str | None
    now: str
    stays: bool
    follows: bool  # it is read again because a shard it came from is
    skipped_records: int | None  # None: some, nobody knows how many
    skipped_s: float | None


class SeekAnswer(msgspec.Struct, frozen=True):
    """What a seek comes to. `done`: it was made; False: it is only looked at, or the wish for it stands."""

    mapping: str
    uuid: str
    to: str
    dry_run: bool
    done: bool
    skipped_records: int | None
    shards: list[ShardAnswer]


class Seeks:
    """Moves mappings on behalf of clients of this node."""

    def __init__(
        self,
        runtimes: Runtimes,
        store: Store,
        *,
        patience_s: float = PATIENCE_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._runtimes = runtimes
        self._store = store
        self._patience_s = patience_s
        self._now_s = now_s

    async def seek(self, name: str, asked: SeekRequest, *, by: str) -> SeekAnswer:
        """Move a mapping, or say what that would come to.

        Cancelled after the wish was made: the wish stands. Raises `NotFoundError`; `RefusedError` for what cannot be
        done; `ConflictError` when unread records would be passed over, or another seek took the place of this one;
        `UnavailableError` when the source or the store does not answer.
        """
        _, records = await self._store.mappings()  # not by the catalogue: whoever reads that has to tell the workers
        record = find_mapping(records, name)
        place, named = parse_place(asked.to, now_ms=self._now_s() * 1000)
        if named is not None and asked.shard not in (None, named):
            raise RefusedError(f"{asked.to} names one shard, and --shard another")
        shard = named or (None if asked.shard is None else ShardId(asked.shard))
        seeks = await self._look_up(record, place, shard)
        count, told = skipped(seeks)
        if told and not (asked.force or asked.dry_run):
            raise ConflictError(
                f"{record.name}: that passes over unread records, which nobody would deliver: {'; '.join(told[:10])}"
                f"{'; …' if told[10:] else ''}. Add --force if that is meant"
            )
        moves, done = moves_of(seeks), False
        if not asked.dry_run:
            log.info(
                "mapping.seek",
                mapping=record.name,
                uuid=record.id,
                to=asked.to,
                shard=shard,
                by=by,
                force=asked.force,
                skipped=count,
                shards=len(moves),
            )
            done = not moves or await self._have_done(record, SeekWish(moves, by))
        return SeekAnswer(record.name, record.id, asked.to, asked.dry_run, done, count, [_answer(one) for one in seeks])

    async def _look_up(self, record: MappingRecord, place: Place, shard: ShardId | None) -> list[ShardSeek]:
        async with self._runtimes.using(record.id) as parts:
            if not isinstance(parts, PumpParts):
                raise RefusedError(
                    f"{record.name} reads a queue, which has no positions: what is deleted there is gone, and what is "
                    "not is delivered; `esmd redrive` brings back what failed"
                )
            source, room = parts.source, asyncio.Semaphore(_AT_ONCE)
            listed = await source.shards()
            stored = await self._store.load_mapping(record.id)
            known = {key.shard: progress for key, progress in stored.items() if key.shard != TRACKER}

            async def find(one: SourceShard) -> Found:
                async with room:
                    return await source.find(one, place, known.get(one.id, ShardProgress()))

            chosen = chosen_shards(listed, shard)
            try:
                async with asyncio.TaskGroup() as tasks:
                    finding = {one.id: tasks.create_task(find(one), name=f"find {one.id}") for one in chosen}
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None  # one is enough to say why it cannot be done
        return put_together(listed, known, {name: task.result() for name, task in finding.items()})

    async def _have_done(self, record: MappingRecord, wish: SeekWish) -> bool:
        """Make the wish and wait until it is met; False: nobody has met it in time, and it stands."""
        number = await self._store.wish_seek(record.id, wish.encode())
        if number is None:
            raise NotFoundError(f"mapping {record.name} is gone")
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while loop.time() < until:
            await asyncio.sleep(_LOOK_S)
            try:
                present = await self._store.mapping(record.id)
            except UnavailableError:
                continue  # the wish is made: look again
            if present is None:
                raise NotFoundError(f"mapping {record.name} is gone")
            if present.seeks > number:
                raise ConflictError(f"another seek of {record.name} came after this one")
            if present.seeks < number:
                raise ConflictError("the store has lost the wish: ask again")
            if not present.seek:
                return True
        return False


def _answer(one: ShardSeek) -> ShardAnswer:
    found = one.found
    now = (one.was or found.position or found.origin) if found.stays else (found.position or found.origin)
    return ShardAnswer(
        one.shard,
        one.was,
        now,
        found.stays,
        one.after,
        0 if found.stays else found.skips,
        found.skips_s,
    )
