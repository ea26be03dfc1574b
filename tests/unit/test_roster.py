"""Which environment takes an invocation: `invocation.roster`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invocation.roster import Demand, Full, Reuse, Roster, Seat, Start, State, Terms
from model.placement import Capacity

if TYPE_CHECKING:
    from collections.abc import Collection

NOW = 1000.0


def roster(
    environments: int = 10, memory_mb: int = 10_000, *, random: float = 0.5, cold: Collection[str] = ()
) -> Roster[str]:
    """Make one with room for ten; environments are their names."""
    made: Roster[str] = Roster(
        Capacity(environments, memory_mb),
        Terms(lease_s=100.0, idle_s=10.0),
        random=lambda: random,
        warm=lambda environment: environment not in cold,
    )
    made.function("f", version=1, memory_mb=100)
    return made


def idle(made: Roster[str], *names: str, function: str = "f", at: float = NOW) -> list[Seat[str]]:
    """Put idle environments on the roster, each a second after the one before."""
    seats = []
    for i, name in enumerate(names):
        seat = made.add(function, name, now=at + i, busy=True)
        assert made.give_back(seat, now=at + i)
        seats.append(seat)
    return seats


def taken(made: Roster[str], function: str = "f") -> str:
    """Take an environment that is there."""
    chosen = made.take(function)
    assert isinstance(chosen, Reuse)
    return chosen.seat.environment


def test_the_environment_used_last_is_used_first() -> None:
    """So that the others grow old."""
    made = roster()
    idle(made, "a", "b", "c")
    assert [taken(made), taken(made), taken(made)] == ["c", "b", "a"]
    assert made.take("f") == Start()


def test_a_warm_environment_goes_before_one_that_must_start_anew() -> None:
    """A cold one is used when there is no other: its folder is still there."""
    made = roster(cold=["c"])
    idle(made, "a", "b", "c")
    assert [taken(made), taken(made), taken(made)] == ["b", "a", "c"]


def test_a_full_node_ends_what_was_idle_longest() -> None:
    """Of whichever function, and no more than it takes."""
    made = roster(environments=3)
    made.function("g", version=1, memory_mb=100)
    seats = idle(made, "a", "b", "c")
    assert made.take("g") == Start((seats[0],))
    assert seats[0].state is State.ENDING
    assert made.take("g") == Start((seats[1],))  # the first still holds its memory
    made.add("g", "d", now=NOW, busy=True)
    made.ended(seats[0])
    made.ended(seats[1])
    assert taken(made, "f") == "c"
    made.add("g", "e", now=NOW, busy=True)
    assert made.take("g") == Full()


def test_memory_counts_whether_it_is_used_or_not() -> None:
    """Nothing is started that could not have all of its function's memory."""
    made = roster(memory_mb=1000)
    made.function("large", version=1, memory_mb=600)
    made.add("large", "a", now=NOW, busy=True)
    assert made.take("large") == Full()
    assert made.take("f") == Start()


def test_an_environment_of_another_version_is_not_used_again() -> None:
    """An idle one is due at once, a busy one when it comes back."""
    made = roster()
    idle(made, "old")
    busy = made.add("f", "busy", now=NOW, busy=True)
    made.function("f", version=2, memory_mb=100)
    assert made.take("f") == Start()
    assert [seat.environment for seat in made.due(NOW)] == ["old"]
    assert not made.give_back(busy, now=NOW)
    assert made.counts()["f"][State.ENDING] == 2


@pytest.mark.parametrize(("random", "lease_s"), [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)])
def test_leases_are_spread(random: float, lease_s: float) -> None:
    """By a tenth to either side."""
    made = roster(random=random)
    (seat,) = idle(made, "a")
    assert seat.expires_at == pytest.approx(NOW + lease_s)
    assert taken(made) == "a"
    assert not made.give_back(seat, now=NOW + lease_s)


