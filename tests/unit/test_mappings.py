"""Plans turn what is into what is asked for, touching nothing else."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.mappings import ChangeKind, Desired, apply, plan
from model.errors import ConflictError
from model.ids import MappingId
from model.mapping import MappingRecord, MappingState
from statemgr.memory_store import MemoryStore

A, B, C = (MappingId(name) for name in "abc")


def record(id_: MappingId, document: bytes = b"{}", state: MappingState = MappingState.ENABLED) -> MappingRecord:
    """Make a record as the store has it."""
    return MappingRecord(id_, f"mapping-{id_}", document, 3, state)


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
    """Whoever puts it again says so; one that is disabled begins as any other."""
    wishes = [Desired(A, "a", b"{}"), Desired(B, "b", b"{}", began=True), Desired(C, "c", b"{}", False, began=True)]
    states = [change.record.state for change in plan([], wishes)]
    assert states == [MappingState.CREATING, MappingState.ENABLED, MappingState.CREATING]


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
        async def put_mapping(self, record: MappingRecord, *, expected_revision: int | None = None) -> MappingRecord:
            raise ConflictError("changed meanwhile")

    with pytest.raises(ConflictError):
        await apply(Contested(), [desired(A)])
