"""The batches of one poller, with the function or waiting for it."""

from __future__ import annotations

from pollers.queue_work import Work, Workload
from tests.support.queue_rig import message


def work(*positions: int, group: str | None = None) -> Work:
    """Make a batch."""
    return Work([message(position, group) for position in positions])


def test_each_slot_counts_its_window_from_its_last_invocation() -> None:
    """A slot that is new, or was long idle, does not keep the others from gathering for ever."""
    load = Workload()
    assert load.window_began_at(1, 100) == 100
    one, two = work(1), work(2)
    load.begin(one)
    load.end(one, 105)
    assert load.window_began_at(1, 106) == 105
    assert load.window_began_at(3, 110) == 105
    load.begin(two)
    assert load.window_began_at(2, 111) == 110
    load.end(two, 120)
    assert load.window_began_at(1, 121) == 120


def test_paused_batches_come_in_their_time_or_when_the_function_is_reached() -> None:
    """The earliest first; after a success all at once."""
    load = Workload()
    one, two = work(5, 6), work(3)
    load.begin(one)
    load.begin(two)
    assert (load.running, load.busy, load.messages, load.oldest_ms) == (2, 2, 3, 3)
    load.end(one, 1)
    load.pause(one, 10)
    load.end(two, 1)
    load.pause(two, 20)
    assert (load.running, load.busy, load.messages, load.due_at(), one.refusals) == (0, 2, 3, 10, 1)
    assert load.take_due(9) is None
    assert load.take_due(11) is one
    assert load.take_due(11) is None
    load.hasten(12)
    assert load.take_due(12) is two
    assert (load.take_peak(), load.take_peak()) == (2, 0)


def test_what_is_visible_again_leaves_with_its_group() -> None:
    """FIFO: nothing of a group is worked on when an earlier message of it is out of our hands."""
    load = Workload()
    mixed = Work([message(1, "a"), message(2, "b"), message(3, "a")])
    load.pause(mixed, 10)
    load.pause(work(4, group="c"), 10)
    gone = load.expire(lambda one: one.record.position in (1, 4), whole_groups=True)
    assert [one.record.position for one in gone] == [1, 3, 4]
    assert [one.record.position for one in load.clear()] == [2]
    assert (load.busy, load.due_at()) == (0, None)
