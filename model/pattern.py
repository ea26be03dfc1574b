"""Event patterns as EventBridge defines them: compiled once, asked of many documents (spec section 5.5).

Pure. What happens to records that are not JSON is `pollers.filtering`'s; how values and arrays are held against a
document is in `model.pattern_operators` and `model.pattern_tree`.

A pattern becomes alternatives without `$or` in them, as EventBridge does it, so that a field beside `$or` and a field
inside it speak of the same element of an array they share.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from model.mapping import SourceKind
from model.pattern_operators import InvalidPatternError, Leaf, WrittenFloat, compile_leaf
from model.pattern_tree import ObjectNode, explain, keys_of

__all__ = ["DATA_KEYS", "InvalidPatternError", "Pattern", "check_pattern", "compile_pattern", "decode_document"]

DATA_KEYS: Final = {SourceKind.KINESIS: "data", SourceKind.SQS: "body", SourceKind.KAFKA: "value"}
"""The key under which a pattern speaks of the record's data."""

MAX_DEPTH: Final = 100
MAX_ALTERNATIVES: Final = 1000  # EventBridge's limit on the combinations that `$or` makes

_RESERVED_IN_OR: Final = frozenset(
    {
        *("exactly", "equals-ignore-case", "prefix", "suffix", "anything-but", "exists", "wildcard", "numeric", "cidr"),
        *("=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case"),
        *("date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"),
        *("ip-address-in-range", "ip-address-not-in-range"),
    }
)

_Tree = dict[str, Any]  # of Leaf and _Tree; one alternative while it is being put together

_decoder = msgspec.json.Decoder(float_hook=WrittenFloat)


def decode_document(data: bytes | str) -> object:
    """Read JSON, keeping how numbers are written. Raises ValueError.

    The one thing lost is the sign of an integer -0.
    """
    try:
        return _decoder.decode(data)
    except RecursionError as exc:
        raise ValueError("JSON is nested too deeply") from exc


class Pattern:
    """A compiled pattern."""

    __slots__ = ("alternatives", "text", "top_level_keys")

    def __init__(self, text: str, alternatives: tuple[ObjectNode, ...]) -> None:
        self.text = text
        self.alternatives = alternatives
        self.top_level_keys: frozenset[str] = keys_of(alternatives)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def matches(self, document: object) -> bool:
        """Tell whether a document from `decode_document` matches. What is not an object matches nothing."""
        return isinstance(document, dict) and any(node.matches(document) for node in self.alternatives)

    def explain(self, document: object) -> list[str]:
        """Say field by field why the document does not match; empty if it does."""
        if self.matches(document):
            return []
        if not isinstance(document, dict):
            return ["the event is not a JSON object"]
        reasons = [list(explain(node, document, "")) for node in self.alternatives]
        if len(reasons) == 1:
            return reasons[0]
        return [f"$or, alternative {n}: {reason}" for n, part in enumerate(reasons, 1) for reason in part]


def compile_pattern(text: str) -> Pattern:
    """Compile a pattern. Raises InvalidPatternError, which names the place and the rule."""
    document = _read(text)
    if not isinstance(document, dict):
        raise InvalidPatternError("", "Filter is not an object")
    alternatives = _alternatives(document, "", in_or=False, depth=1)
    return Pattern(text, tuple(_freeze(tree) for tree in alternatives))


def check_pattern(text: str, source_kind: SourceKind) -> None:
    """Check that a mapping on such a source may have this pattern. Raises InvalidPatternError."""
    pattern = compile_pattern(text)
    if source_kind is not SourceKind.KINESIS:
        return
    key = DATA_KEYS[source_kind]
    for node in pattern.alternatives:
        if isinstance(dict(node.fields).get(key), Leaf):
            raise InvalidPatternError(key, "a Kinesis filter takes an object here: the data of a record must be JSON")


def _read(text: str) -> object:
    """Parse strictly: msgspec knows JSON better than the standard library, which knows of duplicate keys."""
    try:
        _decoder.decode(text)
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_float=WrittenFloat)
    except InvalidPatternError:
        raise
    except RecursionError as exc:
        raise InvalidPatternError("", f"nested deeper than {MAX_DEPTH} levels") from exc
    except ValueError as exc:
        raise InvalidPatternError("", f"not JSON: {exc}") from exc


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidPatternError(twice, "the key stands twice in one object")
    return document


def _alternatives(document: dict[str, object], path: str, *, in_or: bool, depth: int) -> list[_Tree]:
    """Multiply `$or` out: a document matches if it matches one of the trees returned."""
    if not document:
        raise InvalidPatternError(path, "Empty objects are not allowed")
    if depth > MAX_DEPTH:
        raise InvalidPatternError(path, f"nested deeper than {MAX_DEPTH} levels")
    trees: list[_Tree] = [{}]
    for key, value in document.items():
        where = f"{path}.{key}" if path else key
        if key == "$or":
            choices = _choices(value, where, path, depth=depth)
        elif in_or and key in _RESERVED_IN_OR:
            raise InvalidPatternError(where, f"{key} is a reserved name which cannot be used inside $or")
        elif isinstance(value, dict):
            choices = [{key: tree} for tree in _alternatives(value, where, in_or=in_or, depth=depth + 1)]
        elif isinstance(value, list):
            choices = [{key: compile_leaf(value, where)}]
        else:
            raise InvalidPatternError(where, f'"{key}" must be an object or an array')
        if len(trees) * len(choices) > MAX_ALTERNATIVES:
            raise InvalidPatternError(where, f"$or makes more than {MAX_ALTERNATIVES} combinations")
        trees = [_merged(tree, choice, path) for tree in trees for choice in choices]
    return trees


def _choices(value: object, where: str, path: str, *, depth: int) -> list[_Tree]:
    if not isinstance(value, list):
        raise InvalidPatternError(where, "It must be an Array followed with $or")
    if len(value) < 2:  # noqa: PLR2004 - EventBridge's rule: one alternative is none
        raise InvalidPatternError(where, "There must have at least 2 Objects in $or relationship")
    choices: list[_Tree] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise InvalidPatternError(f"{where}[{index}]", "Only JSON object is allowed in array of $or relationship")
        choices += _alternatives(item, path, in_or=True, depth=depth + 1)
    return choices


def _merged(left: _Tree, right: _Tree, path: str) -> _Tree:
    merged = dict(left)
    for key, node in right.items():
        where = f"{path}.{key}" if path else key
        if key not in merged:
            merged[key] = node
        elif isinstance(merged[key], dict) and isinstance(node, dict):
            merged[key] = _merged(merged[key], node, where)
        else:
            raise InvalidPatternError(where, f"Path `{where}` cannot be allowed multiple times")
    return merged


def _freeze(tree: _Tree) -> ObjectNode:
    return ObjectNode({key: node if isinstance(node, Leaf) else _freeze(node) for key, node in tree.items()})
