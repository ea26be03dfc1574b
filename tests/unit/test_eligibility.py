"""What a node must not take although it is assigned to it."""

from __future__ import annotations

from leasing.eligibility import Eligibility
from model.ids import FencingToken
from model.lease import FleetSnapshot, Lease, Member
from tests.support.fleet_values import ANN, shard, source


def test_a_shard_that_was_given_up_is_left_alone_for_longer_each_time() -> None:
    """Twice as long, up to a minute; the others are due all the time."""
    eligibility, now, pauses = Eligibility(), 0.0, []
    for _ in range(8):
        eligibility.cool_down(shard(0), now)
        began_at = now
        while eligibility.due([shard(0), shard(1)], now) == [shard(1)]:
            now += 0.5
        assert eligibility.due([shard(0), shard(1)], now) == [shard(0), shard(1)]
        pauses.append(now - began_at)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_shard_that_was_held_for_long_is_taken_again_soon() -> None:
    """What it was given up for before says nothing any more."""
    eligibility = Eligibility()
    for now in (0.0, 1.0, 3.0):
        eligibility.cool_down(shard(0), now)
    eligibility.cool_down(shard(0), 68.0)  # more than a minute after the last pause
    assert eligibility.due([shard(0)], 69.0) == [shard(0)]


def test_after_a_wipe_nothing_is_taken_for_a_while() -> None:
    """Others may still work under leases that the store has lost."""
    eligibility = Eligibility()
    assert eligibility.held_off_s(0.0) < 0
    eligibility.hold_off(10.0)
    assert (eligibility.held_off_s(4.0), eligibility.due([shard(0)], 9.9)) == (6.0, [])
    assert eligibility.due([shard(0)], 10.0) == [shard(0)]


def test_a_lease_that_ended_here_stays_over() -> None:
    """Also when the store has lost its release, and while many others end; a newer one is good."""
    eligibility = Eligibility()
    over = Lease(shard(0), ANN, FencingToken(5))
    eligibility.end(over)
    assert eligibility.is_over(over)
    assert not eligibility.is_over(Lease(shard(0), ANN, FencingToken(6)))
    for number in range(1, 2000):
        eligibility.end(Lease(shard(number), ANN, FencingToken(5)))
    eligibility.forget_unwanted(FleetSnapshot(1, (Member(ANN),), (source(0),), {}, {}))
    assert eligibility.is_over(over)
    assert not eligibility.is_over(Lease(shard(1), ANN, FencingToken(5)))
