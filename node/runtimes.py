"""What this node keeps for each mapping it works on: one source connection, one target, one compiled filter.

Made when the first shard of a mapping needs it, closed when the last one is done. A changed document gets a runtime of
its own, so what is under way finishes under the old one.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from model.errors import NotFoundError, RefusedError
from model.mapping import work_alike
from model.mapping_rules import parse_mapping
from model.problem import InvalidConfigurationError
from pollers.counters import MeterLabels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from model.ids import MappingId
    from model.mapping import EventSourceMapping, MappingRecord
    from pollers.pump_parts import PumpParts
    from pollers.queue_calls import QueueParts
    from statemgr.stores import MappingStore

log = structlog.get_logger(__name__)


class PartsFactory(Protocol):
    """Chooses the concrete source, envelope, filter and target of a mapping."""

    def __call__(self, mapping: EventSourceMapping) -> PumpParts | QueueParts:
        """Make them. Raises `RefusedError` when this node cannot work on the mapping."""


@dataclass(slots=True)
class _Runtime:
    parts: PumpParts | QueueParts
    users: int = 0


class Catalogue:
    """The mappings as this node last read them from the store."""

    def __init__(self, store: MappingStore) -> None:
        self._store = store
        self._records: dict[MappingId, MappingRecord] = {}
        self._parsed: dict[MappingId, tuple[int, EventSourceMapping]] = {}
        self._working: dict[MappingId, int] = {}
        self.revision: int | None = None

    def __iter__(self) -> Iterator[MappingRecord]:
        return iter(list(self._records.values()))

    async def read(self) -> dict[MappingId, bool]:
        """Read all mappings again; return those that changed, appeared or went, and whether their document changed."""
        self.revision, records = await self._store.mappings()
        before, self._records = self._records, {record.id: record for record in records}
        self._parsed = {id_: known for id_, known in self._parsed.items() if id_ in self._records}
        changed = [id_ for id_ in {**before, **self._records} if before.get(id_) != self._records.get(id_)]
        documents = {id_: not _works_alike(before.get(id_), self._records.get(id_)) for id_ in changed}
        self._working |= {
            id_: self._records[id_].revision for id_, other in documents.items() if other and id_ in self._records
        }
        self._working = {id_: revision for id_, revision in self._working.items() if id_ in self._records}
        return documents

    def record(self, mapping: MappingId) -> MappingRecord | None:
        """Return the mapping's record, None if there is none."""
        return self._records.get(mapping)

    def working_revision(self, mapping: MappingId) -> int | None:
        """Return the revision that brought what the work depends on: later ones changed nothing else."""
        return self._working.get(mapping)

    def named(self, name: str) -> MappingRecord | None:
        """Return the record of the mapping with this name, None if there is none."""
        return next((record for record in self._records.values() if record.name == name), None)

    def mapping(self, mapping: MappingId) -> EventSourceMapping:
        """Return the mapping itself. Raises `NotFoundError`, or `RefusedError` when its document is not valid here."""
        record = self._records.get(mapping)
        if record is None:
            raise NotFoundError(f"no mapping {mapping}")
        known = self._parsed.get(mapping)
        if known is None or known[0] != record.revision:
            try:
                known = (record.revision, _parsed(record))
            except InvalidConfigurationError as exc:
                # Another version of esmd may have stored it.
                raise RefusedError(f"mapping {record.name} is not valid for this node: {exc}") from exc
            self._parsed[mapping] = known
        return known[1]

    def labels(self, mapping: MappingId) -> MeterLabels | None:
        """Return a mapping's metric labels."""
        try:
            found = self.mapping(mapping)
        except (NotFoundError, RefusedError):
            return None
        return MeterLabels(found.name, found.source.kind)

    def all_labels(self) -> list[MeterLabels]:
        """Return the metric labels of every mapping that is valid here."""
        return [labels for labels in map(self.labels, self._records) if labels is not None]


def _works_alike(one: MappingRecord | None, other: MappingRecord | None) -> bool:
    """Whether nothing changed that the work on the mapping depends on: other tags disturb nobody."""
    if one is None or other is None:
        return False
    if one.revision == other.revision:
        return True
    try:
        return work_alike(_parsed(one), _parsed(other))
    except InvalidConfigurationError:
        return False


def _parsed(record: MappingRecord) -> EventSourceMapping:
    return parse_mapping(msgspec.json.decode(record.document), require_name=False)


class Runtimes:
    """The runtimes in use."""

    def __init__(self, catalogue: Catalogue, make_parts: PartsFactory) -> None:
        self._catalogue = catalogue
        self._make_parts = make_parts
        self._runtimes: dict[tuple[MappingId, int, int], _Runtime] = {}
        self._generation = 0

    def renew(self) -> None:
        """Make runtimes anew for whoever asks from now on: what parts are made from has changed."""
        self._generation += 1

    @asynccontextmanager
    async def using(self, mapping: MappingId) -> AsyncIterator[PumpParts | QueueParts]:
        """Hold a mapping's runtime for as long as the body runs. Raises `NotFoundError` and `RefusedError`."""
        record = self._catalogue.record(mapping)
        if record is None:
            raise NotFoundError(f"no mapping {mapping}")
        key = (mapping, self._catalogue.working_revision(mapping) or record.revision, self._generation)
        runtime = self._runtimes.get(key)
        if runtime is None:
            runtime = self._runtimes[key] = _Runtime(self._make_parts(self._catalogue.mapping(mapping)))
        runtime.users += 1
        try:
            yield runtime.parts
        finally:
            runtime.users -= 1
            if not runtime.users:
                del self._runtimes[key]
                await runtime.parts.close()
