"""Configuration files that somebody, or something, has spoiled: each is read, or refused with problems.

The samples of `config/` are changed by lines, by characters, and value by value. `ESMD_TEST_EXAMPLES=5000` tries more.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import config
from config.load import load
from config.yaml_document import read_document
from model.mapping_rules import canonical_document, parse_mapping
from model.problem import InvalidConfigurationError, Problem
from node.commands.validate import validate_command

TEMPLATE = """\
AWSTemplateFormatVersion: "2010-09-09"
Parameters: {Size: {Type: Number, Default: 100}, Stage: {Type: String, Default: prod}}
Conditions: {Live: !Equals [!Ref Stage, prod]}
Resources:
  Orders:
    Type: AWS::Lambda::EventSourceMapping
    Condition: Live
    Properties:
      EventSourceArn: !Sub "arn:aws:kinesis:us-east-1:000000000000:stream/${Stage}-orders"
      FunctionName: arn:aws:lambda:us-east-1:000000000000:function:billing
      BatchSize: !Ref Size
      StartingPosition: !If [Live, TRIM_HORIZON, LATEST]
      Tags: [{Key: team, Value: !Join ["-", [a, b]]}]
"""
SAMPLES = {path.name: path.read_text() for path in sorted(Path(config.__file__).parent.glob("*.yaml"))}
SAMPLES["template.yaml"] = TEMPLATE
EXAMPLES = int(os.environ.get("ESMD_TEST_EXAMPLES", "100"))
_MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_ODD_TEXT = st.sampled_from(
    [
        "*x",
        "&x [*x]",
        "<<: *x",
        "!!binary aGk=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!python/object:os.system x",
        "!Ref A",
        "!Sub '${A}'",
        "!GetAtt A.B",
        "{? [1, 2] : 3}",
        "[]",
        "{}",
        "~",
        "''",
        "0x1F",
        "0o17",
        "1_000",
        "0b11",
        ".inf",
        ".nan",
        "-.inf",
        "1e999",
        "9" * 400,
        "-" + "9" * 40,
        "2026-01-31",
        "2026-01-31T00:00:00Z",
        "0001-01-01",
        "9999-12-31T23:59:59-14:00",
        "12:30:45",
        "yes",
        "No",
        "${env:NOT_THERE}",
        "${file:/nowhere}",
        "${",
        '"\\ud800"',
        '"\\0"',
        "'" + "a" * 5000 + "'",
        "arn:aws:sqs:us-east-1:000000000000:q.fifo",
        "arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:1",
        "arn:::::",
        "|\n  block",
        ">-\n  folded",
        "[" * 300,
        "{a: " * 200,
        "rate(0 minutes)",
        "cron(99 * * * ? *)",
        "- -",
        "? a",
        '\'{"data": {"a": [{"numeric": [">", 1]}]}}\'',
        "'{'",
    ]
)


def outcome(path: Path) -> object:
    """Load a file and do with it what a node and `esmd plan` do; return the settings, or the problems."""
    problems: tuple[Problem, ...] = ()
    try:
        found = load([path], environ={})
        for one in found.event_source_mappings:
            stored = canonical_document(one.document)
            assert parse_mapping(yaml.safe_load(stored)) == one.mapping
    except InvalidConfigurationError as exc:
        problems = tuple(exc.problems)
    else:
        return found
    assert problems
    assert all(problem.rule and problem.file for problem in problems)
    return problems


@st.composite
def spoiled_lines(draw: st.DrawFn) -> str:
    """Return a sample with some of its lines changed."""
    lines = draw(st.sampled_from(sorted(SAMPLES.values()))).splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        match draw(st.integers(0, 6)):
            case 0:
                del lines[at : at + draw(st.integers(1, 3))]
            case 1:
                lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))] if lines else "")
            case 2:
                lines[at : at + 1] = [" " * draw(st.integers(0, 9)) + line.lstrip() for line in lines[at : at + 1]]
            case 3:
                lines[at : at + 1] = [f"{line.partition(':')[0]}: {draw(_ODD_TEXT)}" for line in lines[at : at + 1]]
            case 4:
                lines[at : at + 1] = [f"{line} {draw(_ODD_TEXT)}" for line in lines[at : at + 1]]
            case 5:
                lines.insert(at, draw(_ODD_TEXT))
            case _:
                lines[at : at + 1] = [draw(st.text(max_size=30)) for _ in lines[at : at + 1]]
    return "\n".join(lines) + "\n"


@_MANY
@given(text=spoiled_lines())
def test_spoiled_lines_are_read_or_refused(tmp_path: Path, text: str) -> None:
    """Whatever became of the lines of a file that was in order."""
    path = tmp_path / "esmd.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(path)


@_MANY
@given(sample=st.sampled_from(sorted(SAMPLES.values())), data=st.data())
def test_spoiled_bytes_are_read_or_refused(tmp_path: Path, sample: str, data: st.DataObject) -> None:
    """Also what is no text at all."""
    content = bytearray(sample.encode())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=6))
    path = tmp_path / "esmd.yaml"
    path.write_bytes(bytes(content))
    outcome(path)


_ODD_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.binary(max_size=4)
    | st.dates()
    | st.datetimes()
    | st.sampled_from(
        [10**30, -1, 0, 2**63, 1e308, "", " ", "\x00", "LATEST", "${env:X}", "1", "true", date.min, date.max]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.integers() | st.none() | st.dates(), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def spoiled_values(draw: st.DrawFn) -> Any:
    """Return a sample's content with some of its values changed, dropped, doubled or moved."""
    content = yaml.safe_load(draw(st.sampled_from(sorted(set(SAMPLES.values()) - {TEMPLATE}))))
    for _ in range(draw(st.integers(1, 3))):
        node = content
        while isinstance(node, (dict, list)) and node:
            keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = draw(st.sampled_from(keys))
            below = node[key]
            if isinstance(below, (dict, list)) and below and draw(st.integers(0, 4)):
                node = below
                continue
            match draw(st.integers(0, 3)):
                case 0:
                    del node[key]
                case 1 if isinstance(node, list):
                    node.append(below)
                case 2 if isinstance(node, dict):
                    node[
                        draw(st.text(max_size=8) | st.sampled_from(["Name", "UUID", "Tags", "input", "extensions"]))
                    ] = below
                case _:
                    node[key] = draw(_ODD_VALUES)
            break
    return content


@_MANY
@given(content=spoiled_values())
def test_spoiled_values_are_read_or_refused(tmp_path: Path, content: Any) -> None:
    """Values of every kind that YAML knows, at every place."""
    path = tmp_path / "esmd.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    outcome(path)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_themselves_are_in_order(tmp_path: Path, name: str) -> None:
    """What is spoiled here is fine before that, so that most of what spoils it is found by the rules."""
    path = tmp_path / name
    path.write_text(SAMPLES[name])
    assert not isinstance(outcome(path), (list, tuple))
    assert read_document(path).value


@settings(_MANY, max_examples=max(20, EXAMPLES // 10))
@given(text=spoiled_lines())
def test_the_command_tells_of_problems_and_never_fails(tmp_path: Path, text: str) -> None:
    """`esmd validate` ends with 0 or, by way of the documented error, with every problem."""
    path = tmp_path / "esmd.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    result = CliRunner().invoke(validate_command, [str(path)])
    assert result.exception is None or isinstance(result.exception, (InvalidConfigurationError, SystemExit))
