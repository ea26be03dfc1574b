"""The operators that the specification lists (section 5.5), each row by its own example, and the remarks below them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model.pattern import InvalidPatternError, compile_pattern, decode_document
from pollers.projection import Projection
from tests.support.mapping_documents import document, problems

SPECIFICATION = (Path(__file__).parents[2] / "docs/specification.md").read_text()

ROWS: dict[str, list[tuple[str, list[str], list[str]]]] = {
    "null": [('{"f":[null]}', ["null"], ['""', "0", '"null"', "{}", "[]"])],
    "empty": [('{"f":[""]}', ['""'], ["null", '" "', "[]"])],
    "equals": [
        ('{"f":["Alice"]}', ['"Alice"', '["Bob", "Alice"]'], ['"alice"', '"Alice "', '{"f": "Alice"}']),
        ('{"f":[7, -0.5]}', ["7", "-0.5"], ["7.0", '"7"', "-0.50"]),
        ('{"f":[true]}', ["true"], ["false", "1", '"true"']),
        ('{"f":[false]}', ["false"], ["true", "0", "null"]),
    ],
    "equals, ignoring case": [('{"f":[{"equals-ignore-case":"alice"}]}', ['"aLiCe"', '"alice"'], ['"alic"', "null"])],
    "and / or": [
        ('{"f":{"a":["x"],"b":["y"]}}', ['{"a": "x", "b": "y"}'], ['{"a": "x"}', '{"a": "x", "b": "x"}']),
        ('{"f":["x","y",1]}', ['"x"', '"y"', "1"], ['"z"', "2"]),
    ],
    "or over fields": [
        (
            '{"f":{"$or":[{"a":["x"]},{"b":["y"]}]}}',
            ['{"a": "x"}', '{"b": "y", "a": "z"}'],
            ['{"a": "y", "b": "x"}', "{}"],
        )
    ],
    "not": [
        ('{"f":[{"anything-but":["a","b"]}]}', ['"c"', "null", "1", '["a", "c"]'], ['"a"', '"b"', '["a"]', "{}"]),
        ('{"f":[{"anything-but":[1,2]}]}', ["3", '"1"'], ["1", "2.0"]),
        ('{"f":[{"anything-but":"a"}]}', ['"b"'], ['"a"']),
        ('{"f":[{"anything-but":1}]}', ["2"], ["1"]),
    ],
    "numeric": [
        ('{"f":[{"numeric":["=",100]}]}', ["100", "1.0e2"], ["100.1", '"100"']),
        ('{"f":[{"numeric":["<",100]}]}', ["99.9"], ["100"]),
        ('{"f":[{"numeric":["<=",100]}]}', ["100", "-5"], ["100.1"]),
        ('{"f":[{"numeric":[">",100]}]}', ["100.1"], ["100"]),
        ('{"f":[{"numeric":[">=",100]}]}', ["100"], ["99.9", "null", "true"]),
        ('{"f":[{"numeric":[">",10,"<=",20]}]}', ["10.1", "20"], ["10", "20.1"]),
    ],
    "exists": [
        ('{"f":[{"exists":true}]}', ["null", '""', "0", "[1]"], ['{"a": 1}', "[]"]),
        ('{"f":[{"exists":false}]}', ['{"a": 1}', "[]"], ["null", '"x"']),
    ],
    "prefix / suffix": [
        ('{"f":[{"prefix":"us-"}]}', ['"us-east-1"', '"us-"'], ['"US-east-1"', '"us"']),
        ('{"f":[{"suffix":".png"}]}', ['"a.png"'], ['"a.PNG"', '".png "']),
    ],
    "prefix/suffix ignoring case": [
        ('{"f":[{"prefix":{"equals-ignore-case":"ab"}}]}', ['"ABc"', '"ab"'], ['"cab"']),
        ('{"f":[{"suffix":{"equals-ignore-case":"ab"}}]}', ['"cAB"'], ['"abc"']),
    ],
    "anything-but with prefix/suffix/equals-ignore-case/wildcard": [
        ('{"f":[{"anything-but":{"prefix":"init"}}]}', ['"run"', "1"], ['"initial"']),
        ('{"f":[{"anything-but":{"suffix":[".png",".jpg"]}}]}', ['"a.txt"'], ['"a.png"', '"a.jpg"']),
        ('{"f":[{"anything-but":{"equals-ignore-case":"no"}}]}', ['"yes"'], ['"NO"']),
        ('{"f":[{"anything-but":{"wildcard":"dir/*.png"}}]}', ['"dir/a.txt"'], ['"dir/a.png"']),
    ],
    "wildcard": [('{"f":[{"wildcard":"dir/*.png"}]}', ['"dir/a/b.png"', '"dir/.png"'], ['"dir/a.PNG"', '"a.png"'])],
    "cidr": [('{"f":[{"cidr":"10.0.0.0/24"}]}', ['"10.0.0.255"'], ['"10.0.1.0"', '"x"', "10"])],
}
"""By row: patterns, with values of `f` that match, and that do not."""


def table() -> dict[str, str]:
    """Return the specification's rows: the operator and its syntax."""
    section = SPECIFICATION[SPECIFICATION.index("| Operator | Syntax |") :]
    lines = section[: section.index("\n\n")].splitlines()[2:]
    return dict(tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines)  # type: ignore[misc]  # pairs


