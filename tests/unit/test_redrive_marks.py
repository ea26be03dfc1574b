"""How far a redrive got in a topic: `pollers.redriving.marks`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers.redriving.marks import MAX_TEXT, Marks


def taken(marks: Marks, *offsets: int) -> list[int]:
    """Read messages; return those to be delivered."""
    return [offset for offset in offsets if marks.take(offset)]


def test_a_first_redrive_takes_everything_there_is() -> None:
    """From the oldest message on."""
    marks = Marks(None, begin=3, end=7)
    assert (marks.first, marks.to_do(7)) == (3, 4)
    assert taken(marks, 3, 4, 5, 6) == [3, 4, 5, 6]
    for offset in (3, 4, 5, 6):
        marks.done(offset)
    assert marks.commit() == (7, "")


def test_what_failed_stays_and_what_follows_it_is_not_delivered_again() -> None:
    """The commit is at the first one, and its text names the others."""
    marks = Marks(None, begin=0, end=10)
    taken(marks, *range(10))
    for offset in (0, 1, 3, 4, 6, 7, 8, 9):
        marks.done(offset)
    assert marks.commit() == (2, "10:3")
    again = Marks(marks.commit(), begin=0, end=12)
    assert (again.first, again.to_do(12)) == (2, 4)
    assert taken(again, *range(2, 12)) == [2, 5, 10, 11]


def test_messages_that_do_not_exist_any_more_are_forgotten() -> None:
    """By retention, or in the middle by compaction."""
    marks = Marks((2, "10:3,2"), begin=4, end=12)
    assert (marks.first, marks.to_do(12)) == (5, 4)
    assert taken(marks, 8, 9, 10, 11) == [10, 11]
    for offset in (10, 11):
        marks.done(offset)
    assert marks.commit() == (12, "")


@pytest.mark.parametrize("text", ["hello", "x:1", "10:x", "10:-1", "10:0", "1:", "10:99", "9" * 5000 + "x"])
def test_a_commit_of_somebody_else_counts_as_an_offset(text: str) -> None:
    """Whoever set the group's offset by hand wants to begin there."""
    marks = Marks((5, text), begin=0, end=12)
    assert (marks.first, marks.commit()) == (5, (5, ""))


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    """Its end lies before what was committed."""
    assert Marks((50, "60:"), begin=0, end=12).first == 0


@given(
    end=st.integers(0, 3000),
    fails=st.sets(st.integers(0, 3000)),
    stop=st.integers(0, 3000),
    scale=st.sampled_from([1, 10**6]),
)
def test_nothing_is_lost_and_little_comes_twice(end: int, fails: set[int], stop: int, scale: int) -> None:
    """Stopped anywhere, the next redrive gets all that was not done, and of the rest only what no text could hold."""
    offsets = [n * scale for n in range(end)]
    marks = Marks(None, begin=0, end=end * scale)
    done = set()
    for offset in offsets[:stop]:
        assert marks.take(offset)
        if offset // scale not in fails:
            marks.done(offset)
            done.add(offset)
    committed = marks.commit()
    assert len(committed[1]) <= MAX_TEXT + 20
    again = Marks(committed, begin=0, end=end * scale)
    got = {offset for offset in offsets if offset >= again.first and again.take(offset)}
    assert got >= set(offsets) - done
    if len(committed[1]) < MAX_TEXT - 20:
        assert got == set(offsets) - done
