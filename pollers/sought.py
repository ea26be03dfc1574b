"""What becomes of a shard's stored progress when an operator moves it. Pure.

| Of the shard | After the move |
|---|---|
| checkpoint, origin | as the move says |
| ranges finished ahead of the checkpoint | forgotten: from the new place on everything is delivered (again) |
| attempts | forgotten, but for those of records that stay parked |
| parked records at or behind the new place | leave the lot: they are read again; the ledger counts them then |
| parked records before it | stay parked, in order |
| tumbling window with its state | forgotten: it belongs to the records before the old checkpoint |
| ledger | kept; what is delivered again counts again |
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from model.ids import Position, ShardOrigin, position_key
from model.progress import Ledger, ParkedChange, ParkedRecords, ShardProgress, ShardReport, ShardState
from pollers.shard_state import StoredState

if TYPE_CHECKING:
    from model.seek import Move


def moved(before: ShardProgress, lot: ParkedRecords, move: Move) -> tuple[ShardProgress, ParkedChange | None] | None:
    """Return the progress of a shard that nobody holds, and what happens to its parking lot; None: it stays.

    `lot` is what is stored of it.
    """
    target = None if move.position is None else Position(move.position)
    if move.forward and target is not None and before.position is not None:  # noqa: SIM102 - the reason is in the test
        if position_key(before.position) >= position_key(target):
            return None  # it was read on while it was asked
    begins = None if move.begins is None else int(move.begins)
    again = [] if begins is None else [record for record in lot.records if record.position >= begins]
    stay = lot.records[: len(lot.records) - len(again)]
    try:
        attempts = StoredState.decode(before.state).attempts
    except msgspec.DecodeError:  # of another version: what it says goes anyway
        attempts = {}
    revision = lot.revision + 1 if again else lot.revision
    state = StoredState(
        {record.position: attempts[record.position] for record in stay if record.position in attempts},
        parked=revision if stay else 0,
    )
    ledger = before.ledger.plus(Ledger(polled=-len(again), parked=-len(again)))
    # Left in order: what the shard had under way is no sign of records that kill their holders.
    report = ShardReport(
        ShardState.DRAINING,
        last_result=before.report.last_result,
        tenures=before.report.tenures,
        parked_tries=before.report.parked_tries,
        load=before.report.load,
    )
    progress = replace(
        before,
        position=target,
        origin=ShardOrigin(move.origin),
        ledger=ledger,
        state=state.encode(),
        report=report,
    )
    change = ParkedChange(lot.revision, revision, drop=tuple(record.position for record in again)) if again else None
    return progress, change
