"""CloudFormation and SAM templates as configuration."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from config.cloudformation import is_template, read_template
from config.load import load
from config.settings import AwsSettings, Settings
from config.yaml_document import parse_document
from model.mapping import KafkaSource, KinesisSource, SqsSource
from model.problem import InvalidConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"

TEMPLATE = """\
AWSTemplateFormatVersion: 2010-09-09
Parameters:
  Batch: {Type: Number, Default: "20"}
  On: {Type: String, Default: "false"}
  Stage: {Type: String, Default: prod}
  NoDefault: {Type: String}
Mappings: {Sizes: {prod: {window: 5}}}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsTest: !Not [!Condition IsProd]
Resources:
  Jobs: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub "jobs-${Stage}"}}
  Ordered: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
  Clicks: {Type: AWS::Kinesis::Stream, Properties: {ShardCount: 1}}
  Failed: {Type: AWS::S3::Bucket, Properties: {BucketName: failed}}
  Cluster: {Type: AWS::MSK::Cluster}
  Fn: {Type: AWS::Lambda::Function, Properties: {FunctionName: billing}}
  JobsMapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: !GetAtt Jobs.Arn
      FunctionName: !Ref Fn
      BatchSize: !Ref Batch
      Enabled: !Ref On
      MaximumBatchingWindowInSeconds: !FindInMap [Sizes, !Ref Stage, window]
      ScalingConfig: !If [IsTest, {MaximumConcurrency: 2}, !Ref AWS::NoValue]
  ClicksMapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: {"Fn::GetAtt": [Clicks, Arn]}
      FunctionName: !Join [":", [arn, !Ref AWS::Partition, lambda, !Ref AWS::Region, !Ref AWS::AccountId, function, f]]
      StartingPosition: !Select [0, !Split ["|", "LATEST|TRIM_HORIZON"]]
      DestinationConfig: {OnFailure: {Destination: !GetAtt Failed.Arn}}
      Tags: [{Key: stage, Value: !Ref Stage}]
  TestOnly:
    Type: AWS::Lambda::EventSourceMapping
    Condition: IsTest
    Properties: {EventSourceArn: !GetAtt Ordered.Arn, FunctionName: !GetAtt Fn.Arn}
  KafkaMapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      SelfManagedEventSource: {Endpoints: {KafkaBootstrapServers: [kafka:9092]}}
      Topics: [!Sub ["${a}-${Stage}", {a: audit}]]
      FunctionName: !GetAtt Fn.Arn
"""

SAM = """\
Transform: AWS::Serverless-2016-10-31
Globals: {Function: {AutoPublishAlias: live}}
Resources:
  Jobs: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
  Worker:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.handler
      Events:
        FromQueue: {Type: SQS, Properties: {Queue: !GetAtt Jobs.Arn, BatchSize: 5}}
        FromStream:
          Type: Kinesis
          Properties:
            Stream: arn:aws:kinesis:us-east-1:000000000000:stream/clicks
            StartingPosition: LATEST
            DestinationConfig:
              OnFailure: {Type: SQS, Destination: "arn:aws:sqs:us-east-1:000000000000:failed"}
        FromKafka:
          Type: SelfManagedKafka
          Properties: {KafkaBootstrapServers: [kafka:9092], Topics: [audit], ConsumerGroupId: g}
        FromMsk:
          Type: MSK
          Properties:
            Stream: arn:aws:kafka:us-east-1:000000000000:cluster/demo/0a1b2c3d-1
            Topics: [audit]
            StartingPosition: LATEST
        Http: {Type: Api, Properties: {Path: /, Method: get}}
