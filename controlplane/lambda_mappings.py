"""The operations of the Lambda API on event source mappings (spec section 7), on the store that files write to as well.

Every change is a compare-and-set on all mappings as they were seen: two nodes' APIs, or an API and a file, do not lose
each other's changes, and what must hold among mappings (no duplicates) is checked on what is then true. Left to
others: HTTP (`node.lambda_api`), and what only a node knows (`Surroundings`).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from controlplane.lambda_documents import (
    changed,
    check_group,
    configuration,
    local_secrets,
    means_the_same,
    read_mapping,
    unreadable,
)
from controlplane.lambda_errors import ApiError, in_use, invalid, not_found, refused
from controlplane.lambda_listing import Page, belongs, page_of
from controlplane.mappings import deleting, log_change, next_state
from controlplane.status import NOTHING_PROCESSED, assemble, load_mappings, nothing_live
from model.errors import ConflictError, UnavailableError
from model.ids import TRACKER, MappingId, NodeId, ShardKey
from model.mapping import MappingRecord, MappingState, SqsSource
from model.mapping_rules import check_together, duplicate_message, mapping_id, parse_mapping
from model.problem import InvalidConfigurationError
from model.progress import ShardState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from controlplane.lambda_listing import ListRequest
    from controlplane.status import LiveShards
    from model.mapping import EventSourceMapping
    from statemgr.stores import Store

_TRIES = 20
_MOVING = frozenset({
    MappingState.CREATING, MappingState.ENABLING, MappingState.DISABLING, MappingState.UPDATING,
})  # fmt: skip
_STUCK = frozenset({ShardState.FAILED, ShardState.WAITING})


class Surroundings(Protocol):
    """What only the node that is asked can tell."""

    @property
    def trusted(self) -> bool:
        """Whether callers have proved who they are."""

    def mapping_arn(self, mapping: MappingId) -> str:
        """Return the ARN a mapping has in the configured region and account."""

    def function_arn(self, function_name: str) -> str:
        """Return the ARN by which a function is named in documents."""

    def function_problem(self, mapping: EventSourceMapping) -> str | None:
        """Return why the mapping's function cannot be used; None if it can."""

    async def check_source(self, mapping: EventSourceMapping) -> None:
        """Return if the source exists and fits, or nobody can tell now. Raises `ApiError`."""


