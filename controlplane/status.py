"""The document of `esmd status`: the whole fleet, put together from the store (contract section 5).

What the node that answers holds itself comes from memory instead, since that is fresher than the last checkpoint.
Reading is one function; everything else is pure.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Protocol

import msgspec

from model.async_event import ASYNC_QUEUE
from model.ids import TRACKER
from model.lease import ShardKind
from model.placement import decode_offers
from model.progress import CircuitReport, CircuitState, Ledger, ShardProgress, ShardReport, ShardState
from model.schedule import utc_text
from statemgr.lineage import is_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from model.ids import MappingId, NodeId, ShardId, ShardKey
    from model.lease import FleetSnapshot, Holding
    from model.mapping import MappingRecord
    from model.placement import Offer
    from statemgr.stores import ProgressStore, Store

_SEVERITY = [CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN]

NOTHING_PROCESSED = "No records processed"
OK = "OK"


class EnvironmentsStatus(msgspec.Struct, frozen=True):
    """What a node offers to run for others: execution environments there are, room for more, idle ones by function."""

    running: int
    free: int
    free_memory_mb: int
    warm: dict[str, int]


class NodeStatus(msgspec.Struct, frozen=True):
    """One member of the fleet. `shards`: of sources, trackers not counted."""

    id: str
    roles: list[str]
    shards: int
    heartbeat_age_s: float
    zone: str = ""
    environments: EnvironmentsStatus | None = None  # None: it offers nothing


class LedgerStatus(msgspec.Struct, frozen=True):
    """A mapping's records, over all its shards, also those long read to their end."""

    polled: int
    delivered: int
    filtered: int
    destination: int
    dropped: int
    parked: int
    in_flight: int
    balanced: bool


class ParkedKeyStatus(msgspec.Struct, frozen=True):
    """A key whose records are parked: they wait until the function takes the first of them."""

    key: str
    records: int
    bytes: int
    age_s: float  # since it was parked, or its present holder took it over
    failures: int
    last_error: str | None


class ShardStatus(msgspec.Struct, frozen=True):
    """One shard. `fencing_token` is 0 when nobody ever held it; `state` a `ShardState` or a `WithoutHolder`."""

    id: str
    owner: str | None
    fencing_token: int
    checkpoint: str | None
    lag_records: int | None
    lag_s: float | None
    loss_in_s: float | None
    state: str
    last_error: str | None
    parked_keys: list[ParkedKeyStatus]  # those parked longest, at most `MAX_PARKED_SHOWN`
    remark: str | None
    load: float = 1.0  # what it costs its holder, measured and damped; 1: an idle shard
    next_firing: str | None = None  # of a schedule


class CircuitStatus(msgspec.Struct, frozen=True):
    """Whether a mapping's function is called as usual: of the node where that is least so."""

    state: str  # a `CircuitState`
    since_s: float | None  # it is closed, or it is not, for so long; None: it was never open
    retry_in_s: float | None
    last_error: str | None
    limit: int | None  # batches that the function is given at once, since it throttles


class MappingStatus(msgspec.Struct, frozen=True):
    """One event source mapping."""

    name: str
    uuid: str
    state: str
    last_processing_result: str
    circuit: CircuitStatus
    ledger: LedgerStatus
    shards: list[ShardStatus]
    seeking: bool = False  # its position is being moved: nothing is read until that is done


class AsyncInvokeStatus(msgspec.Struct, frozen=True):
    """Events of asynchronous invocations that wait or are under way, over all functions."""

    events: int = 0
    bytes: int = 0
    oldest_age_s: float | None = None


class Status(msgspec.Struct, frozen=True):
    """The whole document. `node` is the one that answered."""

    node: str
    nodes: list[NodeStatus]
    mappings: list[MappingStatus]
    async_invoke: AsyncInvokeStatus = AsyncInvokeStatus()


class WithoutHolder(StrEnum):
    """What a shard that nobody holds is doing."""

    UNOWNED = "unowned"  # wanted; some node should take it within seconds
    PENDING = "pending"  # to be read once the shards it came from are read to their end
    STOPPED = "stopped"  # not wanted: its mapping is disabled, or the source has it no more


class LiveShards(Protocol):
    """What the answering node knows of the shards it holds."""

    def __call__(self, key: ShardKey, /) -> tuple[ShardReport, Ledger] | None:
        """Return the shard's present report and ledger; None when it is not held here."""


def nothing_live(_key: ShardKey, /) -> None:
    """Know of no shard: a node without the pollers role."""
    return


