"""Reading ahead within bounds."""

from __future__ import annotations

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pollers.sources.kafka_inbox import Inbox, Prefetch, held_bytes
from tests.unit.test_kafka_envelope import raw

MANY = 10**9


def raws(start: int, end: int, *, size: int = 10) -> list[object]:
    """Make consecutive records."""
    return [raw(offset, value=b"x" * size) for offset in range(start, end)]


def inbox(partition: int = 0, expected: int = 0) -> Inbox:
    """Make an empty inbox."""
    return Inbox(TopicPartition("t", partition), expected)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30))))
def test_records_leave_as_they_came(steps: list[tuple[bool, int]]) -> None:
    """Whatever is put and taken in whatever portions, order and number are kept and the sizes add up."""
    box = inbox()
    put = taken = 0
    for putting, count in steps:
        if putting:
            box.put(raws(put, put + count))
            put += count
        elif chunk := box.take(count):
            assert chunk.positions == list(range(taken, taken + len(chunk.raws)))
            assert len(chunk.raws) <= count
            assert chunk.size == held_bytes(chunk.raws)
            taken += len(chunk.raws)
        assert box.count == put - taken
        assert (box.size == 0) == (box.count == 0)
    assert box.expected == put


def test_records_put_twice_count_once() -> None:
    """A second delivery of the same offsets, in part or whole, adds only what is new."""
    box = inbox()
    box.put(raws(0, 10))
    box.put(raws(5, 15))
    assert box.put(raws(0, 15)) == 0
    chunk = box.take(100)
    assert chunk is not None
    assert chunk.positions == list(range(15))


def test_gaps_are_no_mistake() -> None:
    """Compacted records and transaction markers leave holes in the offsets."""
    box = inbox()
    box.put([*raws(3, 5), *raws(9, 10)])
    assert box.expected == 10
    assert box.oldest_ms() == 1545084650987


def test_large_headers_count() -> None:
    """A record whose weight is in its headers is heavy too."""
    assert held_bytes([raw(headers=(("h", b"x" * 5000),))]) > 5000 > held_bytes([raw()])


def test_a_full_partition_gets_no_more() -> None:
    """A partition at its bound is not wanted, and wanted again once read."""
    prefetch = Prefetch(max_bytes=MANY, partition_max_bytes=2000)
    slow, other = inbox(0), inbox(1)
    for box in (slow, other):
        prefetch.add(box)
    prefetch.put(slow, raws(0, 20))
    assert slow.partition not in prefetch.wanted
    assert other.partition in prefetch.wanted
    assert not prefetch.everyone_wanted()
    prefetch.take(slow, 19)
    assert slow.partition in prefetch.wanted
    assert prefetch.everyone_wanted()


def test_when_all_is_full_only_the_hungry_get_something() -> None:
    """At the common bound only partitions whose reader waits are served, until half of it was read."""
    prefetch = Prefetch(max_bytes=20_000, partition_max_bytes=MANY)
    rich, waiting, idle = inbox(0), inbox(1), inbox(2)
    for box in (rich, waiting, idle):
        prefetch.add(box)
    assert prefetch.take(waiting, 10) is None
    prefetch.put(rich, raws(0, 100))
    assert waiting.partition in prefetch.wanted
    assert not {rich.partition, idle.partition} & prefetch.wanted
    prefetch.put(waiting, raws(0, 1))
    assert waiting.partition not in prefetch.wanted
    prefetch.take(rich, 30)
    assert idle.partition not in prefetch.wanted
    prefetch.take(rich, 50)
    assert {rich.partition, idle.partition, waiting.partition} <= prefetch.wanted


def test_leaving_makes_room() -> None:
    """A partition that is given up, or begins anew, frees what it held."""
    prefetch = Prefetch(max_bytes=10_000, partition_max_bytes=MANY)
    first, second = inbox(0), inbox(1)
    prefetch.add(first)
    prefetch.add(second)
    prefetch.put(first, raws(0, 50))
    assert second.partition not in prefetch.wanted
    prefetch.clear(first, 7)
    assert (prefetch.held, first.expected, first.count) == (0, 7, 0)
    assert second.partition in prefetch.wanted
    prefetch.put(first, raws(7, 50))
    prefetch.remove(first)
    assert prefetch.held == 0
    assert second.partition in prefetch.wanted
    assert first.partition not in prefetch.wanted
    assert prefetch.wanted  # never empty: the client would take that for everyone
