"""Where one queue poller stands: its account, its use, what operators see, and how much of that is saved.

A queue has no positions: what is finished is deleted there. The account follows one rule that shards do not have: a
message left to the queue, because its batch failed, its visibility ended or the node drains, is *taken off* `polled`.
It is not finished, and whoever receives it next counts it again. So every message that ends here is polled once and
delivered or filtered once, however often it was received; `esm_polled_event_count_total` counts the receives.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from model.progress import Ledger, ProgressUpdate, SaveResult, ShardReport, ShardState, WaitsFor
from pollers.blocking import tenures
from pollers.circuit import held_up
from pollers.counters import ShardView
from pollers.load import LoadMeter
from pollers.queue_failing import Failing
from pollers.shard_saves import ShardSaves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasing.held import HeldLease
    from model.ids import ShardKey
    from pollers.queue_calls import QueueParts
    from pollers.queue_parking import QueueParking
    from pollers.queue_ports import Message
    from statemgr.scaling import QueueUse

log = structlog.get_logger(__name__)

_COUNTS_S = 0.5


class Holder(Protocol):
    """What holds unfinished messages: the pump."""

    @property
    def held(self) -> int:
        """How many."""

    @property
    def parking(self) -> QueueParking:
        """Which of these failed and are tried again here."""

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest was sent, epoch milliseconds."""

    @property
    def backlog(self) -> int | None:
        """Messages in the queue, where this poller is the one to tell."""

    def use(self) -> QueueUse:
        """How much of its share it uses, since this was asked last."""


