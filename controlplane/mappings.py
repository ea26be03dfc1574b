"""Bring the mappings that somebody asks for into the store, changing only what differs.

The plan is pure; `apply` carries it out. Mappings that nobody here speaks of are left alone: they belong to other
files, other nodes or the API.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from model.errors import ConflictError
from model.mapping import MappingRecord, MappingState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from model.ids import MappingId
    from statemgr.stores import MappingStore

log = structlog.get_logger(__name__)

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Desired:
    """A mapping as somebody wants it: its canonical document, and whether that says it is enabled.

    `began`: it has been at work. A store that has forgotten it must not have it begin anew.
    """

    id: MappingId
    name: str
    document: bytes
    enabled: bool = True
    began: bool = False


class ChangeKind(StrEnum):
    """What has to happen to one mapping."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a plan: the record to put, on the condition that the present revision is the one planned against."""

    kind: ChangeKind
    record: MappingRecord
    revision: int


def plan(present: Sequence[MappingRecord], desired: Sequence[Desired], *, gone: Collection[str] = ()) -> list[Change]:
    """Return what turns `present` into `desired`, in the order of `desired`; `gone` names mappings to delete."""
    by_id: Mapping[MappingId, MappingRecord] = {record.id: record for record in present}
    changes = []
    for mapping in desired:
        now = by_id.get(mapping.id)
        if now is None:
            state = MappingState.ENABLED if mapping.began and mapping.enabled else MappingState.CREATING
            changes.append(Change(ChangeKind.ADD, _record(mapping, state), 0))
        elif now.document != mapping.document or now.name != mapping.name or now.state is MappingState.DELETING:
            was_enabled = now.state not in (MappingState.DISABLED, MappingState.DISABLING)
            changes.append(
                Change(ChangeKind.CHANGE, _record(mapping, _state(was_enabled, mapping.enabled)), now.revision)
            )
    for record in present:
        if record.name in gone and record.state is not MappingState.DELETING:
            deleting = MappingRecord(record.id, record.name, record.document, 0, MappingState.DELETING)
            changes.append(Change(ChangeKind.REMOVE, deleting, record.revision))
    return changes


def _state(was_enabled: bool, enabled: bool) -> MappingState:  # noqa: FBT001 - a two by two table
    """Return the state an update answers with (spec section 7.3)."""
    if was_enabled == enabled:
        return MappingState.UPDATING
    return MappingState.ENABLING if enabled else MappingState.DISABLING


def _record(mapping: Desired, state: MappingState) -> MappingRecord:
    return MappingRecord(mapping.id, mapping.name, mapping.document, 0, state)


async def apply(store: MappingStore, desired: Sequence[Desired], *, gone: Collection[str] = ()) -> list[Change]:
    """Make the changes that are needed; return them. Several nodes may apply the same files at once.

    Raises `StoreUnavailableError`, or `ConflictError` when a name is taken by another mapping, or somebody else keeps
    changing the same ones.
    """
    made: list[Change] = []
    for attempt in range(1, _TRIES + 1):
        _, present = await store.mappings()
        try:
            for change in plan(present, desired, gone=gone):
                await store.put_mapping(change.record, expected_revision=change.revision)
                made.append(change)
                log.info("mapping.applied", mapping=change.record.name, change=change.kind, state=change.record.state)
        except ConflictError:
            if attempt == _TRIES:
                raise
            continue  # another node was faster: look again at what is left to do
        return made
    raise AssertionError("unreachable")
