"""Rules that join fields, defaults, identity, AWS's exact words, and documents as the store keeps them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.mapping import EventSourceMapping, Extensions, KafkaSource, KinesisSource, SqsSource, StartingPosition
from model.mapping_rules import api_error, canonical_document, check_together, mapping_id, parse_mapping
from model.problem import InvalidConfigurationError, Problem
from model.rules.parameters import PARAMETERS
from tests.support.mapping_documents import CLUSTER, QUEUE, SMALLEST, STREAM, document, problems

NULL = "failed to satisfy constraint: Member must not be null."
ENUM = (
    "Value 'invalid' at 'startingPosition' failed to satisfy constraint: "
    "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
UUID = "0a1b2c3d-1111-2222-3333-444455556666"


def _parse(source: str, **changes: object) -> EventSourceMapping:
    return parse_mapping(document(source, **changes))


@pytest.mark.parametrize(
    ("source", "batch_size", "window_s", "position"),
    [("K", 100, 0.0, StartingPosition.LATEST), ("S", 10, 0.0, None), ("F", 10, 0.0, None),
     ("A", 100, 0.5, StartingPosition.TRIM_HORIZON), ("M", 100, 0.5, StartingPosition.TRIM_HORIZON)],
)  # fmt: skip
def test_defaults_are_those_of_the_source(
    source: str, batch_size: int, window_s: float, position: StartingPosition | None
) -> None:
    """What a document leaves out takes the source's default; without limits is None."""
    mapping = _parse(source)
    assert (mapping.batch_size, mapping.batching_window_s, mapping.starting_position) == (
        batch_size,
        window_s,
        position,
    )
    assert mapping == EventSourceMapping(
        id=mapping_id("m"), name="m", function_name="f", source=mapping.source, batch_size=batch_size,
        batching_window_s=window_s, starting_position=position, extensions=Extensions(),
    )  # fmt: skip


def test_sources_become_values() -> None:
    """The source of a mapping holds what its poller needs."""
    assert _parse("K").source == KinesisSource(STREAM)
    consumer = f"{STREAM}/consumer/c:1"
    assert _parse("K", EventSourceArn=consumer).source == KinesisSource(STREAM, consumer_arn=consumer)
    assert _parse("S").source == SqsSource(QUEUE, fifo=False)
    assert _parse("F").source == SqsSource(QUEUE + ".fifo", fifo=True)
    assert _parse("A").source == KafkaSource("audit", mapping_id("m"), bootstrap_servers=("127.0.0.1:9092",))
    group = {"ConsumerGroupId": "g"}
    assert _parse("M", AmazonManagedKafkaEventSourceConfig=group).source == KafkaSource("audit", "g", arn=CLUSTER)


def test_the_id_is_stable() -> None:
    """A mapping's id follows from its name, for ever; a UUID in the document goes first."""
    assert mapping_id("orders") == "6e00a66d-78af-519c-ada7-38a9c6b7c820"
    assert _parse("S").id == mapping_id("m")
    assert _parse("S", UUID=UUID.upper()).id == UUID


def test_name_or_uuid_is_needed() -> None:
    """Files must name their mappings; the API gives a UUID instead, which then is the name."""
    assert problems(document("S", Name=...)) == [("Name", "is required: the mapping's stable identity in this file")]
    assert problems(document("S", Name=...), require_name=False) == [("", "Name or UUID is required")]
    assert parse_mapping(document("S", Name=..., UUID=UUID), require_name=False).name == UUID
    ((path, _),) = problems(document("S", Name=UUID))
    assert path == "Name"


