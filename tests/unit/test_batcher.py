"""Batches close by count, by age and by size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.record import MAX_EVENT_BYTES, Records
from pollers.batcher import Batcher
from tests.support.pump_fakes import record


def make(
    *, batch_size: int = 3, window_s: float = 5.0, now: float = 100.0, max_bytes: int = MAX_EVENT_BYTES
) -> Batcher:
    """Make a batcher whose first window begins at `now`."""
    return Batcher(batch_size=batch_size, window_s=window_s, overhead=100, now=now, max_bytes=max_bytes)


def test_a_full_batch_is_ready_before_its_window_ends() -> None:
    """BatchSize records make a batch at once."""
    batcher = make()
    batcher.add(Records.of([record(1), record(2)]))
    assert not batcher.ready(100)
    batcher.add(Records.of([record(3), record(4)]))
    assert batcher.ready(100)
    assert [r.position for r in batcher.take().records] == [1, 2, 3]
    assert not batcher.ready(100)


def test_the_window_counts_from_the_end_of_the_previous_invocation() -> None:
    """After a quiet spell longer than the window a lone record goes at once."""
    batcher = make()
    assert batcher.due_at() is None
    batcher.add(Records.of([record(1)]))
    assert batcher.due_at() == 105
    batcher.take()
    batcher.invoked(now=110)
    batcher.add(Records.of([record(2)]))
    assert batcher.due_at() == 115
    assert batcher.ready(120)


def test_without_a_window_whatever_is_there_goes() -> None:
    """Window 0 invokes as soon as anything was read."""
    batcher = make(window_s=0)
    batcher.add(Records.of([record(1)]))
    assert batcher.ready(100)


def test_the_record_that_would_overflow_the_event_starts_the_next_batch() -> None:
    """An event stays within its byte limit, and a heavy batch does not wait for its window."""
    batcher = make(batch_size=100, max_bytes=1000)
    batcher.add(Records.of([record(n, size=300) for n in range(4)]))
    assert batcher.ready(100)
    batch = batcher.take()
    assert [r.position for r in batch.records] == [0, 1]
    assert batch.size == 100 + 2 * 301


def test_a_record_no_event_can_hold_comes_alone() -> None:
    """The oversized record does not block the ones behind it."""
    batcher = make(batch_size=100, max_bytes=1000)
    batcher.add(Records.of([record(0, size=2000), record(1)]))
    assert batcher.ready(100)
    big = batcher.take()
    assert [r.position for r in big.records] == [0]
    assert big.size > 1000
    assert [r.position for r in batcher.take().records] == [1]


def test_a_batch_can_be_cut_short() -> None:
    """Who takes may ask for fewer records, never for more than BatchSize."""
    batcher = make(batch_size=3)
    batcher.add(Records.of([record(n) for n in range(6)]))
    assert [r.position for r in batcher.take(at_most=2).records] == [0, 1]
    assert [r.position for r in batcher.take(at_most=9).records] == [2, 3, 4]
    assert batcher.held_bytes == len(record(5).fragment) + 1


def test_who_adds_up_to_what_is_missing_has_nothing_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records of a batch were added apart from those of the next, so nothing is taken apart."""
    monkeypatch.setattr(Records, "fragments", None)
    batcher = make(batch_size=3)
    assert batcher.missing == 3
    batcher.add(Records.of([record(1)]))
    assert batcher.missing == 2
    batcher.add(Records.of([record(2), record(3)]))
    assert batcher.missing == 3
    batcher.add(Records.of([record(4)]))
    assert list(batcher.take().records.positions) == [1, 2, 3]
    assert batcher.missing == 2
    assert list(batcher.take().records.positions) == [4]


def test_taking_from_nothing_is_an_error() -> None:
    """An empty batch never leaves."""
    with pytest.raises(IndexError):
        make().take()


@given(
    st.lists(st.integers(10, 400), max_size=60),
    st.integers(1, 20),
    st.lists(st.integers(1, 7), min_size=1, max_size=10),
)
def test_batches_keep_every_record_in_order_within_the_limits(
    sizes: list[int], batch_size: int, steps: list[int]
) -> None:
    """Whatever arrives comes out once, in order, in batches no larger than allowed."""
    batcher = make(batch_size=batch_size, max_bytes=1000)
    records = [record(n, size=size) for n, size in enumerate(sizes)]
    out, at = [], 0
    for step in steps * (len(sizes) + 1):
        if some := records[at : at + step]:
            batcher.add(Records.of(some))
        at += step
        while len(batcher) >= batch_size:
            out.append(batcher.take())
    while len(batcher):
        out.append(batcher.take())
    assert [r.position for b in out for r in b.records] == list(range(len(sizes)))
    assert all(len(b.records) <= batch_size for b in out)
    assert all(b.size <= 1000 or len(b.records) == 1 for b in out)
    assert batcher.held_bytes == 0
