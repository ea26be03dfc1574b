"""Event patterns: what is valid, what matches, and why not."""

import pytest

from model.mapping import SourceKind
from model.pattern import InvalidPatternError, check_pattern, compile_pattern, decode_document


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


@pytest.mark.parametrize("source", list(SourceKind))
def test_valid_pattern_passes_the_check(source: SourceKind) -> None:
    """An object pattern on the data key is good for every source."""
    key = {SourceKind.KINESIS: "data", SourceKind.SQS: "body", SourceKind.KAFKA: "value"}[source]
    check_pattern(f'{{"{key}": {{"a": [1]}}}}', source)


def test_kinesis_refuses_a_plain_string_rule() -> None:
    """A plain string rule on the data of a stream is refused, on a queue and a topic it is not."""
    with pytest.raises(InvalidPatternError, match="data"):
        check_pattern('{"data": ["x"]}', SourceKind.KINESIS)
    with pytest.raises(InvalidPatternError, match="data"):
        check_pattern('{"$or": [{"data": ["x"]}, {"partitionKey": ["y"]}]}', SourceKind.KINESIS)
    check_pattern('{"body": ["x"]}', SourceKind.SQS)
    check_pattern('{"value": ["x"]}', SourceKind.KAFKA)