@pytest.mark.parametrize(
    ("source", "changes", "path", "rule"),
    [
        ("S", {"BatchSize": 11}, "BatchSize",
         "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        ("F", {"MaximumBatchingWindowInSeconds": 1}, "MaximumBatchingWindowInSeconds",
         "Unsupported MaximumBatchingWindow"),
        ("K", {"StartingPosition": ...}, "StartingPosition", f"Value null at 'startingPosition' {NULL}"),
        ("M", {"StartingPosition": ...}, "StartingPosition", f"Value null at 'startingPosition' {NULL}"),
        ("S", {"FunctionName": ...}, "FunctionName", f"Value null at 'functionName' {NULL}"),
        ("A", {"Topics": ...}, "Topics", f"Value null at 'topics' {NULL}"),
        ("K", {"StartingPosition": "invalid"}, "StartingPosition",
         ENUM),
        ("K", {"BatchSize": 20000}, "BatchSize",
         "Value '20000' at 'batchSize' failed to satisfy constraint: Member must have value less than or equal"),
        ("S", {"EventSourceArn": ...}, "", "Unrecognized event source."),
        ("A", {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka"]}}},
         "SelfManagedEventSource.Endpoints.KAFKA_BOOTSTRAP_SERVERS[0]",
         "Value 'kafka' at 'selfManagedEventSource.endpoints.KAFKA_BOOTSTRAP_SERVERS.1.member' failed to satisfy"),
        ("S", {"SelfManagedEventSource": SMALLEST["A"]["SelfManagedEventSource"]}, "SelfManagedEventSource",
         "give either"),
        ("K", {"StartingPosition": "AT_TIMESTAMP"}, "StartingPositionTimestamp", "is required when"),
        ("K", {"StartingPositionTimestamp": 1}, "StartingPositionTimestamp", "is allowed only when"),
        ("K", {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": NOW + timedelta(seconds=1)},
         "StartingPositionTimestamp", "must not lie in the future"),
        ("K", {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": "soon"}, "StartingPositionTimestamp",
         "must be a time"),
        ("S", {"ScalingConfig": {"MaximumConcurrency": 2}, "ProvisionedPollerConfig": {"MinimumPollers": 2}},
         "ScalingConfig.MaximumConcurrency", "MaximumConcurrency and ProvisionedPollerConfig exclude"),
        ("S", {"ProvisionedPollerConfig": {"MinimumPollers": 1}}, "ProvisionedPollerConfig.MinimumPollers",
         "Value '1'"),
        ("A", {"ProvisionedPollerConfig": {"MaximumPollers": 2001}}, "ProvisionedPollerConfig.MaximumPollers", "Value"),
        ("S", {"ProvisionedPollerConfig": {"PollerGroupName": "g"}}, "ProvisionedPollerConfig.PollerGroupName",
         "unknown key"),
        ("A", {"DestinationConfig": {"OnFailure": {"Destination": "kafka://audit"}}},
         "DestinationConfig.OnFailure.Destination", "must be another topic"),
        ("K", {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}},
         "DestinationConfig.OnFailure.Destination", "kafka://TOPIC is a destination for Kafka"),
        ("K", {"DestinationConfig": {"OnSuccess": {"Destination": QUEUE}}}, "DestinationConfig.OnSuccess",
         "Unsupported DestinationConfig parameter for given event source mapping type."),
        ("K", {"FilterCriteria": {"Filters": [{"Pattern": '{"data": ["x"]}'}]}}, "FilterCriteria.Filters[0].Pattern",
         "Invalid filter pattern definition."),
        ("K", {"FilterCriteria": {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}, {"Pattern": "null"}]}},
         "FilterCriteria.Filters[1].Pattern", "Invalid filter pattern definition."),
        ("M", {"SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": "${env:X}"}]},
         "SourceAccessConfigurations[0].Type", "Value 'BASIC_AUTH' at 'sourceAccessConfigurations.1.member.type'"),
        ("A", {"SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": "${env:X}"},
                                              {"Type": "SASL_SCRAM_512_AUTH", "URI": "${env:X}"}]},
         "SourceAccessConfigurations[1].Type", "only one of"),
        ("A", {"SourceAccessConfigurations": [{"Type": "VPC_SUBNET", "URI": "subnet-1"}]},
         "SourceAccessConfigurations[0].URI", "must start with subnet:"),
        ("K", {"MetricsConfig": {"Metrics": ["KafkaMetrics"]}}, "MetricsConfig.Metrics[0]", "Value 'KafkaMetrics'"),
        ("A", {"ParallelizationFactor": 2, "extensions": {"parallelization_factor": 3}},
         "extensions.parallelization_factor", "contradicts"),
        ("K", {"extensions": {"parallelization_factor": 3}}, "extensions.parallelization_factor",
         "does not apply to this kind of source; use ParallelizationFactor"),
        ("K", {"ParallelizationFactor": 2, "TumblingWindowInSeconds": 60}, "ParallelizationFactor",
         "must be 1 with TumblingWindowInSeconds"),
        ("A", {"SelfManagedKafkaEventSourceConfig": {"SchemaRegistryConfig": {"SchemaRegistryURI": "https://r"}}},
         "SelfManagedKafkaEventSourceConfig.SchemaRegistryConfig", "schema registries are not supported"),
        ("S", {"Batchsize": 1}, "Batchsize", "unknown key; did you mean BatchSize?"),
        ("S", {"paralelization_factor": 1}, "paralelization_factor", "unknown key"),
        ("A", {"extensions": {"park_failing_key": True}}, "extensions.park_failing_key",
         "unknown key; did you mean park_failing_keys?"),
        ("K", {"TumblingWindowInSeconds": 60, "extensions": {"park_failing_keys": True}},
         "extensions.park_failing_keys", "not with TumblingWindowInSeconds"),
        ("F", {"extensions": {"park_failing_keys": True, "visibility_heartbeat": False}},
         "extensions.visibility_heartbeat", "must be on with park_failing_keys"),
        ("S", {"extensions": {"park_failing_keys": True}}, "extensions.park_failing_keys", "does not apply"),
    ],
)  # fmt: skip
def test_one_broken_rule_is_one_problem(source: str, changes: dict[str, Any], path: str, rule: str) -> None:
    """Each broken rule is reported exactly once, at its place, in AWS's words where they are recorded."""
    ((found_path, found_rule),) = problems(document(source, **changes), now=NOW)
    assert found_path == path
    assert found_rule.startswith(rule)


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("S", {"BatchSize": 11, "MaximumBatchingWindowInSeconds": 1}),
        ("K", {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 0}),
        ("F", {"MaximumBatchingWindowInSeconds": 0}),
        ("A", {"StartingPosition": ...}),
        ("A", {"SourceAccessConfigurations": [{"Type": "VPC_SUBNET", "URI": "subnet:subnet-1"},
                                              {"Type": "VPC_SUBNET", "URI": "subnet:subnet-2"},
                                              {"Type": "VPC_SECURITY_GROUP", "URI": "security_group:sg-1"}]}),
        ("S", {"FilterCriteria": {"Filters": [{"Pattern": '{"body": ["x"]}'}]}}),
        ("S", {"ScalingConfig": {"MaximumConcurrency": 2}, "ProvisionedPollerConfig": {}}),
        ("K", {"DestinationConfig": {"OnSuccess": None}}),
        ("K", {"ParallelizationFactor": 1, "TumblingWindowInSeconds": 60}),
        ("K", {"ParallelizationFactor": 2, "TumblingWindowInSeconds": 0}),
        ("A", {"ProvisionedPollerConfig": {"MinimumPollers": 1, "MaximumPollers": 1, "PollerGroupName": ""}}),
        ("A", {"Enabled": None, "BatchSize": None, "Tags": None}),
    ],
)  # fmt: skip
def test_what_the_rules_allow_is_accepted(source: str, changes: dict[str, Any]) -> None:
    """The near side of each rule raises nothing; null is the same as absent."""
    assert problems(document(source, **changes)) == []


