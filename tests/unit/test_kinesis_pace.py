"""How often a shard is asked: `pollers.sources.kinesis_pace`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pollers.sources.kinesis_pace import BACKLOG_S, IDLE_S, LIVELY_S, Pace


def ask(pace: Pace, now: float, *, records: int = 0, behind_ms: int = 0) -> float:
    """Make a call that takes 10 ms; return the time of the next."""
    pace.asking(now)
    pace.answered(now + 0.01, records=records, behind_ms=behind_ms)
    return pace.due_at


def test_a_quiet_shard_is_asked_once_a_second() -> None:
    """Counted from call to call, not from answer to call."""
    pace = Pace()
    assert pace.due_at == 0
    assert ask(pace, 100.0) == 100.0 + IDLE_S


def test_backlog_is_read_as_fast_as_aws_allows() -> None:
    """Also through empty answers: gaps in the log."""
    pace = Pace()
    assert ask(pace, 1.0, behind_ms=5) == 1.0 + BACKLOG_S
    assert 1 / BACKLOG_S < 5


def test_while_records_keep_arriving_the_median_wait_is_far_below_a_second() -> None:
    """Lively for a few seconds after the last record, quiet again afterwards."""
    pace = Pace()
    due_at = ask(pace, 1.0, records=1)
    assert due_at == 1.0 + LIVELY_S
    calls = 0
    while ask(pace, due_at) - due_at < IDLE_S - 1e-6:
        due_at, calls = pace.due_at, calls + 1
    assert 3 < due_at - 1.0 < 7
    assert calls > 10


def test_throttling_slows_down_and_is_forgiven_step_by_step() -> None:
    """Each throttle doubles the pause; quiet time takes it back, until the old pace is reached again."""
    pace = Pace()
    assert not pace.throttled(10.0)
    assert pace.due_at >= 11.0
    ask(pace, 12.0, behind_ms=1)
    first_s = pace.due_at - 12.0
    pace.throttled(13.0)
    ask(pace, 15.0, behind_ms=1)
    assert pace.due_at - 15.0 == 2 * first_s > BACKLOG_S
    now = 15.0
    for _ in range(1000):
        now, pace_s = pace.due_at, pace.due_at - now
        ask(pace, now, behind_ms=1)
        assert pace.due_at - now <= pace_s + 1e-6
    assert abs(pace.due_at - now - BACKLOG_S) < 1e-6


def test_throttling_that_does_not_end_is_told() -> None:
    """Somebody should know when a shard has not been read for ten seconds; one answer ends that."""
    pace = Pace()
    assert [pace.throttled(at) for at in (0.0, 5.0, 9.9, 10.0)] == [False, False, False, True]
    ask(pace, 12.0)
    assert not pace.throttled(13.0)


@given(st.lists(st.tuples(st.sampled_from(["answer", "throttle", "fail"]), st.integers(0, 3), st.integers(0, 9))))
def test_no_shard_is_ever_asked_more_than_five_times_a_second(course: list[tuple[str, int, int]]) -> None:
    """Whatever is answered."""
    pace, now, calls = Pace(), 1000.0, list[float]()
    for kind, records, behind_ms in course:
        now = max(now, pace.due_at)
        calls.append(now)
        if kind == "answer":
            ask(pace, now, records=records, behind_ms=behind_ms)
        elif kind == "throttle":
            pace.asking(now)
            pace.throttled(now)
        else:
            pace.asking(now)
            pace.failed(now)
    assert all(later - earlier >= 1.0 for earlier, later in zip(calls, calls[5:], strict=False))
