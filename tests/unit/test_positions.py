"""The checkpoint moves only past finished records, and a restart knows what was finished beyond it."""

from hypothesis import given
from hypothesis import strategies as st

from pollers.positions import Positions, merge


def checkpoint(positions: Positions) -> int | None:
    """Return how far everything is finished."""
    return positions.finished_to


def test_in_order_the_checkpoint_follows_each_record() -> None:
    """The common path: one lane."""
    positions = Positions()
    assert positions.open([5, 7, 9]) is None
    assert checkpoint(positions) is None
    positions.finish([5, 7])
    assert positions.finished_to == 7
    assert positions.ahead() == ()


def test_a_gap_holds_the_checkpoint_and_is_told_as_a_range() -> None:
    """Finished beyond an unfinished record counts as ahead; filtered ones on their own do not."""
    positions = Positions()
    positions.open(list(range(10)))
    positions.finish([3, 4])
    positions.pass_over([5, 8])
    positions.finish([6])
    assert checkpoint(positions) is None
    assert positions.ahead() == ((3, 6),)
    assert positions.passed_ahead == 2
    positions.finish([0, 1, 2])
    assert positions.finished_to == 6
    assert positions.passed_ahead == 1


def test_after_a_restart_finished_records_are_not_handed_out_again() -> None:
    """Ranges of before count as finished when they are read again, and are kept until then."""
    positions = Positions(ahead=((3, 4), (8, 9)))
    assert positions.open([1, 2, 3, 4, 5]) == [True, True, False, False, True]
    assert positions.ahead() == ((3, 4), (8, 9))
    positions.finish([1, 2])
    assert positions.finished_to == 4
    assert positions.ahead() == ((8, 9),)
    assert positions.open([6, 7, 8, 9, 10]) == [True, True, False, False, True]
    positions.finish([5, 6, 7, 10])
    assert positions.finished_to == 10
    assert positions.ahead() == ()
    assert positions.open([11]) is None


def test_merging_unites_overlaps() -> None:
    """Ranges that share a position become one."""
    assert merge([(1, 3), (8, 9)], [(3, 5)]) == ((1, 5), (8, 9))


@given(st.data(), st.integers(1, 40))
def test_any_order_of_finishing_and_any_restart_finishes_each_record_once(data: st.DataObject, count: int) -> None:
    """With a restart at any moment, every record is finished, and none that was stored as finished comes again."""
    order = data.draw(st.permutations(range(count)))
    filtered = data.draw(st.sets(st.integers(0, count - 1)))
    stop = data.draw(st.integers(0, count))
    first = Positions()
    first.open(list(range(count)))
    for position in order[:stop]:
        (first.pass_over if position in filtered else first.finish)([position])
    unfinished = set(order[stop:])
    checkpoint = first.finished_to
    assert checkpoint is None or not any(p <= checkpoint for p in unfinished)
    start = 0 if checkpoint is None else checkpoint + 1
    again = list(range(start, count))
    second = Positions(ahead=first.ahead())
    fresh = (second.open(again) or [True] * len(again)) if again else []
    handed = {p for p, new in zip(again, fresh, strict=True) if new}
    assert unfinished <= handed
    assert handed <= unfinished | filtered
    second.finish(sorted(handed))
    assert second.finished_to in (count - 1, None)
    assert (second.finished_to is None) == (not again)
    assert second.ahead() == ()
