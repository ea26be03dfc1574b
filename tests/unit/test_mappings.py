"""Plans turn what is into what is asked for, touching nothing else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from controlplane.mappings import Change, ChangeKind, Desired, apply, mark_of, plan
from model.errors import ConflictError
from model.ids import MappingId
from model.mapping import MappingRecord, MappingState
from model.mapping_rules import canonical_document, mapping_id
from statemgr.memory_store import MemoryStore

A, B, C = (MappingId(name) for name in "abc")


def record(id_: MappingId, document: bytes = b"{}", state: MappingState = MappingState.ENABLED) -> MappingRecord:
    """Make a record as the store has it, as a file asked for it."""
    applied = "" if state is MappingState.DELETING else mark_of(document)
    return MappingRecord(id_, f"mapping-{id_}", document, 3, state, applied=applied)


def desired(id_: MappingId, document: bytes = b"{}", *, enabled: bool = True) -> Desired:
    """Make a wish."""
    return Desired(id_, f"mapping-{id_}", document, enabled)


def test_a_plan_names_only_what_differs() -> None:
    """Unchanged and unmentioned mappings are left alone."""
    present = [record(A), record(B, b"old"), record(C)]
    changes = plan(present, [desired(A), desired(B, b"new"), desired(MappingId("d"))])
    assert [(c.kind, c.record.id, c.revision) for c in changes] == [
        (ChangeKind.CHANGE, B, 3),
        (ChangeKind.ADD, "d", 0),
    ]


def test_a_mapping_that_was_at_work_does_not_begin_anew_in_a_store_that_forgot_it() -> None:
    """Whoever puts it again says so; one that is disabled is so at once."""
    wishes = [Desired(A, "a", b"{}"), Desired(B, "b", b"{}", began=True), Desired(C, "c", b"{}", False, began=True)]
    states = [change.record.state for change in plan([], wishes)]
    assert states == [MappingState.CREATING, MappingState.ENABLED, MappingState.DISABLED]


def test_mappings_named_as_gone_are_deleted_once() -> None:
    """A mapping taken out of its file goes; one that is being deleted is not deleted again."""
    present = [record(A), record(B, state=MappingState.DELETING)]
    changes = plan(present, [], gone={"mapping-a", "mapping-b"})
    assert [(c.kind, c.record.id, c.record.state) for c in changes] == [(ChangeKind.REMOVE, A, MappingState.DELETING)]


@pytest.mark.parametrize(
    ("before", "enabled", "state"),
    [
        (MappingState.ENABLED, True, MappingState.UPDATING),
        (MappingState.ENABLED, False, MappingState.DISABLING),
        (MappingState.DISABLED, True, MappingState.ENABLING),
        (MappingState.DISABLED, False, MappingState.UPDATING),
        (MappingState.DISABLING, True, MappingState.ENABLING),
    ],
)
def test_a_change_takes_the_state_that_an_update_answers_with(
    before: MappingState, *, enabled: bool, state: MappingState
) -> None:
    """Enabling and disabling are told from other updates (spec section 7.3)."""
    changes = plan([record(A, b"old", before)], [desired(A, b"new", enabled=enabled)])
    assert changes[0].record.state is state


def test_a_mapping_under_deletion_that_is_wanted_again_comes_back() -> None:
    """Wanting it again is a change even when the document is the same."""
    assert plan([record(A, state=MappingState.DELETING)], [desired(A)])[0].kind is ChangeKind.CHANGE


def test_a_change_by_the_api_outlasts_files_that_ask_for_nothing_new() -> None:
    """A restart with the same file leaves it; the file is heeded again when it asks for something else."""
    changed = replace(record(A, b"by the API"), applied=mark_of(b"by the file"))
    assert plan([changed], [desired(A, b"by the file")]) == []
    (change,) = plan([changed], [desired(A, b"by the file, anew")])
    assert (change.kind, change.record.document) == (ChangeKind.CHANGE, b"by the file, anew")


def test_a_file_that_asks_for_what_is_there_adopts_it() -> None:
    """A mapping made by the API with the same document is the file's from then on, and nothing else changes."""
    (change,) = plan([replace(record(A), applied="")], [desired(A)])
    assert (change.kind, change.record.applied) == (ChangeKind.ADOPT, mark_of(b"{}"))


