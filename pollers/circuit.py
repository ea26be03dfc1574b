"""Whether a function may be called now: the circuit of one target. Pure: it has no clock and does nothing by itself.

    closed ──throttled or not reached, for good──▶ open ──its time is over, one probe──▶ half-open
      ▲                                            ▲ │                                      │  │
      │                                            │ └──────── the probe was cancelled ◀────┤  │
      │                                            └── refused: twice as long, to 30 s ◀────┘  │
      └───────────────── the probe reached the function: more and more at once ◀───────────────┘

- *Not reached for good*: `OPEN_AFTER` times in a row, by whichever batches, with none reaching the function between.
  One refused connection, or a share of them behind a balancer, stops nobody; five in a row cost a second at most.
- *Throttled for good*: `pollers.allowance` finds no room, although only one batch at a time asks, ever more seldom. A
  function that throttles and takes something is not away: it is given less.
- A function that fails was reached. So was one that refuses a certain batch (`NotReached.batch_refused`).
- Retry-After is kept to by the batch that was told, and by everybody once the circuit is open.
- A call that began before the circuit opened and comes back as reached brings the next probe forward.
- A probe may take as long as the function takes. When it was not refused within `PROBE_S`, another one may go: a probe
  that hangs, or is lost, holds up nobody for longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.outcome import NotReached, Outcome, Throttled
from model.progress import CircuitReport, CircuitState, ShardState
from pollers.allowance import Allowance

if TYPE_CHECKING:
    from random import Random

OPEN_AFTER = 5
FIRST_OPEN_S = 0.5
MAX_OPEN_S = 30.0
"""One call of a mapping's function per node and half minute costs nobody anything; a recovery is noticed that soon."""
PROBE_S = 15.0
"""Longer than it takes to find that there is no connection (10 s)."""

_LONGEST_RAMP_STEP_S = 1.0
_CALLING = (ShardState.READING, ShardState.RETRYING, ShardState.WAITING)


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """Leave for one invocation. `Circuit.ended` must follow."""

    began_at: float
    probe: bool


class Circuit:
    """The circuit of a mapping's function on one node. `now` is event-loop time."""

    def __init__(self, random: Random) -> None:
        self.state = CircuitState.CLOSED
        self.since_at: float | None = None  # when it opened, or closed, last
        self.error: str | None = None  # of the last refusal; None once something reached the function
        self.allowance = Allowance()
        self.running = 0
        self._random = random
        self._refusals = 0  # in a row
        self._open_s = FIRST_OPEN_S
        self._retry_at = 0.0  # open: when a probe may go; half-open: when a further one may
        self._told_until = 0.0  # the latest Retry-After

    def __repr__(self) -> str:
        return f"<Circuit {self.state}, {self.running} running, {self.allowance}>"

    @property
    def closed(self) -> bool:
        """Whether the function is called as usual."""
        return self.state is CircuitState.CLOSED

    @property
    def retry_at(self) -> float | None:
        """When a probe may go; None when the circuit is closed."""
        return None if self.closed else self._retry_at

    def room(self, now: float) -> float:
        """How many more invocations may begin now; infinite without a limit."""
        return self.allowance.room(self.running, now) if self.closed else int(now >= self._retry_at)

    def due_at(self) -> float | None:
        """When there may be room though nothing ends; None: never."""
        return self.allowance.due_at(self.running) if self.closed else self._retry_at

    def begin(self, now: float) -> Pass | None:
        """Give leave for one invocation, if there is room."""
        if self.room(now) < 1:
            return None
        self.running += 1
        if self.closed:
            self.allowance.began(now)
            return Pass(now, probe=False)
        self._retry_at = now + PROBE_S
        if self.state is not CircuitState.HALF_OPEN:
            self._become(CircuitState.HALF_OPEN, now)
        return Pass(now, probe=True)

    def ended(self, leave: Pass, outcome: Outcome | None, now: float) -> None:
        """Learn what came of an invocation; None: it was not made, or cancelled, and tells nothing."""
        self.running -= 1
        match outcome:
            case None:
                if leave.probe and self.state is CircuitState.HALF_OPEN:
                    self._retry_at = now
                    self._become(CircuitState.OPEN, now)
            case Throttled() | NotReached(batch_refused=False):
                self._refused(leave, outcome, now)
            case _:
                self._reached(leave, now)

    def _reached(self, leave: Pass, now: float) -> None:
        if self.closed:
            self._refusals, self._told_until, self.error = 0, 0.0, None
            self.allowance.took(self.running + 1, now - leave.began_at)
        elif leave.probe:
            self._refusals, self._told_until, self.error = 0, 0.0, None
            self.allowance.ramp(now, min(self._open_s / 2, _LONGEST_RAMP_STEP_S))
            self._become(CircuitState.CLOSED, now)
        else:
            self._retry_at = min(self._retry_at, max(now, self._told_until))

    def _refused(self, leave: Pass, outcome: Throttled | NotReached, now: float) -> None:
        self.error = outcome.error
        self._told_until = max(self._told_until, now + (outcome.retry_after_s or 0.0))
        if self.closed:
            if isinstance(outcome, Throttled):
                full = self.allowance.throttled(self.running, now)
            else:
                # What began before the circuit closed tells of the time before.
                self._refusals += self.since_at is None or leave.began_at >= self.since_at
                full = self._refusals >= OPEN_AFTER
            if full:
                self._open(max(FIRST_OPEN_S, self.allowance.spacing_s), now)
        elif self.state is CircuitState.HALF_OPEN and leave.probe:
            self._open(min(MAX_OPEN_S, 2 * self._open_s), now)
        else:
            self._retry_at = max(self._retry_at, self._told_until)

    def _open(self, open_s: float, now: float) -> None:
        self._open_s = open_s
        jitter = self._random.uniform(0.5, 1)
        self._retry_at = max(now + open_s * jitter, self._told_until + FIRST_OPEN_S * (1 - jitter))
        self._become(CircuitState.OPEN, now)

    def _become(self, state: CircuitState, now: float) -> None:
        if CircuitState.CLOSED in (self.state, state):
            self.since_at = now
        self.state = state


def held_up(state: ShardState, circuit: CircuitReport) -> tuple[ShardState, str | None]:
    """Return what a shard reports that is in `state` as far as it knows itself, and why it waits, if it does."""
    if circuit.state is CircuitState.CLOSED or state not in _CALLING:
        return state, None
    return ShardState.WAITING, circuit.error