"""


def _load(folder: Path, template: str, *, name: str = "t.yaml", **sections: object) -> Settings:
    (folder / name).write_text(template)
    (folder / "esmd.yaml").write_text(json.dumps({"invoke": {"endpoint": "http://127.0.0.1:9000"}, **sections}))
    return load([folder / name, folder / "esmd.yaml"], environ={}, now=datetime(2026, 1, 1, tzinfo=UTC))


def test_mappings_of_a_template_are_taken(tmp_path: Path) -> None:
    """Every mapping of a template comes in under its logical id, with references resolved and parameters typed."""
    jobs, clicks, kafka = _load(tmp_path, TEMPLATE).mappings
    assert (jobs.name, jobs.function_name, jobs.batch_size, jobs.enabled) == ("JobsMapping", "billing", 20, False)
    assert jobs.source == SqsSource("arn:aws:sqs:us-east-1:000000000000:jobs-prod", fifo=False)
    assert (jobs.batching_window_s, jobs.maximum_concurrency) == (5.0, None)
    assert (clicks.name, clicks.function_name, clicks.tags) == ("ClicksMapping", ARN, {"stage": "prod"})
    assert clicks.source == KinesisSource("arn:aws:kinesis:us-east-1:000000000000:stream/Clicks")
    assert (clicks.starting_position, clicks.on_failure_destination) == ("LATEST", "arn:aws:s3:::failed")
    assert isinstance(kafka.source, KafkaSource)
    assert (kafka.source.topic, kafka.source.bootstrap_servers) == ("audit-prod", ("kafka:9092",))
    assert kafka.function_name == ARN.replace(":f", ":billing").replace(":billingunction", ":function")


def test_region_and_account_come_from_the_settings(tmp_path: Path) -> None:
    """ARNs are built for the configured account and region, from whichever file says them."""
    aws = {"region": "cn-north-1", "account_id": "111111111111"}
    jobs = _load(tmp_path, TEMPLATE, aws=aws).mappings[0]
    assert jobs.source == SqsSource("arn:aws-cn:sqs:cn-north-1:111111111111:jobs-prod", fifo=False)


def test_events_of_sam_functions_are_taken(tmp_path: Path) -> None:
    """Events of SAM functions that are event source mappings become mappings of the function's alias."""
    found = {mapping.name: mapping for mapping in _load(tmp_path, SAM).mappings}
    assert set(found) == {"WorkerFromQueue", "WorkerFromStream", "WorkerFromKafka", "WorkerFromMsk"}
    assert {mapping.function_name for mapping in found.values()} == {"Worker:live"}
    assert found["WorkerFromQueue"].source == SqsSource("arn:aws:sqs:us-east-1:000000000000:Jobs.fifo", fifo=True)
    assert found["WorkerFromStream"].on_failure_destination == "arn:aws:sqs:us-east-1:000000000000:failed"
    assert found["WorkerFromKafka"].source == KafkaSource("audit", "g", ("kafka:9092",))
    assert isinstance(found["WorkerFromMsk"].source, KafkaSource)


@pytest.mark.parametrize(
    ("value", "function"),
    [
        ("!Ref Live", f"{ARN.removesuffix('f')}billing:live"),
        ("!Ref Other", f"{ARN}:live"),
        ("!GetAtt Live.AliasArn", f"{ARN.removesuffix('f')}billing:live"),
        ("!Ref Worker.Alias", f"{ARN.removesuffix('f')}Worker:blue"),
        ("!Sub '${Worker.Alias}'", f"{ARN.removesuffix('f')}Worker:blue"),
    ],
)
def test_aliases_of_functions(tmp_path: Path, value: str, function: str) -> None:
    """CloudFormation's are referred to by their ARNs; SAM's by the function's logical id."""
    aliases = f"""
  Live: {{Type: AWS::Lambda::Alias, Properties: {{Name: live, FunctionName: !Ref Fn, FunctionVersion: 1}}}}
  Other: {{Type: AWS::Lambda::Alias, Properties: {{Name: live, FunctionName: "{ARN}", FunctionVersion: 1}}}}
  Worker: {{Type: AWS::Serverless::Function, Properties: {{AutoPublishAlias: blue}}}}
"""
    template = TEMPLATE.replace("FunctionName: !Ref Fn", f"FunctionName: {value}") + aliases
    assert _load(tmp_path, template).mappings[0].function_name == function


@pytest.mark.parametrize("value", ["!Ref Nameless", "!Ref Fn.Alias", "!Ref Gone.Alias"])
def test_an_alias_that_is_none_is_named(tmp_path: Path, value: str) -> None:
    """Without a name, or of a function that has none."""
    nameless = "  Nameless: {Type: AWS::Lambda::Alias, Properties: {FunctionName: f}}\n"
    with pytest.raises(InvalidConfigurationError) as caught:
        _load(tmp_path, TEMPLATE.replace("FunctionName: !Ref Fn", f"FunctionName: {value}") + nameless)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("Resources.JobsMapping.Properties.FunctionName", 22)


def test_what_sam_needs_for_permissions_is_left_out(tmp_path: Path) -> None:
    """The key of a secret, and the kind of a destination; a bucket without a name is called in small letters."""
    more = "SecretsManagerKmsKeyId: k, DestinationConfig: {OnFailure: {Type: S3, Destination: !GetAtt Failed.Arn}}"
    template = SAM.replace("ConsumerGroupId: g", f"ConsumerGroupId: g, {more}") + "  Failed: {Type: AWS::S3::Bucket}\n"
    found = {mapping.name: mapping for mapping in _load(tmp_path, template).mappings}
    assert found["WorkerFromKafka"].on_failure_destination == "arn:aws:s3:::failed"


