"""Which shards of a source are wanted now, and where each begins: order across splits and merges. Pure.

A shard is wanted when all its parents are done: read to their end and checkpointed, or no longer in the source. Then
whatever is in a child was written after everything in its parents, and the order per partition key holds.

A mapping's first look decides where the shards begin that it finds (`SourceShard.origin`). Every shard that it finds
later begins at its beginning. Sources whose shards have no origins have no lineage: all their shards are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.ids import ShardId, position_key
from model.progress import ShardProgress, ShardState
from model.shard import BEGINNING, END

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from model.ids import ShardOrigin
    from model.shard import SourceShard


@dataclass(frozen=True, slots=True)
class Lineage:
    """What follows from a listing and the stored progress."""

    wanted: tuple[ShardId, ...]
    origins: Mapping[ShardId, ShardOrigin] = field(default_factory=dict)  # to be noted with it
    retire: tuple[ShardId, ...] = ()  # whose progress nobody needs any more
    lost: tuple[ShardId, ...] = ()  # gone from the source before they were read to their end
    renewed: tuple[ShardId, ...] = ()  # whose progress is of a stream that was deleted; to be forgotten first
    unsettled: bool = False  # a shard is over and its children are not listed yet: look again soon


def trace(listed: Sequence[SourceShard], known: Mapping[ShardId, ShardProgress], *, began: bool = False) -> Lineage:
    """Decide about a source's shards. `known`: the progress of every shard of the mapping, its tracker left out.

    `began`: the mapping has had its first look, so that nothing known means that all of it was lost.
    """
    if not any(shard.origin is not None for shard in listed):
        return Lineage(tuple(shard.id for shard in listed))
    present = {shard.id: shard for shard in listed}
    renewed = _renewed(listed, known)
    known = {name: progress for name, progress in known.items() if name not in renewed}
    children: dict[ShardId, list[ShardId]] = {}
    for shard in listed:
        for parent in shard.parents:
            children.setdefault(parent, []).append(shard.id)
    origins = dict.fromkeys(present, BEGINNING) if renewed else _new_origins(present, known, began=began)
    # Whose descendants have begun was done, though a store that was lost and told again may know an earlier state.
    passed = _ancestors(present, [name for name in present if _begun(known.get(name))])

    def done(shard: ShardId) -> bool:
        progress = known.get(shard)
        return shard in passed or origins.get(shard) == END or (progress is not None and is_done(progress))

    def wanted(shard: SourceShard) -> bool:
        if done(shard.id):
            return False
        if _begun(known.get(shard.id)):
            return True  # its parents were done then
        return all(parent not in present or done(parent) for parent in shard.parents)

    gone = [name for name in known if name not in present]
    retire = []
    for name in gone:
        heirs = children.get(name, [])
        # A shard that was not read to its end is given up only when its children prove that it is really over.
        if all(_begun(known.get(heir)) or done(heir) for heir in heirs) and (heirs or is_done(known[name])):
            retire.append(name)
    return Lineage(
        wanted=tuple(shard.id for shard in listed if wanted(shard)),
        origins=origins,
        retire=tuple(retire),
        renewed=renewed,
        lost=tuple(name for name in gone if not is_done(known[name])),
        unsettled=any(done(name) and name not in children for name in present),
    )


def heirs(
    listed: Sequence[SourceShard], moved: Collection[ShardId], known: Mapping[ShardId, ShardProgress]
) -> list[ShardId]:
    """Return the shards that came of moved ones and have begun: what is read again there belongs before them.

    Left as they are, they would say that their parents are done.
    """
    again, found = set(moved), []
    for shard in parents_first(listed):
        if shard.id in again or again.isdisjoint(shard.parents):
            continue
        again.add(shard.id)
        progress = known.get(shard.id)
        if progress is not None and (_begun(progress) or is_done(progress)):
            found.append(shard.id)
    return found


def parents_first(listed: Sequence[SourceShard]) -> list[SourceShard]:
    """Return shards so that each comes behind those it came from."""
    left, done = list(listed), set[ShardId]()
    ordered: list[SourceShard] = []
    present = {one.id for one in listed}
    while left:
        ready = [one for one in left if all(parent in done or parent not in present for parent in one.parents)]
        for one in ready or left:
            ordered.append(one)
            done.add(one.id)
        left = [one for one in left if one.id not in done]
    return ordered


def is_done(progress: ShardProgress) -> bool:
    """Whether there is nothing left to read: all of it is finished and checkpointed, or none was to be read."""
    return progress.report.state is ShardState.DRAINED or progress.origin == END


def _begun(progress: ShardProgress | None) -> bool:
    """Whether a shard has a checkpoint."""
    return progress is not None and progress.position is not None


def _renewed(listed: Sequence[SourceShard], known: Mapping[ShardId, ShardProgress]) -> tuple[ShardId, ...]:
    """Return the shards known from a stream that was deleted, if the present one has taken its name and theirs.

    One checkpoint from before its shard's beginning is the proof; then what has no checkpoint is of the old one too.
    """

    def proof(shard: SourceShard) -> bool:
        position = known[shard.id].position if shard.id in known else None
        return position is not None and shard.begins is not None and position_key(position) < position_key(shard.begins)

    if not any(map(proof, listed)):
        return ()
    return tuple(shard.id for shard in listed if shard.id in known and (proof(shard) or not _begun(known[shard.id])))


def _new_origins(
    present: Mapping[ShardId, SourceShard],
    known: Mapping[ShardId, ShardProgress],
    *,
    began: bool,
) -> dict[ShardId, ShardOrigin]:
    """Return the origins of the shards that have none yet.

    A shard that is not known although a descendant is was forgotten by a store that was lost: a child is only read
    once its parents are done.
    """
    if not known and not began:
        return {name: shard.origin for name, shard in present.items() if shard.origin is not None}
    inherited = _ancestors(present, [shard for shard in present if shard in known])
    return {name: END if name in inherited else BEGINNING for name in present if name not in known}


def _ancestors(present: Mapping[ShardId, SourceShard], shards: list[ShardId]) -> set[ShardId]:
    """Return the listed shards from which some came, by any number of splits and merges."""
    found: set[ShardId] = set()
    ahead = list(shards)
    while ahead:
        for parent in present[ahead.pop()].parents:
            if parent in present and parent not in found:
                found.add(parent)
                ahead.append(parent)
    return found
