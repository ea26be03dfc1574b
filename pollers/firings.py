"""Which firing of a schedule is next, and which are missed. Pure.

A firing is missed when it is later than `grace_s`: nobody was there for it, or the function was busy, or away, with the
ones before. What is late by less is fired late. So the firing that a killed node had in hand is fired again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.mapping import MissedFirings

if TYPE_CHECKING:
    from model.schedule import Schedule

PUNCTUAL_S = 60.0
"""How late a firing may be: as late as EventBridge's own."""

MARKS = 1_000_000
"""Positions in a schedule are microseconds: the seconds of a firing, and below them the mark of the schedule."""


class Due(NamedTuple):
    """What comes next: a firing (epoch seconds; None: never again), and how many before it nobody gets."""

    at_s: int | None
    missed: int
    caught_up: bool = False  # it stands for others, or for itself alone long after its time


def next_due(schedule: Schedule, after_s: int, *, now_s: float, missed: MissedFirings, grace_s: float) -> Due:
    """Return the firing that follows the one at `after_s`, or the beginning."""
    first_s = schedule.after(after_s)
    if first_s is None or first_s >= now_s - grace_s:
        return Due(first_s, 0)
    late = schedule.between(after_s, now_s - grace_s)
    if late is None:
        return Due(first_s, 0)
    if missed is MissedFirings.ONCE:
        return Due(late.last_s, late.firings - 1, caught_up=True)
    return Due(schedule.after(late.last_s), late.firings)


def position_of(at_s: int, schedule: Schedule) -> int:
    """Return a firing's place in its shard."""
    return at_s * MARKS + schedule.mark


def read_position(position: int) -> tuple[int, int]:
    """Return the seconds, and the mark of the schedule that made the position."""
    return divmod(position, MARKS)
