"""From files, environment and command line to settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.load import load
from config.settings import (
    AwsSettings,
    ControlPlaneSettings,
    EmbeddedAws,
    EmbeddedKafka,
    EmbeddedRedis,
    EmbeddedSettings,
    InvokeSettings,
    LeasingSettings,
    Settings,
)
from invocation.settings import HandlerFunction, Isolation, LambdaFunction, RieFunction, SandboxSettings, UrlFunction
from model.function_config import FunctionPart
from model.mapping_rules import canonical_document
from model.problem import InvalidConfigurationError
from model.secret import SecretText
from tests.support.config_files import BILLING, MAPPING, NOW, loaded, rules, write
from tests.support.mapping_documents import document


def test_nothing_gives_the_defaults() -> None:
    """Without files the settings are the contract's defaults."""
    found = load([], environ={})
    assert found == Settings()
    assert (found.redis_url, found.listen, found.data_dir) == (None, "127.0.0.1:9001", Path(".esmd"))
    assert (found.leasing.ttl_s, found.drain_timeout_s, found.auth) == (10.0, 30.0, None)


def test_every_section_reaches_the_settings(tmp_path: Path) -> None:
    """Each key of each section lands in its place."""
    found = loaded(
        tmp_path,
        """
redis: {url: "redis://127.0.0.1:6379/0"}
listen: 0.0.0.0:80
data_dir: /var/lib/esmd
leasing: {ttl: 3}
drain_timeout: 1.5
aws: {region: eu-west-1, account_id: "111111111111", endpoint_url: "http://127.0.0.1:4566"}
invoke: {endpoint: "http://127.0.0.1:9000/", account_concurrency: 500}
functions:
  u: {url: "https://h/p?q=1", timeout: 5, headers: {Authorization: "Bearer ${env:T}"}, concurrency: 0,
      event_invoke: {MaximumRetryAttempts: 1, DestinationConfig: {OnFailure: {Destination: "kafka://failed"}}},
      dead_letter: "arn:aws:sqs:eu-west-1:111111111111:dead"}
  a: {arn: "arn:aws:lambda:us-east-1:123456789012:function:thumbs:live"}
  r: {rie: ["http://127.0.0.1:8080/", "http://[::1]:8081"], timeout: 9}
  h: {handler: app.handler, code: ., runtime: python3, timeout: 30, memory: 256, concurrency: 10, environment: {A: b},
      isolation: bubblewrap, network: true, http: true}
control_plane: {create_functions: true, isolation: bubblewrap}
sandboxes: {environments: 8, memory: 4096, lease: 600, idle: 60.5}
embedded: {kafka: {topics: {audit: 4}}, aws: , redis: {fsync: always}}
async_invoke: {queue: 9}
auth: {tokens: ["${env:T}"], access_keys: {AKIA: "${file:/k}"}}
""",
    )
    assert found.redis_url == SecretText("redis://127.0.0.1:6379/0")
    assert (found.listen, found.data_dir, found.leasing) == ("0.0.0.0:80", Path("/var/lib/esmd"), LeasingSettings(3.0))
    assert found.drain_timeout_s == 1.5
    assert found.aws == AwsSettings("eu-west-1", "111111111111", "http://127.0.0.1:4566")
    assert found.invoke == InvokeSettings("http://127.0.0.1:9000", 500)
    events = b'{"DestinationConfig":{"OnFailure":{"Destination":"kafka://failed"}},"MaximumRetryAttempts":1}'
    assert found.function_parts == {
        "u": {
            FunctionPart.CONCURRENCY: b"0",
            FunctionPart.EVENT_INVOKE: events,
            FunctionPart.DEAD_LETTER: b'"arn:aws:sqs:eu-west-1:111111111111:dead"',
        },
        "a": {},
        "r": {},
        "h": {FunctionPart.CONCURRENCY: b"10"},
    }
    assert found.functions == {
        "u": UrlFunction("u", "https://h/p?q=1", 5.0, {"Authorization": SecretText("Bearer ${env:T}")}),
        "a": LambdaFunction(
            "a", "arn:aws:lambda:us-east-1:123456789012:function:thumbs:live", "http://127.0.0.1:4566", signed=True
        ),
        "r": RieFunction("r", ("http://127.0.0.1:8080", "http://[::1]:8081"), 9.0),
        "h": HandlerFunction(
            "h",
            "app.handler",
            ".",
            "python3",
            30.0,
            256,
            {"A": SecretText("b")},
            Isolation.BUBBLEWRAP,
            network=True,
            http=True,
        ),
    }
    assert found.control_plane == ControlPlaneSettings(create_functions=True, isolation=Isolation.BUBBLEWRAP)
    assert found.sandboxes == SandboxSettings(8, 4096, 600.0, 60.5)
    assert found.embedded == EmbeddedSettings(EmbeddedKafka({"audit": 4}), EmbeddedAws(), EmbeddedRedis("always"))
    assert found.async_invoke.queue_mb == 9
    assert found.auth is not None
    assert found.auth is not None
    assert found.auth.tokens == (SecretText("${env:T}"),)
    assert found.auth.access_keys == {"AKIA": SecretText("${file:/k}")}


