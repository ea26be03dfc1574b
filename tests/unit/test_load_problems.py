"""What is wrong with files: every problem is reported at once, with its line, and nothing breaks the loader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.load import load
from model.problem import InvalidConfigurationError
from tests.support.config_files import BILLING, MAPPING, NOW, loaded, problems, write

if TYPE_CHECKING:
    from pathlib import Path


def test_problems_outside_files_name_their_origin(tmp_path: Path) -> None:
    """A bad environment variable or option is reported as such."""
    (one,) = problems(tmp_path, {}, environ={"AWS_REGION": "mars"})
    assert (one.file, one.path) == ("environment", "aws.region")
    (one,) = problems(tmp_path, {}, overrides={"drain_timeout": -1})
    assert (one.file, one.path) == ("command line", "drain_timeout")


def test_files_that_contradict_each_other_are_problems(tmp_path: Path) -> None:
    """A section or function set differently in two files, and a name taken twice, stand at the second file."""
    one = "listen: 127.0.0.1:1\nfunctions: {f: {url: 'http://a'}}\n"
    two = "listen: 127.0.0.1:2\nfunctions:\n  f: {url: 'http://b'}\n"
    found = problems(tmp_path, one, two)
    assert [(p.file, p.line, p.path) for p in found] == [
        (str(tmp_path / "c1.yaml"), 1, "listen"),
        (str(tmp_path / "c1.yaml"), 3, "functions.f"),
    ]
    mappings = {"event_source_mappings": [MAPPING]}
    (taken,) = problems(tmp_path, {**BILLING, **mappings}, mappings)
    assert (taken.file, taken.path) == (str(tmp_path / "c1.yaml"), "event_source_mappings[0].Name")


BAD = """\
listen: 0.0.0.0:9001
leasing: {ttl: 2.9}
redi: embedded
aws: {account_id: 000000000000}
functions:
  a: {url: "ftp://x"}
  b: {url: "http://x", arn: y}
  c:
    handler: app.handler
    code: .
    concurency: 3
event_source_mappings:
  - Name: orders
    EventSourceArn: arn:aws:sqs:us-east-1:000000000000:orders
    FunctionName: billing
    BatchSize: 20000
  - {}
"""


@pytest.mark.parametrize(
    ("more", "path", "rule"),
    [
        ({"environment": {"LAMBDA_X": "1"}}, "environment.LAMBDA_X", "is set by the node and cannot be configured"),
        ({"environment": {"_HANDLER": "1"}}, "environment._HANDLER", "is set by the node and cannot be configured"),
        ({"environment": {"A": "x" * 4096}}, "environment", "holds more than 4 KB"),
        ({"network": False}, "network", "can be kept from a function with `isolation: bubblewrap` only"),
    ],
)
def test_what_a_function_with_a_handler_cannot_be_given(
    tmp_path: Path, more: dict[str, object], path: str, rule: str
) -> None:
    """Variables of the node's, more than AWS takes, and a promise that a mere process cannot keep."""
    function = {"handler": "app.handler", "code": ".", **more}
    (problem,) = problems(tmp_path, {"functions": {"f": function}})
    assert (problem.path, problem.rule) == (f"functions.f.{path}", rule)


