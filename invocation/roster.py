"""Which environment takes an invocation, and which ones should be there: decisions of the worker manager. Pure.

An environment is idle, busy, starting (nobody uses it yet) or ending (it still holds its memory). The one used last is
used first, so that the others grow old and are given up. Every environment counts with all of its function's memory,
used or not: so no number of invocations can use up the machine's, and what finds no room is throttled before it starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, TypeVar

from model.placement import Capacity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

E = TypeVar("E")

_SPREAD = 0.1
"""Leases differ by up to so much, so that environments started together do not end together."""

_MEMORY_S = 30.0
"""How far back demand is looked at."""


class State(Enum):
    """What an environment is doing."""

    STARTING = auto()
    IDLE = auto()
    BUSY = auto()
    ENDING = auto()


@dataclass(frozen=True, slots=True)
class Terms:
    """How long environments are kept."""

    lease_s: float
    idle_s: float


@dataclass(slots=True, eq=False)
class Seat(Generic[E]):
    """One environment on the roster."""

    environment: E
    function: str
    version: int  # of code and settings; another one than the function's means: not to be used any more
    memory_mb: int
    expires_at: float
    state: State
    idle_since: float = 0.0


@dataclass(frozen=True, slots=True)
class Reuse(Generic[E]):
    """Use this one; it is busy from now on."""

    seat: Seat[E]


@dataclass(frozen=True, slots=True)
class Start(Generic[E]):
    """Start another one, when these have ended."""

    first: tuple[Seat[E], ...] = ()


@dataclass(frozen=True, slots=True)
class Full:
    """The node has no room."""


class Demand:
    """How many environments a function's arrivals keep busy, from what was seen lately. `now` is event-loop time."""

    def __init__(self) -> None:
        self._weight = 0.0  # arrivals, each fading with age
        self._at = 0.0
        self._service_s = 0.0

    def arrived(self, now: float) -> None:
        """Count an arrival."""
        self._fade(now)
        self._weight += 1.0

    def took(self, duration_s: float) -> None:
        """Take note of how long an invocation took."""
        self._service_s += ((duration_s - self._service_s) * 0.1) if self._service_s else duration_s

    def environments(self, now: float) -> int:
        """Return how many should be there.

        Arrivals times duration is how many are busy on average (Little's law); the square root of that is how much
        chance adds to it (the rule by which call centres are staffed).
        """
        self._fade(now)
        busy = self._weight / _MEMORY_S * self._service_s
        return int(busy + math.sqrt(busy) + 0.5)

    def _fade(self, now: float) -> None:
        self._weight *= math.exp(min(self._at - now, 0.0) / _MEMORY_S)
        self._at = now


@dataclass(slots=True)
class _Group(Generic[E]):
    """The environments of one function."""

    version: int
    memory_mb: int
    idle: list[Seat[E]] = field(default_factory=list)  # the one used last is last
    seats: set[Seat[E]] = field(default_factory=set)  # all but those that are ending
    demand: Demand = field(default_factory=Demand)


