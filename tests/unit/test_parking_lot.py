"""The parking lot: order per key, its account, and what of it is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from model.progress import ParkedChange, ParkedRecords
from pollers.parking_lot import ParkingLot, head
from tests.support.pump_fakes import record

if TYPE_CHECKING:
    from model.record import Record

MB = 1024 * 1024


def lot_of(*records: Record, max_bytes: int = MB) -> ParkingLot:
    """Return a lot with records parked at loop time 100."""
    lot = ParkingLot(max_bytes)
    lot.park(records, now=100, since=1_790_000_000)
    return lot


def test_records_of_a_key_wait_in_order_and_keys_by_their_time() -> None:
    """What comes later for a key queues behind; a new key is tried half a second after it was parked."""
    lot = lot_of(record(1, key=b"a"), record(2, key=b"b"))
    lot.park([record(5, key=b"a")], now=200, since=0)
    queue = lot.queues[b"a"]
    assert [one.position for one in queue.records] == [1, 5]
    assert (queue.due_at, queue.since) == (100.5, 1_790_000_000)
    queue.due_at = 300
    due = lot.next_due()
    assert due is not None
    assert due.key == b"b"
    assert (len(lot), lot.lowest) == (3, 1)


def test_a_key_without_records_is_parked_no_more() -> None:
    """The last record takes its key along, and nothing is left of either."""
    lot = lot_of(record(1, key=b"a"), record(2, key=b"a"))
    queue = lot.queues[b"a"]
    lot.leave(queue, 1)
    assert (len(lot), lot.lowest, lot.size) == (1, 2, queue.size)
    lot.leave(queue, 1)
    assert (len(lot), lot.lowest, lot.size, lot.queues) == (0, None, 0, {})
    assert lot.next_due() is None


def test_records_without_a_key_are_parked_each_by_itself() -> None:
    """They are in order with nothing."""
    lot = lot_of(record(1), record(2))
    assert [len(queue.records) for queue in lot.queues.values()] == [1, 1]


def test_a_lot_is_full_at_its_bytes_and_never_when_empty() -> None:
    """The records' JSON and what they take besides is counted."""
    assert not lot_of(record(1, key=b"a", size=400), max_bytes=1000).full
    lot = lot_of(record(1, key=b"a", size=400), record(2, key=b"b", size=400), max_bytes=1000)
    assert lot.full
    assert lot.stuck() is None  # nothing was tried
    lot.queues[b"b"].failures = 1
    stuck = lot.stuck()
    assert stuck is not None
    assert stuck.key == b"b"
    assert not ParkingLot(0).full


def test_parking_one_key_after_the_other_slows_down_until_the_function_takes_something() -> None:
    """Eight keys at once; then half a second, doubling up to a minute: it is the function that fails, not the keys."""
    lot = ParkingLot(MB)
    pauses = []
    for position in range(20):
        lot.park([record(position, key=b"%d" % position)], now=0, since=0)
        pauses.append(lot.pause_s())
    assert pauses[:12] == [0] * 8 + [0.5, 1, 2, 4]
    assert pauses[-1] == 60
    lot.park([record(99, key=b"0")], now=0, since=0)  # more of a parked key says nothing new
    assert lot.pause_s() == 60
    lot.function_answers()
    assert lot.pause_s() == 0


def test_what_operators_see_names_keys_printably_and_briefly() -> None:
    """Bytes that are no text, control characters and long keys are made readable; missing keys are told."""
    lot = lot_of(record(1, key=b"\xff\n"), record(2, key=b"k" * 100), record(3), record(4, key=b"k" * 100))
    lot.queues[b"k" * 100].error, lot.queues[b"k" * 100].failures = "e" * 1000, 7
    shown = lot.shown()
    assert [(one.key, one.records) for one in shown] == [("\\xff\ufffd", 1), ("k" * 64, 2), ("(no key, at 3)", 1)]
    assert (len(shown[1].error or ""), shown[1].failures) == (200, 7)
    for position in range(50):
        lot.park([record(100 + position)], now=0, since=0)
    assert len(lot.shown()) == 20


def test_a_loaded_lot_is_saved_whole_once_and_then_by_changes() -> None:
    """So the node that took it over can publish all of it again by itself."""
    stored = ParkedRecords(4, (record(1, key=b"a"), record(3, key=b"b")))
    lot = ParkingLot(MB, stored, now=0, since=0)
    assert lot.pause_s() == 0
    change = lot.change()
    assert change == ParkedChange(None, 5, stored.records)
    lot.saved(change)
    assert lot.change() == ParkedChange(5, 5)  # nothing to do, but the store must still have it
    lot.park([record(7, key=b"a")], now=0, since=0)
    lot.leave(lot.queues[b"b"], 1)
    assert lot.change() == ParkedChange(5, 6, (record(7, key=b"a"),), (3,))


def test_a_batch_of_parked_records_is_what_fits() -> None:
    """As many as a batch may have and an event can hold, and at least one."""
    records = [record(n, size=100) for n in range(5)]
    assert head(records, batch_size=3, overhead=10, max_bytes=10_000) == (records[:3], 10 + 3 * 101)
    assert head(records, batch_size=9, overhead=10, max_bytes=250) == (records[:2], 10 + 2 * 101)
    assert head(records, batch_size=9, overhead=10, max_bytes=50) == (records[:1], 111)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("park"), st.integers(0, 3)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
        st.tuples(st.just("send"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["saved", "unanswered", "unsent", "rolled back"]), st.just(0)),
    ),
    max_size=60,
)


class Store:
    """Keeps a lot as the stores do, and can be taken back by one save."""

    def __init__(self) -> None:
        self.now = self.before = ParkedRecords()

    def save(self, change: ParkedChange) -> bool:
        """Take a change that builds on what is stored."""
        if change.base not in (None, self.now.revision):
            return False
        records = {} if change.base is None else {one.position: one for one in self.now.records}
        for gone in change.drop:
            records.pop(gone, None)
        records.update({one.position: one for one in change.put})
        self.before, self.now = self.now, ParkedRecords(change.revision, tuple(records[at] for at in sorted(records)))
        return True


def saved(lot: ParkingLot, store: Store, change: ParkedChange, *, answered: bool) -> None:
    """Bring a change to the store, and its answer back."""
    done = store.save(change)
    if answered:
        lot.saved(change) if done else lot.lost()


@given(operations=OPERATIONS)
def test_the_stored_lot_is_the_lot_whatever_happens_to_saves(operations: list[tuple[str, int]]) -> None:
    """Saves that are lost, done without an answer, or undone by a failover never leave holes or leftovers behind."""
    lot, store = ParkingLot(MB), Store()
    sent: ParkedChange | None = None
    for position, (what, number) in enumerate(operations):
        key = b"%d" % number
        match what:
            case "park":
                lot.park([record(position, key=key)], now=0, since=0)
            case "leave" if key in lot.queues:
                lot.leave(lot.queues[key], 1)
            case "send":
                sent = sent or lot.change()
            case "saved" | "unanswered" if sent is not None:
                saved(lot, store, sent, answered=what == "saved")
                sent = None
            case "unsent":
                sent = None
            case "rolled back" if sent is None:
                store.now = store.before
    lot.park([record(1000, key=b"0")], now=0, since=0)
    change = None
    while change != ParkedChange(store.now.revision, store.now.revision):  # nothing is left to do
        change = lot.change()
        assert change is not None
        saved(lot, store, change, answered=True)
    assert store.now.records == tuple(sorted(lot, key=lambda one: one.position))
