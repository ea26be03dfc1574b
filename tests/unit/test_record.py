"""Records column by column: what they are taken apart into, and put together from, is what a list of them would be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.record import NO_RECORDS, Derived, Later, Places, Record, Records, order_key, pick

if TYPE_CHECKING:
    from collections.abc import Sequence

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\},{', max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.none() | st.sampled_from(["a", "b"])


def single(position: int, shown: object, key: str | None, indent: int | None) -> Record:
    """Make a record with a JSON of its own."""
    return Record(position, 1000 * position, json.dumps(shown, indent=indent).encode(), key, f"#{position}")


RECORDS = st.lists(st.tuples(JSON, KEYS, st.none() | st.just(1)), max_size=8).map(
    lambda rows: [single(at, *row) for at, row in enumerate(rows)]
)


@given(RECORDS, st.slices(8), st.lists(st.booleans(), min_size=8, max_size=8), st.integers(0, 8))
def test_columns_behave_as_a_list_of_records(records: list[Record], part: slice, wanted: list[bool], cut: int) -> None:
    """One by one, in slices, picked and joined again, whatever is in their JSON."""
    columns = Records.of(records)
    assert list(columns) == records
    assert columns.order_keys == [order_key(record) for record in records]
    assert list(columns[part]) == records[part]
    wanted = wanted[: len(records)]
    assert list(columns.pick(wanted)) == [record for record, keep in zip(records, wanted, strict=True) if keep]
    joined = Records.joined([columns[:cut], NO_RECORDS, columns[cut:]])
    assert list(joined) == records
    assert joined.text == columns.text


@given(RECORDS)
def test_the_size_is_that_of_the_records_and_their_commas(records: list[Record]) -> None:
    """As the batcher counts it."""
    assert Records.of(records).size == sum(len(record.fragment) + 1 for record in records)


def test_text_is_passed_on_as_it_is() -> None:
    """What is whole is neither copied nor looked into."""
    columns = Records.of([single(1, {}, None, None)])
    assert Records.joined([columns]) is columns
    assert Records.joined([]) is NO_RECORDS
    assert columns.span == "1-1"
    assert repr(columns) == "<Records 1-1, 4 bytes>"
    assert repr(NO_RECORDS) == "<Records none, 2 bytes>"
    with pytest.raises(IndexError):
        columns[1]


def test_a_derived_column_works_out_what_is_asked_for() -> None:
    """And nothing when it is cut, picked from or put together with another of its kind."""
    asked: list[str] = []

    def number(text: str) -> int:
        asked.append(text)
        return int(text)

    columns = [Derived(number, ["1", "2", "3"]), Derived(number, ["4"])]
    assert len(columns[0][1:]) == 2
    picked = pick(columns[0], [True, False, True])
    parts = [Records(Places(column), column, [None] * len(column), column, b"[]") for column in columns]
    joined = Records.joined(parts)
    assert asked == []
    assert list(picked) == [1, 3]
    assert (joined.positions[3], joined.arrivals_ms[-1]) == (4, 4)
    assert asked == ["1", "3", "4", "4"]


def test_a_later_column_is_worked_out_once_and_only_when_more_than_its_first_value_is_asked_for() -> None:
    """Also when columns are put together, and when somebody looks at the first values one after the other."""
    asked: list[str] = []

    def column(values: str) -> Later[str]:
        def work_out() -> list[str]:
            asked.append(values)
            return [*values]

        return Later(values[0], len(values), work_out)

    columns = [column("abc"), column("de")]
    parts = [Records(Places(range(len(one))), [0] * len(one), one, one, b"[]") for one in columns]
    joined = Records.joined(parts)
    assert (len(joined.keys), joined.keys[0], next(iter(joined.keys)), columns[0][0]) == (5, "a", "a", "a")
    assert asked == []
    assert (list(joined.keys), joined.keys[-1], joined.keys[1:3]) == (["a", "b", "c", "d", "e"], "e", ["b", "c"])
    assert list(pick(columns[0], [False, True, True])) == ["b", "c"]
    assert asked == ["abc", "de"]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([range(3, 5), range(5, 9)], range(3, 9)),
        ([range(3, 5), range(6, 9)], [3, 4, 6, 7, 8]),
        ([[3, 5], range(6, 7)], [3, 5, 6]),
        ([range(0), range(0)], []),
    ],
)
def test_places_keep_their_numbers_in_one_run_where_they_can(
    numbers: list[Sequence[int]], expected: Sequence[int]
) -> None:
    """Which `pollers.positions` marks at once."""
    parts = [Records(Places([*range(10)][: len(some) or 1], some), [0], [None], [0], b"[0]") for some in numbers]
    assert Records.joined(parts).positions.numbers == expected