def named(name: str, *, renamed_from: str | None = None, **more: object) -> Desired:
    """Make a wish with a document and the id that follows from it."""
    ours = {"extensions": {"renamed_from": renamed_from}} if renamed_from else {}
    document = canonical_document({"Name": name, "FunctionName": "f", **ours, **more})
    return Desired(mapping_id(renamed_from or name), name, document, renamed_from=renamed_from)


def stored(change: Change, revision: int = 1) -> MappingRecord:
    """Return a change's record as the store has it afterwards."""
    return replace(change.record, revision=revision, state=MappingState.ENABLED)


def test_a_renamed_mapping_keeps_its_id() -> None:
    """It is the same mapping for the store: one change, nothing is removed, also of what left the file by that name."""
    (old,) = [stored(change) for change in plan([], [named("old")])]
    (change,) = plan([old], [named("new", renamed_from="old")], gone={"old"})
    assert (change.kind, change.record.id, change.record.name) == (ChangeKind.CHANGE, mapping_id("old"), "new")
    assert json.loads(change.record.document) == {"Name": "new", "FunctionName": "f", "UUID": mapping_id("old")}
    new = stored(change, 2)
    assert plan([new], [named("new", renamed_from="old")]) == []
    (forgotten,) = plan([new], [named("new")])
    assert (forgotten.kind, forgotten.record.id) == (ChangeKind.ADOPT, mapping_id("old"))


def test_a_mapping_can_be_renamed_twice() -> None:
    """What was renamed before is found by its present name."""
    (old,) = [stored(change) for change in plan([], [named("old")])]
    (new,) = [stored(change, 2) for change in plan([old], [named("new", renamed_from="old")])]
    (newest,) = plan([new], [named("newest", renamed_from="new")])
    assert (newest.record.id, newest.record.name) == (mapping_id("old"), "newest")


def test_a_renamed_mapping_of_an_empty_store_gets_the_id_of_its_former_name() -> None:
    """So a Kafka consumer group that is named after the id is found again."""
    (change,) = plan([], [named("new", renamed_from="old")])
    assert (change.kind, change.record.id) == (ChangeKind.ADD, mapping_id("old"))
    assert json.loads(change.record.document)["UUID"] == mapping_id("old")


def test_a_name_whose_id_was_taken_along_is_refused() -> None:
    """Its positions are those of the renamed mapping."""
    (old,) = [stored(change) for change in plan([], [named("old")])]
    (new,) = [stored(change, 2) for change in plan([old], [named("new", renamed_from="old")])]
    with pytest.raises(ConflictError, match="belongs to mapping new"):
        plan([new], [named("new"), named("old")])


def test_a_mapping_keeps_its_uuid() -> None:
    """A document that names another one than the mapping has is refused."""
    (old,) = [stored(change) for change in plan([], [named("old")])]
    other = Desired(MappingId("11111111-1111-4111-8111-111111111111"), "old", b"{}")
    with pytest.raises(ConflictError, match="cannot be changed"):
        plan([old], [other])


async def test_applying_twice_changes_once() -> None:
    """Applying is idempotent, and several nodes may apply the same files at the same time."""
    store = MemoryStore()
    wishes = [desired(A, b"1"), desired(B, b"2")]
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(apply(store, wishes)) for _ in range(5)]
    assert sum(len(run.result()) for run in runs) == 2
    _, records = await store.mappings()
    assert [r.document for r in records] == [b"1", b"2"]
    assert await apply(store, wishes) == []


async def test_a_mapping_that_others_keep_changing_is_a_conflict_in_the_end() -> None:
    """Two files that disagree about one mapping do not make a node spin for ever."""

    class Contested(MemoryStore):
        async def put_mapping(self, record: MappingRecord, **_: object) -> MappingRecord:
            raise ConflictError("changed meanwhile")

    with pytest.raises(ConflictError):
        await apply(Contested(), [desired(A)])