def test_a_json_template_is_taken(tmp_path: Path) -> None:
    """Templates in JSON mean the same."""
    properties = {"EventSourceArn": {"Fn::GetAtt": "Q.Arn"}, "FunctionName": {"Fn::Sub": "f-${AWS::Region}"}}
    mapping = {"Type": "AWS::Lambda::EventSourceMapping", "Properties": properties}
    template = json.dumps({"Resources": {"Q": {"Type": "AWS::SQS::Queue"}, "M": mapping}}, indent="\t")
    (found,) = _load(tmp_path, template, name="t.json").mappings
    assert (found.name, found.function_name) == ("M", "f-us-east-1")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("!Ref NoDefault", "Ref NoDefault: the parameter has no Default"),
        ("!Ref Gone", "Ref Gone: the template has no such parameter or resource"),
        ("!Ref AWS::StackName", "Ref AWS::StackName"),
        ("!GetAtt Gone.Arn", "Fn::GetAtt Gone.Arn: the template has no such resource"),
        ("!GetAtt Cluster.Arn", "Fn::GetAtt Cluster.Arn is known only after a deployment"),
        ("!GetAtt Jobs.QueueUrl", "Fn::GetAtt Jobs.QueueUrl is known only after a deployment"),
        ("!Sub '${Gone}'", "Ref Gone"),
        ("!ImportValue x", "Fn::ImportValue cannot be resolved without a deployment"),
        ("!GetAtt [a]", "Fn::GetAtt needs RESOURCE.ATTRIBUTE"),
        ("!Select [5, [a]]", "Fn::Select needs an index"),
        ("!Join [a]", "an intrinsic function has the wrong number of arguments"),
        ("!FindInMap [Sizes, prod, gone]", "Fn::FindInMap: nothing under Sizes, prod, gone"),
        ("!If [Gone, a, b]", "the template has no condition Gone"),
        ("!Made Up", "Fn::Made cannot be resolved"),
    ],
)
def test_what_cannot_be_resolved_is_named(tmp_path: Path, value: str, words: str) -> None:
    """An intrinsic that only a deployment knows is a problem with its line, naming it; nothing else is reported."""
    template = TEMPLATE.replace("EventSourceArn: !GetAtt Jobs.Arn", f"EventSourceArn: {value}")
    with pytest.raises(InvalidConfigurationError) as caught:
        _load(tmp_path, template)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("Resources.JobsMapping.Properties.EventSourceArn", 21)
    assert problem.rule.startswith(words)


def test_broken_rules_in_a_template_have_lines(tmp_path: Path) -> None:
    """A mapping of a template is held against the same rules, at the lines of the template."""
    with pytest.raises(InvalidConfigurationError) as caught:
        _load(tmp_path, TEMPLATE.replace('Default: "20"', 'Default: "20000"').replace("kafka:9092", "kafka"))
    assert [(p.line, p.path) for p in caught.value.problems] == [
        (23, "Resources.JobsMapping.Properties.BatchSize"),
        (42, "Resources.KafkaMapping.Properties.SelfManagedEventSource.Endpoints.KAFKA_BOOTSTRAP_SERVERS[0]"),
    ]


def test_sources_of_sam_that_are_not_ours_are_problems(tmp_path: Path) -> None:
    """A SAM event from DynamoDB is not silently left out."""
    with pytest.raises(InvalidConfigurationError) as caught:
        _load(tmp_path, SAM.replace("Type: SQS, Properties", "Type: DynamoDB, Properties"))
    (problem,) = caught.value.problems
    assert problem.rule.startswith("Unrecognized event source. DynamoDB")


@pytest.mark.parametrize(
    "conditions",
    [
        "A: !Condition A",
        "A: !And [!Condition B, !Condition B]\n  B: !Or [!Condition A, !Condition A]",
        "\n  ".join(
            [f"C{i}: !And [!Condition C{i + 1}, !Condition C{i + 1}]" for i in range(30)] + ["C30: !Equals [a, a]"]
        )
        + "\n  A: !Condition C0",
    ],
)
def test_conditions_that_refer_to_themselves_end(conditions: str) -> None:
    """Circular or exploding references in a template are a problem, not a hang."""
    text = (
        f"Conditions:\n  {conditions}\nResources:\n  M:\n    Type: AWS::Lambda::EventSourceMapping\n    Condition: A\n"
    )
    found, problems = read_template(parse_document(text, file="t").value, AwsSettings())
    assert found == []
    assert "too deep" in problems[0].rule


def test_text_does_not_explode() -> None:
    """Names made of names made of names stay within bounds."""
    form = "  Q%d: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub '${Q%d.QueueName}${Q%d.QueueName}'}}"
    queues = [form % (i, i + 1, i + 1) for i in range(14)]
    text = (
        "Resources:\n"
        + "\n".join(queues)
        + "\n  Q14: {Type: AWS::SQS::Queue}\n"
        + ("  M: {Type: AWS::Lambda::EventSourceMapping, Properties: {FunctionName: !GetAtt Q0.Arn}}\n")
    )
    found, problems = read_template(parse_document(text, file="t").value, AwsSettings())
    assert found == []
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("value", "expected"), [({"Resources": {}}, True), ({"event_source_mappings": []}, False), (1, False)]
)
def test_templates_are_told_from_configurations(value: object, *, expected: bool) -> None:
    """A file with resources is a template."""
    assert is_template(value) is expected


@pytest.mark.parametrize("resources", ["x", [], None, {"M": 1}, {"M": {"Type": "AWS::Lambda::EventSourceMapping"}}])
def test_broken_templates_are_refused(resources: Any) -> None:
    """A template that is none is a problem, or has no mappings."""
    found, problems = read_template({"Resources": resources}, AwsSettings())
    assert found == []
    assert bool(problems) is (resources != {"M": 1})
