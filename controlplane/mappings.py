"""Bring the mappings that files ask for into the store, changing only what differs.

The plan is pure; `apply` carries it out. Mappings that nobody here speaks of are left alone: they belong to other
files, other nodes or the API.

A change by the API outlasts restarts: with each mapping the store keeps a mark of the document that a file asked for
last, and a file is heeded again when it asks for another one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from model.errors import ConflictError
from model.mapping import MappingRecord, MappingState
from model.mapping_rules import canonical_document, mapping_id

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from model.ids import MappingId
    from statemgr.stores import MappingStore

log = structlog.get_logger(__name__)

_TRIES = 5
_USER = "USER_INITIATED"

AT_REST = frozenset({MappingState.DISABLED, MappingState.DISABLING, MappingState.DELETING})
"""States of mappings that nobody is to work on."""


@dataclass(frozen=True, slots=True)
class Desired:
    """A mapping as somebody wants it: its canonical document, and whether that says it is enabled.

    `id` is the one its document gives it; where the store has a mapping of that name, or of the name before a
    renaming, it is that mapping whatever its id. `applied` is the mark to be stored; None: that of the document.
    `insist`: also what the API changed since is to be as the document says.
    `began`: it has been at work. A store that has forgotten it must not have it begin anew.
    """

    id: MappingId
    name: str
    document: bytes
    enabled: bool = True
    renamed_from: str | None = None
    applied: str | None = None
    began: bool = False
    insist: bool = False

    @property
    def mark(self) -> str:
        """What the store shall remember of who asked for this."""
        return mark_of(self.document) if self.applied is None else self.applied


def mark_of(document: bytes) -> str:
    """Return the mark of a document that a file asks for."""
    return hashlib.sha256(document).hexdigest()[:32]


class ChangeKind(StrEnum):
    """What has to happen to one mapping."""

    ADD = "add"
    CHANGE = "change"
    ADOPT = "adopt"  # it is as wanted; only that a file wants it is new
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a plan: the record to put, on the condition that the present revision is the one planned against."""

    kind: ChangeKind
    record: MappingRecord
    revision: int
    before: MappingRecord | None = None


def plan(present: Sequence[MappingRecord], desired: Sequence[Desired], *, gone: Collection[str] = ()) -> list[Change]:
    """Return what turns `present` into `desired`, in the order of `desired`; `gone` names mappings to delete.

    A mapping whose file asks for what it asked for before is left as it is, though the API may have changed it since.
    Raises `ConflictError` when a name's own id belongs to a mapping that was renamed, or a document names another UUID
    than its mapping has.
    """
    found = _match(present, desired)
    changes = []
    for mapping in desired:
        now = found.get(mapping.name)
        if now is None:
            changes.append(Change(ChangeKind.ADD, _record(mapping, mapping.id, _first_state(mapping)), 0))
        else:
            record = _record(mapping, now.id, next_state(now.state, enabled=mapping.enabled))
            same = (now.document, now.name) == (record.document, record.name)
            if _was_asked_for(mapping, now) and (same or not mapping.insist):
                continue
            kind = ChangeKind.ADOPT if same and now.state is not MappingState.DELETING else ChangeKind.CHANGE
            changes.append(Change(kind, record, now.revision, now))
    kept = {record.id for record in found.values()}
    changes += [
        Change(ChangeKind.REMOVE, deleting(record), record.revision, record)
        for record in present
        if record.name in gone and record.id not in kept and record.state is not MappingState.DELETING
    ]
    return changes


def drifted(present: Sequence[MappingRecord], desired: Sequence[Desired]) -> list[str]:
    """Return the names of those that files ask for as before, and that the API has changed since."""
    found = _match(present, desired)
    return [
        mapping.name
        for mapping in desired
        if (now := found.get(mapping.name)) is not None
        and _was_asked_for(mapping, now)
        and now.document != _record(mapping, now.id, now.state).document
    ]


def _was_asked_for(mapping: Desired, now: MappingRecord) -> bool:
    return now.applied == mapping.mark and now.name == mapping.name


def _first_state(mapping: Desired) -> MappingState:
    if not mapping.enabled:
        return MappingState.DISABLED
    return MappingState.ENABLED if mapping.began else MappingState.CREATING


