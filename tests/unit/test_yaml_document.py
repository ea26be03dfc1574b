"""Reading YAML and JSON with lines, bounds, and no secrets in messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.yaml_document import MAX_DEPTH, MAX_FILE_BYTES, Document, Tagged, parse_document, read_document
from model.problem import InvalidConfigurationError, Problem

if TYPE_CHECKING:
    from pathlib import Path


def _broken(text: str) -> Problem:
    with pytest.raises(InvalidConfigurationError) as caught:
        parse_document(text, file="f.yaml")
    (problem,) = caught.value.problems
    return problem


def _value(text: str) -> object:
    document = parse_document(text, file="f.yaml")
    assert document.problems == []
    return document.value


def test_every_place_has_its_line() -> None:
    """Keys and list items know the line they stand on; a place that is not there takes that of its surroundings."""
    document = parse_document('a:\n  b: 1\nc:\n  - x: 1\n    y: 2\n  - z\n"odd key":\n  d: 1\n', file="f.yaml")
    expected = {"": 1, "a": 1, "a.b": 2, "c": 3, "c[0]": 4, "c[0].x": 4, "c[0].y": 5, "c[1]": 6}
    assert document.lines == expected | {'["odd key"]': 7, '["odd key"].d': 8}
    assert document.locate(Problem("c[0].missing.more", "r")) == Problem("c[0].missing.more", "r", "f.yaml", 4)
    assert document.locate(Problem("nothing", "r")).line == 1


def test_scalars_are_yamls() -> None:
    """Plain scalars have YAML's types, quoted ones are text, and keys are text as written."""
    text = "{1: 1, on: no, x: ~, f: 1.5, i: .inf, s: '1', b: !!str 1, e: \"\", t: 2026-01-01, o: 010}"
    value = _value(text)
    assert isinstance(value, dict)
    assert value.pop("t").isoformat() == "2026-01-01"
    assert value == {"1": 1, "on": False, "x": None, "f": 1.5, "i": math.inf, "s": "1", "b": "1", "e": "", "o": 8}


def test_json_is_read() -> None:
    """JSON is read with its tabs, escaped slashes and surrogate pairs."""
    assert _value('{\n\t"a": ["\\ud83d\\ude00", "\\/", 1.5, true, null]\n}') == {
        "a": ["\U0001f600", "/", 1.5, True, None]
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_an_empty_file_holds_nothing(text: str) -> None:
    """A file without a value is None."""
    assert _value(text) is None


def test_anchors_and_merge_keys_are_followed() -> None:
    """Merged keys are overridden by the mapping's own; of several merges the first wins."""
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 0}\nw: {<<: *y, d: *x}\n"
    value = _value(text)
    assert isinstance(value, dict)
    assert value["z"] == {"a": 0, "b": 2, "c": 4}
    assert value["w"] == {"b": 3, "c": 4, "d": {"a": 1, "b": 2}}


