"""Event patterns: what is valid, what matches, and why not."""

import pytest

from model.mapping import SourceKind
from model.pattern import DATA_KEYS, InvalidPatternError, check_pattern, compile_pattern, decode_document


def matches(pattern: str, event: str) -> bool:
    """Hold a pattern against an event, and the explanation against the answer."""
    compiled = compile_pattern(pattern)
    document = decode_document(event)
    answer = compiled.matches(document)
    assert (compiled.explain(document) == []) is answer
    return answer


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ('{"a": ["x"]}', '{"a": "x"}', True),
        ('{"a": ["x"]}', '{"a": "X"}', False),
        ('{"a": ["x"]}', '{"b": "x"}', False),
        ('{"a": ["x", "y"], "b": [1]}', '{"a": "y", "b": 1}', True),
        ('{"a": ["x", "y"], "b": [1]}', '{"a": "y", "b": 2}', False),
        ('{"a": [null]}', '{"a": null}', True),
        ('{"a": [null]}', "{}", False),
        ('{"a": [""]}', '{"a": ""}', True),
        ('{"a": [""]}', '{"a": null}', False),
        ('{"a": [true]}', '{"a": true}', True),
        ('{"a": [true]}', '{"a": 1}', False),
        ('{"a": [1]}', '{"a": true}', False),
        ('{"a": ["true"]}', '{"a": true}', False),
        ('{"a": {"b": {"c": ["x"]}}}', '{"a": {"b": {"c": "x"}}}', True),
        ('{"a": {"b": {"c": ["x"]}}}', '{"a": {"b": "x"}}', False),
        ('{"a": ["x"]}', '{"a": {"x": "x"}}', False),
        # numbers compare as written
        ('{"a": [300]}', '{"a": 300}', True),
        ('{"a": [300]}', '{"a": 300.0}', False),
        ('{"a": [300]}', '{"a": 3.0e2}', False),
        ('{"a": [300.0]}', '{"a": 300}', False),
        ('{"a": [300.0]}', '{"a": 300.0}', True),
        ('{"a": [3.0e2]}', '{"a": 3.0e2}', True),
        ('{"a": [3.0e2]}', '{"a": 3.0E2}', False),
        ('{"a": [300]}', '{"a": "300"}', False),
        ('{"a": ["300"]}', '{"a": 300}', False),
        ('{"a": [123456789012345678901234567890]}', '{"a": 123456789012345678901234567890}', True),
        ('{"a": [1e999]}', '{"a": 1e999}', True),
    ],
)
def test_equality_is_exact(pattern: str, event: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """Values are equal only if type, case and the written form of numbers are."""
    assert matches(pattern, event) is expected


@pytest.mark.parametrize("source", list(DATA_KEYS))
def test_valid_pattern_passes_the_check(source: SourceKind) -> None:
    """An object pattern on the data key is good for every source."""
    key = DATA_KEYS[source]
    check_pattern(f'{{"{key}": {{"a": [1]}}}}', source)


def test_kinesis_refuses_a_plain_string_rule() -> None:
    """A plain string rule on the data of a stream is refused, on a queue and a topic it is not."""
    with pytest.raises(InvalidPatternError, match="data"):
        check_pattern('{"data": ["x"]}', SourceKind.KINESIS)
    with pytest.raises(InvalidPatternError, match="data"):
        check_pattern('{"$or": [{"data": ["x"]}, {"partitionKey": ["y"]}]}', SourceKind.KINESIS)
    check_pattern('{"body": ["x"]}', SourceKind.SQS)
    check_pattern('{"value": ["x"]}', SourceKind.KAFKA)


@pytest.mark.parametrize(
    ("values", "held", "expected"),
    [
        ('[{"exactly": "x"}]', '"x"', True),
        ('[{"exactly": "x"}]', '"xx"', False),
        ('[{"prefix": "us-"}]', '"us-east-1"', True),
        ('[{"prefix": "us-"}]', '"eu-us-1"', False),
        ('[{"prefix": "3"}]', "30", False),
        ('[{"prefix": {"equals-ignore-case": "US-"}}]', '"us-east-1"', True),
        ('[{"suffix": ".png"}]', '"a.png"', True),
        ('[{"suffix": ".png"}]', '"a.PNG"', False),
        ('[{"suffix": {"equals-ignore-case": ".png"}}]', '"a.PNG"', True),
        ('[{"equals-ignore-case": "alice"}]', '"ALICE"', True),
        ('[{"equals-ignore-case": "ΑΣ"}]', '"ας"', True),
        ('[{"equals-ignore-case": "alice"}]', '"alic"', False),
        ('[{"equals-ignore-case": "null"}]', "null", False),
        ('[{"wildcard": "dir/*.png"}]', '"dir/a/b.png"', True),
        ('[{"wildcard": "dir/*.png"}]', '"dir/.png"', True),
        ('[{"wildcard": "dir/*.png"}]', '"dir.png"', False),
        ('[{"wildcard": "*"}]', '""', True),
        ('[{"wildcard": "*"}]', "1", False),
        ('[{"wildcard": "a*a"}]', '"a"', False),
        ('[{"wildcard": "*ab*ab*"}]', '"ab"', False),
        ('[{"wildcard": "*ab*ab*"}]', '"xabyabz"', True),
        (r'[{"wildcard": "a\\*b"}]', '"a*b"', True),
        (r'[{"wildcard": "a\\*b"}]', '"axb"', False),
        (r'[{"wildcard": "a\\\\*"}]', r'"a\\x"', True),
        (r'[{"wildcard": "a\\\\*"}]', '"a*"', False),
        ('[{"numeric": ["=", 100]}]', "100", True),
        ('[{"numeric": ["=", 100]}]', "1.00e2", True),
        ('[{"numeric": ["=", 100]}]', '"100"', False),
        ('[{"numeric": ["=", 1]}]', "true", False),
        ('[{"numeric": [">", 10, "<=", 20]}]', "10", False),
        ('[{"numeric": [">", 10, "<=", 20]}]', "10.5", True),
        ('[{"numeric": [">", 10, "<=", 20]}]', "20", True),
        ('[{"numeric": [">=", 10, "<", 20]}]', "10", True),
        ('[{"numeric": [">=", 10, "<", 20]}]', "20", False),
        ('[{"numeric": ["<", 0]}]', "-0.5", True),
        ('[{"numeric": [">", 0]}]', "5000000000", True),
        ('[{"numeric": [">", 0]}]', "5000000001", False),
        ('[{"numeric": ["<", 0]}]', "-5000000001", False),
        ('[{"exists": true}]', "null", True),
        ('[{"exists": true}]', "{}", False),
        ('[{"exists": true}]', "[]", False),
        ('[{"exists": true}]', '{"x": 1}', False),
        ('[{"exists": false}]', '"x"', False),
        ('[{"exists": false}]', '{"x": 1}', True),
        ('[{"exists": false}]', "[]", True),
        ('[{"exists": false}]', "[null]", False),
        ('["x", {"exists": false}]', '"x"', True),
        ('["x", {"exists": false}]', '"y"', False),
        ('[{"anything-but": "x"}]', '"y"', True),
        ('[{"anything-but": "x"}]', '"x"', False),
        ('[{"anything-but": "x"}]', "null", True),
        ('[{"anything-but": "x"}]', "{}", False),
        ('[{"anything-but": "x"}]', "[]", False),
        ('[{"anything-but": ["x", "y"]}]', '"y"', False),
        ('[{"anything-but": ["x", "y"]}]', '["x", "z"]', True),
        ('[{"anything-but": ["x", "y"]}]', '["x", "y"]', False),
        ('[{"anything-but": [1, 2]}]', "2.0", False),
        ('[{"anything-but": 1}]', "true", True),
        ('[{"anything-but": 1}]', '"1"', True),
        ('[{"anything-but": {"prefix": "init"}}]', '"initial"', False),
        ('[{"anything-but": {"prefix": ["init", "run"]}}]', '"running"', False),
        ('[{"anything-but": {"prefix": ["init", "run"]}}]', '"stopped"', True),
        ('[{"anything-but": {"suffix": ".png"}}]', '"a.png"', False),
        ('[{"anything-but": {"equals-ignore-case": ["A", "b"]}}]', '"B"', False),
        ('[{"anything-but": {"wildcard": "*/bin/*"}}]', '"/usr/bin/x"', False),
        ('[{"anything-but": {"wildcard": "*/bin/*"}}]', '"/usr/lib/x"', True),
        ('[{"cidr": "10.0.0.0/24"}]', '"10.0.0.33"', True),
        ('[{"cidr": "10.0.0.0/24"}]', '"10.0.1.33"', False),
        ('[{"cidr": "10.0.0.7/32"}]', '"10.0.0.7"', True),
        ('[{"cidr": "10.0.0.0/24"}]', '"10.0.0.x"', False),
        ('[{"cidr": "10.0.0.0/24"}]', "167772161", False),
        ('[{"cidr": "2001:db8::/32"}]', '"2001:DB8:0:1::1"', True),
        ('[{"cidr": "2001:db8::/32"}]', '"2001:db9::1"', False),
        ('[{"cidr": "::/0"}]', '"10.0.0.1"', False),
        # arrays in the event: any element
        ('["x"]', '["y", "x"]', True),
        ('["x"]', '["y", ["z", ["x"]]]', True),
        ('["x"]', '["y"]', False),
        ('["x"]', "[]", False),
        ('["x"]', '[{"x": "x"}]', False),
    ],
)
def test_operators(values: str, held: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """Every operator of the specification, on what it matches and on what it just does not."""
    assert matches(f'{{"f": {values}}}', f'{{"f": {held}}}') is expected


def test_absent_field_matches_only_exists_false() -> None:
    """A field that is not there is no value for any operator but one."""
    for values in ('[{"exists": true}]', "[null]", '[{"anything-but": "x"}]', '[{"wildcard": "*"}]'):
        assert not matches(f'{{"f": {values}}}', "{}")
    assert matches('{"f": [{"exists": false}]}', "{}")
    assert matches('{"f": {"g": [{"exists": false}]}}', "{}")
    assert matches('{"f": {"g": [{"exists": false}]}}', '{"f": "x"}')


PEOPLE = '{"p": [{"first": "Anna", "last": "Smith"}, [{"first": "Peter", "last": "Jones", "age": 7}]]}'


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{"p": {"first": ["Anna"]}}', True),
        ('{"p": {"first": ["Anna"], "last": ["Smith"]}}', True),
        ('{"p": {"first": ["Peter"], "age": [7]}}', True),
        ('{"p": {"first": ["Anna"], "last": ["Jones"]}}', False),
        ('{"p": {"first": ["Anna"], "age": [{"exists": false}]}}', True),
        ('{"p": {"age": [7], "first": [{"anything-but": "Peter"}]}}', False),
        ('{"p": {"age": [{"exists": false}]}}', False),
        ('{"p": {"height": [{"exists": false}]}}', True),
        ('{"p": {"first": ["Anna"]}, "$or": [{"p": {"last": ["Jones"]}}, {"p": {"age": [7]}}]}', False),
        ('{"p": {"first": ["Anna"], "$or": [{"last": ["Jones"]}, {"last": ["Smith"]}]}}', True),
    ],
)
def test_all_fields_match_within_one_element(pattern: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """Two fields of an array of objects are never taken from two elements, also across `$or`."""
    assert matches(pattern, PEOPLE) is expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ('{"s": "cw", "m": "CPU"}', True),
        ('{"s": "cw", "t": "T", "n": "EC2", "i": 1}', True),
        ('{"s": "cw", "t": "T", "n": "EC2", "j": 2}', True),
        ('{"s": "cw", "t": "T", "n": "EC2"}', False),
        ('{"s": "cw"}', False),
        ('{"m": "CPU"}', False),
    ],
)
def test_or_nests(event: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """`$or` stands for any of its objects beside the other fields, and may stand inside itself."""
    pattern = """{"s": ["cw"], "$or": [
        {"m": ["CPU"]}, {"t": ["T"], "n": ["EC2"], "$or": [{"i": [1]}, {"j": [2]}]}, {"x": {"y": [1]}}]}"""
    assert matches(pattern, event) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "reason"),
    [
        ("", "", "not JSON"),
        ("null", "", "Filter is not an object"),
        ('"x"', "", "Filter is not an object"),
        ("[]", "", "Filter is not an object"),
        ('{"a": [NaN]}', "", "not JSON"),
        ('{"a": ["\\ud800"]}', "", "not JSON"),
        ('{"a": [1],}', "", "not JSON"),
        ("{}", "", "Empty objects"),
        ('{"a": {"b": {}}}', "a.b", "Empty objects"),
        ('{"a": "x"}', "a", "must be an object or an array"),
        ('{"a": {"b": null}}', "a.b", "must be an object or an array"),
        ('{"a": []}', "a", "Empty arrays"),
        ('{"a": ["x", ["y"]]}', "a[1]", "Match value must be"),
        ('{"a": [1], "a": [2]}', "a", "twice"),
        ('{"a": [{}]}', "a[0]", "name not found"),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "a[0]", "Only one key"),
        ('{"a": [{"regex": "x"}]}', "a[0]", "Unrecognized match type regex"),
        ('{"a": [{"exists": "true"}]}', "a[0].exists", "true or false"),
        ('{"a": [{"exactly": 1}]}', "a[0].exactly", "string"),
        ('{"a": [{"prefix": 1}]}', "a[0].prefix", "string"),
        ('{"a": [{"prefix": {"wildcard": "x"}}]}', "a[0].prefix", "Unsupported prefix pattern"),
        ('{"a": [{"suffix": {"equals-ignore-case": 1}}]}', "a[0].suffix.equals-ignore-case", "string"),
        ('{"a": [{"equals-ignore-case": ["x"]}]}', "a[0].equals-ignore-case", "string"),
        ('{"a": [{"wildcard": "a**b"}]}', "a[0].wildcard", "Consecutive wildcard characters at pos 1"),
        (r'{"a": [{"wildcard": "a\\b"}]}', "a[0].wildcard", "Invalid escape character at pos 1"),
        (r'{"a": [{"wildcard": "a\\"}]}', "a[0].wildcard", "Invalid escape character at pos 1"),
        ('{"a": [{"numeric": 5}]}', "a[0].numeric", "must be an array"),
        ('{"a": [{"numeric": []}]}', "a[0].numeric", "pairs"),
        ('{"a": [{"numeric": ["="]}]}', "a[0].numeric", "pairs"),
        ('{"a": [{"numeric": ["!=", 5]}]}', "a[0].numeric", "Unrecognized numeric range operator"),
        ('{"a": [{"numeric": [["="], 5]}]}', "a[0].numeric", "Unrecognized numeric range operator"),
        ('{"a": [{"numeric": ["=", "5"]}]}', "a[0].numeric", "must be numeric"),
        ('{"a": [{"numeric": ["=", true]}]}', "a[0].numeric", "must be numeric"),
        ('{"a": [{"numeric": ["=", 5000000001]}]}', "a[0].numeric", "between"),
        ('{"a": [{"numeric": ["<", 5, ">", 1]}]}', "a[0].numeric", "Bad numeric range"),
        ('{"a": [{"numeric": [">", 5, "<", 5]}]}', "a[0].numeric", "Bottom must be less than top"),
        ('{"a": [{"numeric": [">", 5, "<", 6, "<", 7]}]}', "a[0].numeric", "Bad numeric range"),
        ('{"a": [{"anything-but": null}]}', "a[0].anything-but", "number or string"),
        ('{"a": [{"anything-but": []}]}', "a[0].anything-but", "number or string"),
        ('{"a": [{"anything-but": ["x", 1]}]}', "a[0].anything-but", "mixed type"),
        ('{"a": [{"anything-but": true}]}', "a[0].anything-but", "number or string"),
        ('{"a": [{"anything-but": {"numeric": ["=", 1]}}]}', "a[0].anything-but", "Unsupported anything-but pattern"),
        ('{"a": [{"anything-but": {"prefix": ""}}]}', "a[0].anything-but", "Null prefix/suffix"),
        ('{"a": [{"anything-but": {"suffix": []}}]}', "a[0].anything-but", "Empty arrays"),
        ('{"a": [{"anything-but": {"wildcard": ["x", 1]}}]}', "a[0].anything-but.wildcard", "string"),
        ('{"a": [{"cidr": "10.0.0.0"}]}', "a[0].cidr", "one '/'"),
        ('{"a": [{"cidr": "10.0.0.0/x"}]}', "a[0].cidr", "mask bits"),
        ('{"a": [{"cidr": "10.0.0.0/33"}]}', "a[0].cidr", "Malformed CIDR"),
        ('{"a": [{"cidr": "10.0.0/8"}]}', "a[0].cidr", "Malformed CIDR"),
        ('{"a": [{"cidr": 10}]}', "a[0].cidr", "string"),
        ('{"$or": {"a": [1]}}', "$or", "Array"),
        ('{"$or": [{"a": [1]}]}', "$or", "at least 2"),
        ('{"$or": [{"a": [1]}, 2]}', "$or[1]", "Only JSON object"),
        ('{"$or": [{"a": [1]}, {}]}', "", "Empty objects"),
        ('{"$or": [{"a": [1]}, {"prefix": ["x"]}]}', "prefix", "reserved"),
        ('{"a": [1], "$or": [{"a": [2]}, {"b": [1]}]}', "a", "multiple times"),
        ('{"a": [1], "$or": [{"a": {"b": [2]}}, {"b": [1]}]}', "a", "multiple times"),
    ],
)
def test_invalid_pattern_is_refused_with_place_and_reason(pattern: str, path: str, reason: str) -> None:
    """What is wrong in a pattern is named together with where it is."""
    with pytest.raises(InvalidPatternError) as caught:
        compile_pattern(pattern)
    assert caught.value.path == path
    assert reason in caught.value.reason


