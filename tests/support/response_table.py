"""The specification's table of what a function may answer with ReportBatchItemFailures (section 4.3), for all sources.

Once held against the pure part, once run on a server of each kind. Batches have three records.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from model.outcome import Delivered, FunctionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.outcome import Outcome

ALL: Final = (0, 1, 2)


class Row(NamedTuple):
    """A function's result, and which records of the batch it reports; all of them where it spoils the batch."""

    result: str
    answer: Callable[[Sequence[Any], Any], Outcome]  # of the identifiers of the batch, and of one that is not in it
    reported: tuple[int, ...]
    spoilt: bool = False  # the whole batch failed, whatever was named


def _body(row: str, body: object) -> Row:
    return Row(row, lambda _ids, _other: Delivered(json.dumps(body).encode()), ())


def _failures(*failures: object) -> Outcome:
    return Delivered(json.dumps({"batchItemFailures": [{"itemIdentifier": failure} for failure in failures]}).encode())


ROWS: Final = (
    _body("null", None),
    _body('""', ""),
    _body("[]", []),
    _body("{}", {}),
    _body("an empty list", {"batchItemFailures": []}),
    _body("a null list", {"batchItemFailures": None}),
    Row("no body", lambda _ids, _other: Delivered(b""), ()),
    Row('identifier ""', lambda _ids, _other: _failures(""), ALL, spoilt=True),
    Row("identifier null", lambda _ids, _other: _failures(None), ALL, spoilt=True),
    Row("wrong key", lambda ids, _other: Delivered(json.dumps({"foo": [ids[0]]}).encode()), ALL, spoilt=True),
    Row("identifier of another batch", lambda _ids, other: _failures(other), ALL, spoilt=True),
    Row("one bad identifier among good ones", lambda ids, other: _failures(ids[2], other), ALL, spoilt=True),
    Row("identifier of the wrong type", lambda _ids, _other: _failures(7), ALL, spoilt=True),
    Row("not JSON", lambda _ids, _other: Delivered(b"done"), ALL, spoilt=True),
    Row("function error", lambda _ids, _other: FunctionFailed("Boom"), ALL, spoilt=True),
    Row("the first", lambda ids, _other: _failures(ids[0]), (0,)),
    Row("the second", lambda ids, _other: _failures(ids[1]), (1,)),
    Row("the last and the second", lambda ids, _other: _failures(ids[2], ids[1]), (1, 2)),
    Row("the first and the last, twice", lambda ids, _other: _failures(ids[0], ids[2], ids[0]), (0, 2)),
    Row("all", lambda ids, _other: _failures(*ids), ALL),
)


def retried(row: Row, *, in_order: bool) -> list[int]:
    """Return which records come again: of a stream shard everything from the lowest on, elsewhere what was reported."""
    if row.reported and in_order:
        return list(range(min(row.reported), len(ALL)))
    return list(row.reported)
