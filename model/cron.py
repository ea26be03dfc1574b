"""The cron expressions of EventBridge: six fields, minute to year, and the moments they name on a calendar. Pure.

The grammar is that of AWS's page "Cron expressions reference", and what other cron engines take besides: `LW` and
`L-3` as days of the month, `6L` as the last Friday, names in any case, `FRI-MON`. Times here are naive: of which zone
they are is `model.schedule`'s business.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_WEEK: Final = 7
_SATURDAY: Final = 7
_SUNDAY: Final = 1
_MOST_WEEKS: Final = 5  # a month has a weekday five times at most
_MOST_BEFORE_END: Final = 30


class InvalidScheduleError(ValueError):
    """A schedule that EventBridge would not take; the message says what is wrong, to be read behind "the schedule"."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the six."""

    name: str
    least: int
    most: int
    marks: str  # the special characters that it may hold
    names: tuple[str, ...] = ()  # of its values, from `least` on
    turns: bool = False  # whether a range may run over the end: FRI-MON, 22-2


_MINUTE = _Field("minutes", 0, 59, ",-*/", turns=True)
_HOUR = _Field("hours", 0, 23, ",-*/", turns=True)
_DAY_OF_MONTH = _Field("day-of-month", 1, 31, ",-*?/LW")
_MONTH = _Field("month", 1, 12, ",-*/", _MONTHS, turns=True)
_DAY_OF_WEEK = _Field("day-of-week", 1, 7, ",-*?L#", _DAYS, turns=True)
_YEAR = _Field("year", 1970, 2199, ",-*/")
_FIELDS = (_MINUTE, _HOUR, _DAY_OF_MONTH, _MONTH, _DAY_OF_WEEK, _YEAR)