async def read_status(
    store: Store, node: NodeId, live: LiveShards = nothing_live, *, now_s: Callable[[], float] = time.time
) -> Status:
    """Read everything from the store. Raises `StoreUnavailableError`. `now_s` is epoch time."""
    _, records = await store.mappings()
    snapshot = await store.snapshot()
    progress = await load_mappings(store, records)
    offers = decode_offers(await store.placement.offers())
    status = assemble(node, snapshot, records, progress, live, offers=offers, now_s=now_s())
    depth = await store.events.depth()
    oldest_age_s = None if depth.oldest_age_s is None else round(depth.oldest_age_s, 3)
    return msgspec.structs.replace(status, async_invoke=AsyncInvokeStatus(depth.events, depth.size, oldest_age_s))


async def load_mappings(
    store: ProgressStore, records: Sequence[MappingRecord]
) -> dict[MappingId, Mapping[ShardKey, ShardProgress]]:
    """Return how far mappings got. Raises `StoreUnavailableError`."""
    # Side by side, as far as the store lets them: one after the other they would take as many round trips.
    try:
        async with asyncio.TaskGroup() as tasks:
            loading = {record.id: tasks.create_task(store.load_mapping(record.id)) for record in records}
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return {mapping: task.result() for mapping, task in loading.items()}


def assemble(
    node: NodeId,
    snapshot: FleetSnapshot,
    records: Sequence[MappingRecord],
    progress: Mapping[MappingId, Mapping[ShardKey, ShardProgress]],
    live: LiveShards = nothing_live,
    *,
    offers: Mapping[NodeId, Offer] | None = None,
    now_s: float,
) -> Status:
    """Put the document together."""
    wanted: dict[MappingId, set[ShardKey]] = {}
    for shard in snapshot.wanted:
        if shard.kind is ShardKind.SOURCE:
            wanted.setdefault(shard.key.mapping, set()).add(shard.key)
    mappings = []
    for record in records:
        mine = wanted.get(record.id, set())
        shards = present_shards(node, snapshot, mine, progress.get(record.id, {}), live)
        mappings.append(mapping_status(record, shards, mine, snapshot.holdings, now_s=now_s))
    return Status(str(node), _nodes(snapshot, offers or {}), mappings)


def present_shards(
    node: NodeId,
    snapshot: FleetSnapshot,
    wanted: Iterable[ShardKey],
    progress: Mapping[ShardKey, ShardProgress],
    live: LiveShards,
) -> dict[ShardKey, ShardProgress]:
    """Return what is known of a mapping's shards by now, from memory where `node` itself holds them."""

    def freshest(key: ShardKey, stored: ShardProgress) -> ShardProgress:
        holding = snapshot.holdings.get(key)
        if holding is None:
            return stored
        now = live(key) if holding.node == node else None
        if now is not None:
            report, ledger = now
            return ShardProgress(stored.position, holding.token, node, ledger, stored.state, report)
        # What it says is its last holder's until the new one has written; that it was read to its end stays true.
        if stored.token != holding.token and not _read_to_its_end(stored):
            last = stored.report
            report = replace(last, state=ShardState.STARTING, circuit=None)
            return ShardProgress(stored.position, stored.token, stored.node, stored.ledger, stored.state, report)
        return stored

    known = {**dict.fromkeys(wanted, ShardProgress()), **progress}
    return {key: freshest(key, one) for key, one in known.items()}


def last_processing_result(reports: Mapping[ShardId, ShardReport]) -> str:
    """Return AWS's LastProcessingResult of a mapping (spec section 7.4) from those of its shards.

    A problem of any shard is the mapping's, the tracker's before all: without it nothing else goes on.
    """
    order = sorted(reports, key=lambda shard: (shard != TRACKER, natural_key(shard)))
    results = [reports[shard].last_result for shard in order]
    problems = [result for result in results if result not in {OK, NOTHING_PROCESSED}]
    if problems:
        return problems[0]
    return OK if OK in results else NOTHING_PROCESSED


