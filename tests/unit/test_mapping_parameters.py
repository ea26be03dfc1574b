"""Every parameter of a mapping, per source: where it belongs, its range, its form."""

from __future__ import annotations

from typing import Any

import pytest

from model.mapping_rules import parse_mapping
from model.rules.parameters import EXTENSION_PARAMETERS, PARAMETERS
from tests.support.mapping_documents import CLUSTER, FIFO, QUEUE, STREAM, document, problems

SECRET_ARN = "arn:aws:secretsmanager:us-east-1:000000000000:secret:kafka-Ab12Cd"
PATTERN = '{"value": {"a": ["b"]}}'
VPC_CLUSTER = "arn:aws:kafka:us-east-1:000000000000:vpc-connection/123456789012/demo/0a1b2c3d-1"


def _destination(text: str) -> dict[str, Any]:
    return {"OnFailure": {"Destination": text}}


def _access(kind: str, uri: str = "${env:KAFKA}") -> list[dict[str, str]]:
    return [{"Type": kind, "URI": uri}]


def _brokers(*servers: object) -> dict[str, Any]:
    return {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": list(servers)}}


# parameter: (sources it belongs to, good values, bad values)
TABLE: dict[str, tuple[str, list[Any], list[Any]]] = {
    "Name": ("KSFAMT", ["a", "orders.v-1_x", "x" * 128], ["", "-a", "a b", "x" * 129, 7, "ü"]),
    "UUID": ("KSFAMT", ["0A1B2C3D-1111-2222-3333-444455556666"], ["x", "0a1b2c3d111122223333444455556666", 1]),
    "FunctionName": (
        "KSFAMT",
        ["f", "f:live", "f:$LATEST", "000000000000:function:f", "arn:aws:lambda:us-east-1:000000000000:function:f:1",
         "arn:aws-cn:lambda:cn-north-1:000000000000:function:f", "x" * 64],
        ["", "a b", "f:", "x" * 257, "arn:aws:sqs:us-east-1:000000000000:f", 5, []],
    ),
    "Enabled": ("KSFAMT", [True, False], ["true", 1, 0]),
    "BatchSize": ("KSAM", [1, 100, 10000], [0, -1, 10001, "10", 1.5, True, 10**4000]),
    "MaximumBatchingWindowInSeconds": ("KSAM", [0, 1, 300], [-1, 301, 0.5, "1"]),
    "ParallelizationFactor": ("KAM", [1, 10], [0, 11, "1"]),
    "StartingPosition": ("KAM", ["TRIM_HORIZON", "LATEST"], ["latest", "invalid", 1]),
    "FilterCriteria": (
        "KSFAM",
        [{}, {"Filters": []}, {"Filters": [{"Pattern": '{"data": {"a": ["b"]}}'}] * 10}],
        [[], {"Filters": [{}]}, {"Filters": [{"Pattern": "{"}]}, {"Filters": [{"Pattern": "null"}]},
         {"Filters": [{"Pattern": '"x"'}]}, {"Filters": [{"Pattern": '{"a": "b"}'}]},
         {"Filters": [{"Pattern": '{"a": []}'}]}, {"Filters": [{"Pattern": {"a": ["b"]}}]},
         {"Filters": [{"Pattern": PATTERN}] * 11}, {"Filters": [{"Pattern": '{"a": ["' + "x" * 4096 + '"]}'}]},
         {"filters": []}],
    ),
    "KMSKeyArn": ("KSFAM", ["", "arn:aws:kms:us-east-1:000000000000:key/1"], ["key", 1]),
    "FunctionResponseTypes": (
        "KSFAM", [[], ["ReportBatchItemFailures"]], [["x"], "ReportBatchItemFailures", ["ReportBatchItemFailures"] * 2],
    ),
    "DestinationConfig": (
        "KAMT",
        [{}, {"OnFailure": {}}, _destination(""), _destination(QUEUE), _destination("arn:aws:s3:::bucket"),
         _destination("arn:aws:sns:us-east-1:000000000000:failed")],
        ["x", _destination("x"), _destination(FIFO), _destination("arn:aws:sns:us-east-1:000000000000:t.fifo"),
         _destination(STREAM), _destination("kafka://audit"), _destination("kafka://"), _destination("kafka://a*"),
         _destination("kafka://" + "x" * 350), {"OnSuccess": {"Destination": QUEUE}}, {"OnFailur": {}}],
    ),
    "MaximumRetryAttempts": ("KAMT", [-1, 0, 10000], [-2, 10001, "1"]),
    "MaximumRecordAgeInSeconds": ("KAMT", [-1, 60, 604800], [-2, 0, 59, 604801]),
    "BisectBatchOnFunctionError": ("KAM", [True, False], ["yes", 1]),
    "TumblingWindowInSeconds": ("K", [0, 900], [-1, 901]),
    "ScalingConfig": (
        "SF", [{}, {"MaximumConcurrency": 2}, {"MaximumConcurrency": 1000}],
        [{"MaximumConcurrency": 1}, {"MaximumConcurrency": 1001}, {"x": 1}, 5],
    ),
    "ProvisionedPollerConfig": (
        "SFAM",
        [{}, {"MinimumPollers": 2}, {"MinimumPollers": 200, "MaximumPollers": 200}, {"MaximumPollers": 2000}],
        [{"MinimumPollers": 0}, {"MinimumPollers": 201}, {"MaximumPollers": 10001},
         {"MinimumPollers": 5, "MaximumPollers": 4}, {"PollerGroupName": "a b"}],
    ),
    "Topics": (
        "AM", [["a"], ["a.b-c_d"], ["x" * 249]], [[], ["a", "b"], [".a"], ["a*"], ["x" * 250], "audit", [1]],
    ),
    "SelfManagedEventSource": (
        "A",
        [_brokers("kafka_1:9092"), _brokers("[::1]:9092"), _brokers(*[f"k{i}.example.com:65535" for i in range(10)])],
        [{}, {"Endpoints": {}}, _brokers(), _brokers("kafka"), _brokers("kafka:0"), _brokers("kafka:65536"),
         _brokers("http://kafka:9092"), _brokers(9092), _brokers("x" * 300 + ":1"),
         _brokers(*[f"k{i}:1" for i in range(11)]), "kafka:9092"],
    ),
    "SourceAccessConfigurations": (
        "AM",
        [[], _access("SASL_SCRAM_512_AUTH"), _access("CLIENT_CERTIFICATE_TLS_AUTH", "${file:/a/b.json}"),
         _access("SASL_SCRAM_512_AUTH", SECRET_ARN), _access("SASL_SCRAM_512_AUTH", "${secretsmanager:x}")],
        [{}, [{}], _access("x"), _access("VIRTUAL_HOST", SECRET_ARN), _access("SASL_SCRAM_512_AUTH", "password"),
         _access("SASL_SCRAM_512_AUTH", "${vault:x}"), _access("SASL_SCRAM_512_AUTH", "${env:X} and more"),
         _access("SASL_SCRAM_512_AUTH") * 2, _access("OAUTHBEARER_AUTH", SECRET_ARN),
         _access("SASL_SCRAM_512_AUTH", "${file:" + "x" * 200 + "}")],
    ),
    "SelfManagedKafkaEventSourceConfig": (
        "A", [{}, {"ConsumerGroupId": "a/b*:_+=.@-"}, {"ConsumerGroupId": "x" * 200}, {"SchemaRegistryConfig": {}}],
        [{"ConsumerGroupId": ""}, {"ConsumerGroupId": "a b"}, {"ConsumerGroupId": "x" * 201},
         {"SchemaRegistryConfig": {"SchemaRegistryURI": "https://r"}},
         {"SchemaRegistryConfig": {"EventRecordFormat": "XML"}}],
    ),
    "AmazonManagedKafkaEventSourceConfig": ("M", [{"ConsumerGroupId": "g"}], [{"ConsumerGroupId": 1}]),
    "MetricsConfig": (
        "KSFAM", [{}, {"Metrics": []}, {"Metrics": ["EventCount"]}],
        [{"Metrics": ["x"]}, {"Metrics": ["EventCount", "EventCount"]}, {"metrics": []}],
    ),
    "LoggingConfig": ("AM", [{"SystemLogLevel": "DEBUG"}], [{"SystemLogLevel": "ERROR"}]),
    "Tags": ("KSFAMT", [{}, {"a": "b"}], [{"a": 1}, "a", {"": "x"}, {"a": "x" * 257}]),
    "schedule": ("T", ["rate(1 minute)", "cron(0 12 * * ? *)"], ["", "rate(1 minutes)", "x" * 257, 5, {}]),
    "schedule_timezone": ("T", [], ["", "Mars", "UTC", 1]),  # UTC: a rate is the same everywhere
    "missed": ("T", ["once", "skip"], ["", "twice", True]),
    "input": ("T", [{}, [], "", 0, False, {"a": [None]}], [{1: 2}, float("nan"), b"x", "x" * 262_143]),
    "extensions": ("KSFAMT", [{}], [{"x": 1}, 1, []]),
}  # fmt: skip

EXTENSIONS: dict[str, tuple[str, list[Any], list[Any]]] = {
    "parallelization_factor": ("AM", [1, 100], [0, 101, "1"]),
    "park_failing_keys": ("KAMF", [True, False], [1]),
    "park_after": ("KAM", [], [0, "1", 3]),  # 3: without park_failing_keys
    "parked_max_bytes": ("KAMF", [65536], [65535, "8MB"]),
    "renamed_from": ("KSFAMT", ["former"], ["", "a b", 1]),
    "visibility_heartbeat": ("SF", [True, False], [0]),
    "destination_payload": ("KAMT", [True, False], ["x"]),
    "destination_required": ("KAMT", [True, False], ["x"]),
}

GOOD = [(s, n, v) for n, (sources, good, _) in TABLE.items() for s in sources for v in good]
BAD = [(s, n, v) for n, (sources, _, bad) in TABLE.items() for s in sources for v in bad]
# These have tests of their own.
ELSEWHERE = ("SelfManagedEventSource", "BatchSize", "MaximumBatchingWindowInSeconds", "schedule", "schedule_timezone")
FOREIGN = [(s, n) for n, (sources, *_) in TABLE.items() for s in "KSFAMT" if s not in sources and n not in ELSEWHERE]


@pytest.mark.parametrize(("source", "name", "value"), GOOD)
def test_a_value_in_range_is_accepted(source: str, name: str, value: object) -> None:
    """A parameter with a value inside its range raises no problem on every source it belongs to."""
    given = document(source, **{name: value})
    if name == "BatchSize" and source == "S":
        given["MaximumBatchingWindowInSeconds"] = 1
    assert problems(given) == []


@pytest.mark.parametrize(("source", "name", "value"), BAD)
def test_a_value_out_of_range_is_named(source: str, name: str, value: object) -> None:
    """A bad value makes problems that all stand at its parameter or inside it."""
    found = problems(document(source, **{name: value}), path="event_source_mappings[2]")
    assert found
    assert all(path.startswith(f"event_source_mappings[2].{name}") for path, _ in found), found


@pytest.mark.parametrize(("source", "name"), FOREIGN)
def test_a_parameter_of_other_sources_is_refused(source: str, name: str) -> None:
    """A parameter that does not apply to the source is refused in AWS's words."""
    value = (TABLE[name][1] or [None])[-1]
    expected = (name, f"Unsupported {name} parameter for given event source mapping type.")
    assert expected in problems(document(source, **{name: value}))


@pytest.mark.parametrize("name", ["Queues", "DocumentDBEventSourceConfig"])
@pytest.mark.parametrize("source", "KSFAMT")
def test_parameters_of_other_services_are_refused(source: str, name: str) -> None:
    """Amazon MQ's and DocumentDB's own parameters are refused everywhere."""
    found = problems(document(source, **{name: ["x"]}))
    assert found == [(name, f"Unsupported {name} parameter for given event source mapping type.")]


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [(s, n, v) for n, (sources, good, _) in EXTENSIONS.items() for s in sources for v in good],
)
def test_an_extension_in_range_is_accepted(source: str, name: str, value: object) -> None:
    """Our own parameters stand under `extensions`, and reach the mapping."""
    mapping = parse_mapping(document(source, extensions={name: value}))
    assert getattr(mapping.extensions, name) == value


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [(s, n, v) for n, (sources, _, bad) in EXTENSIONS.items() for s in sources for v in bad],
)
def test_an_extension_out_of_range_is_named(source: str, name: str, value: object) -> None:
    """A bad extension is reported once, at its own place."""
    assert [path for path, _ in problems(document(source, extensions={name: value}))] == [f"extensions.{name}"]


