"""Hold a value against its shape: collects every problem, returns the value in normal form."""

from __future__ import annotations

import enum
import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

from model.problem import Problem, child_path
from model.rules.shapes import Boolean, Choice, Either, Integer, Json, ListOf, MapOf, Number, Table, Text, Timestamp
from model.rules.wording import shown, unknown_key, wrong_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.rules.shapes import Shape
    from model.rules.wording import Place, Voice


class _Invalid(enum.Enum):
    INVALID = "invalid"


INVALID: Final = _Invalid.INVALID
"""What a check returns for a value that broke a rule; the problem has been noted."""

_LARGEST_EPOCH_S = 253_402_300_799  # the end of the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DIGITS = 15
_LARGEST_SHOWN = 10**100


class Checker:
    """Checks the values of one document. `root` is the document's own path in problems."""

    def __init__(self, voice: Voice, root: str = "") -> None:
        self.problems: list[Problem] = []
        self._voice = voice
        self._root = root

    def report(self, at: Place, rule: str) -> None:
        """Note a problem."""
        path = self._root
        for part in at:
            path = child_path(path, part)
        self.problems.append(Problem(path, rule))

    def check(self, shape: Shape, value: object, at: Place) -> object:  # noqa: C901, PLR0911, PLR0912 - one case per shape
        """Return the value in normal form, or INVALID."""
        match shape:
            case Text():
                return self._text(shape, value, at)
            case Integer():
                return self._integer(shape, value, at)
            case Number():
                return self._number(shape, value, at)
            case Boolean():
                if isinstance(value, bool):
                    return value
                return self._broken(at, wrong_kind("true or false", value))
            case Choice():
                if not isinstance(value, str):
                    return self._broken(at, wrong_kind("text", value))
                if value not in shape.values:
                    return self._broken(at, self._voice.choice(at, shown(value), shape.values))
                return value
            case Timestamp():
                moment = read_timestamp(value)
                if moment is None:
                    wanted = "a time: epoch seconds or ISO 8601 text such as 2026-01-31T12:00:00Z"
                    return self._broken(at, f"must be {wanted}")
                return moment
            case ListOf():
                return self._list(shape, value, at)
            case MapOf():
                return self._map(shape, value, at)
            case Table():
                return self.table(shape, value, at)
            case Json():
                return self._json(shape, value, at)
            case Either():
                return value if value == shape.word else self.check(shape.shape, value, at)
            case _:
                assert_never(shape)

    def table(self, shape: Table, value: object, at: Place) -> object:
        """Check a mapping with known keys. Null counts as absent. Keys in error are left out of the result."""
        if not isinstance(value, dict):
            return self._broken(at, wrong_kind("a mapping", value))
        self.unknown_keys(value, shape.by_name, at)
        result: dict[str, object] = {}
        for known in shape.fields:
            given = value.get(known.name)
            if given is None:
                if known.required:
                    self.report((*at, known.name), self._voice.missing((*at, known.name)))
                continue
            checked = self.check(known.shape, given, (*at, known.name))
            if checked is not INVALID:
                result[known.name] = checked
        return result

    def unknown_keys(self, value: Mapping[Any, object], known: Mapping[str, object], at: Place) -> None:
        """Report every key that is not known."""
        for key in value:
            if not isinstance(key, str):
                self.report(at, f"keys must be text, not {wrong_kind('text', key).partition(', not ')[2]}")
            elif key not in known:
                self.report((*at, key), unknown_key(key, known))

    def _broken(self, at: Place, rule: str) -> object:
        self.report(at, rule)
        return INVALID

    def _text(self, shape: Text, value: object, at: Place) -> object:
        if not isinstance(value, str):
            return self._broken(at, wrong_kind("text", value))
        seen = None if shape.secret else shown(value)
        if len(value) < shape.min_length:
            return self._broken(at, self._voice.short(at, seen, shape.min_length))
        if shape.max_length is not None and len(value) > shape.max_length:
            return self._broken(at, self._voice.long(at, seen, shape.max_length))
        if shape.pattern is not None and not shape.pattern.fullmatch(value):
            return self._broken(at, self._voice.form(at, seen, shape.means))
        return value

    def _integer(self, shape: Integer, value: object, at: Place) -> object:
        if isinstance(value, bool) or not isinstance(value, int):
            return self._broken(at, wrong_kind("a whole number", value))
        if value in shape.also:
            return value
        return self._in_range(value, shape.minimum, shape.maximum, at)

    def _number(self, shape: Number, value: object, at: Place) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
            return self._broken(at, wrong_kind("a finite number", value))
        return self._in_range(value, shape.minimum, shape.maximum, at)

    def _in_range(self, value: float, minimum: float, maximum: float, at: Place) -> object:
        if value < minimum:
            return self._broken(at, self._voice.low(at, _digits(value), minimum))
        if value > maximum:
            return self._broken(at, self._voice.high(at, _digits(value), maximum))
        return value

    def _list(self, shape: ListOf, value: object, at: Place) -> object:
        if not isinstance(value, (list, tuple)):
            return self._broken(at, wrong_kind("a list", value))
        before = len(self.problems)
        if len(value) < shape.min_items:
            self.report(at, self._voice.short(at, "[]", shape.min_items))
        if shape.max_items is not None and len(value) > shape.max_items:
            self.report(at, self._voice.long(at, None, shape.max_items))
        items = [self.check(shape.item, item, (*at, i)) for i, item in enumerate(value)]
        if shape.unique:
            for i, item in enumerate(items):
                if item is not INVALID and item in items[:i]:
                    self.report((*at, i), "is listed twice")
        return INVALID if len(self.problems) > before else items

    def _json(self, shape: Json, value: object, at: Place) -> object:
        written = json_text(value)
        if written is None:
            return self._broken(
                at, "must be JSON: mappings with keys of text, lists, text, finite numbers, true, false"
            )
        if len(written) > shape.max_bytes:
            return self._broken(at, f"must be {shape.max_bytes:,} bytes or less as JSON, not {len(written):,}")
        return value

    def _map(self, shape: MapOf, value: object, at: Place) -> object:
        if not isinstance(value, dict):
            return self._broken(at, wrong_kind("a mapping", value))
        before = len(self.problems)
        if shape.max_items is not None and len(value) > shape.max_items:
            self.report(at, self._voice.long(at, None, shape.max_items))
        result: dict[str, object] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                self.report(at, f"keys must be text{'' if key is None else '; put them in quotes'}")
            elif self.check(shape.key, key, (*at, key)) is not INVALID:
                result[key] = self.check(shape.value, item, (*at, key))
        return INVALID if len(self.problems) > before else result


