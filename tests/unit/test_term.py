"""The trust window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasing.clock import trust_clock
from leasing.held import HeldLease, Reason
from leasing.term import Term, default_margin_s
from model.errors import LeaseLostError
from model.ids import FencingToken
from model.lease import Lease
from model.progress import ShardProgress
from tests.support.fleet_values import ANN, shard

times = st.floats(0, 1e6)


def test_trust_counts_from_before_the_request() -> None:
    """A heartbeat asked for at 100 is trusted until 100 + ttl - margin, whenever its answer came."""
    term = Term(10, 2)
    assert not term.trusted(0)
    term.renewed(asked_at=100)
    assert term.trusted_until == 108
    assert term.trusted(107.999)
    assert not term.trusted(108)


@given(st.lists(times, min_size=1))
def test_trust_never_moves_back(asked: list[float]) -> None:
    """Answers that overtake each other leave the latest request's window standing."""
    term = Term(10, 2)
    for asked_at in asked:
        before = term.trusted_until
        term.renewed(asked_at)
        assert term.trusted_until >= before
    assert term.trusted_until == max(asked) + 10 - 2


@given(times, times)
def test_an_ended_term_stays_ended(first: float, late: float) -> None:
    """A late answer brings no ended membership back."""
    term = Term(10, 2)
    term.renewed(first)
    term.end()
    term.renewed(late)
    assert not term.trusted(0)


@given(st.floats(3, 3600))
def test_the_margin_leaves_time_for_a_second_heartbeat(ttl_s: float) -> None:
    """Heartbeats come every third of a term; one may fail and the next still comes before the trust ends."""
    margin_s = default_margin_s(ttl_s)
    assert margin_s >= 1
    assert margin_s >= ttl_s / 5
    assert 2 * ttl_s / 3 <= ttl_s - margin_s + 1e-9


@pytest.mark.parametrize("margin_s", [0, -1, 10, 11])
def test_a_margin_outside_the_term_is_refused(margin_s: float) -> None:
    """Neither no margin nor one that leaves no time is a term."""
    with pytest.raises(ValueError, match="margin"):
        Term(10, margin_s)


def test_the_trust_clock_runs() -> None:
    """It never goes back."""
    readings = [trust_clock() for _ in range(100)]
    assert readings == sorted(readings)


def held_lease(term: Term) -> HeldLease:
    """Return a lease under a term, by a clock that stands at 105."""
    return HeldLease(Lease(shard(1), ANN, FencingToken(7)), ShardProgress(), term=term, clock=lambda: 105.0)


def test_a_held_lease_is_checked_against_its_term() -> None:
    """Before the term's trust ends check() returns, from then on it raises, without anyone having told it."""
    term = Term(10, 2)
    term.renewed(100)
    held = held_lease(term)
    assert (held.key, held.node, held.token) == (shard(1), ANN, 7)
    held.check()
    held.check(107.9)
    with pytest.raises(LeaseLostError, match="term_ended"):
        held.check(108)
    assert held.over is None
    assert "trusted" in repr(held)


def test_an_ended_lease_stays_ended_for_its_first_reason() -> None:
    """A lease that was given back fails its check although the term goes on."""
    term = Term(10, 2)
    term.renewed(100)
    held = held_lease(term)
    held.end(Reason.RELEASED)
    held.end(Reason.TAKEN)
    with pytest.raises(LeaseLostError, match="released") as caught:
        held.check()
    assert caught.value.key == shard(1)
    assert "released" in repr(held)
