"""Counting on the hot path."""

from hypothesis import given
from hypothesis import strategies as st

from model.ids import MappingId, ShardId, ShardKey
from model.progress import Ledger, ShardReport, ShardState
from pollers.counters import DURATION_BOUNDS_S, DurationHistogram, Meters, ShardView

KEY = ShardKey(MappingId("m"), ShardId("orders-0"))


@given(st.lists(st.floats(0, 1000)))
def test_every_duration_falls_into_the_one_bucket_that_covers_it(durations: list[float]) -> None:
    """A duration counts in the first bucket whose upper bound it does not exceed."""
    histogram = DurationHistogram()
    for seconds in durations:
        histogram.observe(seconds)
    lower = -1.0
    for index, upper in enumerate([*DURATION_BOUNDS_S, float("inf")]):
        assert histogram.buckets[index] == sum(lower < seconds <= upper for seconds in durations)
        lower = upper
    assert histogram.count == len(durations)
    assert abs(histogram.sum_s - sum(durations)) <= 1e-9 * max(1.0, sum(durations))


def test_histograms_do_not_share_their_buckets() -> None:
    """What one mapping counts does not show up in another."""
    meters = Meters()
    meters.of("a", "kafka").durations.observe(0.1)
    meters.of("a", "kafka").polled += 1
    assert meters.of("b", "kafka").durations.count == 0
    assert meters.of("a", "kafka").durations.count == 1
    assert meters.of("a", "kafka").polled == 1
    assert meters.of("a", "sqs").polled == 0


def test_a_forgotten_mapping_starts_at_zero() -> None:
    """The counters of a deleted mapping are gone, those of the others stay."""
    meters = Meters()
    meters.of("a", "kafka").polled = 3
    meters.of("b", "kafka").polled = 4
    meters.forget("a")
    assert [(labels.mapping, counters.polled) for labels, counters in meters] == [("b", 4)]


def test_a_shard_held_here_can_be_asked_what_it_does_now() -> None:
    """A probe answers for its shard as long as it is registered."""
    meters = Meters()
    view = ShardView(ShardReport(state=ShardState.RETRYING), Ledger(polled=1, in_flight=1))
    meters.of("a", "kafka").probes[KEY] = lambda: view
    assert meters.view(KEY) is view
    del meters.of("a", "kafka").probes[KEY]
    assert meters.view(KEY) is None