class LambdaMappings:
    """The operations. Each raises `ApiError`, and `StoreUnavailableError`. `by` names the caller for the audit log."""

    def __init__(
        self,
        store: Store,
        around: Surroundings,
        *,
        live: LiveShards = nothing_live,
        node: Callable[[], NodeId] = lambda: NodeId(""),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._around = around
        self._live = live
        self._node = node
        self._now = now
        self._parsed: dict[MappingId, tuple[int, EventSourceMapping]] = {}

    async def create(self, wish: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Make a mapping; return its configuration. One with a `Name`, which is ours, gets the id a file gives it."""
        if "UUID" in wish or "renamed_from" in _extensions(wish):
            raise refused("InvalidParameterValueException", "UUID and renamed_from are not given at creation")
        name = wish.get("Name")
        identity = mapping_id(name) if isinstance(name, str) else MappingId(str(uuid.uuid4()))
        document = dict(wish) if isinstance(name, str) else {**wish, "UUID": identity}
        mapping, stored = read_mapping(document, now=self._now())
        self._check_secrets({}, document)
        self._check_function(mapping)
        await self._around.check_source(mapping)
        state = MappingState.CREATING if mapping.enabled else MappingState.DISABLED
        record = MappingRecord(identity, mapping.name, stored, 0, state)
        for _ in range(_TRIES):
            seen, records = await self._records()
            if any(other.name == record.name or other.id == record.id for other in records):
                why = f"Another event source mapping has, or had, the Name {record.name}"
                raise refused("ResourceConflictException", why)
            self._check_among(mapping, records)
            try:
                made = await self._store.put_mapping(record, expected_revision=0, seen=seen)
            except ConflictError:
                continue
            log_change("add", made, by=by)
            return await self._made(made)
        raise _contended()

    async def get(self, name: str) -> dict[str, Any]:
        """Return the configuration of the mapping with this id, or name."""
        _, records = await self._records()
        return (await self._shown([_find(records, name)]))[0]

    async def update(self, name: str, wish: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Change what the wish names; return the configuration with the state on the way."""
        if "renamed_from" in _extensions(wish):
            raise refused("InvalidParameterValueException", "renamed_from is for files")
        checked = b""
        for _ in range(_TRIES):
            seen, records = await self._records()
            record = _find(records, name)
            await self._check_free(record, "update")
            mapping, stored = self._after(record, wish)
            if stored is None:
                return (await self._shown([record]))[0]
            self._check_among(mapping, records)
            if stored != checked:
                self._check_function(mapping)
                if mapping.enabled:
                    await self._around.check_source(mapping)
                checked = stored
            state = next_state(record.state, enabled=mapping.enabled)
            changed_record = MappingRecord(record.id, record.name, stored, 0, state, applied=record.applied)
            try:
                made = await self._store.put_mapping(changed_record, expected_revision=record.revision, seen=seen)
            except ConflictError:
                continue
            log_change("change", made, by=by, changed=sorted(wish), enabled=mapping.enabled)
            return await self._made(made)
        raise _contended()

    async def delete(self, name: str, *, by: str) -> dict[str, Any]:
        """Have a mapping deleted; return its configuration as it goes."""
        for _ in range(_TRIES):
            seen, records = await self._records()
            record = _find(records, name)
            await self._check_free(record, "delete")
            try:
                made = await self._store.put_mapping(deleting(record), expected_revision=record.revision, seen=seen)
            except ConflictError:
                continue
            log_change("remove", made, by=by)
            return await self._made(made)
        raise _contended()

    async def page(self, request: ListRequest) -> Page:
        """Return a page of configurations, in the order of names."""
        _, records = await self._records()
        wanted = records if request.unfiltered else [one for one in records if self._belongs(one, request)]
        here, marker = page_of(wanted, request)
        shown = await self._shown(here)
        for one in shown:
            if one.get("KMSKeyArn"):
                one.pop("FilterCriteria", None)  # AWS does not decrypt it for a list
        return Page(shown, marker)

    async def tags(self, name: str) -> dict[str, str]:
        """Return a mapping's tags."""
        _, records = await self._records()
        return dict(_document(_find(records, name)).get("Tags") or {})

    async def retag(self, name: str, put: Mapping[str, Any], drop: Sequence[str], *, by: str) -> None:
        """Change a mapping's tags. That disturbs nothing."""
        for _ in range(_TRIES):
            seen, records = await self._records()
            record = _find(records, name)
            if record.state is MappingState.DELETING:
                raise not_found()
            document = _document(record)
            tags = {key: value for key, value in {**(document.get("Tags") or {}), **put}.items() if key not in drop}
            _, stored = read_mapping({**document, "Tags": tags})
            if stored == record.document:
                return
            tagged = MappingRecord(
                record.id, record.name, stored, 0, record.state, record.state_reason, applied=record.applied
            )
            try:
                made = await self._store.put_mapping(tagged, expected_revision=record.revision, seen=seen)
            except ConflictError:
                continue
            log_change("tag", made, by=by, put=sorted(put), dropped=sorted(drop))
            return
        raise _contended()

    async def _records(self) -> tuple[int, Sequence[MappingRecord]]:
        seen, records = await self._store.mappings()
        present = {record.id for record in records}
        self._parsed = {id_: known for id_, known in self._parsed.items() if id_ in present}
        return seen, records

    # What is checked

    def _after(self, record: MappingRecord, wish: Mapping[str, Any]) -> tuple[EventSourceMapping, bytes | None]:
        """Return the mapping after an update, and the document to be stored; None: nothing changes."""
        before = self._read(record)
        if before is None:
            raise refused("InvalidParameterValueException", "Another version of esmd made this mapping: delete it")
        present = _document(record)
        document = changed(present, wish)
        mapping, stored = read_mapping(document)
        check_group(before, mapping)
        self._check_secrets(present, document)
        return mapping, None if means_the_same(before, present, mapping, document) else stored

    def _check_secrets(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        told = local_secrets(after)
        if told and told != local_secrets(before) and not self._around.trusted:
            raise refused(
                "InvalidParameterValueException",
                "SourceAccessConfigurations: secrets in files and variables of the nodes can be named by the API only "
                "where `auth` is set. Put the mapping into a file, or the secret into AWS Secrets Manager.",
            )

    def _check_function(self, mapping: EventSourceMapping) -> None:
        problem = self._around.function_problem(mapping)
        if problem is not None:
            raise refused("InvalidParameterValueException", problem)

    def _check_among(self, mapping: EventSourceMapping, records: Sequence[MappingRecord]) -> None:
        """Hold a mapping against the others."""
        others = [other for record in records if record.id != mapping.id and (other := self._read(record)) is not None]
        for other in others:
            message = duplicate_message(other, mapping)
            if message is not None:
                raise refused("ResourceConflictException", message)
        paths = ["other"] * len(others) + [""]
        problems = [found for found in check_together([*others, mapping], paths=paths) if found.path[:5] != "other"]
        if problems:
            raise invalid(problems)

    async def _check_free(self, record: MappingRecord, what: str) -> None:
        """Refuse what comes while a mapping is on its way, unless its way is barred: then somebody must mend it."""
        if record.state is MappingState.DELETING:
            raise in_use(what)
        if record.state in _MOVING:
            tracker = ShardKey(record.id, TRACKER)
            progress = (await self._store.load([tracker])).get(tracker)
            if progress is None or progress.report.state not in _STUCK:
                raise in_use(what)

    # What is shown

    def _belongs(self, record: MappingRecord, request: ListRequest) -> bool:
        mapping = self._read(record)
        if mapping is None:
            return False
        arn = self._around.function_arn(mapping.function_name)
        return belongs(_document(record), (mapping.function_name, arn), request)

    async def _made(self, record: MappingRecord) -> dict[str, Any]:
        """Return the configuration after a change. It is made: a store that is away by now does not undo it."""
        try:
            return (await self._shown([record]))[0]
        except UnavailableError:
            return self._configuration(record, self._read(record), NOTHING_PROCESSED)

    async def _shown(self, records: Sequence[MappingRecord]) -> list[dict[str, Any]]:
        read = [(record, self._read(record)) for record in records]
        telling = [
            record for record, mapping in read if mapping is not None and not isinstance(mapping.source, SqsSource)
        ]
        results = await self._results(telling) if telling else {}
        return [self._configuration(record, mapping, results.get(record.id, "")) for record, mapping in read]

    def _configuration(
        self, record: MappingRecord, mapping: EventSourceMapping | None, last_result: str
    ) -> dict[str, Any]:
        arn = self._around.mapping_arn(record.id)
        if mapping is None:
            return unreadable(record, arn)
        return configuration(
            record,
            _document(record),
            mapping,
            arn=arn,
            function_arn=self._around.function_arn(mapping.function_name),
            last_result=last_result,
        )

    async def _results(self, records: Sequence[MappingRecord]) -> dict[MappingId, str]:
        """Return the last processing results of mappings."""
        snapshot = await self._store.snapshot()
        progress = await load_mappings(self._store, records)
        now_s = self._now().timestamp()
        status = assemble(self._node(), snapshot, records, progress, self._live, now_s=now_s)
        return {MappingId(one.uuid): one.last_processing_result for one in status.mappings}

    def _read(self, record: MappingRecord) -> EventSourceMapping | None:
        """Return the mapping of a record; None if this version does not understand its document."""
        known = self._parsed.get(record.id)
        if known is None or known[0] != record.revision:
            try:
                known = (record.revision, parse_mapping(_document(record), require_name=False))
            except InvalidConfigurationError:
                return None
            self._parsed[record.id] = known
        return known[1]


def _find(records: Sequence[MappingRecord], name: str) -> MappingRecord:
    """Return the mapping with this id or name. Names do not look like ids."""
    for record in records:
        if record.id == name.lower() or record.name == name:
            return record
    raise not_found()


def _document(record: MappingRecord) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(record.document)
    return document


def _extensions(wish: Mapping[str, Any]) -> dict[str, Any]:
    ours = wish.get("extensions")
    return ours if isinstance(ours, dict) else {}


def _contended() -> ApiError:
    return refused("ResourceConflictException", "Others keep changing the event source mappings. Try again.")