@pytest.mark.parametrize(
    ("source", "name"), [(s, n) for n, (sources, *_) in EXTENSIONS.items() for s in "KSFAMT" if s not in sources]
)
def test_an_extension_of_other_sources_is_refused(source: str, name: str) -> None:
    """An extension that has no meaning for the source is refused."""
    ((path, rule),) = problems(document(source, extensions={name: True}))
    assert path == f"extensions.{name}"
    assert rule.startswith("does not apply to this kind of source")


def test_the_tables_of_this_test_are_complete() -> None:
    """Every parameter the validator knows is in a table here, with the same sources."""
    elsewhere = {"EventSourceArn", "StartingPositionTimestamp", "Queues", "DocumentDBEventSourceConfig"}
    assert set(TABLE) | elsewhere == set(PARAMETERS)
    assert set(EXTENSIONS) == set(EXTENSION_PARAMETERS)
    windows = {"BatchSize", "MaximumBatchingWindowInSeconds"}  # FIFO has its own rows below
    for name, (sources, *_) in {**TABLE, **EXTENSIONS}.items():
        row = PARAMETERS.get(name) or EXTENSION_PARAMETERS[name]
        assert set(sources) | ({"F"} if name in windows else set()) == {str(s) for s in row.sources}, name


@pytest.mark.parametrize(("size", "fine"), [(0, False), (1, True), (10, True), (11, False)])
def test_a_fifo_batch_has_at_most_ten_messages(size: int, *, fine: bool) -> None:
    """BatchSize of a FIFO queue is 1 to 10."""
    assert (problems(document("F", BatchSize=size)) == []) is fine


