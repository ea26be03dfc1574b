"""FilterCriteria of one mapping: which records go on to the function (spec section 5.5). Pure.

Knows the sources' rules for data that is not JSON and patterns that are not objects. How patterns match is
`model.pattern`'s; how a source's records look is told by its `RecordView`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from model.mapping import SourceKind
from model.pattern import DATA_KEYS, check_pattern, compile_pattern
from model.pattern_operators import MISSING, Leaf
from model.pattern_tree import ObjectNode
from pollers.projection import Projection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pollers.ports import Filter


class RecordView(Protocol):
    """What a filter may ask of a source's raw records."""

    @property
    def kind(self) -> SourceKind:
        """The kind of source, which decides the data key and the fate of data that is not JSON."""

    def payloads(self, raws: Sequence[Any], /) -> Sequence[bytes | None]:
        """Return each payload as the producer wrote it, None if there is none. Asked only when a pattern needs them."""

    def metadata(self, raw: Any, /) -> Mapping[str, object]:
        """Return the record's other fields, as in the event. Asked only when a pattern needs them."""


class DataForm(StrEnum):
    """What a record's data is. A StrEnum, since each record looks one up in a dict, and Enum hashes in Python."""

    JSON = "JSON"  # an object or an array: a bare number or word is text to a producer of text
    TEXT = "plain string"
    BINARY = "not UTF-8"
    ABSENT = "no data at all"  # a Kafka tombstone


class RuleForm(StrEnum):
    """What a pattern says about the data key."""

    OBJECT = "object"
    STRING = "plain string rule"
    NONE = "none"


class Fate(StrEnum):
    """What becomes of a record whose data has one form and the pattern another."""

    EVALUATE = "the data rule decides, with the metadata"
    METADATA_ONLY = "the data rule is ignored"
    DROP = "the pattern does not match"


_ALWAYS: Final = {
    **{(form, RuleForm.NONE): Fate.METADATA_ONLY for form in DataForm},
    (DataForm.JSON, RuleForm.OBJECT): Fate.EVALUATE,
    (DataForm.ABSENT, RuleForm.OBJECT): Fate.EVALUATE,  # ours: {"exists": false} finds tombstones
    (DataForm.ABSENT, RuleForm.STRING): Fate.EVALUATE,
}

FATES: Final[Mapping[SourceKind, Mapping[tuple[DataForm, RuleForm], Fate]]] = {
    SourceKind.KINESIS: {
        **_ALWAYS,  # plain string rules do not get past `check_pattern`
        (DataForm.TEXT, RuleForm.OBJECT): Fate.DROP,
        (DataForm.BINARY, RuleForm.OBJECT): Fate.DROP,
    },
    SourceKind.SQS: {
        **_ALWAYS,
        (DataForm.JSON, RuleForm.STRING): Fate.DROP,
        (DataForm.TEXT, RuleForm.OBJECT): Fate.DROP,
        (DataForm.TEXT, RuleForm.STRING): Fate.EVALUATE,
        (DataForm.BINARY, RuleForm.OBJECT): Fate.DROP,  # cannot be: a queue takes Unicode only
        (DataForm.BINARY, RuleForm.STRING): Fate.DROP,
    },
    SourceKind.KAFKA: {
        **_ALWAYS,
        (DataForm.JSON, RuleForm.STRING): Fate.METADATA_ONLY,
        (DataForm.TEXT, RuleForm.OBJECT): Fate.METADATA_ONLY,
        (DataForm.TEXT, RuleForm.STRING): Fate.EVALUATE,
        (DataForm.BINARY, RuleForm.OBJECT): Fate.METADATA_ONLY,
        (DataForm.BINARY, RuleForm.STRING): Fate.METADATA_ONLY,
    },
}
"""The specification's table, by source, the form of the data and the form of the pattern."""


