"""What a span says of a mapping, of an attempt at a batch or an asynchronous event, and of what came of it. Pure.

Names are those of OpenTelemetry's semantic conventions for messaging and FaaS; what they have no name for stands under
`esmd.`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

from invocation.classify import TargetKind, classify
from model.mapping import KafkaSource, KinesisSource, ScheduleSource, SqsSource
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled

if TYPE_CHECKING:
    from invocation.classify import Answer
    from model.async_event import NewEvent
    from model.invocation import Invocation
    from model.mapping import EventSource, EventSourceMapping

Attributes = dict[str, str | int]


class Ending(NamedTuple):
    """How an attempt ended. `error` is None unless it failed."""

    attributes: Attributes
    error: str | None


def span_name(mapping: EventSourceMapping) -> str:
    """Return what all spans of a mapping are called."""
    return f"process {_destination(mapping.source) or mapping.name}"


def mapping_attributes(mapping: EventSourceMapping) -> Attributes:
    """Return what is the same for all spans of a mapping."""
    source = mapping.source
    found: Attributes = {"esmd.mapping": mapping.name, **_function(mapping.function_name)}
    if isinstance(source, ScheduleSource):
        return {**found, "faas.trigger": "timer"}
    systems = {KafkaSource: "kafka", KinesisSource: "aws_kinesis", SqsSource: "aws_sqs"}
    found |= {
        "faas.trigger": "pubsub",
        "messaging.system": systems[type(source)],
        "messaging.destination.name": _destination(source) or "",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    if isinstance(source, KafkaSource):
        found["messaging.consumer.group.name"] = source.consumer_group_id
    return found


def attempt_attributes(source: EventSource, invocation: Invocation, records: int) -> Attributes:
    """Return what is known when an attempt begins."""
    shard = invocation.shard.shard
    found: Attributes = {
        "esmd.shard": shard,
        "esmd.fencing_token": invocation.token,
        "esmd.batch_id": invocation.batch_id,
        "esmd.attempt": invocation.attempt,
    }
    match source:
        case KafkaSource():
            found["messaging.destination.partition.id"] = shard.rpartition("-")[2]
        case KinesisSource():
            found["messaging.destination.partition.id"] = shard
        case SqsSource() | ScheduleSource():
            pass
        case _:
            assert_never(source)
    if not isinstance(source, ScheduleSource):
        found["messaging.batch.message_count"] = records
    return found


def event_attributes(event: NewEvent, number: int) -> Attributes:
    """Return what is known when an attempt at the event of an asynchronous invocation begins."""
    return {
        **_function(event.line),
        "faas.trigger": "other",
        "faas.invocation_id": event.request_id,
        "esmd.attempt": number,
    }


def event_ending(answer: Answer | None) -> Ending:
    """Return what the front end's answer adds: that of the Invoke API, whatever kind of function it is of."""
    return ending(None if answer is None else classify(TargetKind.LAMBDA, answer))


def ending(outcome: Outcome | None) -> Ending:
    """Return what an outcome adds. None: the attempt was broken off, and the function may have run."""
    if outcome is None:
        return Ending({"esmd.outcome": "broken_off", "error.type": "broken_off"}, "broken off before an answer")
    status: Attributes = {} if outcome.status is None else {"http.response.status_code": outcome.status}
    match outcome:
        case Delivered():
            return Ending({"esmd.outcome": "delivered", **status}, None)
        case PartlyFailed():
            failed = len(outcome.failed)
            facts: Attributes = {"esmd.failed_records": failed, "error.type": "partly_failed"}
            return Ending({"esmd.outcome": "partly_failed", **status, **facts}, f"{failed} records failed")
        case FunctionFailed():
            kind = outcome.function_error or "invalid_response"
            return Ending({"esmd.outcome": "function_failed", **status, "error.type": kind}, outcome.error)
        case Throttled():
            return Ending({"esmd.outcome": "throttled", **status, "error.type": "throttled"}, outcome.error)
        case NotReached():
            return Ending({"esmd.outcome": "not_reached", **status, "error.type": "not_reached"}, outcome.error)
        case _:
            assert_never(outcome)


def _destination(source: EventSource) -> str | None:
    """Return the name of a topic, stream or queue; None where there is none."""
    match source:
        case KafkaSource():
            return source.topic
        case KinesisSource():
            return source.arn.rpartition("/")[2]
        case SqsSource():
            return source.arn.rpartition(":")[2]
        case ScheduleSource():
            return None
        case _:
            assert_never(source)


def _function(name: str) -> Attributes:
    parts = name.split(":")
    if parts[0] != "arn" or len(parts) < 7:  # noqa: PLR2004 - fields of a function's ARN
        return {"faas.invoked_name": name}
    return {"faas.invoked_name": parts[6], "faas.invoked_provider": "aws", "faas.invoked_region": parts[3]}
