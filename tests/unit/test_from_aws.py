"""Mappings of AWS as a configuration file, and configurations as templates: `config.from_aws`, `to_cloudformation`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from config.from_aws import configuration
from config.load import load
from invocation.settings import UrlFunction
from model.mapping import KafkaSource, KinesisSource, SqsSource
from node import cli

if TYPE_CHECKING:
    from pathlib import Path

    from config.settings import Settings

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:billing:live"
MAPPING_ARN = "arn:aws:lambda:us-east-1:123456789012:event-source-mapping:"


def told(number: int, **more: Any) -> dict[str, Any]:
    """Return what ListEventSourceMappings says of a mapping, with what it says of all."""
    uuid = f"4f6e3f0e-0000-4000-8000-{number:012}"
    return {
        "UUID": uuid,
        "EventSourceMappingArn": MAPPING_ARN + uuid,
        "FunctionArn": FUNCTION,
        "LastModified": datetime(2025, 1, 1, tzinfo=UTC),
        "LastProcessingResult": "OK",
        "State": "Enabled",
        "StateTransitionReason": "USER_INITIATED",
        "BatchSize": 100,
        "MaximumBatchingWindowInSeconds": 0,
        **more,
    }


STREAM = told(
    1,
    EventSourceArn="arn:aws:kinesis:us-east-1:123456789012:stream/clicks",
    StartingPosition="AT_TIMESTAMP",
    StartingPositionTimestamp=datetime(2024, 5, 1, 10, tzinfo=UTC),
    ParallelizationFactor=2,
    MaximumRecordAgeInSeconds=-1,
    MaximumRetryAttempts=-1,
    TumblingWindowInSeconds=0,
    BisectBatchOnFunctionError=False,
    DestinationConfig={"OnFailure": {}},
    FunctionResponseTypes=["ReportBatchItemFailures"],
)
QUEUE = told(
    2,
    EventSourceArn="arn:aws:sqs:us-east-1:123456789012:orders.fifo",
    State="Disabled",
    BatchSize=10,
    FunctionResponseTypes=[],
    FilterCriteria={"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]},
)
KAFKA = told(
    3,
    SelfManagedEventSource={"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:9092"]}},
    Topics=["audit"],
    StartingPosition="LATEST",
    SelfManagedKafkaEventSourceConfig={"ConsumerGroupId": "g"},
    SourceAccessConfigurations=[
        {"Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:us-east-1:123456789012:secret:kafka-x"}
    ],
)
TABLE = told(4, EventSourceArn="arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2024", StartingPosition="LATEST")


def validated(folder: Path, text: str) -> Settings:
    """Return what a file's text is as a configuration."""
    path = folder / "aws.yaml"
    path.write_text(text)
    return load([path], environ={})


def test_each_kind_of_mapping_comes_over(tmp_path: Path) -> None:
    """With its UUID, so that a Kafka group goes on; stopped ones stay stopped; what is away is said."""
    tags = {MAPPING_ARN + "4f6e3f0e-0000-4000-8000-000000000002": {"team": "a"}}
    text = configuration([STREAM, QUEUE, KAFKA, TABLE], region="us-east-1", tags=tags)
    stream, queue, kafka = validated(tmp_path, text).mappings
    assert (stream.name, stream.source) == (
        "clicks-billing", KinesisSource("arn:aws:kinesis:us-east-1:123456789012:stream/clicks")
    )  # fmt: skip
    assert (stream.starting_time, stream.parallelization_factor) == (datetime(2024, 5, 1, 10, tzinfo=UTC), 2)
    assert (stream.maximum_retry_attempts, stream.report_batch_item_failures) == (None, True)
    assert (queue.name, queue.enabled, queue.tags) == ("orders.fifo-billing", False, {"team": "a"})
    assert queue.source == SqsSource("arn:aws:sqs:us-east-1:123456789012:orders.fifo", fifo=True)
    assert (kafka.id, kafka.name) == (KAFKA["UUID"], "audit-billing")
    assert isinstance(kafka.source, KafkaSource)
    assert (kafka.source.consumer_group_id, kafka.function_name) == ("g", FUNCTION)
    assert "# esmd cannot read this one:" in text
    assert "#   EventSourceArn: arn:aws:dynamodb" in text
    assert "tags were not read" not in text


def test_a_listed_function_takes_the_place_of_one_in_aws(tmp_path: Path) -> None:
    """By its name: the file says the account that the ARNs are of, unless there are several."""
    text = configuration([STREAM, QUEUE], region="us-east-1")
    settings = validated(tmp_path, text + 'functions: {billing: {url: "http://127.0.0.1:9/"}}\n')
    target = settings.target_for(FUNCTION)
    assert isinstance(target, UrlFunction)
    assert settings.aws.account_id == "123456789012"
    elsewhere = {**QUEUE, "FunctionArn": FUNCTION.replace("123456789012", "210987654321")}
    assert "account_id" not in configuration([STREAM, elsewhere], region="us-east-1")
    assert "account_id" not in configuration([], region="us-east-1")


def test_two_mappings_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    """A second one of the same source and function under another qualifier."""
    other = {**STREAM, "UUID": QUEUE["UUID"], "FunctionArn": FUNCTION.replace(":live", ":test")}
    text = configuration([STREAM, other], region="us-east-1")
    assert [one.name for one in validated(tmp_path, text).mappings] == ["clicks-billing", "clicks-billing-2"]
    assert text.count("tags were not read") == 2


