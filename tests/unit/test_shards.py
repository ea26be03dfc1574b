"""Origins of shards, and what of a shard's state is stored: sequence numbers are longer than any machine number."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import ShardOrigin
from model.shard import BEGINNING, END, at_time, origin_ms
from pollers.attempts import Attempts
from pollers.retention import RetentionForecast
from pollers.shard_state import StoredState

SEQUENCES = st.integers(0, 10**128 - 1)
COUNTS = st.integers(0, 99)
ATTEMPTS = st.builds(Attempts, last=SEQUENCES, failures=COUNTS, invocations=COUNTS)


@given(time=st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds
def test_an_origin_in_time_is_exact_to_the_millisecond(time: datetime) -> None:
    """Never later than asked for, and less than a millisecond earlier."""
    milliseconds = origin_ms(at_time(time))
    assert milliseconds is not None
    earlier = time - (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds))
    assert timedelta(0) <= earlier < timedelta(milliseconds=1)


def test_other_origins_have_no_time() -> None:
    """The beginning and the end are places, and anything else is a mistake."""
    assert (origin_ms(BEGINNING), origin_ms(END)) == (None, None)
    with pytest.raises(ValueError, match="not an origin"):
        origin_ms(ShardOrigin("yesterday"))


@given(
    attempts=st.dictionaries(
        SEQUENCES, st.builds(Attempts, last=SEQUENCES, failures=COUNTS, invocations=COUNTS), max_size=3
    ),
    ahead=st.lists(st.tuples(SEQUENCES, SEQUENCES), max_size=3),
)
def test_state_with_positions_of_128_digits_comes_back(
    attempts: dict[int, Attempts], ahead: list[tuple[int, int]]
) -> None:
    """Kinesis sequence numbers survive a restart exactly."""
    state = StoredState(attempts, tuple(ahead))
    assert StoredState.decode(state.encode()) == state


@pytest.mark.parametrize("stored", [b"x", b'{"ahead":[["1","b"]]}', b'{"attempts":{"n":[1,1,1]}}'])
def test_what_is_no_state_is_refused(stored: bytes) -> None:
    """Garbage is not taken for an empty state."""
    with pytest.raises(msgspec.DecodeError):
        StoredState.decode(stored)


def forecast(lags_s: list[float], *, retention_s: float | None = 86_400.0) -> float | None:
    """Look every ten seconds; return the last forecast."""
    trend, last = RetentionForecast(), None
    for number, lag_s in enumerate(lags_s):
        last = trend.loss_in_s(number * 10.0, lag_s, retention_s)
    return last


def test_a_shard_that_stands_still_loses_records_when_the_retention_is_over() -> None:
    """The lag grows by a second a second, so what is left of the retention is left."""
    assert forecast([80_000.0 + 10 * n for n in range(10)]) == 86_400 - 80_090


def test_a_shard_that_falls_behind_slowly_has_longer() -> None:
    """Half a second a second doubles the time."""
    assert forecast([80_000.0 + 5 * n for n in range(10)]) == 2 * (86_400 - 80_045)


@pytest.mark.parametrize(
    "lags_s",
    [[86_000.0 - n for n in range(10)], [100.0] * 10, [80_000.0, 80_010.0], [1.0 + n / 1000 for n in range(10)]],
    ids=["catching up", "steady", "just opened", "in years"],
)
def test_no_loss_is_told_where_none_is_to_be_expected(lags_s: list[float]) -> None:
    """Only a trend towards the end of the retention is worth a warning."""
    assert forecast(lags_s) is None


def test_without_a_known_retention_there_is_no_forecast() -> None:
    """Kafka, or a stream that may not be described."""
    assert forecast([80_000.0 + 10 * n for n in range(10)], retention_s=None) is None