class Roster(Generic[E]):
    """The environments of a node. `random` returns a number from 0 to 1, `warm` tells whether a runtime waits."""

    def __init__(
        self, capacity: Capacity, terms: Terms, *, random: Callable[[], float], warm: Callable[[E], bool]
    ) -> None:
        self._capacity = capacity
        self._terms = terms
        self._random = random
        self._warm = warm
        self._groups: dict[str, _Group[E]] = {}
        self._all: set[Seat[E]] = set()

    def __iter__(self) -> Iterator[Seat[E]]:
        return iter(self._all)

    def __contains__(self, seat: Seat[E]) -> bool:
        return seat in self._all

    def __len__(self) -> int:
        return len(self._all)

    def counts(self) -> dict[str, dict[State, int]]:
        """Return how many environments each function has, by what they are doing."""
        found = {name: dict.fromkeys(State, 0) for name in self._groups}
        for seat in self._all:
            found[seat.function][seat.state] += 1
        return found

    def free(self) -> Capacity:
        """Return how much room there is; none where a smaller capacity than before is exceeded."""
        used_mb = sum(seat.memory_mb for seat in self._all)
        return Capacity(
            max(0, self._capacity.environments - len(self._all)), max(0, self._capacity.memory_mb - used_mb)
        )

    def idle(self) -> Capacity:
        """Return what would be free besides, if all idle environments ended."""
        idle = [seat for group in self._groups.values() for seat in group.idle]
        return Capacity(len(idle), sum(seat.memory_mb for seat in idle))

    def warm(self) -> dict[str, int]:
        """Return how many warm environments wait, by function; functions that have none are left out."""
        counts = {name: sum(1 for _ in self._ready(group)) for name, group in self._groups.items() if group.idle}
        return {name: count for name, count in counts.items() if count}

    def is_warm(self, name: str) -> bool:
        """Whether a warm environment of a function waits."""
        group = self._groups.get(name)
        return group is not None and next(self._ready(group), None) is not None

    def _ready(self, group: _Group[E]) -> Iterator[Seat[E]]:
        return (seat for seat in group.idle if seat.version == group.version and self._warm(seat.environment))

    def function(self, name: str, *, version: int, memory_mb: int) -> None:
        """Take note of what a function is now. Environments of another version are not used any more."""
        group = self._groups.get(name)
        if group is None:
            self._groups[name] = _Group(version, memory_mb)
        else:
            group.version, group.memory_mb = version, memory_mb

    def demand(self, name: str) -> Demand:
        """Return the demand for a function."""
        return self._groups[name].demand

    def take(self, name: str) -> Reuse[E] | Start[E] | Full:
        """Choose for one invocation of a known function. The environment that is to be started is `add`ed then."""
        group = self._groups[name]
        usable = [seat for seat in group.idle if seat.version == group.version]
        if usable:
            seat = next((seat for seat in reversed(usable) if self._warm(seat.environment)), usable[-1])
            group.idle.remove(seat)
            seat.state = State.BUSY
            return Reuse(seat)
        room = self._room(group, evict=True)
        return Full() if room is None else room

    def add(self, name: str, environment: E, *, now: float, busy: bool) -> Seat[E]:
        """Put a new environment on the roster, for an invocation that waits for it or (not `busy`) ahead of one."""
        group = self._groups[name]
        lease_s = self._terms.lease_s * (1 + _SPREAD * (2 * self._random() - 1))
        state = State.BUSY if busy else State.STARTING
        seat = Seat(environment, name, group.version, group.memory_mb, now + lease_s, state)
        group.seats.add(seat)
        self._all.add(seat)
        return seat

    def give_back(self, seat: Seat[E], *, now: float) -> bool:
        """Take an environment back; tell whether to keep it. One that is not kept is ending from now on."""
        group = self._groups[seat.function]
        if seat.version != group.version or now >= seat.expires_at:
            self._ending(seat)
            return False
        seat.state, seat.idle_since = State.IDLE, now
        group.idle.append(seat)
        return True

    def discard(self, seat: Seat[E]) -> None:
        """Take an environment out of use."""
        self._ending(seat)

    def ended(self, seat: Seat[E]) -> None:
        """Forget an environment that is gone."""
        self._all.discard(seat)

    def due(self, now: float) -> list[Seat[E]]:
        """Return the idle environments whose time is over. They are ending from now on."""
        found = []
        for group in self._groups.values():
            keep = group.demand.environments(now)
            for seat in list(group.idle):  # the one that has been idle longest comes first
                old = seat.version != group.version or now >= seat.expires_at
                if old or (now - seat.idle_since >= self._terms.idle_s and len(group.seats) > keep):
                    self._ending(seat)
                    found.append(seat)
        return found

    def wanted(self, now: float, limits: Mapping[str, int]) -> list[str]:
        """Return the functions that should have another environment, once for each, as far as there is room.

        `limits` says of how many at once a function has use at most.
        """
        found = []
        for name, group in self._groups.items():
            want = group.demand.environments(now)
            want = min(want, limits.get(name, want))
            have = sum(seat.version == group.version for seat in group.seats)
            if have < want and self._room(group, evict=False) is not None:
                found.append(name)
        return found

    def _room(self, group: _Group[E], *, evict: bool) -> Start[E] | None:
        """Find room for one more: free, or (`evict`) by ending those that have been idle longest."""
        count = len(self._all) + 1 - self._capacity.environments
        memory_mb = sum(seat.memory_mb for seat in self._all) + group.memory_mb - self._capacity.memory_mb
        first: list[Seat[E]] = []
        if evict and (count > 0 or memory_mb > 0):
            idle = [seat for other in self._groups.values() for seat in other.idle]
            for seat in sorted(idle, key=lambda seat: seat.idle_since):
                if count <= 0 and memory_mb <= 0:
                    break
                first.append(seat)
                count -= 1
                memory_mb -= seat.memory_mb
        if count > 0 or memory_mb > 0:
            return None
        for seat in first:
            self._ending(seat)
        return Start(tuple(first))

    def _ending(self, seat: Seat[E]) -> None:
        group = self._groups[seat.function]
        if seat.state is State.IDLE:
            group.idle.remove(seat)
        group.seats.discard(seat)
        seat.state = State.ENDING
