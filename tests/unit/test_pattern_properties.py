"""Event patterns against a slow reference matcher, and against input nobody would send."""

from __future__ import annotations

import contextlib
import json
from types import NoneType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.pattern import InvalidPatternError, compile_pattern, decode_document
from pollers.projection import Projection
from tests.unit.pattern_reference import reference_matches

KEYS = st.sampled_from(["a", "b", "c"])
TEXTS = st.text("xyX*", max_size=3)
NUMBERS = st.sampled_from(["0", "1", "2", "1.0", "1e0", "1E0", "2.50", "-3"])
SCALARS = st.one_of(TEXTS.map(json.dumps), NUMBERS, st.sampled_from(["true", "false", "null"]))


def _array(items: list[str]) -> str:
    return f"[{', '.join(items)}]"


def _object(pairs: dict[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(key)}: {value}' for key, value in pairs.items())}}}"


def _operator(name: str, operand: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return operand.map(lambda text: _object({name: text}))


STRINGS = TEXTS.map(json.dumps)
SOME_STRINGS = st.text("xyX*", min_size=1, max_size=3).map(json.dumps)
WILDCARDS = st.text("xyX*", max_size=4).filter(lambda text: "**" not in text).map(json.dumps)
BELOW = st.tuples(st.sampled_from(['"<"', '"<="']), st.sampled_from(["2", "3.5"]))
ABOVE = st.tuples(st.sampled_from(['">"', '">="', '"="']), st.sampled_from(["0", "1.0"]))
RANGE = st.tuples(st.sampled_from(['">"', '">="']), st.sampled_from(["0", "1.0"]), BELOW)
OPERATORS = st.one_of(
    _operator("exists", st.sampled_from(["true", "false"])),
    _operator("prefix", STRINGS | _operator("equals-ignore-case", STRINGS)),
    _operator("suffix", STRINGS | _operator("equals-ignore-case", STRINGS)),
    _operator("equals-ignore-case", STRINGS),
    _operator("wildcard", WILDCARDS),
    _operator("numeric", (BELOW | ABOVE).map(lambda pair: _array([*pair]))),
    _operator("numeric", RANGE.map(lambda parts: _array([*parts[:2], *parts[2]]))),
    _operator("anything-but", STRINGS | NUMBERS),
    _operator("anything-but", st.lists(STRINGS, min_size=1, max_size=2).map(_array)),
    _operator("anything-but", st.lists(NUMBERS, min_size=1, max_size=2).map(_array)),
    _operator("anything-but", _operator("prefix", SOME_STRINGS) | _operator("suffix", SOME_STRINGS)),
    _operator("anything-but", _operator("wildcard", WILDCARDS) | _operator("equals-ignore-case", STRINGS)),
)
LEAVES = st.lists(SCALARS | OPERATORS, min_size=1, max_size=3).map(_array)


def _objects(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    plain = st.dictionaries(KEYS, children, min_size=1, max_size=3).map(_object)
    choices = st.lists(plain, min_size=2, max_size=2).map(lambda items: _object({"$or": _array(items)}))
    both = st.tuples(plain, choices).map(lambda pair: f"{pair[0][:-1]}, {pair[1][1:]}")
    return plain | choices | both


PATTERNS = _objects(st.recursive(LEAVES, _objects, max_leaves=5))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(_array), st.dictionaries(KEYS, inner).map(_object)),
    max_leaves=12,
)
EVENTS = st.dictionaries(KEYS, DOCUMENTS).map(_object)


def _document(text: str) -> Any:
    return decode_document(text)


@settings(deadline=None)
@given(PATTERNS, EVENTS)
@example('{"a": {"b": ["x"], "c": [1]}}', '{"a": [{"b": "x", "c": 2}, {"b": "y", "c": 1}]}')
@example('{"a": {"b": [{"exists": false}], "c": [1]}}', '{"a": [{"b": "x", "c": 2}, {"c": 1}]}')
@example('{"a": {"b": [{"exists": false}]}}', '{"a": [{"b": "x"}, {"c": 1}]}')
@example('{"a": {"b": ["x"]}, "$or": [{"a": {"c": [1]}}, {"b": [1]}]}', '{"a": [{"b": "x"}, {"c": 1}]}')
@example('{"a": {"$or": [{"b": [{"exists": false}]}, {"c": [{"exists": false}]}]}}', '{"a": [{"b": 1}, {"c": 1}]}')
def test_compiled_pattern_agrees_with_the_reference(pattern: str, event: str) -> None:
    """The compiled matcher answers as the literal one does, and explains exactly the events that do not match."""
    try:
        compiled = compile_pattern(pattern)
    except InvalidPatternError as error:
        assert "multiple times" in error.reason  # noqa: PT017 - the only rule these patterns may break
        return
    document = _document(event)
    expected = reference_matches(_document(pattern), document)
    assert compiled.matches(document) is expected
    assert (compiled.explain(document) == []) is expected


@settings(deadline=None)
@given(PATTERNS, DOCUMENTS)
def test_projection_shows_patterns_what_a_full_decode_shows(pattern: str, text: str) -> None:
    """Reading only the fields a pattern names changes no answer."""
    try:
        compiled = compile_pattern(pattern)
    except InvalidPatternError:
        return
    projection, data = Projection(compiled.alternatives), text.encode()
    matches = compiled.matches(_document(text))
    assert compiled.matches(projection.decode(data)) is matches
    with contextlib.suppress(ValueError, RecursionError):
        assert compiled.matches(projection.quick([data])(data)) is matches


@settings(deadline=None)
@given(EVENTS, st.integers(0), st.binary(min_size=1, max_size=2))
def test_projection_refuses_what_a_full_decode_refuses(event: str, place: int, junk: bytes) -> None:
    """Damaged JSON is not taken for JSON because the damage lies in a field no pattern names."""
    data = event.encode()
    cut = place % (len(data) + 1)
    data = data[:cut] + junk + data[cut + len(junk) :]
    projection = Projection(compile_pattern('{"a": {"b": ["x"]}}').alternatives)
    try:
        expected = type(decode_document(data))
    except ValueError:
        expected = NoneType
    assert type(projection.decode(data)) is expected
    with contextlib.suppress(ValueError, RecursionError):  # then `decode` is asked
        assert type(projection.quick([data])(data)) is expected


@settings(deadline=None)
@given(st.text())
def test_any_text_compiles_or_is_refused(text: str) -> None:
    """No text makes the compiler fail in another way than its own."""
    with pytest.raises(InvalidPatternError):
        compile_pattern(f"{text}]")


NAMES = st.sampled_from(["$or", "exists", "prefix", "suffix", "anything-but", "numeric", "cidr", "wildcard", "a", "="])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | NAMES, inner, max_size=3),
)


@settings(deadline=None)
@given(JSON, JSON)
def test_any_json_compiles_or_is_refused(pattern: object, event: object) -> None:
    """Arbitrary JSON as a pattern compiles or is refused; what compiles can be asked of arbitrary JSON."""
    try:
        compiled = compile_pattern(json.dumps(pattern))
    except InvalidPatternError:
        return
    document = decode_document(json.dumps(event))
    assert compiled.matches(document) is (compiled.explain(document) == [])
