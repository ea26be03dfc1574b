"""Bring what files say of functions into the store, as `controlplane.mappings` does with mappings.

A file is heeded when it asks for something new: with each part the store keeps a mark of what a file asked for last.
So a change by the API outlasts restarts. A part, or a function, that is taken out of a node's files goes when the node
reads them again; not at a restart, since nodes of one fleet may have different files.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

import structlog

from controlplane.mappings import mark_of
from model.errors import ConflictError
from model.function_definition import definition_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from model.function_config import FunctionPart, FunctionTable, StoredPart
    from statemgr.function_view import FunctionView
    from statemgr.stores import FunctionConfigs

    Wishes = Mapping[str, Mapping[FunctionPart, bytes]]

_T = TypeVar("_T")

log = structlog.get_logger(__name__)

_TRIES = 20
_NOTHING: Mapping[FunctionPart, bytes] = {}


@dataclass(frozen=True, slots=True)
class PartChange:
    """One part of a function that is to be put. `applied` is the mark to be kept with it."""

    function: str
    part: FunctionPart
    document: bytes | None
    applied: str


def plan_parts(present: FunctionTable, wishes: Wishes, before: Wishes | None = None) -> list[PartChange]:
    """Return what has to be put so that the store has what files say; `before` is what they said until now."""
    changes = []
    for function, parts in wishes.items():
        for part, document in parts.items():
            stored = present.functions.get(function, {}).get(part)
            if stored is None or stored.applied != mark_of(document):
                changes.append(PartChange(function, part, document, mark_of(document)))
    for function, parts in (before or {}).items():
        gone = sorted(parts.keys() - wishes.get(function, _NOTHING).keys())
        changes += [PartChange(function, part, None, "") for part in gone if present.document(function, part)]
    return changes


def lost_parts(present: FunctionTable, known: FunctionTable) -> list[PartChange]:
    """Return what a store that forgot everything is to be told again."""
    return [
        PartChange(function, part, stored.document, stored.applied)
        for function, parts in known.functions.items()
        for part, stored in parts.items()
        if part not in present.functions.get(function, {})
    ]


async def apply_parts(
    store: FunctionConfigs, plan: Callable[[FunctionTable], Sequence[PartChange]], *, by: str = "file"
) -> None:
    """Put what a plan asks for. Several nodes may do so with the same files at once.

    Raises `StoreUnavailableError`, or `ConflictError` when somebody else keeps changing functions.
    """
    conflicts, left = 0, inf
    while True:
        table = await store.functions()
        changes = plan(table)
        if not changes:
            return
        if len(changes) < left:  # others put the same: that is no conflict
            conflicts, left = 0, len(changes)
        change = changes[0]
        try:
            await store.put_part(
                change.function, change.part, change.document, applied=change.applied, seen=table.revision
            )
        except ConflictError:
            conflicts += 1
            if conflicts == _TRIES:
                raise
        else:
            log_part_change(change.function, change.part, by=by)


async def put_decided(
    store: FunctionConfigs,
    function: str,
    part: FunctionPart,
    decide: Callable[[FunctionTable], bytes | None],
    *,
    by: str,
) -> StoredPart:
    """Put what is decided on the present table, and on no other; return it as stored.

    Raises what `decide` raises, `StoreUnavailableError`, or `ConflictError` when others keep changing functions.
    """

    async def put(table: FunctionTable) -> StoredPart:
        return await store.put_part(function, part, decide(table), seen=table.revision)

    stored = await _on_present(store, put)
    log_part_change(function, part, by=by)
    return stored


async def _on_present(store: FunctionConfigs, change: Callable[[FunctionTable], Awaitable[_T]]) -> _T:
    """Return what a change of the present table comes to. It raises `ConflictError` when that is another by then."""
    for _ in range(_TRIES):
        table = await store.functions()
        with suppress(ConflictError):
            return await change(table)
    raise ConflictError("The functions are being changed by others. Try again.")


def log_part_change(function: str, part: FunctionPart, *, by: str) -> None:
    """Log that somebody changed what is said of a function: the audit trail."""
    log.info("function.changed", function=function, part=str(part), by=by)


class FunctionFiles:
    """What one node's files say of functions, in the store; and the node's view of all of it.

    `wishes` returns what the present files say.
    """

    def __init__(self, store: FunctionConfigs, view: FunctionView, wishes: Callable[[], Wishes]) -> None:
        self._store = store
        self._view = view
        self._wishes = wishes

    async def take_up(self, *, before: Wishes | None = None) -> None:
        """Put what the files say, where it is new; what they said `before` and say no more goes. Raises as apply."""
        for function in (before or {}).keys() - self._wishes().keys():
            await _on_present(self._store, partial(self._forget, function))
        await apply_parts(self._store, lambda table: plan_parts(table, self._wishes(), before))
        await self.read()

    async def _forget(self, function: str, table: FunctionTable) -> None:
        if definition_of(table, function) is None:  # else the API's, which the file had in its shadow
            await self._store.forget_function(function, seen=table.revision)

    async def read(self) -> None:
        """Read what is in the store. Raises `StoreUnavailableError`."""
        await self._view.read()

    async def publish_again(self) -> None:
        """Give a store that forgot everything what this node knows."""
        known = self._view.table
        await apply_parts(self._store, lambda table: lost_parts(table, known), by="node")
        await self.take_up()
