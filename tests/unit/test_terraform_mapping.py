"""The stand-in for Terraform's resource judges: states that no waiter expects, values that a plan would show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.terraform_mapping import TerraformMapping, UnexpectedStateError

QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
SAID = {
    "UUID": "u",
    "EventSourceMappingArn": "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:u",
    "EventSourceArn": QUEUE,
    "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f",
    "State": "Enabled",
    "BatchSize": 10,
    "MaximumBatchingWindowInSeconds": 0,
    "MaximumRetryAttempts": -1,
    "DestinationConfig": {"OnFailure": {}},
    "FunctionResponseTypes": [],
}


class GoneError(Exception):
    """There is no such mapping."""


class Lambda:
    """Says of every mapping the same; notes what it is asked."""

    exceptions = SimpleNamespace(ResourceNotFoundException=GoneError, ResourceInUseException=BlockingIOError)

    def __init__(self, **said: Any) -> None:
        self.said = {**SAID, **said}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**members: Any) -> dict[str, Any]:
            self.asked.append((operation, members))
            return {"Tags": {"team": "a"}} if operation == "list_tags" else dict(self.said)

        return call


def resource(client: Lambda, **config: Any) -> TerraformMapping:
    """Return a resource of a queue's mapping."""
    named = {"function_name": "f", "event_source_arn": QUEUE, **config}
    return TerraformMapping(client, named, uuid="u", tags={"team": "a"})


async def test_what_is_as_configured_shows_nothing() -> None:
    """Defaults, computed values and empty blocks are no differences."""
    assert await resource(Lambda()).plan() == {}


@pytest.mark.parametrize(
    ("config", "said", "shown"),
    [
        ({"batch_size": 5}, {}, {"batch_size"}),
        ({}, {"BatchSize": 11}, {"batch_size"}),
        ({}, {"State": "Disabled"}, {"enabled"}),
        ({"enabled": False}, {}, {"enabled"}),
        ({}, {"MaximumBatchingWindowInSeconds": 1}, {"maximum_batching_window_in_seconds"}),
        ({"topics": ["a"]}, {}, {"topics"}),
        ({}, {"FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:g"}, {"function_name"}),
        ({}, {"ScalingConfig": {"MaximumConcurrency": 2}}, {"scaling_config"}),
        ({"filter_criteria": {"Filters": [{"Pattern": "{ }"}]}}, {"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}},
         {"filter_criteria"}),
    ],
)  # fmt: skip
async def test_what_differs_is_shown(config: dict[str, Any], said: dict[str, Any], shown: set[str]) -> None:
    """By the attribute's name."""
    assert (await resource(Lambda(**said), **config).plan()).keys() == shown


async def test_tags_that_differ_are_shown() -> None:
    """They are read with a call of their own."""
    one = resource(Lambda())
    one.tags = {}
    assert (await one.plan()).keys() == {"tags"}


async def test_a_state_that_no_waiter_expects_ends_it() -> None:
    """As it does in the provider; a mapping that is made passes no `Updating`."""
    with pytest.raises(UnexpectedStateError, match="Updating"):
        await resource(Lambda(State="Updating")).create()


async def test_what_an_update_sends() -> None:
    """Tags first, what changed, blocks emptied; other attributes that are taken out are not sent."""
    client = Lambda()
    one = resource(client, scaling_config={"MaximumConcurrency": 2}, maximum_retry_attempts=3)
    await one.update({"function_name": "f", "event_source_arn": QUEUE, "batch_size": 5}, tags={"stage": "b"})
    calls = [(operation, members) for operation, members in client.asked if not operation.startswith(("get", "list"))]
    assert calls == [
        ("untag_resource", {"Resource": SAID["EventSourceMappingArn"], "TagKeys": ["team"]}),
        ("tag_resource", {"Resource": SAID["EventSourceMappingArn"], "Tags": {"stage": "b"}}),
        ("update_event_source_mapping", {"UUID": "u", "BatchSize": 5, "ScalingConfig": {}}),
    ]