def test_what_there_is_room_for() -> None:
    """What has not ended takes room, idle environments would give theirs up; warm ones are of today's version."""
    made = roster(4, 500, cold={"b"})
    assert (made.free(), made.idle(), made.warm()) == (Capacity(4, 500), Capacity(0, 0), {})
    idle(made, "a", "b")
    made.add("f", "c", now=NOW, busy=True)
    assert (made.free(), made.idle(), made.warm()) == (Capacity(1, 200), Capacity(2, 200), {"f": 1})
    assert made.is_warm("f")
    made.function("f", version=2, memory_mb=100)
    assert (made.warm(), made.is_warm("f"), made.is_warm("g")) == ({}, False, False)


def test_idle_environments_are_given_up_unless_demand_wants_them() -> None:
    """Those that were idle longest first."""
    made = roster()
    idle(made, "a", "b", "c")
    for _ in range(60):
        made.demand("f").arrived(NOW + 11)
    made.demand("f").took(0.3)
    assert made.demand("f").environments(NOW + 11) == 1
    assert [seat.environment for seat in made.due(NOW + 9.9)] == []
    assert [seat.environment for seat in made.due(NOW + 11)] == ["a", "b"]
    assert [seat.environment for seat in made.due(NOW + 99)] == ["c"]


def test_demand_asks_for_environments_ahead_as_far_as_there_is_room() -> None:
    """One at a time, never beyond the function's limit, and never at another function's cost."""
    made = roster(environments=2)
    for _ in range(300):
        made.demand("f").arrived(NOW)
    made.demand("f").took(1.0)
    assert made.wanted(NOW, {}) == ["f"]
    made.add("f", "a", now=NOW, busy=False)
    assert made.wanted(NOW, {"f": 1}) == []
    assert made.wanted(NOW, {}) == ["f"]
    made.add("f", "b", now=NOW, busy=False)
    assert made.wanted(NOW, {}) == []


def test_demand_follows_arrivals_and_durations() -> None:
    """Ten a second of a fifth of a second each keep two busy; a minute later nobody is wanted."""
    demand = Demand()
    for i in range(2000):
        demand.arrived(NOW + i / 10)
        demand.took(0.2)
    assert demand.environments(NOW + 200) == 3  # two, and the root of two
    assert demand.environments(NOW + 400) == 0


@given(st.lists(st.sampled_from(["take f", "take g", "back", "due", "ended", "drop", "change"]), max_size=80))
def test_the_books_always_balance(steps: list[str]) -> None:  # noqa: C901 a case for each thing that happens
    """Whatever happens: never more than the capacity, each in one state, counts of use true."""
    made = roster(environments=4, memory_mb=500)
    made.function("g", version=1, memory_mb=200)
    version, now, number = 1, NOW, 0
    busy: list[Seat[str]] = []
    for step in steps:
        now += 3.0
        match step.split():
            case ["take", name]:
                chosen = made.take(name)
                if isinstance(chosen, Reuse):
                    assert chosen.seat.version == version
                    busy.append(chosen.seat)
                elif isinstance(chosen, Start):
                    for seat in chosen.first:
                        made.ended(seat)
                    number += 1
                    busy.append(made.add(name, str(number), now=now, busy=True))
            case ["back"] if busy:
                made.give_back(busy.pop(0), now=now)
            case ["drop"] if busy:
                made.discard(busy.pop())
            case ["due"]:
                made.due(now)
            case ["ended"]:
                for seat in [seat for seat in made if seat.state is State.ENDING]:
                    made.ended(seat)
            case ["change"]:
                version += 1
                for name, memory_mb in [("f", 100), ("g", 200)]:
                    made.function(name, version=version, memory_mb=memory_mb)
        assert len(made) <= 4
        assert sum(seat.memory_mb for seat in made) <= 500
        in_use = [seat for seat in made if seat.state is State.BUSY]
        assert set(in_use) == set(busy)
