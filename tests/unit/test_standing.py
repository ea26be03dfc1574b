"""What a shard's standing tells operators: `pollers.standing`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from model.outcome import Throttled
from model.progress import CircuitReport
from pollers.checkpointer import Checkpointer
from pollers.ports import Lag
from pollers.standing import Standing
from statemgr.memory_store import MemoryStore
from tests.support.pump_fakes import FakeLease
from tests.support.saves import Saves

if TYPE_CHECKING:
    from leasing.held import HeldLease
    from pollers.ports import ShardReader

RETENTION_S = 86_400.0


class LaggingReader:
    """A reader that is behind by what the test says."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.remark: str | None = None

    def lag(self) -> Lag:
        """Tell it."""
        return Lag(None, self.seconds, retention_s=RETENTION_S, remark=self.remark)


def test_what_is_worth_knowing_about_the_reading_is_no_trouble() -> None:
    """A remark stands in the report beside the last error."""
    reader = LaggingReader()
    lease = cast("HeldLease", FakeLease())
    standing = Standing(lease, Checkpointer(MemoryStore()), mapping="clicks", circuit=CircuitReport)
    standing.reader = cast("ShardReader", reader)
    assert standing.view().report.remark is None
    reader.remark = "polled"
    report = standing.view().report
    assert (report.remark, report.last_error) == ("polled", None)


def test_the_loss_of_records_is_forecast_and_warned_of_once_in_good_time() -> None:
    """A shard that stands still: the report says when, the log says so below an hour, and again after a recovery."""
    now, reader = 0.0, LaggingReader()
    lease = cast("HeldLease", FakeLease())
    standing = Standing(lease, Checkpointer(MemoryStore()), mapping="clicks", circuit=CircuitReport, clock=lambda: now)
    standing.reader = cast("ShardReader", reader)

    def passes(lag_s: float, growth: float) -> list[Any]:
        nonlocal now
        for _ in range(40):
            now += 10
            lag_s += 10 * growth
            reader.seconds = lag_s
            standing.view()
        return [standing.view().report.lag_s, standing.view().report.loss_in_s]

    with capture_logs() as logged:
        assert passes(10_000, growth=1) == [10_400, RETENTION_S - 10_400]
        assert logged == []
        passes(83_000, growth=1)
        assert passes(83_400, growth=1) == [83_800, 2_600]
        assert [entry["event"] for entry in logged] == ["retention.loss_near"]
        assert passes(83_800, growth=-1)[1] is None
        passes(83_800, growth=1)
    assert [entry["event"] for entry in logged] == ["retention.loss_near"] * 2


class Lane:
    """Holds what the test says: `pollers.standing.Holder`."""

    oldest_ms = None

    def __init__(self) -> None:
        self.held = 1

    def failures(self) -> dict[int, Any]:
        """Tell of none."""
        return {}

    def stuck(self) -> None:
        """Hold up nothing."""


def test_a_busy_shard_is_not_described_anew_for_every_checkpoint() -> None:
    """A report may be a moment old while all goes well and more is in hand; trouble, and the end, are told at once."""
    now, reader, lane = 100.0, LaggingReader(), Lane()
    lease = cast("HeldLease", FakeLease())
    standing = Standing(lease, Checkpointer(MemoryStore()), mapping="clicks", circuit=CircuitReport, clock=lambda: now)
    standing.reader, standing.holders = cast("ShardReader", reader), [lane]
    standing.troubles.source_answers()

    def saved_after(seconds: float, lag_s: float) -> float | None:
        nonlocal now
        now, reader.seconds = now + seconds, lag_s
        update = standing.to_save()
        assert update is not None
        return update.report.lag_s

    assert saved_after(0, 50) == 50
    assert saved_after(0.1, 60) == 50
    assert saved_after(0.2, 70) == 70
    standing.troubles.setback(Throttled("busy"), 1.0)
    assert saved_after(0.01, 80) == 80
    standing.troubles.function_took()
    assert saved_after(0.01, 90) == 90
    assert saved_after(0.01, 95) == 90
    lane.held = 0  # nothing more comes that would be saved
    assert saved_after(0.01, 0) == 0


class Standings:
    """A standing whose saves are counted, and its store, which may be away."""

    def __init__(self) -> None:
        self.saves = Saves()
        self.checkpointer = Checkpointer(self.saves)
        lease = cast("HeldLease", FakeLease())
        self.standing = Standing(lease, self.checkpointer, mapping="clicks", circuit=CircuitReport)


@pytest.mark.looptime
async def test_what_is_saved_is_saved_again_after_a_while() -> None:
    """A store that failed over may have lost the last save, and a quiet shard has nothing new to save."""
    rig = Standings()
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        rig.standing.saves.changed()
        for _ in range(60):
            await asyncio.sleep(5)
            rig.standing.refresh()
        await asyncio.sleep(1)
        saving.cancel()
    assert len(rig.saves.updates) == 5  # in five minutes, the first one at once


@pytest.mark.looptime
async def test_a_shard_that_ended_while_its_save_failed_is_saved_no_more() -> None:
    """Its account is not true any more: what was in delivery was cut off."""
    rig = Standings()
    rig.saves.away, rig.saves.slow_s = True, 1.0
    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(rig.checkpointer.run())
        rig.standing.saves.changed()
        await asyncio.sleep(0.5)
        rig.standing.close()
        await asyncio.sleep(1)
        rig.saves.away = False
        await asyncio.sleep(10)
        saving.cancel()
    assert rig.saves.updates == []
