"""What keeps one shard from going on: its function, its source or its on-failure destination; for operators.

The pump and its parts tell what happens; `pollers.standing` puts the worst of it into the shard's report.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from model.progress import ShardState, WaitsFor
from pollers.circuit import held_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.progress import CircuitReport
    from pollers.attempts import Attempts


class Trouble(NamedTuple):
    """What keeps a shard from going on. `retry_at` is epoch seconds, where it is the same for all its lanes."""

    state: ShardState
    error: str | None
    waits_for: WaitsFor | None
    retry_at: float | None = None


class Troubles:
    """The troubles of one shard under one lease. `changed` has the report saved soon."""

    def __init__(self, log: Any, changed: Callable[[], None], *, last_result: str) -> None:
        self.state = ShardState.STARTING
        self.last_result = last_result
        self.last_error: str | None = None  # of the function
        self.source_error: str | None = None
        self.seen_at: float | None = None  # epoch seconds: when the last one was
        self._destination: Trouble | None = None
        self._log = log
        self._changed = changed

    def worst(self, circuit: CircuitReport, *, lot_full: bool) -> Trouble:
        """Return what keeps the shard from going on; without anything, its state."""
        if self._destination is not None:
            return self._destination
        if lot_full:
            return Trouble(ShardState.WAITING, "the parking lot is full", WaitsFor.PARKING_LOT)
        state, held_up_by = held_up(self.state, circuit)
        if self.source_error is not None:
            return Trouble(state, self.source_error, WaitsFor.SOURCE)
        calling = state in (ShardState.RETRYING, ShardState.WAITING)
        retry_at = None if held_up_by is None or circuit.retry_ms is None else circuit.retry_ms / 1000
        return Trouble(state, self.last_error or held_up_by, WaitsFor.FUNCTION if calling else None, retry_at)

    def function_took(self) -> None:
        """Note that the function took records."""
        self.last_result, self.last_error = "OK", None
        self._enter(ShardState.READING)

    def suspected(self, first: int, attempts: Attempts) -> None:
        """Note that nodes died while the function had records: what is wrong, until the function answers."""
        self.last_error = f"nodes ended while the function had the records from {first} to {attempts.last}"
        self._log.warning("records.suspected", first=first, last=attempts.last, deaths=attempts.deaths)

    def setback(self, outcome: Outcome, delay_s: float) -> None:
        """Note a failed attempt; its count is stored, so that it survives a restart."""
        match outcome:
            case FunctionFailed():
                result, error, state = "PROBLEM: Function call failed", outcome.error, ShardState.RETRYING
            case PartlyFailed():
                result, state = "PROBLEM: Function call failed", ShardState.RETRYING
                failed = len(outcome.failed)
                error = f"{failed} record{'s' if failed != 1 else ''} of a batch failed"
            case Throttled() | NotReached():
                result, error, state = f"PROBLEM: {outcome.error}", outcome.error, ShardState.WAITING
            case Delivered():
                return
        if error != self.last_error and not isinstance(outcome, Throttled):  # of throttles the gate tells, once
            self._log.warning("invoke.failed", error=error, retry_in_s=round(delay_s, 3))
        self.last_result, self.last_error = result, error
        self._enter(state)
        self._seen()

    def _enter(self, state: ShardState) -> None:
        """Change the state, unless the shard is on its way out: the next holder has to know that."""
        if self.state is not ShardState.DRAINING:
            self.state = state

    def destination_failed(self, error: str, *, refused: bool, retry_in_s: float | None) -> None:
        """Note that the on-failure destination cannot take records now; they wait, unless they may be dropped."""
        state = ShardState.FAILED if refused else ShardState.WAITING
        retry_at = None if retry_in_s is None else time.time() + retry_in_s
        trouble = Trouble(state, f"on-failure destination: {error}", WaitsFor.DESTINATION, retry_at)
        before = self._destination
        if before is None or trouble[:2] != before[:2]:
            say = self._log.error if refused else self._log.warning
            say("destination.failed", error=error, retry_in_s=retry_in_s and round(retry_in_s, 3))
        self._destination = None if retry_in_s is None else trouble
        self._seen()

    def destination_answers(self) -> None:
        """Note that the on-failure destination took records."""
        if self._destination is not None:
            self._log.info("destination.answers")
        self._destination = None

    def source_trouble(self, error: str, *, result: str | None) -> bool:
        """Note that the source does not answer, or refuses (`result` given). Tells whether that is new."""
        new = error != self.source_error
        self.source_error = error
        self.state = ShardState.WAITING if result is None else ShardState.FAILED
        if result is not None:
            self.last_result = result
        self._seen()
        return new

    def source_answers(self) -> None:
        """Note that the source gave records."""
        self.source_error = None
        if self.state in (ShardState.STARTING, ShardState.WAITING, ShardState.FAILED):
            self.state = ShardState.READING

    def _seen(self) -> None:
        self.seen_at = time.time()
        self._changed()
