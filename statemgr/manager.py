"""The state manager of one mapping: discover its shards, say which are wanted, move its state (spec section 7.3).

It runs under the lease of the mapping's tracker shard, so exactly one node does this for a mapping, and every write
carries that lease's token.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from model.errors import (
    LeaseLostError,
    MappingRefusedError,
    RefusedError,
    StoreUnavailableError,
    UnavailableError,
)
from model.ids import TRACKER, ShardId, ShardKey
from model.lease import Lease, ShardKind, WantedShard
from model.mapping import MappingState
from model.progress import (
    Ledger,
    ParkedRecords,
    ProgressUpdate,
    SaveResult,
    ShardProgress,
    ShardReport,
    ShardState,
)
from model.seek import Move, SeekWish
from model.shard import BEGINNING
from statemgr.lineage import heirs, trace
from statemgr.weighing import reweigh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from model.mapping import MappingRecord
    from model.progress import ParkedChange
    from model.shard import SourceShard
    from statemgr.stores import Store

log = structlog.get_logger(__name__)

DISCOVERY_S = 15.0
"""How often an enabled mapping's source is asked for its shards."""

_UNSETTLED_S = 1.0  # how often, while the children of a shard that is over are not listed yet
_SETTLE_S = 0.2
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 15.0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do for a mapping in some state. Several things may be set; they are done in this order."""

    discover: bool = False  # make the source's present shards wanted
    withdraw: bool = False  # want no shards
    until_released: bool = False  # wait until nobody holds a shard of the mapping
    move: bool = False  # move its position as an operator wishes
    remove: bool = False
    move_to: MappingState | None = None


def next_step(state: MappingState, *, enabled: bool, seeking: bool = False) -> Step:
    """Return what a mapping's state and document ask for. Pure; the state diagram is in docs/architecture.md.

    A wish to move its position comes before everything but deletion: nothing is read until it is met.
    """
    if state is MappingState.DELETING:
        return Step(withdraw=True, until_released=True, remove=True)
    if seeking:
        return Step(withdraw=True, until_released=True, move=True)
    if enabled:
        return Step(discover=True, move_to=None if state is MappingState.ENABLED else MappingState.ENABLED)
    if state is MappingState.DISABLED:
        return Step(withdraw=True)
    return Step(withdraw=True, until_released=True, move_to=MappingState.DISABLED)


class Term(Protocol):
    """The tracker's lease."""

    @property
    def key(self) -> ShardKey:
        """The tracker shard."""

    @property
    def token(self) -> int:
        """Its fencing token."""

    @property
    def lease(self) -> Lease:
        """The lease as a value."""

    @property
    def progress(self) -> ShardProgress:
        """What the tracker before saved."""

    def check(self) -> None:
        """Raise `LeaseLostError` unless the lease can be trusted now."""


class Moved(Protocol):
    """Knows what a shard's stored state means: `pollers.sought.moved`."""

    def __call__(
        self, before: ShardProgress, lot: ParkedRecords, move: Move, /
    ) -> tuple[ShardProgress, ParkedChange | None] | None:
        """Return a shard's progress after a move, and what happens to its parking lot; None: it stays."""


def unmoved(_before: ShardProgress, _lot: ParkedRecords, _move: Move, /) -> None:
    """Leave every shard where it is: a queue has no positions."""


