"""What records have been through with their function, in memory and in the shard's stored state. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from model.outcome import FunctionFailed, PartlyFailed
from model.record import NO_POSITION

if TYPE_CHECKING:
    from model.outcome import Outcome
    from model.record import Batch


class Flight(IntEnum):
    """Whether a run of records was with the function when its state was saved: see `pollers.deaths`. Values are stored.

    Only `pollers.caution` sets the middle two, and has them saved before it invokes.
    """

    NONE = 0
    AMONG_OTHERS = 1
    ALONE = 2  # nothing else that was done with care on its node: see `pollers.caution`
    DEADLY = 3  # its holder died while it was alone: one of its records is to blame


@dataclass(slots=True)
class Work:
    """A batch, or what is left of one, with what it has been through."""

    batch: Batch
    failures: int = 0  # function errors, against MaximumRetryAttempts
    invocations: int = 0  # times the function was called with these records
    setbacks: int = 0  # times the function failed since the last progress, for the backoff
    last: Outcome | None = None
    parkable: bool = True  # False: there was no room when it was its time, so it goes on until the next failure
    refusals: int = 0  # times it did not reach the function since then
    unreached: int = 0  # of these, the last ones in a row that were no throttles
    not_before: float = 0.0  # event-loop time until which it holds itself back after a refusal
    deaths: int = 0  # of holders, in a row, while the function had these records
    flight: Flight = Flight.NONE

    @property
    def attempt(self) -> int:
        """The number of the next call since the last progress; 1 for the first."""
        return self.setbacks + self.refusals + 1


class Attempts(msgspec.Struct, frozen=True, array_like=True):
    """What a run of records has been through, for the shard's stored state: it survives restarts and hand-overs.

    `last` bounds the run: the next holder's batches are cut differently, and records that the function was never
    called with must not inherit the attempts of those that failed. The function's last answer is kept for the
    on-failure document.
    """

    last: int  # position of the run's last record
    failures: int
    invocations: int
    status: int = 200
    executed_version: str | None = None
    function_error: str | None = "Unhandled"
    deaths: int = 0
    flight: Flight = Flight.NONE

    @classmethod
    def of(cls, work: Work) -> Attempts:
        """Sum up a piece of work."""
        positions = work.batch.records.positions
        attempts = cls(
            positions[-1] if positions else NO_POSITION,
            work.failures,
            work.invocations,
            deaths=work.deaths,
            flight=work.flight,
        )
        match work.last:
            case FunctionFailed(_, function_error, status, version):
                return msgspec.structs.replace(
                    attempts, status=status, executed_version=version, function_error=function_error
                )
            case PartlyFailed(_, status, version):
                return msgspec.structs.replace(attempts, status=status, executed_version=version, function_error=None)
            case _:
                return attempts

    @property
    def telling(self) -> bool:
        """Whether a next holder has to know."""
        return bool(self.failures or self.deaths or self.flight)

    def resume(self, batch: Batch) -> Work:
        """Return the work that goes on with these records."""
        last = FunctionFailed("before a restart", self.function_error, self.status, self.executed_version)
        return Work(batch, self.failures, self.invocations, self.failures, last, deaths=self.deaths)