def test_duplicate_keys_are_problems() -> None:
    """A key given twice is reported with the line of the second, and the rest is read."""
    document = parse_document("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", file="f.yaml")
    expected = [Problem("b.c", "is given twice", "f.yaml", 4), Problem("a", "is given twice", "f.yaml", 5)]
    assert document.problems == expected
    assert document.value == {"a": 1, "b": {"c": 1}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\nb: 2\n", 2, "is not valid YAML"),
        ("a: 'x\n", 2, "is not valid YAML"),
        ("a: *gone\n", 1, "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "holds more than one YAML document"),
        ("a: &a [*a]\n", 1, "an alias stands inside what it names"),
        ("a: \x07\n", 1, "holds a character that YAML does not allow"),
        ("\n" + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), 2, f"is nested more than {MAX_DEPTH} levels deep"),
        ("[" * 100_000, 1, f"is nested more than {MAX_DEPTH} levels deep"),
        ("- x\n" * 200_001, 200_000, "holds more than 200000 values"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, line: int, words: str) -> None:
    """A file that is no YAML, or beyond the bounds, is one problem with its line."""
    problem = _broken(text)
    assert (problem.file, problem.line) == ("f.yaml", line)
    assert problem.rule.startswith(words)


@pytest.mark.parametrize(
    "operator", ["[{0}, {0}, {0}, {0}, {0}]", "{{x: {0}, y: {0}, z: {0}}}", "{{<<: [{0}, {0}, {0}, {0}]}}"]
)
def test_alias_bombs_are_bounded(operator: str) -> None:
    """Aliases that would multiply into millions of values are refused, or cost next to nothing."""
    lines = ["a0: &a0 {q: 1}"] + [f"a{i}: &a{i} {operator.format(f'*a{i - 1}')}" for i in range(1, 40)]
    try:
        size, refusal = len(parse_document("\n".join(lines), file="f.yaml").lines), "aliases"
    except InvalidConfigurationError as exc:
        size, refusal = 0, str(exc)
    assert "aliases" in refusal
    assert size < 1000


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: !!python/object/apply:os.system [true]", "has a tag that is not known here"),
        ("a: !!binary aGk=", "has a tag that is not known here"),
        ("a: 2026-13-45", "is not a valid timestamp; put it in quotes if it is text"),
        ("a: !!int x", "is not a valid int; put it in quotes if it is text"),
        ("? [1]\n: 2", "keys must be text, not a list or a mapping"),
        ("<<: 1", "<< must name a mapping"),
        ("a: " + "9" * 5000, "is not a valid int; put it in quotes if it is text"),
    ],
)
def test_values_that_cannot_be_made_are_problems(text: str, rule: str) -> None:
    """Tags never make objects, and values that look like a type but are not are named."""
    assert [problem.rule for problem in parse_document(text, file="f.yaml").problems] == [rule]


def test_tags_of_templates_are_kept() -> None:
    """Tags such as !Ref come back with their value, and their places are listed."""
    document = parse_document("a: !Ref x\nb: [!GetAtt q.Arn, !Sub [a, {b: c}]]\n", file="f.yaml")
    expected = {"a": Tagged("Ref", "x"), "b": [Tagged("GetAtt", "q.Arn"), Tagged("Sub", ["a", {"b": "c"}])]}
    assert document.value == expected
    assert sorted(document.tags) == [("a", "!Ref"), ("b[0]", "!GetAtt"), ("b[1]", "!Sub")]


@pytest.mark.parametrize(
    "text",
    [
        "a: *hunter2",
        "password: 'hunter2",
        'a: "hunter2\\z"',
        "hunter2: [",
        "a: %hunter2",
        "a: !<hunter2",
        "a: @hunter2",
    ],
)
def test_syntax_errors_do_not_quote_the_file(text: str) -> None:
    """A message about broken YAML never shows what stands in the file."""
    assert "hunter2" not in str(_broken(text))


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    """Missing files, folders, other encodings and huge files are problems that name the file."""
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    expected = {
        "gone.yaml": "cannot be read: No such file or directory",
        ".": "cannot be read: Is a directory",
        "latin.yaml": "is not UTF-8 text",
        "huge.yaml": f"is larger than {MAX_FILE_BYTES} bytes",
    }
    for name, rule in expected.items():
        with pytest.raises(InvalidConfigurationError) as caught:
            read_document(tmp_path / name)
        ((problem),) = caught.value.problems
        assert (problem.file, problem.rule) == (str(tmp_path / name), rule)


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    """Files that editors began with a byte order mark are read."""
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_document(tmp_path / "bom.yaml").value == {"a": 1}


_PIECES = [
    "a",
    ": ",
    "\n",
    "  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&x ",
    "*x",
    "<<",
    "!Ref ",
    "'",
    '"',
    "|",
    ">",
    "#",
    "?",
    "1",
    "~",
    "%",
    "---",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=30).map("".join) | st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever a file holds, it is read or refused with problems."""
    try:
        found: object = parse_document(text, file="f.yaml")
    except InvalidConfigurationError as exc:
        found = exc.problems[0]
    assert isinstance(found, (Document, Problem))