def test_what_is_said_of_functions_is_checked(tmp_path: Path) -> None:
    """Settings of concurrency and asynchronous invocation are held against AWS's rules, each with its line."""
    (path,) = write(
        tmp_path,
        """
invoke: {account_concurrency: 250}
functions:
  a: {url: "http://h", concurrency: -1}
  b: {url: "http://h", concurrency: 100}
  c: {url: "http://h", concurrency: 51}
  d: {url: "http://h", event_invoke: {MaximumRetryAttempts: 3, MaximumEventAgeInSeconds: 59}}
  e: {url: "http://h", event_invoke: {}}
  f: {url: "http://h", event_invoke: {DestinationConfig: {OnSuccess: {Destination: "arn:aws:s3:::bucket"}}}}
  g:
    url: "http://h"
    event_invoke:
      DestinationConfig: {OnFailure: {Destination: "arn:aws:lambda:eu-west-1:111111111111:function:g"}}
  h: {url: "http://h", dead_letter: "arn:aws:sqs:eu-west-1:111111111111:dead.fifo"}
""",
    )
    with pytest.raises(InvalidConfigurationError) as caught:
        load([path], environ={}, now=NOW)
    config = "DestinationConfig(onSuccess=OnSuccess(destination=arn:aws:s3:::bucket), onFailure=null)"
    dead = "must be the ARN of a standard queue or topic, not arn:aws:sqs:eu-west-1:111111111111:dead.fifo"
    reserved = "151 are reserved with this one, of invoke.account_concurrency 250; 100 must be left for other functions"
    assert [problem.removeprefix(f"{path}:") for problem in str(caught.value).split("\n")] == [
        "4: functions.a.concurrency: must be 0 or more, not -1",
        f"6: functions.c.concurrency: {reserved}",
        "7: functions.d.event_invoke.MaximumRetryAttempts: must be 2 or less, not 3",
        "7: functions.d.event_invoke.MaximumEventAgeInSeconds: must be 60 or more, not 59",
        "8: functions.e.event_invoke: You must specify at least one of error handling or destination setting.",
        f"9: functions.f.event_invoke: The provided destination config {config} is invalid.",
        "12: functions.g.event_invoke: You can't specify the function as a destination for itself.",
        f"14: functions.h.dead_letter: {dead}",
    ]


@pytest.mark.parametrize("redis", ["embedded", {"url": "embedded"}])
def test_redis_can_be_embedded_by_name(tmp_path: Path, redis: object) -> None:
    """`embedded` in either place means a private server."""
    assert loaded(tmp_path, {"redis": redis}).redis_url is None


def test_mappings_know_where_they_stand(tmp_path: Path) -> None:
    """A mapping comes with its document, file and line."""
    text = "# first\nevent_source_mappings:\n  - {Name: orders, FunctionName: billing,\n     EventSourceArn: %s}\n"
    found = loaded(tmp_path, BILLING, text % MAPPING["EventSourceArn"])
    (entry,) = found.event_source_mappings
    assert (entry.file, entry.line, entry.document) == (str(tmp_path / "c1.yaml"), 3, MAPPING)
    assert found.mappings == (entry.mapping,)
    assert canonical_document(entry.document) == canonical_document(MAPPING)


