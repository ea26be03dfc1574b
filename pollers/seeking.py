"""Where a mapping is to be moved, and what that means for each of its shards. Pure.

A source finds the place asked for in one shard (`ports.Source.find`); here the shards are put together: a shard that is
read again takes along what came of it by splits and merges, so that the order per partition key holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from model.errors import RefusedError
from model.ids import Position, ShardId
from model.progress import ShardProgress
from model.rules.checking import read_timestamp
from model.seek import Move
from model.shard import BEGINNING
from statemgr.lineage import heirs, is_done, parents_first

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.ids import ShardOrigin
    from model.shard import SourceShard

_NUMBER = re.compile(r"[0-9]{1,128}")


@dataclass(frozen=True, slots=True)
class Beginning:
    """The oldest record that the source has."""


@dataclass(frozen=True, slots=True)
class End:
    """What comes from now on."""


@dataclass(frozen=True, slots=True)
class AtTime:
    """The first record that arrived at or after a time."""

    ms: int  # epoch


@dataclass(frozen=True, slots=True)
class AtPosition:
    """A checkpoint, as `status` shows it: in Kafka the offset to be read next, in Kinesis the last one finished."""

    position: Position


Place = Beginning | End | AtTime | AtPosition


def parse_place(text: str, *, now_ms: float) -> tuple[Place, ShardId | None]:
    """Read a place, and the shard it is in where that is named: `SHARD=POSITION`. Raises `RefusedError`."""
    match text.strip().lower():
        case "trim_horizon":
            return Beginning(), None
        case "latest":
            return End(), None
    shard, equals, position = text.strip().rpartition("=")
    if equals:
        if not shard or not _NUMBER.fullmatch(position):
            raise RefusedError(f"{text}: SHARD=POSITION needs a shard and a position in digits")
        return AtPosition(Position(position.lstrip("0") or "0")), ShardId(shard)
    ms = parse_time(text)
    if ms > now_ms:
        raise RefusedError(f"{text} lies ahead; `latest` is what comes from now on")
    return AtTime(ms), None


def parse_time(text: str) -> int:
    """Return epoch milliseconds of an ISO 8601 time, UTC unless it says otherwise, or of epoch seconds.

    Raises `RefusedError`.
    """
    moment = read_timestamp(text.strip())
    if moment is None:
        raise RefusedError(
            f"{text} is no place: trim_horizon, latest, an ISO 8601 time from 1970 on such as 2026-05-01T10:00Z, epoch "
            "seconds, or SHARD=POSITION"
        )
    return round(moment.timestamp() * 1000)


class Found(NamedTuple):
    """A place in one shard, as its source found it."""

    position: Position | None  # to become the checkpoint
    origin: ShardOrigin
    begins: int | None  # position of the first record from there on; None: there is none yet
    skips: int | None = 0  # unread records that are passed over; None: some, nobody knows how many
    skips_s: float | None = None  # time between the first of them and the place, where that is known
    stays: bool = False  # the shard stands there already


@dataclass(frozen=True, slots=True)
class ShardSeek:
    """What becomes of one shard."""

    shard: ShardId
    found: Found
    was: str | None  # checkpoint, or where it began
    after: bool = False  # it follows a shard it came from


def chosen_shards(listed: Sequence[SourceShard], shard: ShardId | None) -> list[SourceShard]:
    """Return the shards whose place is to be found. Raises `RefusedError` when there is none of that name."""
    chosen = [one for one in listed if shard in (None, one.id)]
    if not chosen:
        names = ", ".join(one.id for one in listed[:5])
        raise RefusedError(f"no shard {shard}; there are {names}{', …' if len(listed) > 5 else ''}")  # noqa: PLR2004 - for show
    return chosen


def put_together(
    listed: Sequence[SourceShard], known: Mapping[ShardId, ShardProgress], found: Mapping[ShardId, Found]
) -> list[ShardSeek]:
    """Return what becomes of the shards, those that stay where they are too. Raises `RefusedError`."""
    moved = {shard for shard, place in found.items() if not place.stays}
    following = set(heirs(listed, moved, known))
    again = Found(None, BEGINNING, 0)
    seeks = []
    for one in parents_first(listed):
        before, place = known.get(one.id, ShardProgress()), found.get(one.id)
        if place is None and one.id not in following:
            continue
        place = place or again
        if place.position is not None and one.parents and before.position is None:
            _check_parents(one, listed, known)
        follows = not moved.isdisjoint(one.parents)
        if follows:
            place = place._replace(stays=False)
            moved.add(one.id)
        seeks.append(ShardSeek(one.id, place, before.position or before.origin, one.id not in found))
    return seeks


def _check_parents(shard: SourceShard, listed: Sequence[SourceShard], known: Mapping[ShardId, ShardProgress]) -> None:
    present = {one.id for one in listed}
    for parent in shard.parents:
        if parent in present and not is_done(known.get(parent, ShardProgress())):
            raise RefusedError(f"{shard.id} comes after {parent}, which is not read to its end yet: move that one")


def moves_of(seeks: Sequence[ShardSeek]) -> tuple[Move, ...]:
    """Return the moves for the wish: what stays needs none."""
    return tuple(
        Move(
            one.shard,
            one.found.position,
            one.found.origin,
            None if one.found.begins is None else str(one.found.begins),
            forward=one.found.skips != 0,
        )
        for one in seeks
        if not one.found.stays
    )


def skipped(seeks: Sequence[ShardSeek]) -> tuple[int | None, list[str]]:
    """Return how many unread records would be passed over, None when that is not known, and where, in words."""
    passing = [one for one in seeks if one.found.skips != 0 and not one.found.stays]
    known = [one.found.skips for one in passing if one.found.skips is not None]
    told = []
    for one in passing:
        how = "an unknown number of records" if one.found.skips is None else f"{one.found.skips:,} records"
        span = "" if one.found.skips_s is None else f", {one.found.skips_s:,.0f} s"
        told.append(f"{how} of {one.shard}{span}")
    return sum(known) if len(known) == len(passing) else None, told