_WHERE = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\w+))?")
_NEAREST = re.compile(r"(\d+)W")
_BEFORE_END = re.compile(r"L(?:-(\d+))?")
_LAST_OF_KIND = re.compile(r"(\w+)L")
_NTH = re.compile(r"(\w+)#(\w+)")


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression, taken apart."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    years: tuple[int, ...]
    days: Callable[[int, int], Sequence[int]]  # of a year and a month, rising

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Tell the moments after another one, rising."""
        begin = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        for year, month in self._calendar(begin):
            for day in self.days(year, month):
                if date(year, month, day) < begin.date():
                    continue
                for hour in self.hours:
                    for minute in self.minutes:
                        if (found := datetime(year, month, day, hour, minute)) >= begin:  # noqa: DTZ001 - of any zone
                            yield found

    def until(self, moment: datetime) -> Iterator[datetime]:
        """Tell the moments up to another one and including it, falling."""
        for year in reversed([year for year in self.years if year <= moment.year]):
            for month in reversed(self.months):
                for day in reversed(self.days(year, month)):
                    if date(year, month, day) > moment.date():
                        continue
                    for hour in reversed(self.hours):
                        for minute in reversed(self.minutes):
                            if (found := datetime(year, month, day, hour, minute)) <= moment:  # noqa: DTZ001 - same
                                yield found

    def _calendar(self, begin: datetime) -> Iterator[tuple[int, int]]:
        for year in [year for year in self.years if year >= begin.year]:
            for month in self.months:
                if (year, month) >= (begin.year, begin.month):
                    yield year, month


def parse_cron(text: str) -> Cron:
    """Read what stands between the parentheses of `cron(…)`. Raises `InvalidScheduleError`."""
    parts = text.upper().split()
    if len(parts) != len(_FIELDS):
        wanted = "minutes hours day-of-month month day-of-week year"
        raise InvalidScheduleError(f"must have six fields ({wanted}), not {len(parts)}")
    minute, hour, day_of_month, month, day_of_week, year = parts
    for value, field in zip(parts, _FIELDS, strict=True):
        _check_marks(value, field)
    if (day_of_month == "?") == (day_of_week == "?"):
        both = "both are ?" if day_of_week == "?" else f"they are {day_of_month} and {day_of_week}"
        raise InvalidScheduleError(f"must have ? in exactly one of day-of-month and day-of-week; {both}")
    return Cron(
        minutes=_values(minute, _MINUTE),
        hours=_values(hour, _HOUR),
        months=_values(month, _MONTH),
        years=_values(year, _YEAR),
        days=_days_of_month(day_of_month) if day_of_week == "?" else _days_of_week(day_of_week),
    )


def _check_marks(value: str, field: _Field) -> None:
    for mark in "?/*#":
        if mark in value and mark not in field.marks:
            raise InvalidScheduleError(f"cannot have {mark} in {field.name}")
    if "?" in value and value != "?":
        raise InvalidScheduleError(f"must have ? alone in {field.name}, not {value}")


def _values(text: str, field: _Field) -> tuple[int, ...]:
    """Return the values that a field lists, rising."""
    found: set[int] = set()
    for part in text.split(","):
        form = _WHERE.fullmatch(part)
        if form is None:
            raise InvalidScheduleError(f"has {part or 'nothing'!r} in {field.name}, which says no value")
        step = 1 if form["step"] is None else _step(form["step"], field)
        if form["first"] == "*":
            if form["last"] is not None:
                raise InvalidScheduleError(f"has {part!r} in {field.name}; * is no end of a range")
            first, last = field.least, field.most
        else:
            first = _value(form["first"], field)
            # A step without an end goes on to the end of the field.
            last = _value(form["last"], field) if form["last"] else (field.most if form["step"] else first)
        if first > last and not field.turns:
            raise InvalidScheduleError(f"has the range {part!r} in {field.name}, which runs backwards")
        size = field.most - field.least + 1
        run = range(first, (last if first <= last else last + size) + 1, step)
        found |= {(value - field.least) % size + field.least for value in run}
    return tuple(sorted(found))


def _value(text: str, field: _Field) -> int:
    if text in field.names:
        return field.names.index(text) + field.least
    value = _number(text)
    if value is None or not field.least <= value <= field.most:
        names = f" or {field.names[0]}-{field.names[-1]}" if field.names else ""
        raise InvalidScheduleError(f"has {text!r} in {field.name}, where {field.least}-{field.most}{names} is possible")
    return value


def _step(text: str, field: _Field) -> int:
    step = _number(text)
    if step is None or not 1 <= step <= field.most:
        raise InvalidScheduleError(f"has the step {text!r} in {field.name}; it must be 1 to {field.most}")
    return step


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else None  # noqa: PLR2004 - as a year


def _days_of_month(text: str) -> Callable[[int, int], Sequence[int]]:
    if text == "LW":
        return lambda year, month: [_nearest_weekday(year, month, monthrange(year, month)[1])]
    if nearest := _NEAREST.fullmatch(text):
        wanted = _value(nearest[1], _DAY_OF_MONTH)
        return lambda year, month: (
            [_nearest_weekday(year, month, wanted)] if wanted <= monthrange(year, month)[1] else []
        )
    if before_end := _BEFORE_END.fullmatch(text):
        days = int(before_end[1] or 0)
        if days > _MOST_BEFORE_END:
            raise InvalidScheduleError(f"has {text!r} in day-of-month; L-1 to L-{_MOST_BEFORE_END} are possible")
        return lambda year, month: [day] if (day := monthrange(year, month)[1] - days) > 0 else []
    _refuse_in_list(text, "LW", _DAY_OF_MONTH)
    values = _values(text, _DAY_OF_MONTH)
    return lambda year, month: [day for day in values if day <= monthrange(year, month)[1]]


def _days_of_week(text: str) -> Callable[[int, int], Sequence[int]]:
    if text == "L":
        text = str(_SATURDAY)  # the last day of the week, every week
    if last := _LAST_OF_KIND.fullmatch(text):
        kind = _value(last[1], _DAY_OF_WEEK)
        return lambda year, month: _of_kind(year, month, kind)[-1:]
    if nth := _NTH.fullmatch(text):
        kind, which = _value(nth[1], _DAY_OF_WEEK), _number(nth[2])
        if which is None or not 1 <= which <= _MOST_WEEKS:
            raise InvalidScheduleError(f"has {text!r} in day-of-week; # takes 1 to {_MOST_WEEKS} behind it")
        return lambda year, month: _of_kind(year, month, kind)[which - 1 : which]
    if "#" in text:
        raise InvalidScheduleError(f"has {text!r} in day-of-week; with # there can be one expression only")
    _refuse_in_list(re.sub("|".join(_DAYS), "", text), "L", _DAY_OF_WEEK)
    kinds = frozenset(_values(text, _DAY_OF_WEEK))
    return lambda year, month: [
        day for day in range(1, monthrange(year, month)[1] + 1) if _kind(year, month, day) in kinds
    ]


def _refuse_in_list(text: str, marks: str, field: _Field) -> None:
    for mark in marks:
        if mark in text:
            raise InvalidScheduleError(f"has {text!r} in {field.name}; {mark} goes with a single day only")


def _kind(year: int, month: int, day: int) -> int:
    """Return the weekday, 1 for Sunday to 7 for Saturday."""
    return date(year, month, day).isoweekday() % _WEEK + 1


def _of_kind(year: int, month: int, kind: int) -> list[int]:
    """Return the days of a month that are this weekday."""
    first = 1 + (kind - _kind(year, month, 1)) % _WEEK
    return list(range(first, monthrange(year, month)[1] + 1, _WEEK))


def _nearest_weekday(year: int, month: int, day: int) -> int:
    """Return the day from Monday to Friday that is nearest, in the same month."""
    last = monthrange(year, month)[1]
    match _kind(year, month, day):
        case 7:  # Saturday
            return day - 1 if day > 1 else day + 2
        case 1:  # Sunday
            return day + 1 if day < last else day - 2
        case _:
            return day
