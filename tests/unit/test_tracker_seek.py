"""A mapping's tracker meeting wishes to move its position."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from model.ids import FencingToken, Position, ShardId, ShardKey, ShardOrigin
from model.lease import Lease
from model.mapping import MappingState
from model.progress import Ledger, ParkedChange, ParkedRecords, ProgressUpdate, ShardProgress, ShardReport
from model.seek import Move, SeekWish
from statemgr.manager import Tracker
from tests.support.pump_fakes import MAPPING
from tests.unit.test_manager import NODE, Rig

pytestmark = pytest.mark.looptime


def put(before: ShardProgress, lot: ParkedRecords, move: Move) -> tuple[ShardProgress, ParkedChange | None]:
    """Do what the pollers do, as far as these tests need it."""
    del lot
    return replace(before, position=Position(move.position or "0"), origin=ShardOrigin(move.origin)), None


async def test_a_wish_is_met_when_nobody_holds_a_shard() -> None:
    """Holders drain first; then the position moves, and the shards are wanted again."""
    rig = Rig()
    await rig.begin(MappingState.ENABLED)
    tracker = Tracker(rig.store, rig.lease, current=rig.current, discover=rig.discover, moved=put)
    held = ShardKey(MAPPING, ShardId("orders-0"))
    wish = SeekWish((Move("orders-0", "4", "PUT"),), by="somebody").encode()

    async def hold() -> None:
        granted = await rig.store.acquire(NODE, [held], floor=FencingToken(0), ttl_s=1e9)
        lease = granted[held][0]
        await rig.store.save([ProgressUpdate(held, lease.token, NODE, Position("9"), Ledger(), ShardReport())])
        await rig.store.wish_seek(MAPPING, wish)

    async def still_held() -> None:
        assert await rig.wanted() == []
        assert (await rig.store.load([held]))[held].position == "9"
        granted = await rig.store.acquire(NODE, [held], floor=FencingToken(0), ttl_s=1e9)
        assert granted == {}  # it is not wanted
        snapshot = await rig.store.snapshot()
        await rig.store.release([Lease(held, NODE, snapshot.holdings[held].token)])

    with capture_logs() as logs:
        await rig.during(tracker, hold, still_held, lambda: None)
    assert (await rig.store.load([held]))[held].position == "4"
    assert await rig.wanted() == ["orders-0", "orders-1"]
    (line,) = [line for line in logs if line["event"] == "mapping.sought"]
    assert (line["by"], line["shards"]) == ("somebody", [{"shard": "orders-0", "was": "9", "now": "4"}])


async def test_a_wish_that_cannot_be_read_is_taken_away() -> None:
    """It is of another version: the mapping goes on where it is rather than standing still for ever."""
    rig = Rig()
    tracker = await rig.begin(MappingState.ENABLED)
    with capture_logs() as logs:
        await rig.during(tracker, lambda: rig.store.wish_seek(MAPPING, "{"), lambda: None)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["mapping.seek_unreadable"]
    assert await rig.wanted() == ["orders-0", "orders-1"]
    assert rig.record is not None
    assert rig.record.seek == ""


async def test_a_lot_that_has_changed_is_read_again_before_its_shard_moves() -> None:
    """The first try writes nothing; the next one builds on what is there now."""
    rig = Rig()
    await rig.begin(MappingState.ENABLED)
    revisions = iter([7, 0])

    def change(before: ShardProgress, lot: ParkedRecords, move: Move) -> tuple[ShardProgress, ParkedChange | None]:
        assert lot.revision == 0
        return put(before, lot, move)[0], ParkedChange(next(revisions), 1)

    tracker = Tracker(rig.store, rig.lease, current=rig.current, discover=rig.discover, moved=change)
    wish = SeekWish((Move("orders-0", "4", "PUT"),)).encode()
    await rig.during(tracker, lambda: rig.store.wish_seek(MAPPING, wish), lambda: None)
    held = ShardKey(MAPPING, ShardId("orders-0"))
    assert (await rig.store.load([held]))[held].position == "4"
    assert next(revisions, None) is None