def test_precedence_is_command_line_file_environment(tmp_path: Path) -> None:
    """The command line goes over files, files over the environment, key by key."""
    environ = {"ESMD_REDIS_URL": "redis://env:1", "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}
    assert loaded(tmp_path, {}, environ=environ).redis_url == SecretText("redis://env:1")
    file = {"redis": {"url": "redis://file:1"}, "aws": {"account_id": "111111111111"}}
    found = loaded(tmp_path, file, environ=environ)
    assert found.redis_url == SecretText("redis://file:1")
    assert (found.aws.region, found.aws.account_id) == ("eu-west-1", "111111111111")
    overrides = {"redis": {"url": "redis://cli:1"}, "aws": {"region": "us-west-2"}}
    found = loaded(tmp_path, file, environ=environ, overrides=overrides)
    assert found.redis_url == SecretText("redis://cli:1")
    assert (found.aws.region, found.aws.account_id) == ("us-west-2", "111111111111")
    assert loaded(tmp_path, {}, environ={"AWS_DEFAULT_REGION": "eu-west-2"}).aws.region == "eu-west-2"


def test_several_files_add_up(tmp_path: Path) -> None:
    """Functions and mappings of several files come together; sections may repeat if they are equal."""
    other = document("S", Name="other", FunctionName="b", EventSourceArn=MAPPING["EventSourceArn"] + "2")
    one = {**BILLING, "listen": "127.0.0.1:1", "event_source_mappings": [MAPPING]}
    two = {"functions": {"b": {"url": "http://b"}}, "listen": "127.0.0.1:1", "event_source_mappings": [other]}
    found = loaded(tmp_path, one, two)
    assert [entry.mapping.name for entry in found.event_source_mappings] == ["orders", "other"]
    assert set(found.functions) == {"billing", "b"}


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:1", "[::1]:9001", "127.8.8.8:65535"])
def test_loopback_needs_no_auth(tmp_path: Path, listen: str) -> None:
    """Addresses only this machine can reach are served without `auth`."""
    assert loaded(tmp_path, {"listen": listen}).listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:9001", ":9001", "[::]:9001", "example.com:80", "127.evil.example:80"])
def test_other_addresses_need_auth(tmp_path: Path, listen: str) -> None:
    """Addresses others can reach are refused without `auth`, also from the command line, and accepted with it."""
    assert [path for path, _ in rules(tmp_path, {"listen": listen})] == ["listen"]
    assert [path for path, _ in rules(tmp_path, {}, overrides={"listen": listen})] == ["listen"]
    assert loaded(tmp_path, {"listen": listen, "auth": {"access_keys": {"A": "${env:X}"}}}).listen == listen


def test_anchors_have_a_place(tmp_path: Path) -> None:
    """Top-level keys beginning with x- hold YAML anchors and are otherwise ignored."""
    text = "x-defaults: &d {timeout: 5}\nfunctions:\n  a: {<<: *d, url: 'http://a'}\n"
    assert loaded(tmp_path, text).functions == {"a": UrlFunction("a", "http://a", 5.0)}


ARN = "arn:aws:lambda:us-east-1:000000000000:function:billing"


@pytest.mark.parametrize(
    ("name", "sections", "expected"),
    [
        ("billing", BILLING, "billing"), ("billing:live", BILLING, "billing"), (ARN, BILLING, "billing"),
        ("other", {"invoke": {"endpoint": "http://i"}}, "other"),
        (ARN.replace("0", "1"), BILLING, ARN.replace("0", "1")),
        (ARN, {}, ARN),
    ],
)  # fmt: skip
def test_function_names_are_resolved(tmp_path: Path, name: str, sections: dict[str, Any], expected: str) -> None:
    """A listed function goes first, then the Invoke API, then AWS for a full ARN."""
    found = loaded(tmp_path, {**sections, "event_source_mappings": [{**MAPPING, "FunctionName": name}]})
    target = found.target_for(name)
    assert target is not None
    assert target.name == expected


@pytest.mark.parametrize("name", ["other", "000000000000:function:other"])
def test_a_function_nobody_knows_is_a_problem_with_its_mend(tmp_path: Path, name: str) -> None:
    """A FunctionName that stands for nothing says how to give it something."""
    ((path, rule),) = rules(tmp_path, {**BILLING, "event_source_mappings": [{**MAPPING, "FunctionName": name}]})
    assert path == "event_source_mappings[0].FunctionName"
    assert rule.startswith(f"Function does not exist: {name}. List it under functions, set invoke.endpoint")


def test_kafka_functions_have_fourteen_minutes(tmp_path: Path) -> None:
    """A listed function with a longer timeout cannot be a Kafka mapping's; other sources may use all 15 minutes."""
    functions = {"billing": {"url": "http://b", "timeout": 841}}
    kafka = document("A", FunctionName="billing")
    ((path, rule),) = rules(tmp_path, {"functions": functions, "event_source_mappings": [kafka, MAPPING]})
    assert path == "event_source_mappings[0].FunctionName"
    assert rule == "the timeout of billing is 841 s; for Kafka it must be 840 s or less"
    functions["billing"]["timeout"] = 840
    assert len(loaded(tmp_path, {"functions": functions, "event_source_mappings": [kafka]}).mappings) == 1


def test_a_broken_function_is_not_also_missing(tmp_path: Path) -> None:
    """A mapping of a function that is listed but wrong adds no second problem."""
    found = rules(tmp_path, {"functions": {"billing": {"url": "x"}}, "event_source_mappings": [MAPPING]})
    assert [path for path, _ in found] == ["functions.billing.url"]


def test_a_starting_time_in_the_future_is_refused(tmp_path: Path) -> None:
    """StartingPositionTimestamp is held against the present."""
    later = document("K", FunctionName=ARN, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp="2026-06-02")
    assert [path for path, _ in rules(tmp_path, {"event_source_mappings": [later]})] == [
        "event_source_mappings[0].StartingPositionTimestamp"
    ]
