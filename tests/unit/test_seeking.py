"""Places that operators ask for, and what becomes of a shard: `pollers.seeking`, `pollers.sought`, Kafka's counting."""

from __future__ import annotations

import pytest

from model.errors import RefusedError
from model.ids import Position, ShardId
from model.progress import Ledger, ParkedChange, ParkedRecords, ShardProgress, ShardReport, ShardState
from model.record import Record
from model.seek import Move, SeekWish
from model.shard import BEGINNING, END, PUT, SourceShard
from pollers.attempts import Attempts
from pollers.seeking import (
    AtPosition,
    AtTime,
    Beginning,
    End,
    Found,
    moves_of,
    parse_place,
    put_together,
    skipped,
)
from pollers.shard_state import StoredState
from pollers.sought import moved
from pollers.sources.kafka_places import unread
from pollers.windows import StoredWindow
from statemgr.lineage import heirs, parents_first

NOW_MS = 1_790_000_000_000
A, B, C, D = (ShardId(name) for name in "abcd")
LISTED = [
    SourceShard(C, (B,), BEGINNING),
    SourceShard(A, (), BEGINNING),
    SourceShard(B, (A,), BEGINNING),
    SourceShard(D, (), BEGINNING),
]
DRAINED = ShardProgress(Position("9"), report=ShardReport(ShardState.DRAINED), origin=BEGINNING)
READ = ShardProgress(Position("19"), report=ShardReport(ShardState.READING), origin=BEGINNING)
BACK = Found(None, BEGINNING, 0)
HERE = Found(None, BEGINNING, 0, stays=True)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("trim_horizon", (Beginning(), None)),
        ("LATEST", (End(), None)),
        ("1700000000", (AtTime(1_700_000_000_000), None)),
        ("1700000000.25", (AtTime(1_700_000_000_250), None)),
        ("2023-11-14T22:13:20Z", (AtTime(1_700_000_000_000), None)),
        ("2023-11-14T23:13:20+01:00", (AtTime(1_700_000_000_000), None)),
        ("2023-11-14", (AtTime(1_699_920_000_000), None)),
        ("orders-3=0012", (AtPosition(Position("12")), "orders-3")),
        ("a=b-1=0", (AtPosition(Position("0")), "a=b-1")),
    ],
)
def test_a_place_is_read(text: str, place: object) -> None:
    """Words in any case, times in UTC, positions without leading zeros."""
    assert parse_place(text, now_ms=NOW_MS) == place


@pytest.mark.parametrize("text", ["", "yesterday", "orders-3=x", "=5", "orders-3=", "1700000000000", "2027-01-01"])
def test_what_is_no_place_is_refused(text: str) -> None:
    """Also a time that lies ahead."""
    with pytest.raises(RefusedError):
        parse_place(text, now_ms=NOW_MS)


def test_shards_come_after_those_they_came_from() -> None:
    """Whatever the order of the list."""
    assert [one.id for one in parents_first(LISTED)] == [A, D, B, C]


def test_a_parent_that_is_read_again_takes_along_what_was_read_of_its_children() -> None:
    """Over any number of reshards; a child that nobody has begun needs nothing, and others stay out of it."""
    seeks = put_together(LISTED, {A: DRAINED, B: DRAINED, C: READ, D: READ}, {A: BACK})
    assert [(one.shard, one.after, one.found.position) for one in seeks] == [
        (A, False, None),
        (B, True, None),
        (C, True, None),
    ]
    assert [move.begins for move in moves_of(seeks)] == ["0", "0", "0"]
    begun_b = put_together(LISTED, {A: DRAINED, B: READ, D: READ}, {A: BACK})
    assert [one.shard for one in begun_b] == [A, B]


def test_a_shard_that_stands_there_already_moves_only_after_its_parent() -> None:
    """Its parent's records come again, so its own have to come behind them."""
    stays = put_together(LISTED, {A: DRAINED, B: READ}, {A: HERE, B: HERE, C: HERE, D: HERE})
    assert moves_of(stays) == ()
    follows = put_together(LISTED, {A: DRAINED, B: READ}, {A: BACK, B: HERE, C: HERE, D: HERE})
    assert [move.shard for move in moves_of(follows)] == [A, B, C]


def test_what_is_passed_over_is_told_shard_by_shard() -> None:
    """The sum is known only where every shard's number is."""
    forward = {A: Found(Position("9"), PUT, 9, 5), D: Found(None, END, None, None, 12.4)}
    seeks = put_together(LISTED, {}, forward)
    assert skipped(seeks) == (None, ["5 records of a", "an unknown number of records of d, 12 s"])
    assert skipped(put_together(LISTED, {}, {A: forward[A]})) == (5, ["5 records of a"])
    assert [move.forward for move in moves_of(seeks)] == [True, True]