def test_every_problem_of_every_file_is_reported_at_once(tmp_path: Path) -> None:
    """All mistakes come together as `file:line: path: rule`, in order."""
    gone = tmp_path / "gone.yaml"
    (path,) = write(tmp_path, BAD)
    with pytest.raises(InvalidConfigurationError) as caught:
        load([path, gone], environ={}, now=NOW)
    loopback = 'other than loopback needs `auth: {tokens: ["${env:ESMD_TOKEN}"]}`; or listen on 127.0.0.1'
    url = "must be an http:// or https:// URL without user, password or secret reference"
    constraint = "failed to satisfy constraint: Member must have value less than or equal to 10000"
    large = f"Value '20000' at 'batchSize' {constraint}"
    missing = (
        "Function does not exist: billing. List it under functions, set invoke.endpoint for functions that are not "
        "listed, or give a full function ARN"
    )
    null = "failed to satisfy constraint: Member must not be null."
    assert str(caught.value).replace(str(tmp_path), "").split("\n") == [
        f"/c0.yaml:1: listen: {loopback}",
        "/c0.yaml:2: leasing.ttl: must be 3 or more, not 2.9",
        "/c0.yaml:3: redi: unknown key; did you mean redis?",
        "/c0.yaml:4: aws.account_id: must be text, not a number; put it in quotes",
        f"/c0.yaml:6: functions.a.url: {url} (credentials belong into headers)",
        "/c0.yaml:7: functions.b: needs exactly one of url, arn, rie, handler, not url and arn",
        "/c0.yaml:11: functions.c.concurency: unknown key; did you mean concurrency?",
        f"/c0.yaml:15: event_source_mappings[0].FunctionName: {missing}",
        f"/c0.yaml:16: event_source_mappings[0].BatchSize: {large}",
        "/c0.yaml:17: event_source_mappings[1]: Unrecognized event source.",
        f"/c0.yaml:17: event_source_mappings[1].FunctionName: Value null at 'functionName' {null}",
        "/c0.yaml:17: event_source_mappings[1].Name: is required: the mapping's stable identity in this file",
        "/gone.yaml: cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("given_document", "path"),
    [
        ({"redis": "redis://x"}, "redis"), ({"redis": {}}, "redis.url"), ({"redis": {"url": "x"}}, "redis.url"),
        ({"listen": "x"}, "listen"), ({"listen": "127.0.0.1:65536"}, "listen"), ({"listen": 9001}, "listen"),
        ({"data_dir": ""}, "data_dir"), ({"leasing": {"ttl": "10"}}, "leasing.ttl"), ({"leasing": 10}, "leasing"),
        ({"leasing": {"ttl": float("nan")}}, "leasing.ttl"), ({"drain_timeout": -1}, "drain_timeout"),
        ({"aws": {"region": "Mars"}}, "aws.region"), ({"aws": {"endpoint_url": "x"}}, "aws.endpoint_url"),
        ({"invoke": {"endpoint": "http://user:pass@h"}}, "invoke.endpoint"), ({"invoke": {"url": "x"}}, "invoke.url"),
        ({"embedded": {"kafka": {"topics": {"a": 0}}}}, "embedded.kafka.topics.a"),
        ({"embedded": {"kafka": {"topics": ["a"]}}}, "embedded.kafka.topics"),
        ({"embedded": {"sqs": {}}}, "embedded.sqs"), ({"embedded": {"redis": {"fsync": "no"}}}, "embedded.redis.fsync"),
        ({"async_invoke": {"queue": 0}}, "async_invoke.queue"),
        ({"auth": {}}, "auth"), ({"auth": {"tokens": []}}, "auth.tokens"), ({"auth": {"tokens": "x"}}, "auth.tokens"),
        ({"auth": {"access_keys": {"a b": "x"}}}, 'auth.access_keys["a b"]'), ({"functions": []}, "functions"),
        ({"functions": {"a b": {"url": "http://x"}}}, 'functions["a b"]'), ({"functions": {"a": 1}}, "functions.a"),
        ({"functions": {"a": {}}}, "functions.a"),
        ({"functions": {"a": {"url": "http://h/${env:X}"}}}, "functions.a.url"),
        ({"functions": {"a": {"url": "http://h", "timeout": 0}}}, "functions.a.timeout"),
        ({"functions": {"a": {"url": "http://h", "timeout": 901}}}, "functions.a.timeout"),
        ({"functions": {"a": {"url": "http://h", "headers": {"A": "x\r\ny"}}}}, "functions.a.headers.A"),
        ({"functions": {"a": {"url": "http://h", "headers": {"A:": "x"}}}}, "functions.a.headers.A:"),
        ({"functions": {"a": {"arn": "billing"}}}, "functions.a.arn"),
        ({"functions": {"a": {"rie": []}}}, "functions.a.rie"),
        ({"functions": {"a": {"handler": "app", "code": "."}}}, "functions.a.handler"),
        ({"functions": {"a": {"handler": "a.b"}}}, "functions.a.code"),
        ({"functions": {"a": {"handler": "a.b", "code": ".", "memory": 127}}}, "functions.a.memory"),
        ({"event_source_mappings": {}}, "event_source_mappings"),
        ({"event_source_mappings": [1]}, "event_source_mappings[0]"),
        ("[1]", ""), ("x", ""), ("listen: !Ref x", "listen"),
    ],
)  # fmt: skip
def test_a_bad_value_in_a_section_is_named(tmp_path: Path, given_document: str | dict[str, Any], path: str) -> None:
    """Each wrong value makes problems at its own path, with a line."""
    found = problems(tmp_path, given_document)
    assert {problem.path for problem in found} == {path}
    assert all(problem.line > 0 for problem in found)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 20000) | st.text(max_size=8) | st.just("${env:X}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_KEYS = ["redis", "listen", "data_dir", "leasing", "drain_timeout", "aws", "invoke", "embedded", "auth", "functions",
         "event_source_mappings", "Resources", "x-a", "url", "Properties"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES | st.dictionaries(st.sampled_from(_KEYS), _VALUES), max_size=5))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_breaks_the_loader(tmp_path: Path, content: dict[str, Any]) -> None:
    """Whatever a file says, the answer is settings or problems that name the file."""
    try:
        loaded(tmp_path, content)
    except InvalidConfigurationError as exc:
        unplaced = [problem for problem in exc.problems if not problem.file]
    else:
        unplaced = []
    assert unplaced == []
