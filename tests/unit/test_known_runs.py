"""Records keep what they have been through when their batches are cut anew: `pollers.known_runs`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.outcome import Delivered, FunctionFailed
from pollers.attempts import Attempts
from pollers.known_runs import take_runs
from pollers.retrying import RetryPolicy
from tests.support.pump_fakes import FakeDestination
from tests.support.pump_rig import Rig

TWICE = Attempts(last=9, failures=2, invocations=2)


def test_what_is_left_of_a_run_keeps_its_count() -> None:
    """A smaller batch takes the run with it, and leaves the rest of it for the next one."""
    known = {3: TWICE}
    assert take_runs(known, [1, 3, 5]) == {3: TWICE}
    assert known == {6: TWICE}
    assert take_runs(known, [7, 8]) == {7: TWICE}
    assert take_runs(known, [9, 10, 11]) == {9: TWICE}
    assert known == {}


def test_records_around_a_run_have_been_through_nothing() -> None:
    """Runs that were finished before are dropped, later ones stay, and a run whose records are gone says nothing."""
    once = Attempts(last=20, failures=1, invocations=1)
    gone = Attempts(last=13, failures=4, invocations=4)
    known = {1: Attempts(last=2, failures=3, invocations=3), 12: gone, 15: once, 30: TWICE}
    assert take_runs(known, [5, 11, 14, 16]) == {16: once}
    assert known == {17: once, 30: TWICE}
    assert take_runs(known, []) == {}


@pytest.mark.looptime
async def test_attempts_survive_a_hand_over_to_smaller_batches() -> None:
    """Each record of a batch that failed is given up after all of its attempts, and not after some more."""
    destination = FakeDestination()
    rig = Rig(8, batch_size=8, policy=RetryPolicy(maximum_retry_attempts=3), destination=destination)
    calls: list[list[int]] = []

    def fail(positions: list[int], _attempt: int) -> FunctionFailed | Delivered:
        calls.append(positions)
        return FunctionFailed("Boom")

    rig.target.answer = fail
    async with rig.running():
        await rig.until(lambda: len(calls) == 2 and bool(rig.saves.progress.state))
    rig.mapping = replace(rig.mapping, batch_size=2)
    async with rig.running():
        await rig.until(lambda: rig.saved(8))
    counted = [sum(position in positions for positions in calls) for position in range(8)]
    assert counted == [4] * 8
    assert destination.positions == [[0, 1], [2, 3], [4, 5], [6, 7]]