@pytest.mark.parametrize(
    ("standing", "offset", "ahead", "count"),
    [
        (5, 5, (), 0),
        (9, 5, (), 0),
        (5, 9, (), 4),
        (5, 9, ((6, 7),), 2),
        (5, 9, ((3, 5), (8, 20)), 2),
        (5, 9, ((9, 9),), 4),
    ],
)
def test_records_finished_out_of_turn_are_not_passed_over(
    standing: int, offset: int, ahead: tuple[tuple[int, int], ...], count: int
) -> None:
    """Only what nobody has delivered counts."""
    assert unread(standing, offset, ahead) == count


def parked(*positions: int) -> ParkedRecords:
    """Return a lot."""
    return ParkedRecords(3, tuple(Record(at, 0, b"{}", f"k{at}", str(at)) for at in positions))


def progress(*lot: int, at: str = "20") -> ShardProgress:
    """Return what a drained holder has left of a shard that had everything."""
    attempts = {at: Attempts(at, 2, 2) for at in (*lot, 30)}
    state = StoredState(attempts, ((25, 26),), StoredWindow(1, 2), parked=3 if lot else 0)
    count = len(lot)
    ledger = Ledger(polled=10 + count, delivered=8, parked=count, in_flight=2)
    return ShardProgress(Position(at), None, None, ledger, state.encode(), ShardReport(ShardState.DRAINED, load=4.0))


def test_a_move_back_leaves_nothing_of_what_is_read_again() -> None:
    """Ranges, attempts, the window and records parked from there on are gone, and the account still balances."""
    after = moved(progress(7, 12, 15), parked(7, 12, 15), Move("a", "10", PUT, "10"))
    assert after is not None
    new, change = after
    assert (new.position, new.origin, new.report.state, new.report.load) == ("10", PUT, ShardState.DRAINING, 4.0)
    assert StoredState.decode(new.state) == StoredState({7: Attempts(7, 2, 2)}, parked=4)
    assert change == ParkedChange(3, 4, drop=(12, 15))
    assert new.ledger == Ledger(polled=11, delivered=8, parked=1, in_flight=2)
    assert new.ledger.balanced


def test_a_move_forward_keeps_what_is_parked() -> None:
    """It lies before the new place, and still waits for its function."""
    after = moved(progress(7, 12), parked(7, 12), Move("a", "50", PUT, "50", forward=True))
    assert after is not None
    new, change = after
    assert change is None
    assert StoredState.decode(new.state) == StoredState({7: Attempts(7, 2, 2), 12: Attempts(12, 2, 2)}, parked=3)
    assert new.ledger.parked == 2


def test_a_move_to_what_is_yet_to_come_keeps_what_is_parked_too() -> None:
    """There is no record that would be read again."""
    after = moved(progress(7), parked(7), Move("a", None, END))
    assert after is not None
    assert (after[0].position, after[1], after[0].ledger.parked) == (None, None, 1)


def test_a_move_of_a_whole_lot_leaves_it_empty() -> None:
    """The next holder has nothing to load."""
    after = moved(progress(7, 12), parked(7, 12), Move("a", None, BEGINNING, "0"))
    assert after is not None
    assert after[0].state == b""
    assert after[1] == ParkedChange(3, 4, drop=(7, 12))


def test_a_shard_that_came_further_by_itself_is_not_taken_back() -> None:
    """A move forward passes records over; what was delivered meanwhile is not passed over any more."""
    forward = Move("a", "20", PUT, "20", forward=True)
    assert moved(progress(at="21"), ParkedRecords(), forward) is None
    assert moved(progress(at="100"), ParkedRecords(), forward) is None
    assert moved(progress(at="9"), ParkedRecords(), forward) is not None


def test_a_wish_is_stored_and_read() -> None:
    """With positions beyond 64 bits."""
    wish = SeekWish((Move("a", "9" * 56, PUT, "9" * 56), Move("b", None, END, forward=True)), "api 127.0.0.1")
    assert SeekWish.decode(wish.encode()) == wish


def test_what_came_of_a_moved_shard_meanwhile_is_moved_too() -> None:
    """Over any number of reshards, and only what has begun: the rest begins at its beginning anyway."""
    assert heirs(LISTED, {A}, {A: DRAINED, B: DRAINED, C: READ, D: READ}) == [B, C]
    assert heirs(LISTED, {A}, {A: DRAINED, B: READ, C: ShardProgress(origin=BEGINNING)}) == [B]
    assert heirs(LISTED, {A, B}, {A: DRAINED, B: DRAINED, C: READ}) == [C]
    assert heirs(LISTED, {D}, {A: DRAINED, B: READ, D: READ}) == []


@pytest.mark.parametrize(
    "text", ["1969-12-31T23:59:59Z", "0001-01-01", "1969-12-31", "99999999999999999", "9999-12-31T23:59:59-14:00"]
)
def test_times_that_no_record_can_have_are_refused(text: str) -> None:
    """What lies before 1970 or after the last year that can be written is no place, and no defect."""
    with pytest.raises(RefusedError, match=r"is no place"):
        parse_place(text, now_ms=float("inf"))
