"""What spans say, by OpenTelemetry's semantic conventions."""

from __future__ import annotations

from typing import Any

import pytest

from invocation.classify import Answer
from invocation.front_answers import error_answer
from invocation.invoking import out_of_service, throttled
from model.async_event import NewEvent
from model.ids import MappingId, ShardId, ShardKey
from model.invocation import Invocation
from model.mapping_rules import parse_mapping
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from node.trace_attributes import (
    attempt_attributes,
    ending,
    event_attributes,
    event_ending,
    mapping_attributes,
    span_name,
)
from tests.support.mapping_documents import document

BATCH = {"esmd.shard": "audit-7", "esmd.fencing_token": 4711, "esmd.batch_id": "b", "esmd.attempt": 2}


@pytest.mark.parametrize(
    ("letter", "name", "expected"),
    [
        ("A", "process audit", {"messaging.system": "kafka", "messaging.destination.partition.id": "7"}),
        ("M", "process audit", {"messaging.system": "kafka", "messaging.destination.name": "audit"}),
        ("K", "process clicks", {"messaging.system": "aws_kinesis", "messaging.destination.partition.id": "audit-7"}),
        ("S", "process orders", {"messaging.system": "aws_sqs", "messaging.destination.name": "orders"}),
        ("F", "process orders.fifo", {"messaging.operation.type": "process", "messaging.batch.message_count": 3}),
        ("T", "process m", {"faas.trigger": "timer", "faas.invoked_name": "f"}),
    ],
)
def test_a_span_says_where_a_batch_comes_from(letter: str, name: str, expected: dict[str, Any]) -> None:
    """Every kind of source has its name, and every span its mapping, shard, token and attempt."""
    mapping = parse_mapping(document(letter))
    invocation = Invocation(b"{}", "m", ShardKey(MappingId("0b1c"), ShardId("audit-7")), 4711, "b", 2)
    said = mapping_attributes(mapping) | attempt_attributes(mapping.source, invocation, 3)
    assert said.items() >= {**expected, **BATCH, "esmd.mapping": "m"}.items()
    assert span_name(mapping) == name
    assert any(key.startswith("messaging.") for key in said) == (letter != "T")


def test_a_function_in_aws_is_named_as_such() -> None:
    """Name and Region are those of the ARN."""
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:thumbs:live"
    said = mapping_attributes(parse_mapping(document("S", FunctionName=arn)))
    assert (
        said.items()
        >= {
            "faas.invoked_name": "thumbs",
            "faas.invoked_provider": "aws",
            "faas.invoked_region": "eu-west-1",
        }.items()
    )


@pytest.mark.parametrize(
    ("outcome", "attributes", "error"),
    [
        (Delivered(), {"esmd.outcome": "delivered", "http.response.status_code": 200}, None),
        (
            PartlyFailed(frozenset({"a", "b"})),
            {"esmd.outcome": "partly_failed", "esmd.failed_records": 2, "error.type": "partly_failed"},
            "2 records failed",
        ),
        (FunctionFailed("boom"), {"esmd.outcome": "function_failed", "error.type": "Unhandled"}, "boom"),
        (FunctionFailed("odd", None), {"error.type": "invalid_response"}, "odd"),
        (Throttled("busy"), {"esmd.outcome": "throttled", "http.response.status_code": 429}, "busy"),
        (NotReached("refused"), {"esmd.outcome": "not_reached", "error.type": "not_reached"}, "refused"),
        (None, {"esmd.outcome": "broken_off", "error.type": "broken_off"}, "broken off before an answer"),
    ],
)
def test_a_span_says_what_came_of_it(outcome: Outcome | None, attributes: dict[str, Any], error: str | None) -> None:
    """Whatever did not take the whole batch is an error, with its kind."""
    said, why = ending(outcome)
    assert said.items() >= attributes.items()
    assert error == why
    assert ("error.type" in said) == (error is not None)


@pytest.mark.parametrize(
    ("answer", "attributes", "error"),
    [
        (Answer(200, {}, b"7"), {"esmd.outcome": "delivered", "http.response.status_code": 200}, None),
        (
            Answer(200, {"X-Amz-Function-Error": "Unhandled"}, b'{"errorType":"KeyError","errorMessage":"id"}'),
            {"esmd.outcome": "function_failed", "error.type": "Unhandled"},
            "KeyError: id",
        ),
        (error_answer(throttled(own_limit=False)), {"esmd.outcome": "throttled", "http.response.status_code": 429}, ""),
        (error_answer(out_of_service("away")), {"esmd.outcome": "not_reached"}, "away"),
        (None, {"esmd.outcome": "broken_off"}, "broken off"),
    ],
)
def test_what_an_attempt_at_an_event_says(answer: Answer | None, attributes: dict[str, Any], error: str | None) -> None:
    """Function, request and which attempt it is; then what the front end answered."""
    event = NewEvent("f", "f:live", "r-1", "Root=1", b"{}")
    assert event_attributes(event, 2) == {
        "faas.invoked_name": "f",
        "faas.trigger": "other",
        "faas.invocation_id": "r-1",
        "esmd.attempt": 2,
    }
    said, why = event_ending(answer)
    assert said.items() >= attributes.items()
    assert (why is None) if error is None else (why is not None and error in why)