def test_all_problems_come_at_once() -> None:
    """A document with many mistakes reports all of them."""
    bad = document("K", BatchSize=0, Topics=["a"], Batch=1, StartingPosition=..., Enabled="x", extensions={"x": 1})
    assert len(problems(bad)) == 6


@pytest.mark.parametrize("value", [None, 1, "x", [], [1]])
def test_a_document_that_is_no_mapping_is_refused(value: object) -> None:
    """Something else than a mapping is one problem."""
    ((path, rule),) = problems(value, path="p")
    assert (path, rule.split(",")[0]) == ("p", "must be a mapping")


@pytest.mark.parametrize(
    ("source", "retries", "destination", "expected"),
    [("A", None, QUEUE, 10), ("A", -1, QUEUE, 10), ("M", -1, QUEUE, 10), ("A", 20, QUEUE, 20), ("A", -1, "", None),
     ("A", 0, QUEUE, 0), ("K", -1, QUEUE, None), ("K", 3, None, 3)],
)  # fmt: skip
def test_kafka_retries_end_where_a_destination_waits(
    source: str, retries: int | None, destination: str | None, expected: int | None
) -> None:
    """Endless retries of a Kafka mapping with an on-failure destination are capped at 10; Kinesis has no such cap."""
    config = {"OnFailure": {"Destination": destination}} if destination is not None else None
    mapping = _parse(source, MaximumRetryAttempts=retries, DestinationConfig=config)
    assert mapping.maximum_retry_attempts == expected
    assert mapping.on_failure_destination == (destination or None)


