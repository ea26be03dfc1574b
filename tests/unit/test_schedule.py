"""When schedules fire: EventBridge's rate and cron expressions, in time zones, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.schedule import COUNTED, CronSchedule, InvalidScheduleError, Missed, RateSchedule, parse_schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.schedule import Schedule


def epoch(text: str) -> int:
    """Return the epoch seconds of a time in UTC, as in 2026-03-01 12:00."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def shown(at_s: int) -> str:
    """Return epoch seconds as `epoch` reads them."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(" ", "minutes").removesuffix("+00:00")


def firings(schedule: Schedule, after: str) -> Iterator[str]:
    """Tell the firings after a time."""
    at_s: int | None = epoch(after)
    while at_s is not None and (at_s := schedule.after(at_s)) is not None:
        yield shown(at_s)


def first(expression: str, after: str, count: int = 3, timezone: str = "UTC") -> list[str]:
    """Return the first firings of an expression."""
    return list(islice(firings(parse_schedule(expression, timezone), after), count))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(1 minute)", ["2026-03-01 12:01", "2026-03-01 12:02"]),
        ("rate(5 minutes)", ["2026-03-01 12:05", "2026-03-01 12:10"]),
        ("rate(1 hour)", ["2026-03-01 13:00", "2026-03-01 14:00"]),
        ("rate(7 days)", ["2026-03-08 12:00", "2026-03-15 12:00"]),
    ],
)
def test_a_rate_counts_from_the_firing_before(expression: str, expected: list[str]) -> None:
    """The first firing is one interval after the beginning."""
    assert first(expression, "2026-03-01 12:00", 2) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # The examples of AWS's page
        ("0 10 * * ? *", ["2026-03-02 10:00", "2026-03-03 10:00", "2026-03-04 10:00"]),
        ("15 12 * * ? *", ["2026-03-01 12:15", "2026-03-02 12:15", "2026-03-03 12:15"]),
        ("0 18 ? * MON-FRI *", ["2026-03-02 18:00", "2026-03-03 18:00", "2026-03-04 18:00"]),
        ("0 8 1 * ? *", ["2026-04-01 08:00", "2026-05-01 08:00", "2026-06-01 08:00"]),
        ("0/15 * * * ? *", ["2026-03-01 12:15", "2026-03-01 12:30", "2026-03-01 12:45"]),
        ("0/10 * ? * MON-FRI *", ["2026-03-02 00:00", "2026-03-02 00:10", "2026-03-02 00:20"]),
        ("0/5 8-17 ? * MON-FRI *", ["2026-03-02 08:00", "2026-03-02 08:05", "2026-03-02 08:10"]),
        ("0/30 20-2 ? * MON-FRI *", ["2026-03-02 00:00", "2026-03-02 00:30", "2026-03-02 01:00"]),
        # Each mark, in each field that takes it
        ("1/10 * * * ? *", ["2026-03-01 12:01", "2026-03-01 12:11", "2026-03-01 12:21"]),
        ("5,1,3 * * * ? *", ["2026-03-01 12:01", "2026-03-01 12:03", "2026-03-01 12:05"]),
        ("0 1-9/4 * * ? *", ["2026-03-02 01:00", "2026-03-02 05:00", "2026-03-02 09:00"]),
        ("0 0 */10 * ? *", ["2026-03-11 00:00", "2026-03-21 00:00", "2026-03-31 00:00"]),
        ("0 0 31 * ? *", ["2026-03-31 00:00", "2026-05-31 00:00", "2026-07-31 00:00"]),
        ("0 0 1 jan,Mar,JUN-JUL ? *", ["2026-06-01 00:00", "2026-07-01 00:00", "2027-01-01 00:00"]),
        ("0 0 1 NOV-FEB ? *", ["2026-11-01 00:00", "2026-12-01 00:00", "2027-01-01 00:00"]),
        ("0 0 ? * 1 *", ["2026-03-08 00:00", "2026-03-15 00:00", "2026-03-22 00:00"]),
        ("0 0 ? * FRI-MON *", ["2026-03-02 00:00", "2026-03-06 00:00", "2026-03-07 00:00"]),
        ("0 0 L * ? *", ["2026-03-31 00:00", "2026-04-30 00:00", "2026-05-31 00:00"]),
        ("0 0 L-2 * ? *", ["2026-03-29 00:00", "2026-04-28 00:00", "2026-05-29 00:00"]),
        ("0 0 ? * L *", ["2026-03-07 00:00", "2026-03-14 00:00", "2026-03-21 00:00"]),
        ("0 0 ? * 6L *", ["2026-03-27 00:00", "2026-04-24 00:00", "2026-05-29 00:00"]),
        ("0 0 ? * FRIL *", ["2026-03-27 00:00", "2026-04-24 00:00", "2026-05-29 00:00"]),
        ("0 0 ? * 3#2 *", ["2026-03-10 00:00", "2026-04-14 00:00", "2026-05-12 00:00"]),
        ("0 0 ? * TUE#5 *", ["2026-03-31 00:00", "2026-06-30 00:00", "2026-09-29 00:00"]),
        # 3 May 2026 is a Sunday; 2 May a Saturday; 31 May a Sunday, the last day of its month
        ("0 0 3W 5 ? *", ["2026-05-04 00:00", "2027-05-03 00:00", "2028-05-03 00:00"]),
        ("0 0 2W 5 ? 2026", ["2026-05-01 00:00"]),
        ("0 0 1W 8 ? 2026", ["2026-08-03 00:00"]),
        ("0 0 31W 5 ? 2026", ["2026-05-29 00:00"]),
        ("0 0 LW 5 ? 2026", ["2026-05-29 00:00"]),
        ("0 0 30W 2,4 ? 2026", ["2026-04-30 00:00"]),
        ("0 0 29 2 ? *", ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"]),
        ("0 0 1 1 ? 2027-2031/2", ["2027-01-01 00:00", "2029-01-01 00:00", "2031-01-01 00:00"]),
        ("0 0 1 1 ? 2025", []),
        ("0 0 30 2 ? *", []),
    ],
)
def test_cron_names_times(fields: str, expected: list[str]) -> None:
    """Every mark of the grammar, with the firings after a Sunday noon."""
    assert first(f"cron({fields})", "2026-03-01 12:00") == expected


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "must be rate(VALUE UNIT) or cron(FIELDS), such as rate(5 minutes) or cron(0 12 * * ? *)"),
        ("at(2026-01-01T00:00:00)", "must be rate(VALUE UNIT) or cron(FIELDS)"),
        ("rate(5)", "must be rate(VALUE UNIT)"),
        ("rate(0 minutes)", "has '0' as value; it must be a whole number from 1 on"),
        ("rate(-1 minutes)", "has '-1' as value"),
        ("rate(1.5 hours)", "has '1.5' as value"),
        ("rate(1 minutes)", "has 1 minutes; it must be 1 minute"),
        ("rate(5 minute)", "has 5 minute; it must be 5 minutes"),
        ("rate(30 seconds)", "has 'seconds' as unit; it must be minutes, hours or days"),
        ("cron(0 12 * * ?)", "must have six fields (minutes hours day-of-month month day-of-week year), not 5"),
        ("cron(0 12 * * * *)", "must have ? in exactly one of day-of-month and day-of-week; they are * and *"),
        ("cron(0 12 1 * MON *)", "must have ? in exactly one of day-of-month and day-of-week; they are 1 and MON"),
        ("cron(0 12 ? * ? *)", "must have ? in exactly one of day-of-month and day-of-week; both are ?"),
        ("cron(60 12 * * ? *)", "has '60' in minutes, where 0-59 is possible"),
        ("cron(0 24 * * ? *)", "has '24' in hours, where 0-23 is possible"),
        ("cron(0 0 0 * ? *)", "has '0' in day-of-month, where 1-31 is possible"),
        ("cron(0 0 1 13 ? *)", "has '13' in month, where 1-12 or JAN-DEC is possible"),
        ("cron(0 0 1 FOO ? *)", "has 'FOO' in month"),
        ("cron(0 0 ? * 0 *)", "has '0' in day-of-week, where 1-7 or SUN-SAT is possible"),
        ("cron(0 0 1 1 ? 1969)", "has '1969' in year, where 1970-2199 is possible"),
        ("cron(0 0 1 1 ? 2200)", "has '2200' in year"),
        ("cron(0/0 * * * ? *)", "has the step '0' in minutes; it must be 1 to 59"),
        ("cron(0/60 * * * ? *)", "has the step '60' in minutes"),
        ("cron(0,,1 * * * ? *)", "has 'nothing' in minutes, which says no value"),
        ("cron(*-5 * * * ? *)", "has '*-5' in minutes; * is no end of a range"),
        ("cron(0 0 20-10 * ? *)", "has the range '20-10' in day-of-month, which runs backwards"),
        ("cron(? * * * ? *)", "cannot have ? in minutes"),
        ("cron(0 0 ? * 2/2 *)", "cannot have / in day-of-week"),
        ("cron(0 0 1#2 * ? *)", "cannot have # in day-of-month"),
        ("cron(0 0 1,? * ? *)", "must have ? alone in day-of-month"),
        ("cron(0 0 ? * 3#1,6#3 *)", "has '3#1,6#3' in day-of-week; with # there can be one expression only"),
        ("cron(0 0 ? * 3#6 *)", "has '3#6' in day-of-week; # takes 1 to 5 behind it"),
        ("cron(0 0 1W,15 * ? *)", "has '1W,15' in day-of-month; W goes with a single day only"),
        ("cron(0 0 L,1 * ? *)", "has 'L,1' in day-of-month; L goes with a single day only"),
        ("cron(0 0 ? * L,2 *)", "has 'L,2' in day-of-week; L goes with a single day only"),
        ("cron(0 0 L-31 * ? *)", "has 'L-31' in day-of-month; L-1 to L-30 are possible"),
        ("cron(0 0 32W * ? *)", "has '32' in day-of-month"),
    ],
)
def test_what_eventbridge_refuses_is_refused_with_a_reason(expression: str, why: str) -> None:
    """The reason says which field is wrong, and what is possible there."""
    with pytest.raises(InvalidScheduleError) as refused:
        parse_schedule(expression)
    assert str(refused.value).startswith(why)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    """Names must be those of the IANA database."""
    with pytest.raises(InvalidScheduleError, match="no time zone"):
        parse_schedule("cron(0 12 * * ? *)", zone)


def test_a_time_that_the_clocks_leave_out_is_left_out() -> None:
    """In Berlin there is no 02:30 on 29 March 2026; the day before and the day after there is."""
    expected = ["2026-03-28 01:30", "2026-03-30 00:30", "2026-03-31 00:30"]
    assert first("cron(30 2 * * ? *)", "2026-03-28 00:00", timezone="Europe/Berlin") == expected


def test_a_time_that_the_clocks_show_twice_fires_the_first_time() -> None:
    """In Berlin 02:30 comes twice on 25 October 2026, the first time at 00:30 UTC."""
    expected = ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"]
    assert first("cron(30 2 * * ? *)", "2026-10-24 00:00", timezone="Europe/Berlin") == expected


def test_the_second_pass_of_an_hour_fires_nothing() -> None:
    """Every half hour: 01:00 to 02:00 UTC is the hour that clocks in Berlin show again."""
    expected = ["2026-10-25 00:30", "2026-10-25 02:00", "2026-10-25 02:30"]
    assert first("cron(0/30 * * * ? *)", "2026-10-25 00:00", timezone="Europe/Berlin") == expected
    begun_there = ["2026-10-25 02:00", "2026-10-25 02:30"]
    assert first("cron(0/30 * * * ? *)", "2026-10-25 01:15", 2, timezone="Europe/Berlin") == begun_there


@pytest.mark.parametrize("expression", ["rate(5 minutes)", "cron(0/5 * * * ? *)"])
def test_missed_firings_are_counted_up_to_a_bound(expression: str) -> None:
    """The last one is exact after any outage; the count is up to a thousand."""
    schedule = parse_schedule(expression)
    begin = epoch("2026-03-01 12:00")
    assert schedule.between(begin, begin + 299) is None
    assert schedule.between(begin, begin + 300) == Missed(begin + 300, 1)
    assert schedule.between(begin, begin + 1499.5) == Missed(begin + 1200, 4)
    long = schedule.between(begin, begin + 10_000 * 300 + 7)
    assert long is not None
    assert long.last_s == begin + 10_000 * 300
    assert long.firings >= COUNTED


def test_the_last_firing_of_a_long_outage_is_found_across_changed_clocks() -> None:
    """In the hour that is shown again, the last firing is of the first pass."""
    schedule = parse_schedule("cron(0/10 * * * ? *)", "Europe/Berlin")
    missed = schedule.between(epoch("2026-01-01 00:00"), epoch("2026-10-25 01:15"))
    assert missed == Missed(epoch("2026-10-25 00:50"), COUNTED)


def test_schedules_have_marks_of_their_own() -> None:
    """Another expression, or another zone, is another schedule."""
    noon, elsewhere = parse_schedule("cron(0 12 * * ? *)"), parse_schedule("cron(0 12 * * ? *)", "Europe/Berlin")
    rate = parse_schedule("rate(1 day)")
    assert isinstance(noon, CronSchedule)
    assert isinstance(rate, RateSchedule)
    assert len({noon.mark, elsewhere.mark, rate.mark}) == 3
    assert noon.mark == parse_schedule("cron(0 12 * * ? *)").mark


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"])
TIMES = st.integers(epoch("2000-01-01 00:00"), epoch("2037-01-01 00:00"))


@given(
    minute=st.sampled_from(["0", "30", "0/7", "*"]),
    hour=st.sampled_from(["2", "0/5", "*", "22-3"]),
    days=st.sampled_from(["* * ?", "L * ?", "15W * ?", "? * MON-FRI", "? * 1#1", "? 3,10 1L"]),
    zone=ZONES,
    at_s=TIMES,
)
def test_firings_rise_and_each_stands_on_the_clocks(minute: str, hour: str, days: str, zone: str, at_s: int) -> None:
    """The next firing lies ahead, is on a whole minute, is not left out, and what `between` finds agrees."""
    schedule = parse_schedule(f"cron({minute} {hour} {days} *)", zone)
    assert isinstance(schedule, CronSchedule)
    found = schedule.after(at_s)
    assert found is not None
    assert found > at_s
    assert found % 60 == 0
    local = datetime.fromtimestamp(found, schedule.zone)
    assert (local.fold, local.hour in schedule.cron.hours, local.minute in schedule.cron.minutes) == (0, True, True)
    assert schedule.between(at_s, found - 1) is None
    assert schedule.between(at_s, found) == Missed(found, 1)