def shown_patterns(syntax: str) -> list[str]:
    """Return the examples of a row as complete patterns; bare numeric operands are left out."""
    shown = re.findall(r"`([^`]+)`", syntax)
    return [
        f"{{{text}}}" if text.startswith('"') else f'{{"f":{text}}}' for text in shown if not text.startswith('[">')
    ]


def test_no_row_is_without_a_case() -> None:
    """The rows of the specification and those here are the same."""
    assert list(table()) == list(ROWS)


@pytest.mark.parametrize("row", table())
def test_each_rows_own_example_is_valid(row: str) -> None:
    """What the specification shows compiles, and all but `$or` over top-level fields has its cases here."""
    for pattern in shown_patterns(table()[row]):
        compile_pattern(pattern)
        assert "$or" in pattern or pattern in [given for given, *_ in ROWS[row]]


@pytest.mark.parametrize("row", ROWS)
def test_each_row_matches_what_it_says_and_nothing_else(row: str) -> None:
    """By a document decoded in full and by one of which only the pattern's fields were read."""
    for pattern, matching, others in ROWS[row]:
        compiled = compile_pattern(pattern)
        projection = Projection(compiled.alternatives)
        for value in [*matching, *others]:
            event = f'{{"f": {value}, "g": 1}}'
            assert compiled.matches(decode_document(event)) is (value in matching), (pattern, value)
            assert compiled.matches(projection.decode(event.encode())) is (value in matching), (pattern, value)


@pytest.mark.parametrize(
    ("remark", "pattern", "matching", "others"),
    [
        ("no normalisation", '{"f":["\u00e9"]}', ['"\u00e9"', r'"\u00e9"'], ['"e\u0301"', '"\u00c9"']),
        ("no trimming", '{"f":["a"]}', ['"a"'], ['"a "', '"A"']),
        ("the written form", '{"f":[300]}', ["300"], ["300.0", "3.0e2", "3e2"]),
        ("the written form", '{"f":[3.0e2]}', ["3.0e2"], ["300", "300.0"]),
        ("the value", '{"f":[{"numeric":["=",300]}]}', ["300", "300.0", "3.0e2"], ["301"]),
        ("numbers only", '{"f":[{"numeric":["=",300]}]}', ["300"], ['"300"', "true", "null"]),
        ("the range", '{"f":[{"numeric":[">=",-5.0e9]}]}', ["-5.0e9", "5.0e9"], ["-5000000001", "5.1e9"]),
        (
            "fifteen digits",
            '{"f":[{"numeric":["=",123456789.012345]}]}',
            ["123456789.012345", "1.23456789012345e8"],
            ["123456789.012346", "123456789.012344"],
        ),
        ("an intermediate name", '{"f":[{"exists":false}]}', ['{"g": {"h": 1}}'], ["1"]),
        ("any element", '{"f":["a"]}', ['["b", "a"]', '[["a"]]'], ['["b"]', "[]"]),
        (
            "the same element",
            '{"f":{"a":[1],"b":[2]}}',
            ['[{"a": 1, "b": 2}, {"a": 3}]'],
            ['[{"a": 1, "b": 3}, {"a": 3, "b": 2}]'],
        ),
    ],
)
def test_the_remarks_below_the_table_hold(remark: str, pattern: str, matching: list[str], others: list[str]) -> None:
    """Case, written form, range, absence and arrays are as the specification says."""
    compiled = compile_pattern(pattern)
    for value in [*matching, *others]:
        found = compiled.matches(decode_document(f'{{"f": {value}}}'))
        assert found is (value in matching), (remark, value)


@pytest.mark.parametrize("source", ["K", "S", "F", "A", "M"])
@pytest.mark.parametrize("refused", ["null", '"x"', '{"KEY": "x"}', '{"KEY": {"a": "x"}}', '{"KEY": {"a": []}}'])
def test_what_aws_is_known_to_refuse_is_refused_in_its_words(source: str, refused: str) -> None:
    """Null, a bare string, a plain string where an array belongs, and an empty array (spec section 1.3, rule 12)."""
    key = {"K": "data", "S": "body", "F": "body"}.get(source, "value")
    pattern = refused.replace("KEY", key)
    ((path, rule),) = problems(document(source, FilterCriteria={"Filters": [{"Pattern": pattern}]}))
    assert path == "FilterCriteria.Filters[0].Pattern"
    assert rule.startswith("Invalid filter pattern definition. ")
    with pytest.raises(InvalidPatternError) as caught:
        compile_pattern(pattern)
    assert rule.endswith(str(caught.value))
