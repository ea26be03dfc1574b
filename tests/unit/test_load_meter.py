"""What a shard is said to cost its holder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers.load import LoadMeter


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def read(meter: LoadMeter, clock: Clock, *, per_s: float, size: int, seconds: int) -> list[float]:
    """Read so many records of a size for a while; return what was shown."""
    shown = []
    for _ in range(seconds):
        clock.now += 1
        meter.records += round(per_s)
        meter.size += round(per_s) * size
        shown.append(meter.shown())
    return shown


def test_an_idle_shard_is_the_unit() -> None:
    """Also when it was taken over from a holder that knew no load."""
    clock = Clock()
    meter = LoadMeter(clock, 0.0)
    assert set(read(meter, clock, per_s=0, size=0, seconds=100)) == {1.0}


@pytest.mark.parametrize(("per_s", "size", "load"), [(1000, 0, 101), (1000, 1000, 141), (10, 1_000_000, 402)])
def test_records_and_bytes_count(per_s: float, size: int, load: float) -> None:
    """After ten minutes the measure is there, to within the step in which it is shown."""
    clock = Clock()
    meter = LoadMeter(clock, 1.0)
    shown = read(meter, clock, per_s=per_s, size=size, seconds=900)
    assert shown[-1] == pytest.approx(load, rel=0.3)
    assert shown == sorted(shown)


def test_what_the_last_holder_measured_is_where_the_next_begins() -> None:
    """A hand-over changes nothing, and a shard that has become idle comes down by itself."""
    clock = Clock()
    meter = LoadMeter(clock, 120.0)
    assert meter.shown() == 120.0
    shown = read(meter, clock, per_s=0, size=0, seconds=3600)
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] == 1.0


@given(st.lists(st.integers(800, 1200), min_size=300, max_size=300))
def test_a_noisy_load_is_shown_as_a_steady_one(rates: list[int]) -> None:
    """A fifth more or less from second to second moves the figure by a step at most."""
    clock = Clock()
    meter = LoadMeter(clock, 101.0)
    shown = {value for rate in rates for value in read(meter, clock, per_s=rate, size=0, seconds=1)}
    assert len(shown) <= 2
    assert all(75 <= value <= 135 for value in shown)


def test_looking_often_changes_nothing() -> None:
    """Several looks within a second are one: a burst is not taken for a rate."""
    clock = Clock()
    meter = LoadMeter(clock, 1.0)
    meter.records = 1000
    for _ in range(1000):
        clock.now += 0.0005
        assert meter.shown() == 1.0
