"""The plan of faults: the same for the same seed, and made so that what each fault costs can be told."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.plan import NODES, TTL_S, Kind, plan

SEEDS = range(200)


def test_a_seed_is_a_plan() -> None:
    """The same seed makes the same faults, another one makes others."""
    assert plan(7, 300) == plan(7, 300)
    assert plan(7, 300) != plan(8, 300)


@pytest.mark.parametrize("seconds", [60, 300])
def test_every_kind_comes_in_a_minute(seconds: float) -> None:
    """Whatever the seed, a minute has every kind of fault, and none after the end."""
    for seed in SEEDS:
        faults = plan(seed, seconds)
        assert {fault.kind for fault in faults} == set(Kind)
        assert faults == sorted(faults, key=lambda fault: fault.at_s)
        assert faults[0].at_s > 0
        assert faults[-1].at_s + faults[-1].lasts_s < seconds


def test_a_short_run_has_what_fits() -> None:
    """Nothing is squeezed in."""
    assert plan(7, 1) == []
    assert 0 < len(plan(7, 20)) < len(Kind)


def test_faults_that_are_meant_to_outlast_a_lease_do() -> None:
    """Pauses are longer than the TTL, and hit a node that there is."""
    faults = [fault for seed in SEEDS for fault in plan(seed, 120)]
    assert all(f.lasts_s > TTL_S for f in faults if f.kind in (Kind.PAUSE, Kind.REDIS_FREEZE))
    hit = {f.node for f in faults if f.kind in (Kind.KILL, Kind.PAUSE)}
    assert hit == set(range(NODES))
    assert {f.node for f in faults if f.kind not in (Kind.KILL, Kind.PAUSE)} == {None}


def test_faults_meet_but_never_beside_a_rolling_restart() -> None:
    """Some begin while another is under way, two at a time, of two servers; a rolling restart is left alone."""
    met = 0
    for seed in SEEDS:
        for before, fault in pairwise(plan(seed, 120)):
            if fault.beside:
                met += 1
                assert before.kind is not fault.kind
                assert Kind.ROLL not in (before.kind, fault.kind)
                assert {before.kind, fault.kind} != {Kind.REDIS_KILL, Kind.REDIS_FREEZE}
                assert not before.beside
                assert fault.at_s - before.at_s < 1
            else:
                assert fault.at_s - before.at_s >= 2
    assert met > 100


def test_the_first_kill_has_the_fleet_to_itself() -> None:
    """Whatever the seed, a run of a minute measures a take-over that nothing hinders."""
    for seed in SEEDS:
        faults = plan(seed, 60)
        first = [fault.kind for fault in faults].index(Kind.KILL)
        assert not any(fault.beside for fault in faults[first : first + 2])