def test_pattern_too_deep_or_too_wide_is_refused() -> None:
    """Patterns that would take the stack or the memory are refused like any other invalid one."""
    for levels in (101, 5_000, 100_000):
        with pytest.raises(InvalidPatternError, match="nested deeper"):
            compile_pattern('{"a":' * levels + "[1]" + "}" * levels)
    wide = ", ".join(f'"k{n}": {{"$or": [{{"a": [1]}}, {{"b": [1]}}]}}' for n in range(10))
    with pytest.raises(InvalidPatternError, match="combinations"):
        compile_pattern(f"{{{wide}}}")


def test_deep_events_do_not_exhaust_the_stack() -> None:
    """Arrays nested as deep as the decoder reads are looked through, deeper ones are not JSON to us."""
    depth = 300
    assert matches('{"a": {"b": ["x"]}}', '{"a": ' + "[" * depth + '{"b": ["x"]}' + "]" * depth + "}")
    with pytest.raises(ValueError, match="nested too deeply"):
        decode_document("[" * 100_000)


def test_pattern_names_the_top_level_keys_it_needs() -> None:
    """The keys include those inside a `$or` at the top."""
    pattern = compile_pattern('{"a": {"x": [1]}, "$or": [{"b": [1]}, {"c": {"$or": [{"y": [1]}, {"z": [1]}]}}]}')
    assert pattern.top_level_keys == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("pattern", "event", "reasons"),
    [
        ('{"a": ["x"], "b": {"c": [1]}}', "{}", ['a: absent, wanted ["x"]', "b: absent"]),
        ('{"a": ["x"], "b": [1]}', '{"a": "y", "b": 1}', ['a: "y" does not match ["x"]']),
        ('{"b": {"c": [1]}}', '{"b": {"c": {}}}', ["b.c: an object, wanted [1]"]),
        ('{"b": {"c": [1]}}', '{"b": 5}', ["b: 5 is not an object"]),
        ('{"a": ["x"]}', '{"a": ["y", 1.50]}', ['a: no element of ["y", 1.50] matches ["x"]']),
        (
            '{"a": [300]}',
            '{"a": 3.0e2}',
            ['a: 3.0e2 does not match [300] (the same number written differently; "numeric" compares values)'],
        ),
        (
            '{"a": {"b": [1], "c": [2]}}',
            '{"a": [{"b": 1}, {"c": 2}]}',
            ["a: none of the 2 objects in the array matches in b, c at once"],
        ),
        ('{"a": {"b": [1], "c": [2]}}', '{"a": [{"b": 1}]}', ["a.c: absent, wanted [2]"]),
        (
            '{"$or": [{"a": [1]}, {"b": [{"exists": false}]}]}',
            '{"b": 1}',
            [
                "$or, alternative 1: a: absent, wanted [1]",
                '$or, alternative 2: b: 1 does not match [{"exists": false}]',
            ],
        ),
        ('{"a": ["x"]}', "[]", ["the event is not a JSON object"]),
    ],
)
def test_explanation_names_each_field_that_fails(pattern: str, event: str, reasons: list[str]) -> None:
    """An explanation has a line for each field that does not match, with what it holds and what was wanted."""
    assert compile_pattern(pattern).explain(decode_document(event)) == reasons


def test_explanation_is_short_on_long_values() -> None:
    """A long value is cut in an explanation."""
    [reason] = compile_pattern('{"a": ["x"]}').explain({"a": "y" * 100_000})
    assert len(reason) < 300


def test_numbers_from_elsewhere_are_compared_too() -> None:
    """A float that was never JSON text counts as written the shortest way."""
    assert compile_pattern('{"a": [1.5]}').matches({"a": 1.5})
    assert not compile_pattern('{"a": [1.50]}').matches({"a": 1.5})
