"""A schedule as a source: one shard, whose records are firings.

The shard is leased like any other, so one node of the fleet fires; and its fenced checkpoint is the last firing that is
finished, so the next holder goes on behind it. A mapping whose schedule was changed begins anew at that moment.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

import structlog

from model.errors import SourceRefusedError, SourceRestartedError
from model.ids import Position, ShardId
from model.mapping import ScheduleSource
from model.schedule import parse_schedule, utc_text
from model.shard import SourceShard
from pollers.firings import PUNCTUAL_S, next_due, position_of, read_position
from pollers.ports import Chunk, Lag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.ids import ShardOrigin
    from model.mapping import EventSourceMapping
    from model.progress import ShardProgress
    from model.schedule import Schedule
    from pollers.seeking import Found, Place

log = structlog.get_logger(__name__)

SHARD = ShardId("schedule")
_LONGEST_WAIT_S = 1.0  # the clock may be set meanwhile
_FIRING_BYTES = 200


class Firing(NamedTuple):
    """One firing: the source's raw record."""

    at_s: int  # the time it was for, epoch seconds
    read_s: float  # since when it may be delivered: later than that where it was caught up


class Schedules:
    """The source of one mapping on this node. `pollers.ports.Source`.

    `count_missed` is told how many firings nobody gets. `now_s` is epoch time. `function_timeout_s`: so long a firing
    may have been in the hands of a node that was killed then.
    """

    def __init__(
        self,
        mapping: EventSourceMapping,
        *,
        count_missed: Callable[[int], None],
        function_timeout_s: float = 0.0,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(mapping.source, ScheduleSource):
            raise TypeError(f"{mapping.name} is no schedule")
        self.source = mapping.source
        self.schedule = parse_schedule(mapping.source.expression, mapping.source.timezone)
        self.grace_s = PUNCTUAL_S + function_timeout_s
        self.now_s = now_s
        self._count_missed = count_missed
        self._log = log.bind(mapping=mapping.name, schedule=mapping.source.expression)

    async def shards(self) -> Sequence[SourceShard]:
        """Return the one shard."""
        return [SourceShard(SHARD)]

    async def reader(self, shard: ShardId, start: Position | None, origin: ShardOrigin | None) -> ScheduleReader:  # noqa: ARG002 - a schedule begins when it is first looked at
        """Open the shard behind its checkpoint, or now."""
        if shard != SHARD:
            raise SourceRefusedError(f"{shard}: a schedule has one shard, {SHARD}")
        return ScheduleReader(self, start)

    async def find(self, shard: SourceShard, place: Place, before: ShardProgress) -> Found:
        """Refuse: what is over does not come again, and what is to come cannot be passed over."""
        del shard, place, before
        raise SourceRefusedError(
            f"{self.source.expression} has no positions to move to: it fires from now on, and `esmd invoke` calls its "
            "function at any time"
        )

    async def close(self) -> None:
        """Do nothing: there is nobody to leave."""

    def missed(self, count: int, *, next_s: int | None) -> None:
        """Say that nobody gets so many firings."""
        self._count_missed(count)
        self._log.warning(
            "schedule.missed",
            firings=count,
            missed=str(self.source.missed),
            next=None if next_s is None else utc_text(next_s),
        )


class ScheduleReader:
    """The firings behind a position. `pollers.ports.ShardReader`."""

    def __init__(self, owner: Schedules, start: Position | None) -> None:
        self._owner = owner
        self._schedule: Schedule = owner.schedule
        self._begun_s = int(owner.now_s())
        self._after_s, mark = (self._begun_s, self._schedule.mark) if start is None else read_position(int(start))
        self._restart = start is not None and mark != self._schedule.mark
        self._new = start is None
        self._closed = False
        self._known: tuple[int, int | None] | None = None  # the firing behind another one

    @property
    def start(self) -> Position | None:
        """Return the moment at which the schedule was looked at first."""
        return self.after(position_of(self._begun_s, self._schedule)) if self._new else None

    def after(self, last: int) -> Position:
        """Return the place of the last finished firing."""
        return Position(str(last))

    async def read(self, max_records: int) -> Chunk | None:  # noqa: ARG002 - firings come one by one
        """Wait for the next firing."""
        while not self._closed:
            if self._restart:
                begun = Position(str(position_of(self._begun_s, self._schedule)))
                raise SourceRestartedError("the schedule was changed and begins anew", position=begun)
            now_s, next_s = self._owner.now_s(), self._next_s()
            if next_s is not None and next_s <= now_s:
                firing = self._fire(now_s)
                if firing is not None:
                    return Chunk([firing], [position_of(firing.at_s, self._schedule)], _FIRING_BYTES)
                continue  # what was missed is passed over
            left_s = _LONGEST_WAIT_S if next_s is None else next_s - now_s
            await asyncio.sleep(min(left_s, _LONGEST_WAIT_S))
        raise SourceRefusedError(f"{SHARD}: its reader is closed")

    def _fire(self, now_s: float) -> Firing | None:
        """Go on to the firing that is due, over those that nobody gets; None: it is still to come."""
        owner = self._owner
        due = next_due(self._schedule, self._after_s, now_s=now_s, missed=owner.source.missed, grace_s=owner.grace_s)
        if due.missed:
            owner.missed(due.missed, next_s=due.at_s)
        if due.at_s is None or due.at_s > now_s:
            # From the last one that was missed on, so that none is counted again.
            passed = self._schedule.between(self._after_s, now_s)
            self._after_s = self._after_s if passed is None else passed.last_s
            return None
        self._after_s = due.at_s
        return Firing(due.at_s, now_s if due.caught_up else float(due.at_s))

    def _next_s(self) -> int | None:
        """Return the next firing; it is asked for every second, and dear."""
        if self._known is None or self._known[0] != self._after_s:
            self._known = (self._after_s, self._schedule.after(self._after_s))
        return self._known[1]

    def buffered(self) -> int:
        """Count nothing: firings are not read ahead."""
        return 0

    def lag(self) -> Lag:
        """Tell how late the next firing is, and when it is."""
        next_s = self._next_s()
        late_s = 0.0 if next_s is None else max(0.0, self._owner.now_s() - next_s)
        return Lag(int(late_s > 0), late_s, next_s=next_s)

    def checkpointed(self, position: Position) -> None:
        """Do nothing: nothing keeps checkpoints of schedules but the store."""

    async def close(self) -> None:
        """Fire no more."""
        self._closed = True
