"""Records on their way from a source to a function, one by one and column by column."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain, compress
from operator import itemgetter
from typing import Any, TypeVar, cast, overload

import msgspec

_T = TypeVar("_T")
_Column = TypeVar("_Column", bound=Sequence[Any])


class Record(msgspec.Struct, gc=False):
    """One record, already in the form it has inside the event."""

    position: int  # place in the shard: Kafka offset, Kinesis sequence number (of a consumer: see its user records)
    arrival_ms: int  # when the source took it, epoch milliseconds
    fragment: bytes  # the record's JSON in the event
    key: bytes | str | None  # what must stay in order among lanes; None: no key
    item_id: Any  # what a partial batch response names: see the source's envelope

    @property
    def shown(self) -> str:
        """What people know it by: the sequence number where that is its id, else the position."""
        return self.item_id if isinstance(self.item_id, str) else str(self.position)


def order_key(record: Record) -> Hashable:
    """Return what a record stays in order with: its key; a record without one only with itself."""
    return record.position if record.key is None else record.key


class Derived(Sequence[_T]):
    """A column worked out from another one, each value when it is asked for: of most records nothing ever is."""

    __slots__ = ("of", "values")

    def __init__(self, of: Callable[[Any], _T], values: Sequence[Any]) -> None:
        self.of = of
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int) -> _T: ...
    @overload
    def __getitem__(self, at: slice) -> Derived[_T]: ...
    def __getitem__(self, at: int | slice) -> _T | Derived[_T]:
        if isinstance(at, slice):
            return Derived(self.of, self.values[at])
        return self.of(self.values[at])


class Later(Sequence[_T]):
    """A column that is worked out as a whole once more of it than the first value is asked for: mostly nobody does.

    A value kept for each of thousands of records on their way is dear even if it is never looked at: freed in turn
    with other shards', they scatter what is made next over all of memory.
    """

    __slots__ = ("_count", "_first", "_values", "_work_out")

    def __init__(self, first: _T, count: int, work_out: Callable[[], Sequence[_T]]) -> None:
        self._first = first
        self._count = count
        self._work_out = work_out
        self._values: Sequence[_T] | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[_T]:
        yield self._first
        yield from self._all()[1:]

    @overload
    def __getitem__(self, at: int) -> _T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[_T]: ...
    def __getitem__(self, at: int | slice) -> _T | Sequence[_T]:
        return self._first if at == 0 else self._all()[at]

    def _all(self) -> Sequence[_T]:
        if self._values is None:
            self._values = self._work_out()
        return self._values


class Places(Sequence[int]):
    """Positions of records, rising, with the numbers by which `pollers.positions` knows them; none if it does not."""

    __slots__ = ("numbers", "positions")

    def __init__(self, positions: Sequence[int], numbers: Sequence[int] = range(0)) -> None:
        self.positions = positions
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Places: ...
    def __getitem__(self, at: int | slice) -> int | Places:
        if isinstance(at, slice):
            return Places(self.positions[at], self.numbers[at])
        return self.positions[at]


class Records(Sequence[Record]):
    """Records of one shard in their order, column by column: none is an object of its own until it is asked for.

    Their JSON is one text, made once when they leave the filter. A batch goes to the function with it, and again at
    each retry; it is taken apart only when part of a batch goes on alone: after a bisect, or a partial response.
    """

    __slots__ = ("_fragments", "arrivals_ms", "event", "item_ids", "keys", "positions", "text")

    def __init__(
        self,
        positions: Places,
        arrivals_ms: Sequence[int],
        keys: Sequence[bytes | str | None],
        item_ids: Sequence[Any],
        text: bytes | memoryview,
        *,
        event: bytes | None = None,
    ) -> None:
        self.positions = positions
        self.arrivals_ms = arrivals_ms
        self.keys = keys
        self.item_ids = item_ids
        self.text = text  # a JSON array, nothing between its elements but commas
        self.event = event  # of just these records, where it was made with them: it is not copied again then
        self._fragments: list[bytes] | None = None

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """Make the columns of single records."""
        rows = [msgspec.structs.astuple(record) for record in records]
        positions, arrivals_ms, fragments, keys, item_ids = zip(*rows, strict=True) if rows else [()] * 5
        return cls(Places(positions), arrivals_ms, keys, item_ids, b"[%b]" % b",".join(fragments))

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Put records one behind the other."""
        parts = [part for part in parts if part]
        if len(parts) < 2:  # noqa: PLR2004 - nothing to join
            return parts[0] if parts else NO_RECORDS
        return cls(
            _chained([part.positions for part in parts]),
            _chained([part.arrivals_ms for part in parts]),
            _chained([part.keys for part in parts]),
            _chained([part.item_ids for part in parts]),
            b"[%b]" % b",".join([memoryview(part.text)[1:-1] for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"<Records {self.span if self else 'none'}, {len(self.text)} bytes>"

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        if isinstance(at, slice):
            return self._chosen(itemgetter(at))
        place = self.positions[at]  # raises IndexError before anything is taken apart
        return Record(place, self.arrivals_ms[at], self.fragments[at], self.keys[at], self.item_ids[at])

    def pick(self, wanted: Sequence[bool]) -> Records:
        """Return the records that are wanted."""
        return self._chosen(lambda column: pick(column, wanted))

    def _chosen(self, choose: Callable[[Any], Any]) -> Records:
        fragments = choose(self.fragments)
        chosen = Records(
            choose(self.positions),
            choose(self.arrivals_ms),
            choose(self.keys),
            choose(self.item_ids),
            b"[%b]" % b",".join(fragments),
        )
        chosen._fragments = fragments  # what was cut once is likely to be cut again
        return chosen

    @property
    def order_keys(self) -> list[Hashable]:
        """What each stays in order with: see `order_key`."""
        return order_keys(self.positions, self.keys)

    @property
    def span(self) -> str:
        """The first and the last position, as text. Raises IndexError when there are none."""
        return f"{self.positions[0]}-{self.positions[-1]}"

    @property
    def size(self) -> int:
        """Bytes in an event: of each record's JSON, with a comma each."""
        return len(self.text) - 1 if self else 0

    @property
    def fragments(self) -> list[bytes]:
        """The JSON of each."""
        if self._fragments is None:
            self._fragments = [bytes(fragment) for fragment in _elements(self.text)]
        return self._fragments


class Batch(msgspec.Struct, gc=False):
    """Records that go to the function in one invocation, in order.

    Without records it is the final call of a tumbling window; every other batch has some.
    """

    records: Records
    size: int  # bytes of the whole event


def order_keys(positions: Sequence[int], keys: Sequence[bytes | str | None]) -> list[Hashable]:
    """Return what records stay in order with: see `order_key`."""
    return [positions[at] if key is None else key for at, key in enumerate(keys)]


def pick(column: _Column, wanted: Sequence[bool]) -> _Column:
    """Return the values of a column that are wanted, without working out any."""
    given: Any = column
    if isinstance(given, Places):
        given = Places(pick(given.positions, wanted), list(compress(given.numbers, wanted)))
    elif isinstance(given, Derived):
        given = Derived(given.of, list(compress(given.values, wanted)))
    else:
        given = list(compress(given, wanted))
    return cast("_Column", given)


def _chained(columns: Sequence[Any]) -> Any:
    """Put columns of one kind one behind the other."""
    first = columns[0]
    if isinstance(first, Places):
        return Places(_chained([places.positions for places in columns]), _numbers([one.numbers for one in columns]))
    if isinstance(first, Derived) and all(isinstance(one, Derived) and one.of is first.of for one in columns):
        return Derived(first.of, _chained([one.values for one in columns]))
    if isinstance(first, Later):
        return Later(first[0], sum(map(len, columns)), lambda: list(chain.from_iterable(columns)))
    return list(chain.from_iterable(columns))


def _numbers(columns: Sequence[Sequence[int]]) -> Sequence[int]:
    """Put numbers one behind the other: as one range if nothing is missing between them, which is nearly always."""
    count = sum(map(len, columns))
    if count and columns[-1][-1] - columns[0][0] == count - 1:
        return range(columns[0][0], columns[-1][-1] + 1)
    return list(chain.from_iterable(columns))


_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode

NO_RECORDS = Records.of(())

NO_POSITION = -1
"""Stands for the position of a call without records, where failures are counted by position."""

MAX_EVENT_BYTES = 6 * 1024 * 1024 + 100
"""Largest synchronous invocation payload, 6,291,556 bytes (spec section 2)."""