def test_every_parameter_reaches_the_mapping() -> None:
    """Values given are the mapping's, under its own names."""
    mapping = _parse(
        "A", Enabled=False, BatchSize=7, MaximumBatchingWindowInSeconds=0, ParallelizationFactor=3, Tags={"a": "b"},
        StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=1767225600, BisectBatchOnFunctionError=True,
        FilterCriteria={"Filters": [{"Pattern": '{"key": ["a"]}'}]}, FunctionResponseTypes=["ReportBatchItemFailures"],
        MaximumRecordAgeInSeconds=60, ProvisionedPollerConfig={"MinimumPollers": 3, "PollerGroupName": "g"},
        extensions={"park_failing_keys": True, "park_after": 2},
    )  # fmt: skip
    assert (mapping.enabled, mapping.batch_size, mapping.batching_window_s) == (False, 7, 0.0)
    assert (mapping.parallelization_factor, mapping.maximum_record_age_s) == (3, 60)
    assert mapping.starting_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert mapping.filter_patterns == ('{"key": ["a"]}',)
    assert mapping.report_batch_item_failures
    assert mapping.bisect_on_function_error
    assert mapping.provisioned_pollers is not None
    assert (mapping.provisioned_pollers.minimum, mapping.provisioned_pollers.maximum) == (3, 200)
    assert mapping.extensions == Extensions(park_failing_keys=True, park_after=2)
    assert mapping.tags == {"a": "b"}


def test_the_extension_sets_kafkas_parallelization() -> None:
    """For Kafka either spelling gives the number of lanes."""
    assert _parse("A", extensions={"parallelization_factor": 8}).parallelization_factor == 8
    assert _parse("A", ParallelizationFactor=8).parallelization_factor == 8


@pytest.mark.parametrize(
    "value",
    [1767225600, 1767225600.0, "1767225600", "2026-01-01T00:00:00Z", "2026-01-01", date(2026, 1, 1),
     datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1), "2026-01-01T01:00:00+01:00",  # noqa: DTZ001 - as YAML gives it
     datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))],
)  # fmt: skip
def test_timestamps_are_read_in_every_spelling(value: object) -> None:
    """Epoch seconds, ISO text and YAML dates mean the same time, and one canonical document."""
    given = document("K", StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=value)
    assert parse_mapping(given).starting_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert json.loads(canonical_document(given))["StartingPositionTimestamp"] == 1767225600


@pytest.mark.parametrize(
    "value",
    [-1, True, float("nan"), float("inf"), 1e300, 10**400, "", "x", "9" * 40, "1969-12-31", date(1969, 1, 1), [], {}],
)
def test_what_is_no_time_is_refused(value: object) -> None:
    """Values that tell no time are one problem."""
    given = document("K", StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=value)
    assert ("StartingPositionTimestamp" in [path for path, _ in problems(given)]) is True


def test_cloudformations_spellings_are_taken() -> None:
    """Property names that CloudFormation spells differently mean the same."""
    servers = {"Endpoints": {"KafkaBootstrapServers": ["k:1"]}}
    mapping = _parse("A", SelfManagedEventSource=servers, KmsKeyArn="", Tags=[{"Key": "a", "Value": "b"}])
    assert isinstance(mapping.source, KafkaSource)
    assert mapping.source.bootstrap_servers == ("k:1",)
    assert mapping.tags == {"a": "b"}


def test_api_errors_are_aws_own() -> None:
    """Broken constraints are counted and joined as the API does; other rules stand alone."""
    rules = [rule for _, rule in problems(document("K", StartingPosition="invalid"))]
    assert api_error(rules) == (
        "ValidationException",
        f"1 validation error detected: {ENUM}",
    )
    two = [rule for _, rule in problems(document("K", StartingPosition=..., BatchSize=0))]
    assert api_error(two)[1].startswith("2 validation errors detected: Value '0' at 'batchSize' ")
    assert api_error(["Unrecognized event source."]) == ("InvalidParameterValueException", "Unrecognized event source.")


def test_a_canonical_document_is_the_same_however_it_was_written() -> None:
    """Order of keys, nulls and CloudFormation's spellings leave no trace; the result reads back as the same mapping."""
    one = document("A", Tags={"a": "b", "c": "d"}, Enabled=True)
    other = dict(reversed([*document("A", Tags=[{"Key": "c", "Value": "d"}, {"Key": "a", "Value": "b"}]).items()]))
    other.update(Enabled=True, KMSKeyArn=None)
    assert canonical_document(one) == canonical_document(other)
    assert parse_mapping(json.loads(canonical_document(one))) == parse_mapping(one)


