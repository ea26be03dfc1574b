"""When a schedule fires: EventBridge's `rate(…)` and `cron(…)`, in a time zone. Pure.

The rules are those of AWS's pages "Rate expressions" and "Cron expressions reference" of EventBridge; what happens when
clocks are changed is that of "Schedule types" of EventBridge Scheduler: a time that the clocks leave out is left out,
one that they show twice fires the first time only, and a day of a rate is 24 hours. Times are epoch seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32
from zoneinfo import ZoneInfo

from model.cron import Cron, InvalidScheduleError, parse_cron

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CronSchedule", "InvalidScheduleError", "Missed", "RateSchedule", "Schedule", "parse_schedule"]

_RATE = re.compile(r"rate\(\s*(?P<value>\S+)\s+(?P<unit>\S+)\s*\)")
_CRON = re.compile(r"cron\((?P<fields>[^()]*)\)")
_UNIT_S = {"minute": 60, "hour": 3600, "day": 86_400}
_MOST_DIGITS: Final = 9
_DAY = timedelta(days=1)

COUNTED: Final = 1000
"""So many missed firings are counted; what an outage missed beyond them is only passed over."""


class Missed(NamedTuple):
    """The firings of a span of time."""

    last_s: int
    firings: int  # at least; exact up to `COUNTED`


@dataclass(frozen=True, slots=True)
class RateSchedule:
    """Every so many seconds, counted from the firing before or from the beginning."""

    expression: str
    interval_s: int

    @property
    def mark(self) -> int:
        """A number below a million that tells this schedule from others."""
        return _mark(self.expression)

    def after(self, moment_s: int) -> int | None:
        """Return the firing after one, or after the beginning."""
        return moment_s + self.interval_s

    def between(self, after_s: int, until_s: float) -> Missed | None:
        """Return the firings after one and up to a moment; None: there are none."""
        count = int((until_s - after_s) // self.interval_s)
        return Missed(after_s + count * self.interval_s, count) if count > 0 else None


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """At certain times of a time zone's calendar."""

    expression: str
    cron: Cron
    timezone: str
    zone: tzinfo

    @property
    def mark(self) -> int:
        """A number below a million that tells this schedule from others."""
        return _mark(f"{self.expression} {self.timezone}")

    def after(self, moment_s: int) -> int | None:
        """Return the first firing after a moment; None: there is none any more."""
        return next(self._after(moment_s), None)

    def between(self, after_s: int, until_s: float) -> Missed | None:
        """Return the firings after one and up to a moment; None: there are none."""
        last_s, count = None, 0
        for at_s in self._after(after_s):
            if at_s > until_s:
                break
            last_s, count = at_s, count + 1
            if count == COUNTED:
                last_s = self._last(until_s)
                break
        return None if last_s is None else Missed(last_s, count)

    def _after(self, moment_s: int) -> Iterator[int]:
        local = datetime.fromtimestamp(moment_s, self.zone).replace(tzinfo=None)
        for naive in self.cron.after(local):
            # While clocks show an hour for the second time, its firings are those of the first time.
            if (at_s := self._epoch(naive)) is not None and at_s > moment_s:
                yield at_s

    def _last(self, moment_s: float) -> int:
        local = datetime.fromtimestamp(moment_s, self.zone).replace(tzinfo=None)
        found = (self._epoch(naive) for naive in self.cron.until(local + _DAY))  # clocks may have been put back
        return next(at_s for at_s in found if at_s is not None and at_s <= moment_s)

    def _epoch(self, naive: datetime) -> int | None:
        """Return the moment of a time on the clocks, the first one that shows it; None: the clocks leave it out."""
        moment = naive.replace(tzinfo=self.zone).astimezone(UTC)
        shown = moment.astimezone(self.zone).replace(tzinfo=None)
        return int(moment.timestamp()) if shown == naive else None


Schedule = RateSchedule | CronSchedule


def parse_schedule(expression: str, timezone: str = "UTC") -> Schedule:
    """Read a schedule expression. `timezone` is a name of the IANA database. Raises `InvalidScheduleError`."""
    if rate := _RATE.fullmatch(expression):
        return RateSchedule(expression, _interval_s(rate["value"], rate["unit"]))
    if cron := _CRON.fullmatch(expression):
        return CronSchedule(expression, parse_cron(cron["fields"]), timezone, read_zone(timezone))
    raise InvalidScheduleError(
        "must be rate(VALUE UNIT) or cron(FIELDS), such as rate(5 minutes) or cron(0 12 * * ? *)"
    )


def utc_text(at_s: int) -> str:
    """Return the time of a firing as documents write it: 2026-03-01T12:00:00Z."""
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def read_zone(name: str) -> tzinfo:
    """Return the time zone of this name. Raises `InvalidScheduleError`."""
    if name == "UTC":
        return UTC  # also where there is no database of zones
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as exc:  # not found is a KeyError; a folder of the database an OSError
        raise InvalidScheduleError(f"has no time zone {name!r}: use a name such as Europe/Berlin") from exc


def _interval_s(value: str, unit: str) -> int:
    count = int(value) if value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS else 0
    if count < 1:
        raise InvalidScheduleError(f"has {value!r} as value; it must be a whole number from 1 on")
    singular = unit.removesuffix("s")
    if singular not in _UNIT_S:
        raise InvalidScheduleError(f"has {unit!r} as unit; it must be minutes, hours or days")
    if (unit == singular) != (count == 1):
        right = singular if count == 1 else f"{singular}s"
        raise InvalidScheduleError(f"has {value} {unit}; it must be {value} {right}")
    return count * _UNIT_S[singular]


def _mark(text: str) -> int:
    return crc32(text.encode()) % 1_000_000
