"""What a plan comes to, for those who decide about it: which parameters change, what is drained, where reading goes on.

Pure. The plan itself is `controlplane.mappings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from controlplane.mappings import AT_REST, ChangeKind
from model.mapping import KafkaSource, KinesisSource, MappingState, ScheduleSource, SqsSource, work_alike
from model.mapping_rules import parse_mapping
from model.problem import InvalidConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from controlplane.mappings import Change
    from model.mapping import EventSourceMapping, MappingRecord

_IDENTITY = frozenset({"Name", "UUID"})


class FieldDifference(msgspec.Struct, frozen=True):
    """One parameter. None: not given, so AWS's default."""

    name: str
    before: Any
    after: Any


class Difference(msgspec.Struct, frozen=True):
    """One change of a plan."""

    change: str  # add, change, remove
    name: str
    uuid: str
    renamed_from: str | None
    fields: list[FieldDifference]
    drains: bool  # what is under way is finished first, and the shards are taken anew
    position: str | None  # kept, new, moved, forgotten; None: a queue has none
    remark: str | None


class Differences(msgspec.Struct, frozen=True):
    """The whole answer.

    `drifted`: mappings that files ask for as before and the API has changed since; they stay as they are. `others`:
    mappings that are not spoken of; they stay too.
    """

    changes: list[Difference]
    unchanged: int
    drifted: list[str]
    others: list[str]


def differences(
    changes: Sequence[Change], present: Sequence[MappingRecord], names: Collection[str], drifted: Sequence[str] = ()
) -> Differences:
    """Describe a plan for the mappings with these names, of which some drifted."""
    told = [describe(change) for change in changes if change.kind is not ChangeKind.ADOPT]
    spoken_of = {change.record.id for change in changes}
    others = [record.name for record in present if record.name not in names and record.id not in spoken_of]
    changed = {one.name for one in told if one.change != ChangeKind.REMOVE}
    return Differences(told, len(names) - len(changed), [name for name in drifted if name not in changed], others)


def describe(change: Change) -> Difference:
    """Describe one change."""
    before = {} if change.before is None else _decoded(change.before)
    after = {} if change.kind is ChangeKind.REMOVE else _decoded(change.record)
    fields = [
        FieldDifference(name, before.get(name), after.get(name))
        for name in sorted((before.keys() | after.keys()) - _IDENTITY)
        if before.get(name) != after.get(name)
    ]
    former = change.before.name if change.before is not None and change.before.name != change.record.name else None
    return Difference(
        change=str(change.kind),
        name=change.record.name,
        uuid=str(change.record.id),
        renamed_from=former,
        fields=fields if change.kind is ChangeKind.CHANGE else [],
        drains=_drains(change, before, after),
        position=_position(change.kind, before, after),
        remark=_remark(change, before, after),
    )


def refused_change(change: Change) -> str | None:
    """Return why a change must not be made: positions of the one stream would be taken for those of the other."""
    if change.kind is not ChangeKind.CHANGE or change.before is None:
        return None
    before, after = _parsed(_decoded(change.before)), _parsed(_decoded(change.record))
    if before is None or after is None or type(before.source) is type(after.source) is not KinesisSource:
        return None
    if isinstance(before.source, KinesisSource) and isinstance(after.source, KinesisSource):
        if before.source.arn == after.source.arn:
            return None
        return "a mapping keeps its stream, since shards of different streams have the same names; choose a new Name"
    return "a mapping keeps its kind of source; choose a new Name"


def _drains(change: Change, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    if change.before is None or change.before.state in AT_REST:
        return False
    old, new = _parsed(before), _parsed(after)
    return old is None or new is None or not work_alike(old, new)


def _position(kind: ChangeKind, before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    old, new = _parsed(before), _parsed(after)
    if any(one is not None and isinstance(one.source, SqsSource) for one in (old, new)):
        return None
    if kind is ChangeKind.ADD:
        return "new"
    if kind is ChangeKind.REMOVE:
        return "forgotten"
    return "kept" if old is None or new is None or _place(old) == _place(new) else "moved"


def _remark(change: Change, before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    if change.kind is ChangeKind.CHANGE and change.before is not None:
        if change.before.state is MappingState.DELETING:
            return "is being deleted; that is taken back"
        if _position(change.kind, before, after) == "kept" and any(
            before.get(name) != after.get(name) for name in ("StartingPosition", "StartingPositionTimestamp")
        ):
            return "the starting position is for shards without a checkpoint only"
    return None


def _place(mapping: EventSourceMapping) -> str:
    """Name what positions are positions in."""
    match mapping.source:
        case KafkaSource() as source:
            return source.topic
        case ScheduleSource() as source:
            return f"{source.expression} {source.timezone}"
        case source:
            return source.arn


def _decoded(record: MappingRecord) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(record.document)
    return document


def _parsed(document: Mapping[str, Any]) -> EventSourceMapping | None:
    try:
        return parse_mapping(document, require_name=False) if document else None
    except InvalidConfigurationError:
        return None  # of another version
