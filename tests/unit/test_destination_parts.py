"""Which destination a mapping gets, and by which name documents call its function."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from config.settings import Settings
from invocation.client import Targets
from invocation.settings import LambdaFunction, UrlFunction
from model.mapping_rules import parse_mapping
from node.parts import Parts
from pollers.checkpointer import Checkpointer
from pollers.counters import Meters
from pollers.destinations.aws_clients import AwsClients
from pollers.destinations.kafka import KafkaDestination
from pollers.destinations.s3 import S3Destination
from pollers.destinations.sns import SnsDestination
from pollers.destinations.sqs import SqsDestination
from pollers.pump_parts import PumpParts
from statemgr.memory_store import MemoryStore
from tests.support.kafka_source import Secrets
from tests.support.mapping_documents import document

SETTINGS = Settings(functions={"f": UrlFunction("f", "http://127.0.0.1:9")})


def mapping_to(destination: str, **changes: object) -> Any:
    """Make a Kafka mapping with a destination."""
    return parse_mapping(document("A", DestinationConfig={"OnFailure": {"Destination": destination}}, **changes))


async def destination_of(mapping: Any) -> Any:
    """Return what a node would hand failures of the mapping to."""
    async with Targets(Secrets()) as targets, AwsClients(region="us-east-1") as aws, asyncio.TaskGroup() as tasks:
        parts = Parts(
            SETTINGS, tasks=tasks, resolver=Secrets(), targets=targets, aws=aws, meters=Meters(),
            checkpointer=Checkpointer(MemoryStore(lambda: 0.0)),
        )(mapping)  # fmt: skip
        assert isinstance(parts, PumpParts)
        await parts.close()
        return parts.destination


@pytest.mark.parametrize(
    ("destination", "kind", "shown"),
    [
        ("arn:aws:sqs:eu-west-1:123456789012:failed", SqsDestination, "SQS queue failed"),
        ("arn:aws-cn:sns:cn-north-1:123456789012:failed", SnsDestination, "SNS topic failed"),
        ("arn:aws:s3:::some-bucket", S3Destination, "S3 bucket some-bucket"),
        ("kafka://failed", KafkaDestination, "Kafka topic failed"),
    ],
)
async def test_the_destination_is_chosen_by_its_name(destination: str, kind: type, shown: str) -> None:
    """An ARN's service or the scheme decides."""
    made = await destination_of(mapping_to(destination))
    assert isinstance(made, kind)
    assert str(made) == shown


async def test_a_mapping_without_destination_has_none() -> None:
    """Then what is given up is dropped and counted."""
    assert await destination_of(parse_mapping(document("A"))) is None


def test_kafka_with_a_destination_has_ten_retries_unless_it_says_otherwise() -> None:
    """Infinite retries would never reach the destination (rule 8)."""
    assert mapping_to("kafka://failed").maximum_retry_attempts == 10
    assert mapping_to("kafka://failed", MaximumRetryAttempts=2).maximum_retry_attempts == 2
    assert parse_mapping(document("A")).maximum_retry_attempts is None


@pytest.mark.parametrize(
    ("name", "arn"),
    [
        ("f", "arn:aws:lambda:us-east-1:000000000000:function:f"),
        ("f:live", "arn:aws:lambda:us-east-1:000000000000:function:f:live"),
        ("123456789012:function:f", "arn:aws:lambda:us-east-1:123456789012:function:f"),
        ("arn:aws:lambda:eu-west-1:123456789012:function:g:7", "arn:aws:lambda:eu-west-1:123456789012:function:g:7"),
        ("thumbs", "arn:aws:lambda:us-east-1:123456789012:function:thumbs:live"),
    ],
)
def test_documents_call_a_function_by_its_arn(name: str, arn: str) -> None:
    """A listed ARN goes first; others get the one they would have, qualified only if the mapping's name is."""
    listed = LambdaFunction("thumbs", "arn:aws:lambda:us-east-1:123456789012:function:thumbs:live", signed=True)
    settings = replace(SETTINGS, functions={**SETTINGS.functions, "thumbs": listed})
    assert settings.function_arn(name) == arn