def test_a_canonical_document_refuses_a_secret_in_the_clear() -> None:
    """A secret written where a reference belongs never reaches the store, nor the message."""
    given = document("A", SourceAccessConfigurations=[{"Type": "BASIC_AUTH", "URI": "hunter2"}])
    with pytest.raises(InvalidConfigurationError) as caught:
        canonical_document(given)
    assert "hunter2" not in str(caught.value)


def _together(*documents: dict[str, Any]) -> list[Problem]:
    return check_together(
        [parse_mapping(given) for given in documents], paths=[f"m[{i}]" for i in range(len(documents))]
    )


def test_duplicates_are_refused_in_aws_words() -> None:
    """One mapping per source and function: the message is AWS's for each kind of source and names the existing UUID."""
    end = f"already exists. Please update or delete the existing mapping with UUID {mapping_id('m')}"
    expected = {
        "K": f'The event source arn (" {STREAM} ") and function (" f ") provided mapping {end}',
        "S": f'An event source mapping with SQS arn (" {QUEUE} ") and function (" f ") {end}',
        "A": f'An event source mapping with event source ("127.0.0.1:9092"), function ("f"), topics ("audit") {end}',
        "M": f'An event source mapping with event source ("{CLUSTER}"), function ("f"), topics ("audit") {end}',
    }
    for source, message in expected.items():
        assert _together(document(source), document(source, Name="n")) == [Problem("m[1]", message)]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("f", "f", True), ("f", "arn:aws:lambda:us-east-1:000000000000:function:f", True), ("f", "f:live", False),
     ("000000000000:function:f", "111111111111:function:f", False), ("f", "g", False), ("000000000000:f", "f", True),
     ("arn:aws:lambda:us-east-1:000000000000:function:f", "arn:aws:lambda:eu-west-1:000000000000:function:f", False)],
)  # fmt: skip
def test_functions_are_compared_by_what_they_state(one: str, other: str, *, same: bool) -> None:
    """A name and an ARN with that name are one function; different accounts, regions or qualifiers are not."""
    found = _together(document("S", FunctionName=one), document("S", Name="n", FunctionName=other))
    assert bool(found) is same


def test_names_groups_and_uuids_are_unique() -> None:
    """Two mappings cannot share a name, a UUID or a consumer group."""
    config = "SelfManagedKafkaEventSourceConfig"
    assert [p.path for p in _together(document("S"), document("K"))] == ["m[1].Name"]
    assert [p.path for p in _together(document("S", UUID=UUID), document("K", Name="n", UUID=UUID))] == ["m[1].UUID"]
    a = document("A", **{config: {"ConsumerGroupId": "g"}})
    b = document("A", Name="n", Topics=["other"], **{config: {"ConsumerGroupId": "g"}})
    assert [p.path for p in _together(a, b)] == [f"m[1].{config}"]
    assert _together(document("A"), document("A", Name="n", Topics=["other"])) == []


def test_overlapping_brokers_and_one_topic_are_a_duplicate() -> None:
    """Kafka mappings are duplicates when their bootstrap servers overlap."""
    servers = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["other:9092", "127.0.0.1:9092"]}}
    assert len(_together(document("A"), document("A", Name="n", SelfManagedEventSource=servers))) == 1
    apart = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["other:9092"]}}
    assert _together(document("A"), document("A", Name="n", SelfManagedEventSource=apart)) == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.sampled_from("KSFAM"),
    st.dictionaries(st.sampled_from([*PARAMETERS]) | st.text(max_size=6), _JSON, max_size=5),
)
def test_no_document_breaks_the_validator(source: str, changes: dict[str, Any]) -> None:
    """Whatever stands in a document, the answer is a mapping or a list of problems."""
    given_document = document(source, **changes)
    if not problems(given_document):
        mapping = parse_mapping(given_document)
        assert parse_mapping(json.loads(canonical_document(given_document))) == mapping


def test_a_mapping_cannot_take_the_place_of_one_that_is_listed() -> None:
    """`renamed_from` names a mapping that is no more; and it gives the identity."""
    former = parse_mapping(document("S", Name="former"))
    new = parse_mapping(document("S", Name="new", FunctionName="g", extensions={"renamed_from": "former"}))
    assert new.id == former.id == mapping_id("former")
    problems = check_together([former, new], paths=["a", "b"])
    assert ("b.extensions.renamed_from", "there is still a mapping former") in [(p.path, p.rule) for p in problems]