@pytest.mark.parametrize(
    ("arn", "source"),
    [(STREAM, "K"), (f"{STREAM}/consumer/c:1234567890", "K"), (QUEUE, "S"), (FIFO, "F"),
     (CLUSTER, "M"), (VPC_CLUSTER, "M"),
     ("arn:aws-us-gov:sqs:us-gov-west-1:000000000000:q", "S")],
)  # fmt: skip
def test_arns_of_every_kind_of_source_are_read(arn: str, source: str) -> None:
    """Streams, consumers, queues, clusters and VPC connections are told apart by their ARNs."""
    assert problems(document(source, EventSourceArn=arn)) == []


@pytest.mark.parametrize(
    ("arn", "words"),
    [
        ("arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2024", "Unrecognized event source. dynamodb"),
        ("arn:aws:mq:us-east-1:000000000000:broker:b:1", "Unrecognized event source. mq"),
        ("orders", "Unrecognized event source. This is not an ARN"),
        ("arn:aws:sqs:us-east-1:0:orders", "must be the ARN of a queue"),
        ("arn:aws:kinesis:us-east-1:000000000000:clicks", "must be the ARN of a stream"),
        ("arn:aws:kafka:us-east-1:000000000000:demo", "must be the ARN of an MSK cluster"),
    ],
)
def test_other_arns_are_refused(arn: str, words: str) -> None:
    """An ARN that is no source of ours is one problem, saying what is read or how the ARN should look."""
    found = problems({"Name": "m", "FunctionName": "f", "EventSourceArn": arn})
    rules = [rule for path, rule in found if path == "EventSourceArn"]
    assert len(rules) == 1
    assert rules[0].startswith(words)
