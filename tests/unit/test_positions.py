"""The checkpoint moves only past finished records, and a restart knows what was finished beyond it."""

from random import Random

from hypothesis import given, settings
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
    assert positions.passed_ahead == 1  # the other one is in the range: a restart does not read it again
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


def test_the_checkpoint_passes_a_run_as_a_whole() -> None:
    """A restart can only read the run together: what is finished of it is told as a range until all of it is."""
    positions = Positions()
    positions.open([10, 20, 21, 22, 30], [(20, 22)])
    positions.finish([10, 20])
    assert positions.finished_to == 10
    assert positions.ahead() == ((20, 20),)
    positions.finish([21, 30])
    assert positions.finished_to == 10
    assert positions.ahead() == ((20, 21), (30, 30))
    positions.finish([22])
    assert positions.finished_to == 30
    assert positions.ahead() == ()


def test_a_run_that_is_read_piece_by_piece_holds_the_checkpoint_before_it() -> None:
    """Its last record may not have been read yet, and the record before it belongs to an earlier piece."""
    positions = Positions()
    positions.open([10])
    positions.open([20, 21], [(20, 23)])
    positions.finish([10, 20, 21])
    assert (positions.finished_to, positions.ahead()) == (10, ((20, 21),))
    positions.open([22, 23, 30])
    positions.finish([22])
    assert (positions.finished_to, positions.ahead()) == (10, ((20, 22),))
    positions.finish([23])
    assert (positions.finished_to, positions.ahead()) == (23, ())


def test_a_run_that_begins_the_shard_leaves_it_without_a_checkpoint() -> None:
    """There is nothing before it to go on from."""
    positions = Positions()
    positions.open([20, 21], [(20, 21)])
    positions.finish([20])
    assert (positions.finished_to, positions.ahead()) == (None, ((20, 20),))


def test_what_the_source_drops_counts_apart_from_what_is_filtered_out() -> None:
    """Beyond the checkpoint both are judged again after a restart, unless a finished range holds them."""
    positions = Positions()
    positions.open(list(range(10)))
    positions.finish([2, 6])
    positions.drop([3, 8])
    positions.pass_over([4, 9])
    assert positions.ahead() == ((2, 2), (6, 6))
    assert (positions.passed_ahead, positions.strays_ahead) == (2, 2)
    positions.finish([5])
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
    fates = {position: random.choice(["finish", "finish", "pass_over", "drop"]) for position in everything}
    checkpoint, ahead = -1, Positions().ahead()
    delivered: list[int] = []
    for restart in range(restarts + 1):
        positions = Positions(ahead)
        left = [position for position in everything if position > checkpoint]
        handed: list[int] = []
        while left:
            cut = random.randint(1, len(left))
            piece, left = left[:cut], left[cut:]
            fresh = positions.open(piece, [run for run in runs if run[0] in piece]) or [True] * len(piece)
            handed += [position for position, new in zip(piece, fresh, strict=True) if new]
        random.shuffle(handed)
        done = handed if restart == restarts else handed[: random.randint(0, len(handed))]
        for position in done:
            getattr(positions, fates[position])([position])
        delivered += [position for position in done if fates[position] == "finish"]
        checkpoint = checkpoint if positions.finished_to is None else positions.finished_to
        ahead = positions.ahead()
        covered = {p for p in everything if p <= checkpoint or any(first <= p <= last for first, last in ahead)}
        assert checkpoint == -1 or checkpoint in {last for _, last in runs}
        assert covered.isdisjoint(set(handed) - set(done))
        assert positions.passed_ahead + positions.strays_ahead == len(set(done) - covered)
    assert (checkpoint, ahead) == (everything[-1], ())
    assert sorted(delivered) == [position for position in everything if fates[position] == "finish"]
