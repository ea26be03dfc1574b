"""The checkpoint moves only past finished records, and a restart knows what was finished beyond it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.record import Places, pick
from pollers.positions import Positions, merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pollers.positions import Ranges


class Followed(Positions):
    """Positions that are told of records by their positions alone, one by one."""

    def __init__(self, ahead: Ranges = ()) -> None:
        super().__init__(ahead)
        self._numbers: dict[int, int] = {}

    def read(self, positions: Sequence[int], runs: Sequence[tuple[int, int]] = ()) -> list[bool] | None:
        """Note records as read; return which are unfinished."""
        places, unfinished = self.open(positions, runs)
        self._numbers |= dict(zip(places, places.numbers, strict=True))
        return unfinished

    def finished(self, *positions: int) -> None:
        """Note records as finished."""
        self.finish(self._places(positions))

    def passed(self, *positions: int) -> None:
        """Note records as filtered out."""
        self.pass_over(self._places(positions), [False] * len(positions))

    def dropped(self, *positions: int) -> None:
        """Note records as dropped by their source."""
        self.drop(self._places(positions))

    def _places(self, positions: Sequence[int]) -> Places:
        return Places(positions, [self._numbers[position] for position in positions])


def checkpoint(positions: Positions) -> int | None:
    """Return how far everything is finished."""
    return positions.finished_to


def test_in_order_the_checkpoint_follows_each_record() -> None:
    """The common path: one lane."""
    positions = Followed()
    assert positions.read([5, 7, 9]) is None
    assert checkpoint(positions) is None
    positions.finished(5, 7)
    assert positions.finished_to == 7
    assert positions.ahead() == ()


def test_a_gap_holds_the_checkpoint_and_is_told_as_a_range() -> None:
    """Finished beyond an unfinished record counts as ahead; filtered ones on their own do not."""
    positions = Followed()
    positions.read(list(range(10)))
    positions.finished(3, 4)
    positions.passed(5, 8)
    positions.finished(6)
    assert checkpoint(positions) is None
    assert positions.ahead() == ((3, 6),)
    assert positions.passed_ahead == 1  # the other one is in the range: a restart does not read it again
    positions.finished(0, 1, 2)
    assert positions.finished_to == 6
    assert positions.passed_ahead == 1


def test_after_a_restart_finished_records_are_not_handed_out_again() -> None:
    """Ranges of before count as finished when they are read again, and are kept until then."""
    positions = Followed(ahead=((3, 4), (8, 9)))
    assert positions.read([1, 2, 3, 4, 5]) == [True, True, False, False, True]
    assert positions.ahead() == ((3, 4), (8, 9))
    positions.finished(1, 2)
    assert positions.finished_to == 4
    assert positions.ahead() == ((8, 9),)
    assert positions.read([6, 7, 8, 9, 10]) == [True, True, False, False, True]
    positions.finished(5, 6, 7, 10)
    assert positions.finished_to == 10
    assert positions.ahead() == ()
    assert positions.read([11]) is None


def test_merging_unites_overlaps() -> None:
    """Ranges that share a position become one."""
    assert merge([(1, 3), (8, 9)], [(3, 5)]) == ((1, 5), (8, 9))


@given(st.data(), st.integers(1, 40))
def test_any_order_of_finishing_and_any_restart_finishes_each_record_once(data: st.DataObject, count: int) -> None:
    """With a restart at any moment, every record is finished, and none that was stored as finished comes again."""
    order = data.draw(st.permutations(range(count)))
    filtered = data.draw(st.sets(st.integers(0, count - 1)))
    stop = data.draw(st.integers(0, count))
    first = Followed()
    first.read(list(range(count)))
    for position in order[:stop]:
        (first.passed if position in filtered else first.finished)(position)
    unfinished = set(order[stop:])
    checkpoint = first.finished_to
    assert checkpoint is None or not any(p <= checkpoint for p in unfinished)
    start = 0 if checkpoint is None else checkpoint + 1
    again = list(range(start, count))
    second = Followed(ahead=first.ahead())
    fresh = (second.read(again) or [True] * len(again)) if again else []
    handed = {p for p, new in zip(again, fresh, strict=True) if new}
    assert unfinished <= handed
    assert handed <= unfinished | filtered
    second.finished(*sorted(handed))
    assert second.finished_to in (count - 1, None)
    assert (second.finished_to is None) == (not again)
    assert second.ahead() == ()


def test_the_checkpoint_passes_a_run_as_a_whole() -> None:
    """A restart can only read the run together: what is finished of it is told as a range until all of it is."""
    positions = Followed()
    positions.read([10, 20, 21, 22, 30], [(20, 22)])
    positions.finished(10, 20)
    assert positions.finished_to == 10
    assert positions.ahead() == ((20, 20),)
    positions.finished(21, 30)
    assert positions.finished_to == 10
    assert positions.ahead() == ((20, 21), (30, 30))
    positions.finished(22)
    assert positions.finished_to == 30
    assert positions.ahead() == ()


def test_a_run_that_is_read_piece_by_piece_holds_the_checkpoint_before_it() -> None:
    """Its last record may not have been read yet, and the record before it belongs to an earlier piece."""
    positions = Followed()
    positions.read([10])
    positions.read([20, 21], [(20, 23)])
    positions.finished(10, 20, 21)
    assert (positions.finished_to, positions.ahead()) == (10, ((20, 21),))
    positions.read([22, 23, 30])
    positions.finished(22)
    assert (positions.finished_to, positions.ahead()) == (10, ((20, 22),))
    positions.finished(23)
    assert (positions.finished_to, positions.ahead()) == (23, ())


def test_a_run_that_begins_the_shard_leaves_it_without_a_checkpoint() -> None:
    """There is nothing before it to go on from."""
    positions = Followed()
    positions.read([20, 21], [(20, 21)])
    positions.finished(20)
    assert (positions.finished_to, positions.ahead()) == (None, ((20, 20),))


def test_what_the_source_drops_counts_apart_from_what_is_filtered_out() -> None:
    """Beyond the checkpoint both are judged again after a restart, unless a finished range holds them."""
    positions = Followed()
    positions.read(list(range(10)))
    positions.finished(2, 6)
    positions.dropped(3, 8)
    positions.passed(4, 9)
    assert positions.ahead() == ((2, 2), (6, 6))
    assert (positions.passed_ahead, positions.strays_ahead) == (2, 2)
    positions.finished(5)
    assert positions.ahead() == ((2, 6),)
    assert (positions.passed_ahead, positions.strays_ahead) == (1, 1)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 4))
def test_runs_and_restarts_finish_each_record_once(seed: int, lengths: list[int], restarts: int) -> None:
    """The checkpoint is always the last record of a run; after any number of restarts nothing is missing or twice.

    A restart reads whole runs again, from the checkpoint on, in pieces of any length. What was filtered out or dropped
    beyond the checkpoint may be judged again; what was delivered is never handed out again.
    """
    random = Random(seed)
    runs = [(100 * place, 100 * place + length - 1) for place, length in enumerate(lengths)]
    everything = [position for first, last in runs for position in range(first, last + 1)]
    fates = {position: random.choice(["finished", "finished", "passed", "dropped"]) for position in everything}
    checkpoint, ahead = -1, Followed().ahead()
    delivered: list[int] = []
    for restart in range(restarts + 1):
        positions = Followed(ahead)
        left = [position for position in everything if position > checkpoint]
        handed: list[int] = []
        while left:
            cut = random.randint(1, len(left))
            piece, left = left[:cut], left[cut:]
            fresh = positions.read(piece, [run for run in runs if run[0] in piece]) or [True] * len(piece)
            handed += [position for position, new in zip(piece, fresh, strict=True) if new]
        random.shuffle(handed)
        done = handed if restart == restarts else handed[: random.randint(0, len(handed))]
        for position in done:
            getattr(positions, fates[position])(position)
        delivered += [position for position in done if fates[position] == "finished"]
        checkpoint = checkpoint if positions.finished_to is None else positions.finished_to
        ahead = positions.ahead()
        covered = {p for p in everything if p <= checkpoint or any(first <= p <= last for first, last in ahead)}
        assert checkpoint == -1 or checkpoint in {last for _, last in runs}
        assert covered.isdisjoint(set(handed) - set(done))
        assert positions.passed_ahead + positions.strays_ahead == len(set(done) - covered)
    assert (checkpoint, ahead) == (everything[-1], ())
    assert sorted(delivered) == [position for position in everything if fates[position] == "finished"]


def test_batches_in_order_are_finished_as_they_were_read() -> None:
    """The common path: one lane, and nothing but whole batches."""
    positions = Positions()
    (first, _), (second, _) = positions.open([5, 7, 9]), positions.open([11, 12])
    assert checkpoint(positions) is None
    positions.finish(first[:2])
    assert checkpoint(positions) == 7
    assert positions.ahead() == ()
    positions.finish(first[2:])
    assert (positions.finished_to, len(positions)) == (9, 2)
    positions.finish(second)
    assert (positions.finished_to, len(positions)) == (12, 0)


def test_what_a_filter_says_moves_the_checkpoint_past_the_head() -> None:
    """Also when nothing is kept."""
    positions = Positions()
    places, _ = positions.open([1, 2, 3, 4])
    keep = [False, False, True, False]
    positions.pass_over(places, keep)
    assert (positions.finished_to, positions.passed_ahead) == (2, 1)
    positions.finish(pick(places, keep))
    assert (positions.finished_to, len(positions)) == (4, 0)
    places, _ = positions.open([5, 6])
    positions.pass_over(places, [False, False])
    assert (positions.finished_to, len(positions)) == (6, 0)


def test_what_was_finished_before_is_not_filtered_again() -> None:
    """A filter judges the others, whose places are no run any more."""
    positions = Positions(ahead=((2, 3),))
    places, unfinished = positions.open([1, 2, 3, 4, 5])
    assert unfinished == [True, False, False, True, True]
    places = pick(places, unfinished)
    positions.pass_over(places, [True, False, True])
    assert (positions.ahead(), positions.passed_ahead) == (((2, 3),), 1)
    positions.finish(places[:1])
    assert positions.finished_to == 4


def test_no_record_is_finished_twice() -> None:
    """Nor one that was never read here: the account would be wrong and nobody would know."""
    positions = Positions()
    places, _ = positions.open([1, 2])
    positions.finish(places[:1])
    with pytest.raises(ValueError, match="finished already"):
        positions.finish(places)
    with pytest.raises(ValueError, match="not followed"):
        positions.finish(Places([2]))
