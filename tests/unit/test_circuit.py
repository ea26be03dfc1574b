"""The circuit of a function: when it opens, who may try, when it closes."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model.outcome import Delivered, FunctionFailed, NotReached, PartlyFailed, Throttled
from model.progress import CircuitReport, CircuitState, ShardState
from pollers.allowance import FULL_AFTER, LONGEST_SPACING_S
from pollers.circuit import FIRST_OPEN_S, MAX_OPEN_S, OPEN_AFTER, PROBE_S, Circuit, Pass, held_up

if TYPE_CHECKING:
    from model.outcome import Outcome

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
AWAY, BUSY = NotReached("connection refused"), Throttled("HTTP 429")
POISON = NotReached("HTTP 413", status=413, batch_refused=True)
REACHED: list[Outcome] = [Delivered(), PartlyFailed(frozenset({1})), FunctionFailed("boom")]
LONG = 1e9


def fresh() -> Circuit:
    """Make a closed circuit."""
    return Circuit(Random(2))


def begin(circuit: Circuit, now: float) -> Pass:
    """Begin an invocation that must be allowed."""
    leave = circuit.begin(now)
    assert leave is not None
    return leave


def call(circuit: Circuit, outcome: Outcome, now: float) -> None:
    """Call the function once."""
    circuit.ended(begin(circuit, now), outcome, now)


def opened(*, now: float = 0.0) -> Circuit:
    """Make an open circuit."""
    circuit = fresh()
    for _ in range(OPEN_AFTER):
        call(circuit, AWAY, now)
    assert circuit.state is OPEN
    return circuit


def due(circuit: Circuit) -> float:
    """When the next probe may go."""
    assert circuit.retry_at is not None
    return circuit.retry_at


@pytest.mark.parametrize("between", REACHED)
def test_refusals_with_something_reached_between_open_nothing(between: Outcome) -> None:
    """A share of refused connections, however many in all, stops nobody; a function that fails was reached."""
    circuit = fresh()
    for _ in range(50):
        for _ in range(OPEN_AFTER - 1):
            call(circuit, AWAY, 1)
        call(circuit, between, 1)
    assert circuit.closed
    assert circuit.error is None


def test_five_in_a_row_open_it() -> None:
    """From then on nobody may call, until a time between half and all of the first one is over."""
    circuit = opened(now=7)
    assert (circuit.error, circuit.since_at) == ("connection refused", 7)
    assert 7 + FIRST_OPEN_S / 2 <= due(circuit) <= 7 + FIRST_OPEN_S
    assert circuit.due_at() == circuit.retry_at
    assert circuit.begin(due(circuit) - 0.001) is None
    assert circuit.room(due(circuit)) == 1


def test_calls_under_way_together_count_each() -> None:
    """When a target goes down under many lanes it is noticed at once."""
    circuit = fresh()
    for leave in [begin(circuit, 0) for _ in range(64)]:
        circuit.ended(leave, AWAY, 0.1)
    assert circuit.state is OPEN
    assert due(circuit) < 0.1 + FIRST_OPEN_S


def test_one_probe_goes_and_what_reaches_closes_at_once() -> None:
    """Half-open lets nobody else go; then one at a time, and twice as many with each step."""
    for outcome in [*REACHED, POISON]:
        circuit = opened()
        now = due(circuit)
        probe = begin(circuit, now)
        assert (circuit.state, circuit.begin(now), circuit.begin(now + PROBE_S - 0.1)) == (HALF_OPEN, None, None)
        circuit.ended(probe, outcome, now + 1)
        assert (circuit.state, circuit.since_at, circuit.error, circuit.retry_at) == (CLOSED, now + 1, None, None)
        assert [circuit.room(now + 1 + FIRST_OPEN_S / 2 * step) for step in range(4)] == [1, 2, 4, 8]


def test_a_refused_probe_doubles_the_time_up_to_half_a_minute() -> None:
    """With jitter each time; the circuit counts as open since it first opened, and begins small when it opens again."""
    circuit = opened()
    ceilings = []
    for _ in range(10):
        now = due(circuit)
        call(circuit, AWAY, now)
        assert circuit.state is OPEN
        ceilings.append(due(circuit) - now)
    expected = [min(MAX_OPEN_S, FIRST_OPEN_S * 2**n) for n in range(1, 11)]
    assert all(full / 2 <= seen <= full for seen, full in zip(ceilings, expected, strict=True))
    assert circuit.since_at == 0
    now = due(circuit)
    call(circuit, Delivered(), now)
    for _ in range(OPEN_AFTER):
        call(circuit, AWAY, now + 60)
    assert due(circuit) <= now + 60 + FIRST_OPEN_S


def test_a_probe_that_was_cancelled_leaves_its_place_to_the_next() -> None:
    """Nothing was learned: the next may try at once, and the time is not doubled."""
    circuit = opened()
    now = due(circuit)
    circuit.ended(begin(circuit, now), None, now + 3)
    assert (circuit.state, circuit.retry_at) == (OPEN, now + 3)
    call(circuit, AWAY, now + 3)
    assert due(circuit) <= now + 3 + 2 * FIRST_OPEN_S


def test_a_probe_that_hangs_or_is_lost_holds_up_nobody_for_long() -> None:
    """A function may be slow: after a while another may try, and whichever reaches first closes the circuit."""
    circuit = opened()
    now = due(circuit)
    slow = begin(circuit, now)
    quick = begin(circuit, now + PROBE_S)
    assert circuit.begin(now + PROBE_S) is None
    circuit.ended(quick, Delivered(), now + PROBE_S + 1)
    assert circuit.closed
    circuit.ended(slow, AWAY, now + 100)
    assert circuit.closed
    assert circuit.running == 0


def test_a_call_of_before_that_comes_back_brings_the_probe_forward() -> None:
    """The function lives: one may try now, unless it was told when."""
    for refusal, told in ((AWAY, 0), (NotReached("HTTP 503", retry_after_s=20), 20)):
        circuit = fresh()
        old = begin(circuit, 0)
        for _ in range(OPEN_AFTER):
            call(circuit, refusal, 0)
        for _ in range(5):
            now = due(circuit)
            call(circuit, refusal, now)
        assert due(circuit) > now + 5
        circuit.ended(old, Delivered(), now + 1)
        assert circuit.state is OPEN
        assert due(circuit) == pytest.approx(now + max(1, told))


def test_what_began_before_it_closed_does_not_open_it_again() -> None:
    """Late news of the time when the function was away is no news."""
    circuit = fresh()
    old = [begin(circuit, 0) for _ in range(20)]
    for _ in range(OPEN_AFTER):
        call(circuit, AWAY, 1)
    call(circuit, Delivered(), due(circuit))
    for leave in old:
        circuit.ended(leave, AWAY, 30)
    assert circuit.closed


def test_retry_after_is_kept_to_once_the_circuit_is_open() -> None:
    """The longest that was told counts; a single one among successes stops nobody."""
    circuit = fresh()
    other = begin(circuit, 0)
    call(circuit, Throttled("HTTP 429", retry_after_s=30), 0)
    assert circuit.closed
    circuit.ended(other, Delivered(), 1)
    told = NotReached("HTTP 503", retry_after_s=40)
    for _ in range(OPEN_AFTER):
        call(circuit, told, 2)
    assert 42 <= due(circuit) <= 42 + FIRST_OPEN_S
    now = due(circuit)
    call(circuit, NotReached("HTTP 503", retry_after_s=5), now)
    assert now + 5 <= due(circuit) <= now + 5 + FIRST_OPEN_S


def test_throttles_with_something_taken_never_open_it() -> None:
    """What the function holds, and what it takes now and then, keeps it closed, however much it throttles."""
    circuit = fresh()
    held = begin(circuit, 0)
    for leave in [begin(circuit, 0) for _ in range(100)]:
        circuit.ended(leave, BUSY, 0.01)
    assert (circuit.state, circuit.allowance.limit, circuit.begin(1)) == (CLOSED, 1, None)
    circuit.ended(held, Delivered(), 10)
    now = 10.0
    for n in range(1000):
        while circuit.room(now) < 1:
            due_at = circuit.due_at()
            assert due_at is not None
            now = due_at
        call(circuit, Delivered() if n % 5 == 0 else BUSY, now)
        assert circuit.closed
    assert circuit.error is not None


def test_throttles_and_nothing_else_open_it() -> None:
    """After seconds, in which it was tried ever later; the first time is as long as the last pause was."""
    circuit, now, calls = fresh(), 0.0, 0
    while circuit.closed:
        if circuit.room(now) < 1:
            now = circuit.due_at() or LONG
        call(circuit, BUSY, now)
        calls += 1
    assert calls == FULL_AFTER
    assert 4 < now < 6
    assert LONGEST_SPACING_S / 2 <= due(circuit) - now <= LONGEST_SPACING_S


def test_a_batch_that_is_refused_itself_opens_nothing() -> None:
    """The target answers: it is this batch that it does not take."""
    circuit = fresh()
    for _ in range(100):
        call(circuit, POISON, 0)
    assert circuit.closed
    assert circuit.error is None


def test_shards_wait_while_the_circuit_is_not_closed() -> None:
    """With its error as the reason; what has more to say about itself says that."""
    closed = CircuitReport(error="one of five")
    for state in (OPEN, HALF_OPEN):
        away = CircuitReport(state, 1, 2, "connection refused")
        for calling in (ShardState.READING, ShardState.RETRYING, ShardState.WAITING):
            assert held_up(calling, away) == (ShardState.WAITING, "connection refused")
            assert held_up(calling, closed) == (calling, None)
        for other in (ShardState.STARTING, ShardState.DRAINING, ShardState.DRAINED, ShardState.FAILED):
            assert held_up(other, away) == (other, None)


class AnyCourse(RuleBasedStateMachine):
    """Calls that begin and end in any order, with any outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(Random(4))
        self.now = 0.0
        self.under_way: list[Pass] = []

    @rule(wait_s=st.floats(0, 100))
    def time_passes(self, wait_s: float) -> None:
        """Move on."""
        self.now += wait_s

    @rule()
    def begins(self) -> None:
        """Begin if there is leave."""
        state, room = self.circuit.state, self.circuit.room(self.now)
        leave = self.circuit.begin(self.now)
        assert (leave is not None) == (room >= 1)
        if leave is not None:
            self.under_way.append(leave)
            assert leave.probe == (state is not CLOSED)

    @precondition(lambda self: self.under_way)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(
            [None, *REACHED, AWAY, BUSY, POISON, Throttled("later", 7.0), NotReached("later", 12.0, 503)]
        ),
    )
    def ends(self, data: st.DataObject, outcome: Outcome | None) -> None:
        """End any that is under way."""
        leave = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.circuit.ended(leave, outcome, self.now)

    @invariant()
    def never_stuck(self) -> None:
        """Somebody may go when what is under way has ended or a bounded time has passed, whatever was lost."""
        circuit = self.circuit
        assert circuit.running == len(self.under_way)
        if circuit.room(self.now) < 1 and not (circuit.closed and self.under_way):
            due_at = circuit.due_at()
            assert due_at is not None
            assert due_at <= self.now + MAX_OPEN_S + 12.0 + FIRST_OPEN_S
            assert circuit.room(max(due_at, self.now)) >= 1

    @invariant()
    def probes_are_rare(self) -> None:
        """Out of a closed circuit at most one probe goes per bounded time."""
        if not self.circuit.closed:
            assert self.circuit.room(self.now) <= 1


TestAnyCourse = AnyCourse.TestCase
TestAnyCourse.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