def json_text(value: object) -> bytes | None:
    """Return a value as JSON; None if it is none: YAML knows dates, keys of any kind, and infinite numbers."""
    if not _is_json(value):
        return None
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # infinite, not Unicode, or nested without an end
        return None


def _is_json(value: object) -> bool:
    match value:
        case dict():
            return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
        case list() | tuple():
            return all(map(_is_json, value))
        case _:
            return value is None or isinstance(value, (str, bool, int, float))


def read_timestamp(value: object) -> datetime | None:
    """Return the time as an aware UTC datetime, in milliseconds from 1970 on; None if the value tells no such time."""
    try:
        moment = _read_timestamp(value)
        # Whole milliseconds survive being written as a number of seconds, and sources know no finer ones.
        since_ms = -1 if moment is None else round((moment - _EPOCH) / timedelta(milliseconds=1))
        return None if since_ms < 0 else _EPOCH + timedelta(milliseconds=since_ms)
    except (ValueError, OverflowError, OSError):
        return None


def _read_timestamp(value: object) -> datetime | None:
    if isinstance(value, str):
        digits = value.replace(".", "", 1)
        if not (digits.isascii() and digits.isdigit()):
            return _utc(datetime.fromisoformat(value))
        value = float(value) if len(value) <= _EPOCH_DIGITS else None
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_EPOCH_S:
        return None
    return datetime.fromtimestamp(value, UTC)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return True


def _digits(value: float) -> str:
    # Python refuses to print integers of more than a few thousand digits.
    return shown(value) if abs(value) < _LARGEST_SHOWN else "a very large number"
