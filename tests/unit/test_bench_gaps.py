"""What a benchmark makes of a function's log: gaps of partitions, duplicates, who is still silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from benchmarks.arrivals import ArrivalLog
from benchmarks.gaps import LastSeen, distinct, duplicates, longest_gap_s
from benchmarks.sink import Arrival

if TYPE_CHECKING:
    from pathlib import Path


def _arrivals(*seen: tuple[float, str]) -> list[Arrival]:
    """Return one event for each pair of seconds and place."""
    return [Arrival(int(at_s * 1_000_000), "", 0, [(place, 0)]) for at_s, place in seen]


def test_a_gap_is_between_two_records_of_one_partition() -> None:
    """Other partitions that go on meanwhile do not shorten it."""
    arrivals = _arrivals((1.0, "t-0/0"), (1.1, "t-1/0"), (2.0, "t-1/1"), (3.0, "t-1/2"), (3.5, "t-0/1"))
    assert longest_gap_s(arrivals, 0, 10_000_000) == 2.5


def test_a_gap_counts_where_it_ends() -> None:
    """Whole, also if it began before the span; one that ends later is the next span's."""
    arrivals = _arrivals((1.0, "t-0/0"), (4.0, "t-0/1"), (4.5, "t-0/2"), (9.0, "t-0/3"))
    spans = [(0, 2), (2, 4.25), (4.25, 5), (5, 9), (5, 10), (9.5, 20)]
    found = [longest_gap_s(arrivals, int(first * 1e6), int(after * 1e6)) for first, after in spans]
    assert found == [0.0, 3.0, 0.5, 0.0, 4.5, 0.0]


def test_arrivals_may_be_out_of_order_in_the_log() -> None:
    """They are looked at by time."""
    assert longest_gap_s(_arrivals((3.0, "t-0/1"), (1.0, "t-0/0"), (3.5, "t-0/2")), 0, 9_000_000) == 2.0


def test_a_record_that_comes_again_counts_where_it_came_again() -> None:
    """Each further time counts, in the span in which it fell; the first one never does."""
    arrivals = _arrivals((1, "t-0/0"), (2, "t-0/0"), (3, "t-0/1"), (5, "t-0/0"), (6, "t-0/1"), (9, "t-0/0"))
    assert duplicates(arrivals, [0, 4_000_000, 8_000_000]) == [1, 2]
    assert distinct(arrivals) == 2


def test_a_partition_is_silent_until_it_delivers() -> None:
    """Only what came since then counts, whichever way round it is told."""
    last_seen = LastSeen()
    last_seen.add(_arrivals((4, "t-12/0"), (3, "t-1/1"), (1, "t-0/0")))
    last_seen.add(_arrivals((2, "t-1/0")))
    assert [last_seen.since(int(at * 1e6)) for at in (0, 2, 3.5, 5)] == [3, 2, 1, 0]


def test_a_log_is_read_on_from_where_it_was_read(tmp_path: Path) -> None:
    """Also from the middle of a line, which counts once it is whole."""
    path = tmp_path / "log"
    lines = [msgspec.json.encode(one) + b"\n" for one in _arrivals((1, "t-0/0"), (2, "t-0/1"), (3, "t-0/2"))]
    log = ArrivalLog(path)
    path.write_bytes(lines[0] + lines[1][:9])
    assert [distinct(log.new()), distinct(log.new())] == [1, 0]
    path.write_bytes(b"".join(lines))
    assert log.new() == _arrivals((2, "t-0/1"), (3, "t-0/2"))
    assert log.all() == _arrivals((1, "t-0/0"), (2, "t-0/1"), (3, "t-0/2"))
