"""What a shard's standing tells operators: `pollers.standing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from structlog.testing import capture_logs

from model.progress import CircuitReport
from pollers.checkpointer import Checkpointer
from pollers.ports import Lag
from pollers.standing import Standing
from statemgr.memory_store import MemoryStore
from tests.support.pump_fakes import FakeLease

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