class SourceFilter:
    """Keep a record if any pattern matches it. Implements `pollers.ports.Filter`."""

    def __init__(self, alternatives: Iterable[ObjectNode], view: RecordView) -> None:
        self._view = view
        self._rules = [_Rule(node, view.kind) for node in alternatives]
        self._asks_metadata = any(rule.metadata is not None for rule in self._rules)
        self._projection = Projection(rule.data for rule in self._rules if isinstance(rule.data, ObjectNode))

    def keep(self, raws: Sequence[Any]) -> list[bool]:
        """Return for each raw record whether it goes on to the function. Never raises on bad data."""
        if not self._asks_metadata:
            return self._by_data(raws, self._rules)
        # Records whose metadata leave the same rules are judged together.
        groups: dict[tuple[_Rule, ...], list[int]] = {}
        for at, raw in enumerate(raws):
            metadata = self._view.metadata(raw)
            left = tuple([rule for rule in self._rules if rule.metadata is None or rule.metadata.matches(metadata)])
            groups.setdefault(left, []).append(at)
        keep = [False] * len(raws)
        for left, places in groups.items():
            for at, wanted in zip(places, self._by_data([raws[at] for at in places], left), strict=True):
                keep[at] = wanted
        return keep

    def _by_data(self, raws: Sequence[Any], rules: Sequence[_Rule]) -> list[bool]:
        """Judge records by their payloads alone: the rules are those whose metadata match."""
        if not rules or any(rule.data is None for rule in rules):
            return [bool(rules)] * len(raws)
        judges = {form: _either([rule.judges[form] for rule in rules]) for form in rules[0].judges}
        of_json, payloads = judges[DataForm.JSON], self._view.payloads(raws)
        quick, decode = self._projection.quick(payloads), self._projection.decode
        keep: list[bool] = []
        for payload in payloads:
            try:
                document = quick(payload)
            except (ValueError, RecursionError):
                document = decode(payload)
            if type(document) is dict or type(document) is list:
                keep.append(of_json(document))
            else:
                form, found = _other(payload)
                keep.append(judges[form](found))
        return keep


class KeepAll:
    """The filter of a mapping without FilterCriteria: looks at nothing."""

    def keep(self, raws: Sequence[Any]) -> list[bool]:
        """Keep every record."""
        return [True] * len(raws)


def compile_filter(patterns: Sequence[str], view: RecordView) -> Filter:
    """Compile a mapping's patterns. Raises InvalidPatternError; none at all keep everything."""
    if not patterns:
        return KeepAll()
    for pattern in patterns:
        check_pattern(pattern, view.kind)
    return SourceFilter((node for text in patterns for node in compile_pattern(text).alternatives), view)


class _Rule:
    """One alternative of a pattern, cut into what it says about the data and about the rest of the record."""

    __slots__ = ("data", "judges", "metadata")

    def __init__(self, node: ObjectNode, kind: SourceKind) -> None:
        fields = dict(node.fields)
        self.data: Leaf | ObjectNode | None = fields.pop(DATA_KEYS[kind], None)
        self.metadata = ObjectNode(fields) if fields else None
        rule = RuleForm.STRING if isinstance(self.data, Leaf) else RuleForm.OBJECT
        self.judges = {form: self._judge(FATES[kind][form, rule]) for form in DataForm if (form, rule) in FATES[kind]}

    def _judge(self, fate: Fate) -> _Judge:
        """Return what decides about data of a form, once the metadata match."""
        if fate is Fate.EVALUATE and self.data is not None:
            return self.data.matches
        return _yes if fate is Fate.METADATA_ONLY else _no


if TYPE_CHECKING:
    _Judge = Callable[[object], bool]


def _yes(_found: object) -> bool:
    return True


def _no(_found: object) -> bool:
    return False


def _either(judges: Sequence[_Judge]) -> _Judge:
    """Return a judge that says yes if any of them does."""
    return judges[0] if len(judges) == 1 else lambda found: any(judge(found) for judge in judges)


def _other(payload: bytes | None) -> tuple[DataForm, object]:
    """Return the form of a payload that is no JSON, and what a rule is held against."""
    if payload is None:
        return DataForm.ABSENT, MISSING
    try:
        return DataForm.TEXT, payload.decode()
    except UnicodeDecodeError:
        return DataForm.BINARY, None