def deleting(record: MappingRecord) -> MappingRecord:
    """Return the record that asks for a mapping's deletion. A file that asks for it again takes the deletion back."""
    return replace(record, state=MappingState.DELETING, state_reason=_USER, applied="")


def next_state(before: MappingState, *, enabled: bool) -> MappingState:
    """Return the state an update answers with (spec section 7.3)."""
    was_enabled = before not in (MappingState.DISABLED, MappingState.DISABLING)
    if was_enabled == enabled:
        return MappingState.UPDATING
    return MappingState.ENABLING if enabled else MappingState.DISABLING


def _match(present: Sequence[MappingRecord], desired: Sequence[Desired]) -> dict[str, MappingRecord]:
    """Return which present mapping each desired one is, by the desired one's name."""
    by_name = {record.name: record for record in present}
    by_id = {record.id: record for record in present}
    found = {mapping.name: by_name[mapping.name] for mapping in desired if mapping.name in by_name}
    taken = {record.id: name for name, record in found.items()}
    for mapping in desired:
        given = mapping.id != mapping_id(mapping.renamed_from or mapping.name)  # its document names a UUID
        if mapping.name in found:
            if given and found[mapping.name].id != mapping.id:
                why = f"it has the UUID {found[mapping.name].id}, and a mapping's UUID cannot be changed"
                raise ConflictError(f"mapping {mapping.name}: {why}")
            continue
        old = by_name.get(mapping.renamed_from) if mapping.renamed_from and not given else None
        now = old if old is not None and old.id not in taken else by_id.get(mapping.id)
        if now is None:
            continue
        if now.id in taken:
            why = f"its id {now.id} belongs to mapping {taken[now.id]}, which was renamed; give this one a UUID"
            raise ConflictError(f"mapping {mapping.name}: {why}")
        found[mapping.name] = now
        taken[now.id] = mapping.name
    return found


def _record(mapping: Desired, id_: MappingId, state: MappingState) -> MappingRecord:
    renamed = mapping.renamed_from is not None or id_ != mapping.id
    document = _settled(mapping.document, id_, mapping.name) if renamed else mapping.document
    return MappingRecord(id_, mapping.name, document, 0, state, applied=mapping.mark)


def _settled(document: bytes, id_: MappingId, name: str) -> bytes:
    """Return the document as it is stored: it names an id that does not follow from the name, and no former name."""
    given = json.loads(document)
    ours = given.get("extensions")
    if isinstance(ours, dict) and "renamed_from" in ours:
        given["extensions"] = {key: item for key, item in ours.items() if key != "renamed_from"}
        if not given["extensions"]:
            del given["extensions"]
    if id_ != mapping_id(name) and str(given.get("UUID", "")).lower() != id_:
        given["UUID"] = id_
    return canonical_document(given)


async def apply(
    store: MappingStore, desired: Sequence[Desired], *, gone: Collection[str] = (), by: str = "file"
) -> list[Change]:
    """Make the changes that are needed; return them. Several nodes may apply the same files at once.

    `by` names who asks, for the audit log.

    Raises `StoreUnavailableError`, or `ConflictError` when a name is taken by another mapping, or somebody else keeps
    changing the same ones.
    """
    made: list[Change] = []
    for attempt in range(1, _TRIES + 1):
        _, present = await store.mappings()
        try:
            for change in plan(present, desired, gone=gone):
                await store.put_mapping(change.record, expected_revision=change.revision)
                if change.kind is ChangeKind.ADOPT:
                    continue
                made.append(change)
                log_change(str(change.kind), change.record, by=by)
        except ConflictError:
            if attempt == _TRIES:
                raise
            continue  # another node was faster: look again at what is left to do
        return made
    raise AssertionError("unreachable")


def log_change(what: str, record: MappingRecord, *, by: str, **facts: object) -> None:
    """Log that somebody changed a mapping: the audit trail. `by` says who or by which way."""
    log.info(
        "mapping.changed",
        change=what,
        mapping=record.name,
        uuid=record.id,
        state=str(record.state),
        by=by,
        **facts,
    )
