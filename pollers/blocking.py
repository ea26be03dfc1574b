"""Which record holds up a shard, and who held the shard before: what operators are told of it. Pure.

Worked out when a report is made, and only of work that has failed: nothing is noted per record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.progress import MAX_TENURES, Blocking, ShardReport, ShardState, Succession, Tenure
from model.record import NO_POSITION
from pollers.parking_lot import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.lease import Lease
    from model.progress import ShardProgress
    from model.record import Record
    from pollers.attempts import Work

_FINAL_CALL = "window's final call"


class Stuck(NamedTuple):
    """Work that has failed and is not finished. `retry_at` is epoch seconds, None: not known."""

    work: Work
    retry_at: float | None


def blocking(stuck: Iterable[Stuck], before: Blocking | None, now_s: float) -> Blocking | None:
    """Return the record that holds up most: the first one of the shard, and so the checkpoint.

    `before` is what was last returned, also by a former holder: the same record goes on being since then.
    """
    found = sorted(stuck, key=lambda one: _position(one.work))
    if not found:
        return None
    work, retry_at = found[0]
    records = work.batch.records
    name = records[0].shown if records else _FINAL_CALL
    return Blocking(
        record=name,
        key=shown_key(records[0]) if records else None,
        records=len(records),
        failures=work.failures,
        invocations=work.invocations,
        setbacks=work.setbacks + work.refusals,
        since=before.since if before is not None and before.record == name else round(now_s, 3),
        retry_at=None if retry_at is None else round(retry_at, 3),
        others=len(found) - 1,
    )


def _position(work: Work) -> int:
    return work.batch.records[0].position if work.batch.records else NO_POSITION


def shown_key(record: Record) -> str | None:
    """Return a record's key as operators see it: shortened and printable; None without one."""
    if record.key is None:
        return None
    return printable(record.key)


def tenures(progress: ShardProgress, lease: Lease, now_s: float) -> tuple[Tenure, ...]:
    """Return the last holders of a shard with the new one, given what the one before had stored."""
    before = progress.report.tenures
    if before and before[-1].token == lease.token:
        return before
    present = Tenure(lease.token, lease.node, round(now_s, 3), _succession(progress, lease))
    return (*before, present)[-MAX_TENURES:]


def _succession(progress: ShardProgress, lease: Lease) -> Succession:
    if progress.node is None:
        return Succession.FIRST
    if _drained(progress.report):
        return Succession.HANDED_OVER
    return Succession.SAME_NODE if progress.node == lease.node else Succession.HOLDER_LOST


def _drained(report: ShardReport) -> bool:
    """Whether the holder was done with the shard when it wrote last."""
    return report.state in (ShardState.DRAINING, ShardState.DRAINED)
