"""What a queue's poller knows of failing messages: `pollers.queue_failing`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pollers.queue_failing import MOST, Failing
from tests.support.queue_rig import message


def test_a_failing_group_is_told_with_its_message_until_the_function_takes_it() -> None:
    """Since when, how often it was received, and when the queue shows it again."""
    failing = Failing(ordered=True)
    failing.failed([message(1, "g")], 100.0)
    failing.failed([message(1, "g", receives=2), message(2, "g")], 130.0)
    failing.failed([message(1, "g", receives=2)], 130.0)
    told = failing.blocking(30.0, 140.0)
    assert told is not None
    assert (told.record, told.key, told.failures, told.retry_at) == ("m1", "g", 2, 160.0)
    failing.finished([message(1, "g")])
    assert failing.blocking(30.0, 140.0) is None


def test_the_group_that_has_been_failing_longest_is_told_and_the_others_counted() -> None:
    """Also when it failed again last."""
    failing = Failing(ordered=True)
    failing.failed([message(1, "a")], 100.0)
    failing.failed([message(2, "b")], 110.0)
    failing.failed([message(1, "a", receives=2)], 120.0)
    told = failing.blocking(30.0, 121.0)
    assert told is not None
    assert (told.key, told.since, told.others) == ("a", 100.0, 1)


def test_a_message_of_a_standard_queue_stands_for_itself() -> None:
    """It has no group that waits."""
    failing = Failing(ordered=False)
    failing.failed([message(1, None), message(2, None)], 100.0)
    told = failing.blocking(30.0, 100.0)
    assert told is not None
    assert (told.key, told.records, told.others) == (None, 2, 1)


def test_what_does_not_come_back_is_forgotten() -> None:
    """Another poller had it, or the queue's dead-letter queue has it: nobody tells."""
    failing = Failing(ordered=False)
    failing.failed([message(1, None)], 100.0)
    assert failing.blocking(30.0, 189.0) is not None
    assert failing.blocking(30.0, 191.0) is None
    assert len(failing) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300))))
def test_memory_is_bounded(steps: list[tuple[bool, int]]) -> None:
    """Whatever fails and recovers."""
    failing = Failing(ordered=False)
    failing.failed([message(n, None) for n in range(500, 500 + MOST)], 0.0)
    for at, (fails, number) in enumerate(steps):
        if fails:
            failing.failed([message(number, None)], float(at))
        else:
            failing.finished([message(number, None)])
        assert len(failing) <= MOST