class Tracker:
    """Follows one mapping until drained. A `pollers.fleet.Worker`.

    `current` returns the mapping's record as this node knows it now, and whether its document asks for it to be
    enabled; `discover` asks the source for its shards, or refuses the mapping. `state` is what else the tracker tells
    the fleet, with its report. `moved` tells what becomes of a shard that is moved.
    """

    def __init__(
        self,
        store: Store,
        term: Term,
        *,
        current: Callable[[], tuple[MappingRecord, bool] | None],
        discover: Callable[[], Awaitable[Sequence[SourceShard]]],
        discovery_s: float = DISCOVERY_S,
        state: Callable[[], bytes] = bytes,
        moved: Moved = unmoved,
    ) -> None:
        self._store = store
        self._term = term
        self._current = current
        self._discover = discover
        self._discovery_s = discovery_s
        self._pause_s = discovery_s
        self._state = state
        self._moved = moved
        self._saved_state = b""
        self._draining = asyncio.Event()
        self._changed = asyncio.Event()
        self._report = ShardReport()
        self._reported: ShardReport | None = None
        self._retired = term.progress.ledger  # the account of shards whose own progress is gone
        self._weights: dict[ShardId, float] = {}  # as the fleet was told
        self._lost: set[ShardId] = set()  # as logged
        self._log = log.bind(mapping_id=term.key.mapping, token=term.token)

    def drain(self) -> None:
        """End after the step under way."""
        self._draining.set()
        self._changed.set()

    def changed(self) -> None:
        """Look at the mapping again: its record changed."""
        self._changed.set()

    def refresh(self) -> None:
        """Nothing to bring up to date: reports are written as they change."""

    async def run(self) -> None:
        """Do step after step until drained or the mapping is gone. Raises `LeaseLostError`."""
        delay_s = _FIRST_DELAY_S
        while not self._draining.is_set():
            self._changed.clear()
            current = self._current()
            if current is None:
                return
            record, enabled = current
            step = next_step(record.state, enabled=enabled, seeking=bool(record.seek))
            try:
                self._term.check()
                if await self._do(record, step):
                    return
            except RefusedError as exc:
                # Someone must act; the mapping keeps its state and place, and it is asked again.
                await self._tell(ShardState.FAILED, getattr(exc, "result", str(exc)), str(exc))
                await self._pause(self._discovery_s)
            except UnavailableError as exc:
                await self._tell(ShardState.WAITING, self._report.last_result, str(exc))
                await self._pause(delay_s)
                delay_s = min(_MAX_DELAY_S, delay_s * 2)
            else:
                delay_s = _FIRST_DELAY_S
                await self._tell(ShardState.READING, "No records processed", None)
                await self._pause(self._pause_s)

    async def _do(self, record: MappingRecord, step: Step) -> bool:
        """Carry out one step; True when the mapping is gone."""
        if step.move and not await self._still_wished(record):
            return False  # this node is about to learn of it
        if step.discover:
            await self._follow(record)
        if step.withdraw:
            self._obey(await self._store.set_wanted(record.id, [], tracker=self._term.lease))
        if step.until_released:
            await self._released(record)
        if step.move:
            await self._move(record)
        if step.remove:
            self._obey(await self._store.remove_mapping(record.id, tracker=self._term.lease))
            self._log.info("mapping.removed", mapping=record.name)
            return True
        if step.move_to is not None:
            moved = await self._store.set_mapping_state(
                record.id, step.move_to, record.state_reason, tracker=self._term.lease, revision=record.revision
            )
            self._obey(moved)
            self._log.info("mapping.state", mapping=record.name, was=record.state, state=step.move_to)
        return False

    async def _follow(self, record: MappingRecord) -> None:
        """Make wanted what is to be read now, and forget what is over."""
        try:
            shards = await self._discover()
        except MappingRefusedError:
            self._obey(await self._store.set_wanted(record.id, [], tracker=self._term.lease))
            raise
        # Read after the listing: what it says is done was done when a child could first be seen.
        progress = await self._store.load_mapping(record.id)
        known = {key.shard: found for key, found in progress.items() if key.shard != TRACKER}
        lineage = trace(shards, known, began=record.state is MappingState.ENABLED)
        if lineage.renewed:
            await self._forget(lineage.renewed, known)
            self._log.error("source.renewed", mapping=record.name, shards=sorted(lineage.renewed))
        loads = {shard: known[shard].report.load if shard in known else 1.0 for shard in lineage.wanted}
        self._weights = reweigh(self._weights, loads)
        wanted = [
            WantedShard(ShardKey(record.id, shard), ShardKind.SOURCE, self._weights[shard]) for shard in lineage.wanted
        ]
        self._obey(await self._store.set_wanted(record.id, wanted, tracker=self._term.lease, origins=lineage.origins))
        self._pause_s = min(_UNSETTLED_S, self._discovery_s) if lineage.unsettled else self._discovery_s
        if self._lost.symmetric_difference(lineage.lost):
            self._lost = set(lineage.lost)
            if self._lost:
                self._log.error("shards.lost", mapping=record.name, shards=sorted(self._lost))
        if lineage.retire:
            await self._forget(lineage.retire, known)
            self._log.info("shards.retired", mapping=record.name, shards=sorted(lineage.retire))

    async def _forget(self, shards: Sequence[ShardId], known: Mapping[ShardId, ShardProgress]) -> None:
        """Retire shards, taking over their accounts."""
        for shard in shards:
            self._retired = self._retired.plus(known[shard].ledger.resumed())
        self._obey(await self._store.retire(shards, tracker=self._update()))

    async def _still_wished(self, record: MappingRecord) -> bool:
        """Tell whether the store has the wish too: what this node knows may be from before it was met."""
        _, records = await self._store.mappings()
        return any(one.id == record.id and one.seeks == record.seeks and one.seek for one in records)

    async def _move(self, record: MappingRecord) -> None:
        """Meet the wish to move the mapping's position: nobody holds a shard of it, and none is wanted."""
        lease, updates, moved = self._term.lease, [], []
        known = await self._store.load_mapping(record.id)
        try:
            wish = SeekWish.decode(record.seek)
        except msgspec.DecodeError as exc:
            self._log.error("mapping.seek_unreadable", mapping=record.name, error=str(exc))
            wish = SeekWish(())
        shards = {key.shard: found for key, found in known.items() if key.shard != TRACKER}
        # A shard may have been split since the wish was made.
        following = heirs(await self._discover(), {ShardId(move.shard) for move in wish.moves}, shards)
        for move in (*wish.moves, *(Move(shard, None, BEGINNING, "0") for shard in following)):
            key = ShardKey(record.id, ShardId(move.shard))
            before = known.get(key, ShardProgress())
            lot = await self._store.load_parked(key) if before.ledger.parked else ParkedRecords()
            after = self._moved(before, lot, move)
            if after is None:
                continue
            progress, change = after
            updates.append(
                ProgressUpdate(
                    key=key,
                    token=lease.token,
                    node=lease.node,
                    position=progress.position,
                    ledger=progress.ledger,
                    report=progress.report,
                    state=progress.state,
                    origin=progress.origin,
                    parked=change,
                )
            )
            where = progress.position or progress.origin
            moved.append({"shard": move.shard, "was": before.position or before.origin, "now": where})
        result = await self._store.move(record.id, updates, tracker=lease, wish=record.seeks)
        self._obey(result is not SaveResult.STALE)
        if result is SaveResult.INCOMPLETE:
            raise StoreUnavailableError("a parking lot has changed while its shard was to be moved")
        self._log.info("mapping.sought", mapping=record.name, by=wish.by, wish=record.seeks, shards=moved)

    def _obey(self, written: bool) -> None:  # noqa: FBT001 - the store's answer
        if not written:
            raise LeaseLostError(self._term.key, "the store refused a write of the tracker")

    async def _released(self, record: MappingRecord) -> None:
        """Wait until nobody holds a shard of the mapping but its tracker."""
        while True:
            snapshot = await self._store.snapshot()
            held = [key for key in snapshot.holdings if key.mapping == record.id and key.shard != TRACKER]
            if not held:
                return
            self._term.check()
            await asyncio.sleep(_SETTLE_S)

    async def _pause(self, delay_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._changed.wait()

    async def _tell(self, state: ShardState, result: str, error: str | None) -> None:
        """Write the report operators see; the store being away is no reason to stop."""
        if error is not None and error != self._report.last_error:
            self._log.warning("discovery.failed", error=error)
        self._report = ShardReport(state=state, last_result=result, last_error=error)
        state_bytes = self._state()
        if self._report == self._reported and state_bytes == self._saved_state:
            return
        try:
            (result_of_save,) = await self._store.save([self._update()])
        except UnavailableError:
            return
        if result_of_save is SaveResult.STALE:
            raise LeaseLostError(self._term.key, "the store refused a report of the tracker")
        self._reported, self._saved_state = self._report, state_bytes

    def _update(self) -> ProgressUpdate:
        return ProgressUpdate(
            key=self._term.key,
            token=self._term.lease.token,
            node=self._term.lease.node,
            position=None,
            ledger=self._retired.plus(Ledger()),
            report=self._report,
            state=self._state(),
        )