class QueueStanding:
    """One poller's standing under one lease. `pollers.checkpointer.Saving`."""

    def __init__(self, lease: HeldLease, parts: QueueParts, holder: Holder) -> None:
        self.key: ShardKey = lease.key
        before = lease.progress.ledger
        # What its predecessor had parked is in the queue, and received again, as what it had in flight.
        self.ledger = before.plus(Ledger(parked=-before.parked, in_flight=before.parked)).resumed()
        self.state = ShardState.STARTING
        self.source_error: str | None = None
        self.visibility_s = 0.0  # the queue's, once known
        self._failing = Failing(ordered=parts.fifo)
        self._holder = holder
        self._circuit = parts.gate.report
        self._lease = lease
        self.saves = ShardSaves(self, lease, parts.checkpointer)
        self._last_result = lease.progress.report.last_result
        self._last_error: str | None = None
        self._error_time: float | None = None
        self._tenures = tenures(lease.progress, lease.lease, time.time())
        self._load = LoadMeter(asyncio.get_running_loop().time, lease.progress.report.load)
        self._imbalance = 0
        self._counting: asyncio.TimerHandle | None = None
        self.log = log.bind(mapping=parts.mapping.name, shard=lease.key.shard, token=lease.token)

    def counted(self) -> None:
        """Have counts saved before long. Nothing waits for them, so they need no save each."""
        if self._counting is None:
            self._counting = asyncio.get_running_loop().call_later(_COUNTS_S, self._counts_due)

    def _counts_due(self) -> None:
        self._counting = None
        self.saves.changed()

    def polled(self, messages: int, size: int) -> None:
        """Count messages received, of so many bytes: they are to be finished here."""
        self.ledger.polled += messages
        self._load.records += messages
        self._load.size += size

    def filtered(self, messages: int) -> None:
        """Count messages filtered out."""
        self.ledger.filtered += messages
        self.counted()

    def delivered(self, messages: Sequence[Message]) -> None:
        """Count messages as taken by the function."""
        self.ledger.delivered += len(messages)
        self._failing.finished(messages)
        self._last_result, self._last_error = "OK", None
        if self.state is not ShardState.DRAINING:
            self.state = ShardState.READING
        self.counted()

    def failed(self, messages: Sequence[Message]) -> None:
        """Remember, for operators, messages that the function failed on."""
        self._failing.failed(messages, time.time())

    def left_to_queue(self, messages: int) -> None:
        """Take messages off the account: they are the queue's again."""
        self.ledger.polled -= messages
        self.counted()

    def setback(self, outcome: Outcome, delay_s: float | None) -> None:
        """Note a failed invocation; `delay_s` is None when the queue decides about the retry."""
        match outcome:
            case FunctionFailed():
                result, error, state = "PROBLEM: Function call failed", outcome.error, ShardState.RETRYING
            case PartlyFailed():
                result, state = "PROBLEM: Function call failed", ShardState.RETRYING
                error = f"{len(outcome.failed)} messages of a batch failed"
            case Throttled() | NotReached():
                result, error, state = f"PROBLEM: {outcome.error}", outcome.error, ShardState.WAITING
            case Delivered():
                return
        if error != self._last_error and not isinstance(outcome, Throttled):  # of throttles the gate tells, once
            retry = "when visible again" if delay_s is None else round(delay_s, 3)
            self.log.warning("invoke.failed", error=error, retry_in_s=retry)
        self._last_result, self._last_error, self._error_time = result, error, time.time()
        if self.state is not ShardState.DRAINING:
            self.state = state
        self.counted()

    def source_trouble(self, error: str, *, result: str | None) -> bool:
        """Note that the queue does not answer, or refuses (`result` given). Tells whether that is new."""
        new = error != self.source_error
        self.source_error, self._error_time = error, time.time()
        self.state = ShardState.WAITING if result is None else ShardState.FAILED
        if result is not None:
            self._last_result = result
        if new:
            self.saves.changed()
        return new

    def source_answers(self) -> None:
        """Note that the queue answered."""
        if self.source_error is not None:
            self.source_error = None
            self.state = ShardState.READING
        elif self.state is ShardState.STARTING:
            self.state = ShardState.READING

    # The checkpointer's side

    def to_save(self) -> ProgressUpdate | None:
        """Return the state for the store; None once nothing may be written any more."""
        if self.saves.over:
            return None
        self.saves.sent()
        return ProgressUpdate(
            key=self.key,
            token=self._lease.token,
            node=self._lease.node,
            position=None,
            ledger=self._account(),
            report=self._report(),
            state=self._holder.use().encode(),
        )

    def saved(self, update: ProgressUpdate, result: SaveResult) -> None:  # noqa: ARG002 - `Saving` passes it
        """Learn what became of the last save."""
        self.saves.answered(result)

    def close(self) -> None:
        """Save nothing more."""
        if self._counting is not None:
            self._counting.cancel()
        self.saves.close()

    # The account and the report

    def _account(self) -> Ledger:
        """Return the ledger, after holding it against what the pump really holds (invariant 1)."""
        ledger = self.ledger
        ledger.parked = self._holder.parking.messages
        ledger.in_flight = self._holder.held - ledger.parked
        if ledger.imbalance != self._imbalance:
            self._imbalance = ledger.imbalance
            self.log.error("ledger.imbalance", records=ledger.imbalance, in_flight=ledger.in_flight)
        return ledger.plus(Ledger())

    def _report(self) -> ShardReport:
        backlog, oldest_ms = self._holder.backlog, self._holder.oldest_ms
        circuit = self._circuit()
        state, held_up_by = held_up(self.state, circuit)
        last_error = self.source_error or self._last_error or held_up_by
        calling = state in (ShardState.RETRYING, ShardState.WAITING)
        waits_for = WaitsFor.SOURCE if self.source_error else WaitsFor.FUNCTION if calling else None
        return ShardReport(
            state=state,
            lag_records=None if backlog is None else backlog + self._holder.held,
            lag_s=None if oldest_ms is None else round(max(0.0, time.time() - oldest_ms / 1000), 3),
            last_result=self._last_result,
            last_error=last_error,
            error_time=None if last_error is None else self._error_time,
            waits_for=waits_for,
            blocking=self._failing.blocking(self.visibility_s, time.time()),
            tenures=self._tenures,
            parked_keys=self._holder.parking.shown(asyncio.get_running_loop().time()),
            parked_tries=self._holder.parking.tried(),
            circuit=circuit,
            load=self._load.shown(),
        )

    def view(self) -> ShardView:
        """Return the poller as it is now, for scrapes and `status`."""
        return ShardView(self._report(), self._account())
