"""The gate before a mapping's function: who may call it, and when. The loop around `pollers.circuit`.

One for all pumps of a mapping on this node. Whoever wants to call asks for a turn. Turns are given in the order of the
asking, when the circuit has room; who was refused goes to the back, so that a batch that is never taken cannot be
every probe. Nobody polls: a ticket is woken when its turn comes.

A turn is given back whatever happens, also when its holder is cancelled, so nothing is left half-open.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Self

import structlog

from model.progress import CircuitReport, CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.outcome import Outcome
    from pollers.circuit import Circuit, Pass
    from pollers.counters import Counters

log = structlog.get_logger(__name__)

_SOON_S = 0.001  # a timer may fire a little early


class Turn:
    """Leave to call the function once: a context manager around the call, which sets `outcome`."""

    __slots__ = ("_gate", "_leave", "outcome")

    def __init__(self, gate: Gate, leave: Pass) -> None:
        self._gate = gate
        self._leave: Pass | None = leave
        self.outcome: Outcome | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self, *_: object) -> None:
        """Give the turn back; without an outcome it tells nothing. Safe to call twice."""
        if self._leave is not None:
            leave, self._leave = self._leave, None
            self._gate.ended(leave, self.outcome)


class Ticket:
    """A place in the queue. `turn` is there once it is its turn, and `wake` was called then."""

    __slots__ = ("_gate", "not_before", "turn", "wake")

    def __init__(self, gate: Gate, wake: Callable[[], None], not_before: float) -> None:
        self._gate = gate
        self.wake = wake
        self.not_before = not_before
        self.turn: Turn | None = None

    def withdraw(self) -> None:
        """Leave the queue, and give back a turn that is there already."""
        if self.turn is None:
            self._gate.leave(self)
        else:
            self.turn.end()


class Gate:
    """One mapping's way to its function on this node. Close it with the mapping's other parts."""

    def __init__(
        self, circuit: Circuit, *, mapping: str, counters: Counters, now_s: Callable[[], float] = time.time
    ) -> None:
        self._circuit = circuit
        self._counters = counters
        self._now_s = now_s  # epoch time
        self._waiting: deque[Ticket] = deque()
        self._leaving: dict[Ticket, asyncio.Event] = {}  # of those who wait only until they drain
        self._watchers: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._noted = (circuit.state, circuit.retry_at)
        self._throttles = False
        self._since_ms: int | None = None
        self._retry_ms: int | None = None
        self._log = log.bind(mapping=mapping)
        counters.circuit = self.report

    def __repr__(self) -> str:
        return f"<Gate {self._circuit}, {len(self._waiting)} waiting>"

    def close(self) -> None:
        """Stop the clock: nobody asks for a turn any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._counters.circuit == self.report:  # else the mapping has a new gate already
            self._counters.circuit = None

    # How it stands

    @property
    def closed(self) -> bool:
        """Whether the circuit is closed: the function is called as usual."""
        return self._circuit.closed

    @property
    def held_up(self) -> bool:
        """Whether somebody has to wait."""
        return bool(self._waiting) or not self.closed

    @property
    def retry_at(self) -> float | None:
        """When a probe may go (event-loop time); None when the circuit is closed."""
        return self._circuit.retry_at

    def room(self) -> float:
        """How many more could have a turn at once; infinite without a limit."""
        return max(0, self._circuit.room(asyncio.get_running_loop().time()) - len(self._waiting))

    def report(self) -> CircuitReport:
        """Return how it stands, for status and metrics."""
        circuit = self._circuit
        limit = None if circuit.allowance.limit == inf else int(circuit.allowance.limit)
        return CircuitReport(circuit.state, self._since_ms, self._retry_ms, circuit.error, limit)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when the circuit opens or closes."""
        self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers.remove(changed)

    # Turns

    async def enter(
        self, draining: asyncio.Event, *, not_before: float = 0.0, until: float | None = None
    ) -> Turn | None:
        """Wait for a turn. None: `draining` was set, or `until` (event-loop time) came, before there was one.

        A caller that drains still gets a turn that is free at once. `not_before` as for `ask`.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._waiting and not_before <= now and (leave := self._circuit.begin(now)) is not None:
            self._note(now)
            return Turn(self, leave)  # nearly always
        waking = asyncio.Event()
        ticket = self.ask(waking.set, not_before=not_before)
        if ticket.turn is None and not draining.is_set():
            self._leaving[ticket] = draining
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await waking.wait()
            except BaseException:
                ticket.withdraw()
                raise
            finally:
                del self._leaving[ticket]
        if ticket.turn is None:
            ticket.withdraw()
        return ticket.turn

    def drained(self) -> None:
        """Let go those who wait although their pump drains."""
        for ticket, draining in self._leaving.items():
            if draining.is_set():
                ticket.wake()

    def ask(self, wake: Callable[[], None], *, not_before: float = 0.0) -> Ticket:
        """Take a place in the queue; the turn may be there at once.

        `not_before` (event-loop time) keeps one who was refused back while the circuit is closed. When it opens, its
        time is everybody's.
        """
        ticket = Ticket(self, wake, not_before if self.closed else 0.0)
        self._waiting.append(ticket)
        self._let_go()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Take a ticket out of the queue."""
        with suppress(ValueError):
            self._waiting.remove(ticket)

    def ended(self, leave: Pass, outcome: Outcome | None) -> None:
        """Learn what came of a turn."""
        now = asyncio.get_running_loop().time()
        self._circuit.ended(leave, outcome, now)
        self._note(now)
        if self._waiting:
            self._let_go()

    def _let_go(self) -> None:
        """Give turns to those whose turn it is, and see to it that this is looked at again in time."""
        now = asyncio.get_running_loop().time()
        while (ticket := self._next(now)) is not None and (leave := self._circuit.begin(now)) is not None:
            self._waiting.remove(ticket)
            ticket.turn = Turn(self, leave)
            ticket.wake()
            self._note(now)
        self._set_timer(now)

    def _next(self, now: float) -> Ticket | None:
        return next((ticket for ticket in self._waiting if ticket.not_before <= now), None)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        times = [ticket.not_before for ticket in self._waiting if ticket.not_before > now]
        if len(times) < len(self._waiting) and (due_at := self._circuit.due_at()) is not None:
            times.append(due_at)
        if times:
            at = max(now + _SOON_S, min(times))
            self._timer = asyncio.get_running_loop().call_at(at, self._let_go)

    # What is told of it

    def _note(self, now: float) -> None:
        """Tell of changes, once each, whoever caused them."""
        circuit, (before, _) = self._circuit, self._noted
        if circuit.allowance.throttled_lately is not self._throttles:
            self._throttles = circuit.allowance.throttled_lately
            if self._throttles:
                self._log.warning("throttling.began", error=circuit.error, limit=self.report().limit)
            else:
                self._log.info("throttling.ended")
        if self._noted == (circuit.state, circuit.retry_at):
            return
        self._noted = (circuit.state, circuit.retry_at)
        now_s = self._now_s()
        self._retry_ms = None if circuit.retry_at is None else round((now_s + circuit.retry_at - now) * 1000)
        if circuit.state is before:
            return
        transitions = self._counters.circuit_transitions
        transitions[circuit.state] = transitions.get(circuit.state, 0) + 1
        if CircuitState.CLOSED in (before, circuit.state):
            self._turned(now, now_s)

    def _turned(self, now: float, now_s: float) -> None:
        """Tell that the circuit opened or closed."""
        retry_at, since_ms = self.retry_at, self._since_ms
        self._since_ms = round(now_s * 1000)
        if retry_at is None:
            open_s = None if since_ms is None else round(now_s - since_ms / 1000, 3)
            self._log.info("circuit.closed", open_s=open_s)
        else:
            self._log.warning("circuit.opened", error=self._circuit.error, retry_in_s=round(retry_at - now, 3))
            for ticket in self._waiting:
                ticket.not_before = 0.0
        for changed in self._watchers:
            changed()


class Place:
    """The place of one who asks for turns again and again and cannot wait: a queue's poller. One ticket at a time."""

    def __init__(self, gate: Gate, wake: Callable[[], None]) -> None:
        self._gate = gate
        self._wake = wake  # called when a turn is there
        self._ticket: Ticket | None = None

    def take(self) -> Turn | None:
        """Take a turn that is there, or keep the place in the queue for one. The turn must be ended."""
        ticket = self._ticket or self._gate.ask(self._wake)
        self._ticket = ticket if ticket.turn is None else None
        return ticket.turn

    def leave(self) -> None:
        """Want no turn at present."""
        if self._ticket is not None:
            self._ticket.withdraw()
            self._ticket = None
