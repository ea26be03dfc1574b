"""Mappings that between them have every parameter of AWS's, for tools of others that read what is written of them."""

from __future__ import annotations

import json
from typing import Any

_SECRETS = "arn:aws:secretsmanager:us-east-1:123456789012:secret"


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:us-east-1:123456789012:{resource}"


def _filters(**pattern: object) -> dict[str, Any]:
    return {"Filters": [{"Pattern": json.dumps(pattern)}]}


def _failed(destination: str) -> dict[str, Any]:
    return {"OnFailure": {"Destination": destination}}


QUEUES: list[dict[str, Any]] = [
    {
        "Name": "queue",
        "EventSourceArn": _arn("sqs", "jobs"),
        "BatchSize": 100,
        "MaximumBatchingWindowInSeconds": 5,
        "ScalingConfig": {"MaximumConcurrency": 5},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "FilterCriteria": _filters(body={"kind": ["order"]}),
        "Tags": {"team": "a", "cost-center": "b"},
        "KMSKeyArn": _arn("kms", "key/0a1b2c3d-1111-2222-3333-444455556666"),
        "MetricsConfig": {"Metrics": ["EventCount"]},
        "Enabled": False,
    },
    {
        "Name": "provisioned",
        "EventSourceArn": _arn("sqs", "others"),
        "ProvisionedPollerConfig": {"MinimumPollers": 2, "MaximumPollers": 10},
    },
    {"Name": "ordered", "EventSourceArn": _arn("sqs", "jobs.fifo"), "BatchSize": 10},
]

STREAMS: list[dict[str, Any]] = [
    {
        "Name": "stream",
        "EventSourceArn": _arn("kinesis", "stream/clicks"),
        "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": 1700000000.5,
        "BatchSize": 500,
        "MaximumBatchingWindowInSeconds": 3,
        "ParallelizationFactor": 4,
        "BisectBatchOnFunctionError": True,
        "MaximumRecordAgeInSeconds": 3600,
        "MaximumRetryAttempts": 0,
        "DestinationConfig": _failed(_arn("sqs", "failed")),
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    },
    {
        "Name": "windows",
        "EventSourceArn": _arn("kinesis", "stream/views"),
        "StartingPosition": "TRIM_HORIZON",
        "TumblingWindowInSeconds": 60,
        "MaximumRetryAttempts": 10_000,
        "DestinationConfig": _failed(_arn("sns", "failed")),
    },
    {
        "Name": "consumer",
        "EventSourceArn": _arn("kinesis", "stream/clicks/consumer/me:1700000000"),
        "StartingPosition": "LATEST",
    },
]

TOPICS: list[dict[str, Any]] = [
    {
        "Name": "managed",
        "EventSourceArn": _arn("kafka", "cluster/demo/0a1b2c3d-1111-2222-3333-444455556666-1"),
        "Topics": ["audit"],
        "StartingPosition": "TRIM_HORIZON",
        "AmazonManagedKafkaEventSourceConfig": {"ConsumerGroupId": "group"},
        "SourceAccessConfigurations": [{"Type": "SASL_SCRAM_512_AUTH", "URI": f"{_SECRETS}:AmazonMSK_x-abc123"}],
        "ProvisionedPollerConfig": {"MinimumPollers": 1, "MaximumPollers": 3},
        "LoggingConfig": {"SystemLogLevel": "INFO"},
        "DestinationConfig": _failed("arn:aws:s3:::failed"),
    },
    {
        "Name": "self-managed",
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka-1:9092", "kafka-2:9092"]}},
        "Topics": ["audit"],
        "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": "2026-01-01T00:00:00Z",
        "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "another"},
        "SourceAccessConfigurations": [
            {"Type": "CLIENT_CERTIFICATE_TLS_AUTH", "URI": f"{_SECRETS}:client-abc123"},
            {"Type": "SERVER_ROOT_CA_CERTIFICATE", "URI": f"{_SECRETS}:root-abc123"},
        ],
        "MaximumBatchingWindowInSeconds": 1,
        "BatchSize": 10,
        "FilterCriteria": _filters(value={"kind": ["order"]}),
        "DestinationConfig": _failed("kafka://failed"),
        "MaximumRetryAttempts": 5,
        "BisectBatchOnFunctionError": True,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    },
]


def all_mappings(function: str) -> list[dict[str, Any]]:
    """Return documents of all of them, to a function."""
    return [{**one, "FunctionName": function} for one in (*QUEUES, *STREAMS, *TOPICS)]