def circuit_status(reports: Iterable[ShardReport], now_s: float) -> CircuitStatus:
    """Return the worst of what the holders of a mapping's shards report of its function. `now_s` is epoch time."""
    worst = max(
        (report.circuit for report in reports if report.circuit is not None),
        key=lambda circuit: (_SEVERITY.index(circuit.state), -inf if circuit.limit is None else -circuit.limit),
        default=CircuitReport(),
    )
    return CircuitStatus(
        state=str(worst.state),
        since_s=None if worst.since_ms is None else round(max(0.0, now_s - worst.since_ms / 1000), 3),
        retry_in_s=None if worst.retry_ms is None else round(max(0.0, worst.retry_ms / 1000 - now_s), 3),
        last_error=worst.error,
        limit=worst.limit,
    )


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Order names by the numbers in them: `orders-2` before `orders-10`."""
    parts = re.split(r"([0-9]+)", text)
    return [(1, int(part), "") if index % 2 else (0, 0, part) for index, part in enumerate(parts)]


def mapping_status(
    record: MappingRecord,
    shards: Mapping[ShardKey, ShardProgress],
    wanted: set[ShardKey],
    holdings: Mapping[ShardKey, Holding],
    *,
    now_s: float,
) -> MappingStatus:
    """Put one mapping's part of the document together."""
    total = Ledger()
    for progress in shards.values():
        total = total.plus(progress.ledger)
    # Shards that were read to their end are history: they count in the ledger and are not listed.
    # So are those of which nothing is to be read.
    shown = {
        key: progress
        for key, progress in shards.items()
        if key.shard != TRACKER and (key in wanted or key in holdings or not is_done(progress))
    }
    telling = {key.shard: progress.report for key, progress in shards.items() if key in shown or key.shard == TRACKER}
    return MappingStatus(
        name=record.name,
        uuid=str(record.id),
        state=str(record.state),
        last_processing_result=last_processing_result(telling),
        circuit=circuit_status([one.report for key, one in shards.items() if key in holdings], now_s),
        ledger=LedgerStatus(
            **msgspec.structs.asdict(total), balanced=all(one.ledger.balanced for one in shards.values())
        ),
        shards=[
            _shard(key, shown[key], holdings.get(key), wanted=wanted, now_s=now_s)
            for key in sorted(shown, key=lambda key: natural_key(key.shard))
        ],
        seeking=bool(record.seek),
    )


def _shard(
    key: ShardKey, progress: ShardProgress, holding: Holding | None, *, wanted: set[ShardKey], now_s: float
) -> ShardStatus:
    report = progress.report
    state: str = report.state
    if holding is None and not _read_to_its_end(progress):
        if key in wanted:
            state = WithoutHolder.UNOWNED
        else:  # of a mapping that is being read, one that was noted and not begun has parents that are
            waits = bool(wanted) and progress.origin is not None and progress.position is None
            state = WithoutHolder.PENDING if waits else WithoutHolder.STOPPED
    return ShardStatus(
        id=str(key.shard),
        owner=str(holding.node) if holding else None,
        fencing_token=int((holding.token if holding else progress.token) or 0),
        checkpoint=progress.position,
        lag_records=report.lag_records,
        lag_s=None if report.lag_s is None else round(report.lag_s, 3),
        loss_in_s=report.loss_in_s,
        state=str(state),
        last_error=report.last_error,
        parked_keys=[
            ParkedKeyStatus(
                key=parked.key,
                records=parked.records,
                bytes=parked.size,
                age_s=round(max(0.0, now_s - parked.since), 3),
                failures=parked.failures,
                last_error=parked.error,
            )
            for parked in report.parked_keys
        ],
        remark=report.remark,
        load=report.load,
        next_firing=None if report.next_s is None else utc_text(report.next_s),
    )


def _read_to_its_end(progress: ShardProgress) -> bool:
    """Whether nothing is left in a shard. A queue's poller is `drained` once its holder has left: no end."""
    placed = progress.position is not None or progress.origin is not None
    return placed and progress.report.state is ShardState.DRAINED


def _environments(offer: Offer | None) -> EnvironmentsStatus | None:
    if offer is None:
        return None
    return EnvironmentsStatus(offer.environments, offer.free.environments, offer.free.memory_mb, offer.warm)


def _nodes(snapshot: FleetSnapshot, offers: Mapping[NodeId, Offer]) -> list[NodeStatus]:
    shards: dict[NodeId, int] = {}
    for key, holding in snapshot.holdings.items():
        if key.shard != TRACKER and key.mapping != ASYNC_QUEUE:
            shards[holding.node] = shards.get(holding.node, 0) + 1
    return [
        NodeStatus(
            id=str(member.node),
            roles=sorted(member.roles),
            shards=shards.get(member.node, 0),
            heartbeat_age_s=round(max(0.0, member.heartbeat_age_s), 3),
            zone=member.zone,
            environments=_environments(offers.get(member.node)),
        )
        for member in sorted(snapshot.members, key=lambda member: member.node)
    ]
