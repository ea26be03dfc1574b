"""Why a mapping is where it is: what `esmd explain` shows, put together from what the store and the node know.

Reading is one function; everything else is pure. What it means in plain words is `controlplane.plain_words`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from controlplane.plain_words import summary
from controlplane.status import (
    CircuitStatus,
    ParkedKeyStatus,
    ShardStatus,
    mapping_status,
    nothing_live,
    present_shards,
)
from model.errors import NotFoundError
from model.ids import TRACKER, ShardId, ShardKey
from model.lease import Role, ShardKind
from model.progress import ShardProgress, ShardReport, ShardState
from model.schedule import utc_text
from statemgr.scaling import Allotment, QueueUse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controlplane.status import LiveShards
    from model.ids import NodeId
    from model.lease import FleetSnapshot
    from model.mapping import MappingRecord
    from model.progress import Blocking, Tenure
    from statemgr.stores import Store

_NEAR_LOSS_S = 86_400.0
"""A shard that is being read and still loses records within this time is worth a word."""


class BlockingExplanation(msgspec.Struct, frozen=True):
    """The record everything behind it waits for."""

    record: str  # position; in a queue the message id
    key: str | None
    records: int
    function_errors: int  # in a queue: how often it was received
    invocations: int
    setbacks: int
    since_s: float
    retry_in_s: float | None  # 0: now; None: not known
    others: int  # further ones, in other lanes or groups


class HolderExplanation(msgspec.Struct, frozen=True):
    """Who held the shard, and how it came to that holder: a `model.progress.Succession`."""

    node: str
    fencing_token: int
    since_s: float
    succession: str


class ShardExplanation(msgspec.Struct, frozen=True):
    """One shard that is not simply being read."""

    id: str
    state: str
    waits_for: str | None  # a `model.progress.WaitsFor`
    owner: str | None
    fencing_token: int
    checkpoint: str | None
    lag_records: int | None
    lag_s: float | None
    loss_in_s: float | None
    last_error: str | None
    error_age_s: float | None
    remark: str | None  # what is worth knowing about how the shard is read, and no trouble
    blocking: BlockingExplanation | None
    holders: list[HolderExplanation]  # the present one last
    parked_keys: list[ParkedKeyStatus]


class QueueExplanation(msgspec.Struct, frozen=True):
    """How much of a queue is worked on at once."""

    concurrency: int  # batches the state manager allows at once
    backlog: int | None
    busy: int  # most at once lately, as the pollers last reported
    allowed_by_pollers: int  # less than `concurrency` after throttles and errors


class Explanation(msgspec.Struct, frozen=True):
    """The whole document. `summary` says it in a sentence or two."""

    name: str
    uuid: str
    state: str
    state_reason: str
    changed_s: float | None  # since the mapping's document or state changed
    last_processing_result: str
    discovery_error: str | None  # what keeps the state manager from listing the source's shards
    pollers: int  # nodes that poll
    circuit: CircuitStatus
    queue: QueueExplanation | None
    shards_reading: int
    furthest_behind_s: float | None  # of these
    shards: list[ShardExplanation]  # those that are not simply being read
    next_firing: str | None = None  # of a schedule
    next_firing_in_s: float | None = None  # 0: now
    summary: list[str] = []
    seeking: bool = False  # its position is being moved


async def read_explanation(
    store: Store, node: NodeId, name: str, live: LiveShards = nothing_live, *, now_s: float
) -> Explanation:
    """Read everything about the mapping with this name or id. `now_s` is epoch time.

    Raises `NotFoundError` and `StoreUnavailableError`.
    """
    _, records = await store.mappings()
    record = find_mapping(records, name)
    snapshot = await store.snapshot()
    progress = await store.load_mapping(record.id)
    return explain(node, record, snapshot, progress, live, now_s=now_s)


def find_mapping(records: Sequence[MappingRecord], name: str) -> MappingRecord:
    """Return the mapping with this name, or else this id. Raises `NotFoundError`."""
    for record in records:
        if record.name == name:
            return record
    for record in records:
        if record.id == name.lower():
            return record
    known = ", ".join(record.name for record in records) or "none"
    raise NotFoundError(f"no mapping {name}; the fleet has: {known}")


def explain(
    node: NodeId,
    record: MappingRecord,
    snapshot: FleetSnapshot,
    progress: Mapping[ShardKey, ShardProgress],
    live: LiveShards = nothing_live,
    *,
    now_s: float,
) -> Explanation:
    """Put the document together."""
    wanted = {
        shard.key for shard in snapshot.wanted if shard.kind is ShardKind.SOURCE and shard.key.mapping == record.id
    }
    shards = present_shards(node, snapshot, wanted, progress, live)
    status = mapping_status(record, shards, wanted, snapshot.holdings, now_s=now_s)
    tracker = shards.get(ShardKey(record.id, TRACKER), ShardProgress())
    told: list[ShardExplanation] = []
    lags_s: list[float] = []
    for shard in status.shards:
        report = shards[ShardKey(record.id, ShardId(shard.id))].report
        if not _simply_read(shard, report):
            told.append(_shard(shard, report, now_s))
        elif shard.lag_s is not None:
            lags_s.append(shard.lag_s)
    next_s = min((one.report.next_s for one in shards.values() if one.report.next_s is not None), default=None)
    explanation = Explanation(
        name=record.name,
        uuid=str(record.id),
        state=str(record.state),
        state_reason=record.state_reason,
        changed_s=round(max(0.0, now_s - record.modified_time), 3) if record.modified_time else None,
        last_processing_result=status.last_processing_result,
        discovery_error=tracker.report.last_error,
        pollers=sum(Role.POLLERS in member.roles and not member.draining for member in snapshot.members),
        circuit=status.circuit,
        queue=_queue(tracker, [one for key, one in shards.items() if key in wanted]),
        shards_reading=len(status.shards) - len(told),
        furthest_behind_s=max(lags_s, default=None),
        shards=told,
        next_firing=None if next_s is None else utc_text(next_s),
        next_firing_in_s=None if next_s is None else round(max(0.0, next_s - now_s), 3),
        seeking=status.seeking,
    )
    return msgspec.structs.replace(explanation, summary=summary(explanation))


def _simply_read(shard: ShardStatus, report: ShardReport) -> bool:
    return (
        shard.state == ShardState.READING
        and shard.last_error is None
        and not shard.parked_keys
        and report.blocking is None
        and (shard.loss_in_s is None or shard.loss_in_s > _NEAR_LOSS_S)
    )


def _shard(shard: ShardStatus, report: ShardReport, now_s: float) -> ShardExplanation:
    return ShardExplanation(
        id=shard.id,
        state=shard.state,
        waits_for=report.waits_for,
        owner=shard.owner,
        fencing_token=shard.fencing_token,
        checkpoint=shard.checkpoint,
        lag_records=shard.lag_records,
        lag_s=shard.lag_s,
        loss_in_s=shard.loss_in_s,
        last_error=shard.last_error,
        error_age_s=None if report.error_time is None else _age_s(report.error_time, now_s),
        remark=shard.remark,
        blocking=None if report.blocking is None else _blocking(report.blocking, now_s),
        holders=[_holder(tenure, now_s) for tenure in report.tenures],
        parked_keys=list(shard.parked_keys),
    )


def _blocking(blocking: Blocking, now_s: float) -> BlockingExplanation:
    retry_at = blocking.retry_at
    return BlockingExplanation(
        record=blocking.record,
        key=blocking.key,
        records=blocking.records,
        function_errors=blocking.failures,
        invocations=blocking.invocations,
        setbacks=blocking.setbacks,
        since_s=_age_s(blocking.since, now_s),
        retry_in_s=None if retry_at is None else round(max(0.0, retry_at - now_s), 3),
        others=blocking.others,
    )


def _holder(tenure: Tenure, now_s: float) -> HolderExplanation:
    return HolderExplanation(tenure.node, tenure.token, _age_s(tenure.since, now_s), str(tenure.succession))


def _queue(tracker: ShardProgress, pollers: Sequence[ShardProgress]) -> QueueExplanation | None:
    """Return how a queue is worked on; None for a stream, whose tracker allots nothing."""
    allotment = Allotment.decode(tracker.state)
    if allotment is None:
        return None
    uses = [QueueUse.decode(poller.state) for poller in pollers]
    return QueueExplanation(
        concurrency=allotment.concurrency,
        backlog=allotment.backlog,
        busy=sum(use.busy for use in uses),
        allowed_by_pollers=sum(use.limit for use in uses),
    )


def _age_s(since: float, now_s: float) -> float:
    return round(max(0.0, now_s - since), 3)
