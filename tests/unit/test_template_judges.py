"""AWS's own tools over templates: cfn-lint over those that are written, the SAM translator over those that are read."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cfnlint.api import ManualArgs, lint
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from config.load import load
from config.to_cloudformation import OURS, template
from model.rules.parameters import PARAMETERS
from tests.support.all_mappings import all_mappings
from tests.support.deploy_files import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from config.settings import Settings
    from model.mapping import EventSourceMapping

SAMPLES = sorted((ROOT / "config").glob("*.yaml"))


def complaints(text: str) -> list[str]:
    """Return what cfn-lint has against a template."""
    return [str(match) for match in lint(text, config=ManualArgs(regions=["us-east-1"]))]


def written(folder: Path, mappings: list[dict[str, Any]]) -> Settings:
    """Return the settings of a configuration with these mappings."""
    file = folder / "esmd.yaml"
    file.write_text(json.dumps({"functions": {"f": {"url": "http://127.0.0.1:1"}}, "event_source_mappings": mappings}))
    return load([file], environ={})


def test_templates_with_every_parameter_are_in_order(tmp_path: Path) -> None:
    """Of all kinds of sources; and what CloudFormation has is what is written."""
    mappings = all_mappings("f")
    given = {key for one in mappings for key in one}
    aws = {name for name, parameter in PARAMETERS.items() if parameter.sources - {"T"}} - set(OURS)
    assert given >= aws
    text = template(written(tmp_path, mappings))
    assert complaints(text) == []
    assert text.count("AWS::Lambda::EventSourceMapping") == len(mappings)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_templates_of_the_samples_are_in_order(sample: Path) -> None:
    """With references to secrets, schedules left out."""
    found = complaints(template(load([sample], environ={})))
    assert [one for one in found if "'Resources' is a required property" not in one] == []


def test_the_linter_lints(tmp_path: Path) -> None:
    """A value beyond its limits is noticed."""
    text = template(written(tmp_path, all_mappings("f")))
    assert complaints(text.replace("BatchSize: 500", "BatchSize: 50000")) != []


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:us-east-1:000000000000:{resource}"


EVENTS: dict[str, dict[str, Any]] = {
    "Queue": {
        "Type": "SQS",
        "Properties": {
            "Queue": {"Fn::GetAtt": ["Jobs", "Arn"]},
            "BatchSize": {"Ref": "Size"},
            "Enabled": False,
            "MaximumBatchingWindowInSeconds": 3,
            "ScalingConfig": {"MaximumConcurrency": 4},
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "FilterCriteria": {"Filters": [{"Pattern": '{"body":{"kind":["order"]}}'}]},
            "KmsKeyArn": _arn("kms", "key/0a1b2c3d-1111-2222-3333-444455556666"),
            "MetricsConfig": {"Metrics": ["EventCount"]},
        },
    },
    "Fifo": {"Type": "SQS", "Properties": {"Queue": _arn("sqs", "ordered.fifo")}},
    "Stream": {
        "Type": "Kinesis",
        "Properties": {
            "Stream": {"Fn::Sub": "arn:${AWS::Partition}:kinesis:${AWS::Region}:${AWS::AccountId}:stream/clicks"},
            "StartingPosition": "AT_TIMESTAMP",
            "StartingPositionTimestamp": 1700000000,
            "BatchSize": 50,
            "BisectBatchOnFunctionError": True,
            "MaximumRecordAgeInSeconds": 3600,
            "MaximumRetryAttempts": 3,
            "ParallelizationFactor": 4,
            "DestinationConfig": {"OnFailure": {"Type": "SQS", "Destination": _arn("sqs", "failed")}},
        },
    },
    "Windows": {
        "Type": "Kinesis",
        "Properties": {
            "Stream": _arn("kinesis", "stream/views/consumer/me:1700000000"),
            "StartingPosition": "LATEST",
            "TumblingWindowInSeconds": 60,
        },
    },
    "Managed": {
        "Type": "MSK",
        "Properties": {
            "Stream": _arn("kafka", "cluster/demo/0a1b2c3d-1111-2222-3333-444455556666-1"),
            "Topics": ["audit"],
            "StartingPosition": "LATEST",
            "ConsumerGroupId": "group",
            "SourceAccessConfigurations": [
                {"Type": "SASL_SCRAM_512_AUTH", "URI": _arn("secretsmanager", "secret:AmazonMSK_x-abc123")}
            ],
            "DestinationConfig": {"OnFailure": {"Type": "Kafka", "Destination": "kafka://failed"}},
            "ProvisionedPollerConfig": {"MinimumPollers": 1, "MaximumPollers": 3},
        },
    },
    "SelfManaged": {
        "Type": "SelfManagedKafka",
        "Properties": {
            "KafkaBootstrapServers": ["kafka-1:9092", "kafka-2:9092"],
            "Topics": ["audit"],
            "ConsumerGroupId": "another",
            "StartingPosition": "TRIM_HORIZON",
            "SecretsManagerKmsKeyId": "0a1b2c3d-1111-2222-3333-444455556666",
            "SourceAccessConfigurations": [
                {"Type": "SASL_SCRAM_512_AUTH", "URI": _arn("secretsmanager", "secret:kafka-abc123")}
            ],
            "DestinationConfig": {"OnFailure": {"Type": "S3", "Destination": {"Fn::GetAtt": ["Failed", "Arn"]}}},
        },
    },
    "Tick": {"Type": "Schedule", "Properties": {"Schedule": "rate(5 minutes)"}},
    "Http": {"Type": "Api", "Properties": {"Path": "/", "Method": "get"}},
}
MAPPINGS = {f"Worker{name}" for name in EVENTS} - {"WorkerTick", "WorkerHttp"}


def sam(*, conditions: bool = False, shared: dict[str, Any] | None = None, **function: Any) -> dict[str, Any]:
    """Return a SAM template whose function has all events."""
    worker = {
        "Type": "AWS::Serverless::Function",
        "Properties": {
            "Handler": "app.handler",
            "Runtime": "python3.12",
            "CodeUri": "s3://bucket/key",
            "Events": EVENTS,
            **function,
        },
    }
    if conditions:
        worker["Condition"] = "InProduction"
    return copy.deepcopy(
        {
            "Transform": "AWS::Serverless-2016-10-31",
            "Parameters": {
                "Size": {"Type": "Number", "Default": 7},
                "Stage": {"Type": "String", "Default": "test"},
                "Alias": {"Type": "String", "Default": "blue"},
            },
            "Conditions": {"InProduction": {"Fn::Equals": [{"Ref": "Stage"}, "production"]}},
            "Globals": {"Function": shared or {"MemorySize": 256}},
            "Resources": {
                "Jobs": {"Type": "AWS::SQS::Queue"},
                "Failed": {"Type": "AWS::S3::Bucket"},
                "Worker": worker,
            },
        }
    )


def read(folder: Path, document: dict[str, Any]) -> dict[str, EventSourceMapping]:
    """Return the mappings of a template by their names; functions by their ARNs, whichever way they are named."""
    file = folder / "template.json"
    file.write_text(json.dumps(document))
    rest = folder / "esmd.yaml"
    rest.write_text(json.dumps({"invoke": {"endpoint": "http://127.0.0.1:9000"}}))
    settings = load([file, rest], environ={})
    return {one.name: replace(one, function_name=settings.function_arn(one.function_name)) for one in settings.mappings}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(sam(), MAPPINGS, id="plain"),
        pytest.param(sam(FunctionName={"Fn::Sub": "work-${Stage}"}), MAPPINGS, id="named"),
        pytest.param(sam(AutoPublishAlias="live"), MAPPINGS, id="alias"),
        pytest.param(sam(AutoPublishAlias="live", FunctionName="work"), MAPPINGS, id="alias of a named one"),
        pytest.param(sam(shared={"AutoPublishAlias": "green"}), MAPPINGS, id="alias for all"),
        pytest.param(sam(conditions=True), set(), id="not deployed"),
    ],
)
def test_a_sam_template_means_what_aws_makes_of_it(
    document: dict[str, Any], expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mappings are those of the CloudFormation template that AWS's translator writes."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    translated = Translator({}, Parser()).translate(copy.deepcopy(document), {"Size": 7, "Stage": "test"})
    assert "AWS::Serverless" not in json.dumps(translated["Resources"])
    ours, theirs = read(tmp_path, document), read(tmp_path, translated)
    assert ours == theirs
    assert set(ours) == expected