def test_what_has_no_counterpart_is_said(tmp_path: Path) -> None:
    """A parameter that esmd does not know, and one that its source does not have."""
    odd = {**QUEUE, "FutureConfig": {"a": 1}, "ParallelizationFactor": 1, "FilterCriteriaError": {"ErrorCode": "KMS"}}
    text = configuration([odd], region="us-east-1", tags={})
    (mapping,) = validated(tmp_path, text).mappings
    assert mapping.batch_size == 10
    assert "# FutureConfig has no counterpart: {'a': 1}" in text
    assert "# ParallelizationFactor is left out:" in text
    assert "# FilterCriteria could not be read" in text


@pytest.mark.parametrize("listed", [[], [TABLE]])
def test_a_file_without_a_mapping_is_one_too(listed: list[dict[str, Any]], tmp_path: Path) -> None:
    """There is nothing to read, or nothing that esmd reads."""
    assert list(validated(tmp_path, configuration(listed, region="us-east-1")).mappings) == []


CONFIG = {
    "functions": {
        "billing": {"arn": FUNCTION},
        "local": {"url": "http://127.0.0.1:9"},
    },
    "event_source_mappings": [
        {
            "Name": "clicks.of-all",
            "EventSourceArn": "arn:aws:kinesis:us-east-1:123456789012:stream/clicks",
            "FunctionName": "billing",
            "StartingPosition": "AT_TIMESTAMP",
            "StartingPositionTimestamp": "2024-05-01T10:00:00Z",
            "Tags": {"team": "a", "stage": "${env:NOT_RESOLVED}"},
            "extensions": {"park_failing_keys": True, "renamed_from": "klicks"},
        },
        {
            "Name": "clicks-of.all",
            "UUID": "4f6e3f0e-0000-4000-8000-00000000000c",
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:9092"]}},
            "Topics": ["audit"],
            "FunctionName": "local",
            "StartingPosition": "LATEST",
            "SourceAccessConfigurations": [{"Type": "SASL_SCRAM_512_AUTH", "URI": "${file:/run/secrets/kafka.json}"}],
            "FilterCriteria": {"Filters": [{"Pattern": '{"value": {"a": [1]}}'}]},
            "extensions": {"parallelization_factor": 8},
        },
        {
            "Name": "orders",
            "EventSourceArn": "arn:aws:sqs:us-east-1:123456789012:orders",
            "FunctionName": "local",
            "Enabled": False,
            "ScalingConfig": {"MaximumConcurrency": 5},
        },
    ],
}


def test_a_template_is_read_as_the_mappings_it_was_made_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names, ids, extensions and the names of functions too; properties are AWS's alone."""
    config, functions = tmp_path / "esmd.yaml", tmp_path / "functions.yaml"
    config.write_text(json.dumps(CONFIG))
    functions.write_text(json.dumps({"functions": CONFIG["functions"]}))
    assert cli.run(["export", "--cloudformation", str(config)]) == 0
    written = capsys.readouterr()
    assert "function local is none of Lambda's" in written.err
    assert "billing" not in written.err
    path = tmp_path / "template.yaml"
    path.write_text(written.out)
    assert cli.run(["validate", str(path), str(functions)]) == 0
    again = load([path, functions], environ={}).mappings
    assert list(again) == list(load([config], environ={}).mappings)
    resources = yaml.safe_load(written.out)["Resources"]
    assert list(resources) == ["ClicksOfAll", "ClicksOfAll2", "Orders"]
    properties = resources["ClicksOfAll"]["Properties"]
    assert properties["FunctionName"] == FUNCTION
    assert properties["StartingPositionTimestamp"] == 1714557600
    assert {"Key": "team", "Value": "a"} in properties["Tags"]
    endpoints = resources["ClicksOfAll2"]["Properties"]["SelfManagedEventSource"]["Endpoints"]
    assert endpoints == {"KafkaBootstrapServers": ["kafka:9092"]}
    ours = [{"Name", "UUID", "extensions"} & set(one["Properties"]) for one in resources.values()]
    assert ours == [set(), set(), set()]


def test_schedules_are_left_out_of_a_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To Lambda they are no event source mappings; which ones is said."""
    path = tmp_path / "esmd.yaml"
    nightly = {"Name": "nightly", "schedule": "rate(5 minutes)", "FunctionName": "billing"}
    path.write_text(json.dumps({"functions": CONFIG["functions"], "event_source_mappings": [nightly]}))
    assert cli.run(["export", "--cloudformation", str(path)]) == 0
    said = capsys.readouterr()
    assert yaml.safe_load(said.out)["Resources"] == {}
    assert "nightly is a schedule, and left out" in said.err


def test_secrets_that_lambda_cannot_read_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """References of ours are; ARNs of Secrets Manager are not."""
    path = tmp_path / "esmd.yaml"
    kafka = {
        "FunctionName": "billing",
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:9092"]}},
        "StartingPosition": "LATEST",
    }
    secrets = {
        "ours": "${file:/run/secrets/kafka.json}",
        "theirs": "arn:aws:secretsmanager:us-east-1:000000000000:secret:k",
    }
    mappings = [
        {**kafka, "Name": name, "Topics": [name], "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": uri}]}
        for name, uri in secrets.items()
    ]
    path.write_text(json.dumps({"functions": CONFIG["functions"], "event_source_mappings": mappings}))
    assert cli.run(["export", "--cloudformation", str(path)]) == 0
    said = capsys.readouterr().err
    assert "ours names secrets as esmd alone does" in said
    assert "theirs names secrets" not in said


def test_exporting_what_is_wrong_says_what(tmp_path: Path) -> None:
    """As `esmd validate` does; and a form has to be chosen."""
    path = tmp_path / "esmd.yaml"
    path.write_text("event_source_mappings: [{Name: a}]")
    assert cli.run(["export", "--cloudformation", str(path)]) == 2
    assert cli.run(["export", str(path)]) == 2
