"""How the demo's functions behave: mostly well, and now and then as functions do. Pure.

Every few seconds one batch fails, and for a moment every few seconds more calls come than the functions take. Nothing
fails twice because of this, so everything gets delivered; what is seen is how.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

FIRST_ERROR_S = 1.0
ERROR_EVERY_S = 2.5
FIRST_BURST_S = 2.0  # after the first call; early, so that a short demo has it too
BURST_EVERY_S = 20.0
BURST_S = 0.375


class Answer(Enum):
    """What a function does with a call."""

    TAKE = auto()
    FAIL = auto()  # a function error: the whole batch is retried
    FAIL_ONE = auto()  # a partial batch response that names one record
    TURN_AWAY = auto()  # 429


@dataclass(slots=True)
class Behaviour:
    """One function's moods. `now` is any clock that moves in seconds."""

    partial_responses: bool
    seed: int = 1
    bursts: bool = True  # whether it turns calls away now and then
    error_every_s: float = ERROR_EVERY_S
    _random: Random = field(init=False)
    _began_at: float | None = field(init=False, default=None)
    _error_at: float = field(init=False, default=0.0)
    _errors: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 - moods, no secret

    def answer(self, *, attempt: int, now: float) -> Answer:
        """Decide about one call. `attempt` counts from 1."""
        if self._began_at is None:
            self._began_at, self._error_at = now, now + FIRST_ERROR_S
        since_burst_s = now - self._began_at - FIRST_BURST_S
        if self.bursts and since_burst_s >= 0 and since_burst_s % BURST_EVERY_S < BURST_S:
            return Answer.TURN_AWAY
        if attempt == 1 and now >= self._error_at:
            self._error_at = now + self.error_every_s * self._random.uniform(0.6, 1.4)
            self._errors += 1
            return Answer.FAIL_ONE if self.partial_responses and self._errors % 2 == 0 else Answer.FAIL
        return Answer.TAKE

    def work_s(self, records: int) -> float:
        """Return how long a batch keeps the function busy."""
        return self._random.uniform(0.002, 0.005) + records * 10e-6
